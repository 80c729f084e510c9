"""The worker, with real processes: what it executes, and what happens when something dies in the middle."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from yarrow.broker import Broker, prepare, wait_until_up
from yarrow.executor import Wakeup
from yarrow.processes import die_with_parent
from yarrow.states import AttemptState, TaskState
from yarrow.tokens import attempt_token
from yarrow_executor.worker import told_briefly

pytestmark = pytest.mark.slow

FOREVER = """
import os, subprocess, time
def run(folder):
    child = subprocess.Popen(["sleep", "300"])
    daemon = subprocess.Popen(["sleep", "300"], start_new_session=True)
    with open(folder + "/pids.new", "w") as file:
        file.write(f"{os.getpid()} {child.pid} {daemon.pid}")
    os.rename(folder + "/pids.new", folder + "/pids")
    print("started", flush=True)
    time.sleep(300)
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter when it ends between opening and reading
        return False


def forever(deployment: Any, tmp_path: Path, **fields: Any) -> tuple[Any, list[int]]:
    """Starts a task that never ends, with two subprocesses. Returns its run and the three pids."""
    target = deployment.function("forever", FOREVER)
    (tmp_path / "pids").unlink(missing_ok=True)
    arguments = {"callable": target, "kwargs": {"folder": str(tmp_path)}}
    run = deployment.start("forever", t={"arguments": arguments, **fields})
    deployment.until((tmp_path / "pids").exists, "the task has not started")
    return run, [int(pid) for pid in (tmp_path / "pids").read_text().split()]


def test_a_task_is_claimed_executed_and_reported(deployment: Any) -> None:
    deployment.start_worker("-c", "1")
    target = deployment.function("double", "def run(number):\n    print('working')\n    return {'twice': 2 * number}\n")
    run = deployment.start(
        "happy",
        first={"arguments": {"callable": target, "kwargs": {"number": 21}}},
        second={
            "arguments": {"callable": target, "kwargs": {"number": "{{ xcom.first.twice }}"}},
            "upstream": ("first",),
            "xcoms": ("first",),
        },
    )
    assert run.wait(task_id="second").state == TaskState.SUCCESS
    assert (run.xcom("first"), run.xcom("second")) == ({"twice": 42}, {"twice": 84})
    run.wait_for_line("working", "second")


def test_output_arrives_while_the_task_runs_in_order_with_streams_and_levels(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "1")
    target = deployment.function(
        "talk",
        """
import logging, os, subprocess, sys, time
def run(context, go):
    for number in range(100):
        print("line", number)
    context.log.warning("careful\\nwith this")
    logging.getLogger("library").info("from a library")
    subprocess.run(["sh", "-c", "echo from a subprocess; echo its error >&2"])
    print("binary \\udcff", file=sys.stderr)
    os.write(1, b"\\xff\\xfe raw\\n")
    print("no line end", end="")
    sys.stdout.flush()
    while not os.path.exists(go):
        time.sleep(0.02)
""",
    )
    go = tmp_path / "go"
    run = deployment.start("talk", t={"arguments": {"callable": target, "kwargs": {"go": str(go)}}})
    run.wait_for_line("raw")
    assert run.task().state == TaskState.RUNNING, "the lines came while it ran"
    go.touch()
    run.wait()
    run.wait_for_line("no line end")
    lines = run.log()
    stdout = [line.text for line in lines if line.stream == "stdout"]
    assert stdout == [
        *(f"line {number}" for number in range(100)),
        "from a subprocess",
        "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} raw",
        "no line end",
    ]
    assert [line.text for line in lines if line.stream == "stderr"] == ["its error", "binary \\udcff"]
    logged = [(line.level, line.text) for line in lines if line.stream == "log"]
    at = logged.index(("WARNING", "careful"))
    assert logged[at : at + 3] == [("WARNING", "careful"), ("WARNING", "with this"), ("INFO", "from a library")]
    texts = [line.text for line in lines]
    assert texts.index("line 99") < texts.index("careful") < texts.index("from a subprocess")
    printed = [line.at for line in lines if line.stream != "log"]
    assert all(earlier <= later for earlier, later in itertools.pairwise(printed))


def test_secrets_never_leave_the_worker(deployment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARROW_CONN_SHOP", "https://ada:s3cr3t-value@shop.example")
    deployment.start_worker("-c", "1")
    target = deployment.function(
        "tell",
        """
import os, sys
def run(context):
    password = context.connection("shop").password
    print("printed", password)
    context.log.error("logged %s", password)
    os.write(2, f"raw {password}\\n".encode())
    raise ValueError(f"failed with {password}")
""",
    )
    run = deployment.start("tell", t={"arguments": {"callable": target}, "connections": ("shop",)})
    task = run.wait()
    run.wait_for_line("raw")
    assert task.state == TaskState.FAILED
    assert "failed with ***" in (task.reason or "")
    text = "\n".join(run.texts())
    assert "printed ***" in text
    assert "logged ***" in text
    assert "s3cr3t-value" not in text


def test_many_deliveries_are_one_execution(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "3")
    target = deployment.function(
        "count", "def run(path):\n    with open(path, 'a') as file:\n        file.write('x')\n    return 1\n"
    )
    tally = tmp_path / "tally"
    deployment.start("count", t={"arguments": {"callable": target, "kwargs": {"path": str(tally)}}})
    run = deployment.start("again", t={"arguments": {"callable": target, "kwargs": {"path": str(tally)}}})
    [attempt] = run.attempts()
    # The right token, over and over, to all slots at once.
    nonce = _nonce(deployment, attempt.attempt_id)
    wakeup = Wakeup(attempt.attempt_id, attempt_token(deployment.key, attempt.attempt_id, nonce), "any")
    deployment.executor.publish([wakeup] * 12)
    run.wait()
    deployment.until(lambda: deployment.faults.requests.count("claim") >= 13, "not all messages were looked at")
    assert tally.read_text() == "xx"
    assert len(run.attempts()) == 1


def test_a_killed_pool_child_is_reported_with_the_signal_within_three_seconds(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "2")
    run, (child, subprocess_, daemon) = forever(deployment, tmp_path)
    killed = time.monotonic()
    os.kill(child, signal.SIGKILL)
    task = run.wait()
    assert time.monotonic() - killed < 3
    assert task.state == TaskState.FAILED
    assert task.reason == "killed by signal 9 (SIGKILL); out of memory?"
    deployment.until(lambda: not alive(subprocess_) and not alive(daemon), "its subprocesses go on")
    run.wait_for_line("killed by signal 9")
    assert run.texts()[0] == "started", "what it printed before is kept"
    assert deployment.start("next", t={"operator": "bash", "arguments": {"command": "true"}}).wait().state == "success"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os._exit(3)", "ended its process with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by signal 11 (SIGSEGV)"),
        ("sys.exit(4)", "sys.exit(4)"),
        ("os.close(1); os.close(2); raise ValueError('closed')", "closed"),
    ],
)
def test_other_ways_to_die(deployment: Any, code: str, reason: str) -> None:
    deployment.start_worker("-c", "1")
    target = deployment.function("die", f"import os, signal, sys\ndef run():\n    {code}\n")
    run = deployment.start("die", t={"arguments": {"callable": target}})
    task = run.wait(seconds=5)
    assert task.state == TaskState.FAILED
    assert reason in (task.reason or "")
    after = deployment.function("after", "def run():\n    print('still here')\n")
    run = deployment.start("after", t={"arguments": {"callable": after}})
    assert run.wait().state == TaskState.SUCCESS
    run.wait_for_line("still here")


def test_a_killed_main_process_leaves_nothing_running(deployment: Any, tmp_path: Path) -> None:
    worker = deployment.start_worker("-c", "1")
    run, pids = forever(deployment, tmp_path)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    deployment.until(lambda: not any(map(alive, pids)), "something goes on", seconds=5)
    run.wait(TaskState.SCHEDULED, TaskState.QUEUED, TaskState.RUNNING)
    deployment.until(lambda: run.attempts()[0].state == AttemptState.LOST, "the attempt was not given up", seconds=5)
    assert run.attempts()[0].reason == "the worker was killed"
    assert run.task().infra_losses == 1


def test_a_main_process_killed_while_a_report_is_on_its_way_loses_the_attempt_at_once(deployment: Any) -> None:
    worker = deployment.start_worker("-c", "1")
    release = deployment.faults.hold_next["finish"] = threading.Event()
    run = deployment.start("reporting", t={"operator": "bash", "arguments": {"command": "true"}})
    deployment.until(lambda: "finish" in deployment.faults.requests, "the task has not ended")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    deployment.until(lambda: run.attempts()[0].state == AttemptState.LOST, "the attempt was not given up", seconds=2)
    release.set()
    deployment.start_worker("-c", "1")
    assert run.wait().state == TaskState.SUCCESS
    assert [attempt.state for attempt in run.attempts()] == [AttemptState.LOST, AttemptState.SUCCESS]


def test_a_timeout_stops_the_task_and_its_subprocesses(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "1")
    run, pids = forever(deployment, tmp_path, execution_timeout=1.0)
    task = run.wait()
    assert (task.state, task.reason) == (TaskState.FAILED, "execution_timeout of 1s exceeded")
    deployment.until(lambda: not any(map(alive, pids)), "something goes on")
    run.wait_for_line("execution_timeout of 1s exceeded")
    assert run.texts()[0] == "started"


def test_a_process_that_hides_its_origin_ends_with_the_task(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "1")
    target = deployment.function(
        "hidden",
        """
import subprocess, time
def run(file):
    command = ["setsid", "sh", "-c", "trap '' TERM HUP; while true; do sleep 0.2; done"]
    child = subprocess.Popen(command, env={"PATH": "/usr/bin:/bin"})
    with open(file, "w") as out:
        out.write(f"{child.pid}\\n")
    time.sleep(300)
""",
    )
    arguments = {"callable": target, "kwargs": {"file": str(tmp_path / "pid")}}
    run = deployment.start("hidden", t={"arguments": arguments, "execution_timeout": 1.0})
    assert run.wait().reason == "execution_timeout of 1s exceeded"
    pid = int((tmp_path / "pid").read_text())
    deployment.until(lambda: not alive(pid), "it goes on")


def test_a_task_that_ignores_the_timeout_is_killed(deployment: Any) -> None:
    deployment.start_worker("-c", "1")
    target = deployment.function(
        "stubborn",
        """
import time
def run():
    while True:
        try:
            time.sleep(300)
        except BaseException as error:
            print("no", type(error).__name__, flush=True)
""",
    )
    run = deployment.start("stubborn", t={"arguments": {"callable": target}, "execution_timeout": 0.5})
    assert run.wait().reason == "execution_timeout of 500ms exceeded"
    assert "no Stopped" in run.texts()


def test_a_cancelled_task_is_stopped_by_the_next_heartbeat(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "1")
    run, pids = forever(deployment, tmp_path)
    assert deployment.store.attempts.cancel(run.dag_id, run.run_id, "t", who="ada")
    task = run.wait(seconds=5)
    assert task.state == TaskState.FAILED
    assert "ada" in (task.reason or "")
    deployment.until(lambda: not any(map(alive, pids)), "something goes on")


def test_a_report_that_cannot_be_delivered_is_spooled_and_delivered_later(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "1", YARROW_LEASE="60")
    go = tmp_path / "go"
    target = deployment.function(
        "wait",
        "import os, time\ndef run(go):\n    while not os.path.exists(go):\n        time.sleep(0.02)\n    return 7\n",
    )
    run = deployment.start("wait", t={"arguments": {"callable": target, "kwargs": {"go": str(go)}}})
    run.wait(TaskState.RUNNING)
    deployment.faults.down = True
    go.touch()
    spool = deployment.home / "worker-spool"
    deployment.until(lambda: list(spool.glob("*/*.json")), "the report is not on disk")
    tries = deployment.faults.requests.count("finish")
    deployment.until(lambda: deployment.faults.requests.count("finish") > tries + 3, "it is not repeated")
    assert run.task().state == TaskState.RUNNING
    deployment.faults.down = False
    assert run.wait().state == TaskState.SUCCESS
    assert run.xcom() == 7
    deployment.until(lambda: not list(spool.glob("*/*.json")), "the spool is not emptied")


def test_a_new_worker_delivers_what_a_dead_one_has_left(deployment: Any, tmp_path: Path) -> None:
    worker = deployment.start_worker("-c", "1")
    run, _ = forever(deployment, tmp_path)
    deployment.faults.down = True
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    spool = deployment.home / "worker-spool"
    deployment.until(lambda: list(spool.glob("*/*.json")), "the report is not on disk", seconds=10)
    [folder] = spool.iterdir()
    deployment.until(lambda: not any(map(alive, _minders(folder.name))), "the minder stays")
    deployment.faults.down = False
    deployment.start_worker("-c", "1")
    deployment.until(lambda: run.attempts()[0].state == AttemptState.LOST, "the report was not delivered")
    deployment.until(lambda: not folder.exists(), "its folder is still there")


def test_lost_answers_do_no_harm(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "1")
    tally = tmp_path / "tally"
    target = deployment.function(
        "count", "def run(path):\n    with open(path, 'a') as file:\n        file.write('x')\n    return 1\n"
    )
    arguments = {"callable": target, "kwargs": {"path": str(tally)}}
    deployment.faults.lose_answers = {"finish": 1}
    assert deployment.start("finish", t={"arguments": arguments}).wait().state == TaskState.SUCCESS
    assert tally.read_text() == "x"

    # The worker has claimed it and does not know: it gives it back, and the next attempt is executed.
    deployment.faults.lose_answers = {"claim": 1}
    run = deployment.start("claim", t={"arguments": arguments})
    assert run.wait(seconds=5).state == TaskState.SUCCESS
    assert [attempt.state for attempt in run.attempts()] == [AttemptState.LOST, AttemptState.SUCCESS]
    assert tally.read_text() == "xx"


def test_a_worker_that_cannot_renew_its_lease_stops_its_tasks_in_time(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "1")
    run, pids = forever(deployment, tmp_path)
    deployment.faults.down = True
    cut_off = time.monotonic()
    deployment.until(lambda: not any(map(alive, pids)), "the task goes on without a lease", seconds=6)
    assert time.monotonic() - cut_off < 3, "it was still running when its lease was over"
    deployment.faults.down = False
    deployment.until(lambda: run.attempts()[0].state == AttemptState.LOST, "no report")


def envelope(**changes: Any) -> dict[str, Any]:
    """A message that is a wake-up in all but its contents, with some of its fields changed."""
    body = base64.b64encode(json.dumps(changes.pop("arguments", [["0" * 32, "no token"], {}, {}])).encode()).decode()
    headers = {"task": "yarrow.attempt", "id": "x", **changes.pop("headers", {})}
    delivery = {"exchange": "", "routing_key": "yarrow.any"}
    properties = {"delivery_tag": "x", "delivery_info": delivery, "body_encoding": "base64", "correlation_id": "x"}
    return {
        "body": body,
        "headers": headers,
        "properties": {**properties, **changes.pop("properties", {})},
        "content-type": "application/json",
        "content-encoding": "utf-8",
        **changes,
    }


GARBAGE: list[bytes] = [
    b"no JSON at all",
    b"\xff\xfe\x00",
    b"7",
    b"[1, 2]",
    b"{}",
    b'{"body": "####", "headers": {}, "properties": {}}',
    b"[" * 100_000,
    *(
        json.dumps(message).encode()
        for message in (
            envelope(headers={"task": "os.system"}),
            envelope(headers={"id": None}),
            envelope(headers={"timelimit": 5, "eta": "soon", "expires": []}),
            envelope(headers={"task": ["yarrow.attempt"]}),
            envelope(arguments="nothing"),
            envelope(arguments=7),
            envelope(arguments=[["a"], {}, {}]),
            envelope(arguments=[["a", "b"], {"c": 1}, {}]),
            envelope(arguments=[["a", "b"], {}, {"callbacks": [{"task": "os.system"}]}]),
            envelope(arguments=[["a" * 5000, "b"], {}, {}]),
            envelope(properties={"delivery_tag": {}}),
            envelope(properties={"delivery_info": None}),
            envelope(properties={"body_encoding": "rot13"}),
            envelope(**{"content-type": "application/x-python-serialize"}),
            envelope(**{"content-encoding": "klingon"}),
            envelope(body={"a": 1}),
        )
    ),
]


def test_messages_that_are_no_wake_ups_are_dropped(deployment: Any) -> None:
    worker = deployment.start_worker("-c", "1")
    # The worker refuses what the API refuses, and survives what is no message of ours at all.
    forged = attempt_token(b"x" * 64, "0" * 32, "0" * 24)
    deployment.executor.publish([Wakeup("0" * 32, forged, "any"), Wakeup("a" * 100, "b" * 500, "any")])
    with redis.Redis.from_url(deployment.config.broker_url) as broker:
        for message in GARBAGE:
            broker.lpush("yarrow.any", message)
        deployment.until(lambda: "claim" in deployment.faults.requests, "the forged wake-up was not tried")
        run = deployment.start("after", t={"operator": "bash", "arguments": {"command": "true"}})
        assert run.wait().state == TaskState.SUCCESS
        assert worker.poll() is None
        assert len(deployment.store.workers.alive()) == 1, "it is the same worker, and no other"
        assert broker.hlen("unacked") == 0


def test_copies_of_a_message_are_one_execution(deployment: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    command = f"echo executed >> {mark}"
    tasks = {f"t{number}": {"operator": "bash", "arguments": {"command": command}} for number in range(5)}
    run = deployment.start("copied", **tasks)
    with redis.Redis.from_url(deployment.config.broker_url) as broker:
        messages = broker.lrange("yarrow.any", 0, -1)
        assert len(messages) == 5
        broker.lpush("yarrow.any", *messages, *messages)
        deployment.start_worker("-c", "2")
        for task_id in tasks:
            assert run.wait(task_id=task_id).state == TaskState.SUCCESS
        deployment.until(lambda: broker.llen("yarrow.any") == 0, "the copies were not taken")
        deployment.until(lambda: broker.hlen("unacked") == 0, "the copies were not acknowledged")
    assert len(mark.read_text().split()) == 5


def test_sigterm_to_the_whole_group_lets_tasks_finish(deployment: Any, tmp_path: Path) -> None:
    worker = deployment.start_worker("-c", "1")
    go = tmp_path / "go"
    target = deployment.function(
        "wait",
        "import os, time\ndef run(go):\n    print('up', os.getpid(), flush=True)\n"
        "    while not os.path.exists(go):\n        time.sleep(0.02)\n    return 7\n",
    )
    run = deployment.start("wait", t={"arguments": {"callable": target, "kwargs": {"go": str(go)}}})
    other = deployment.start("other", t={"operator": "bash", "arguments": {"command": "true"}})
    run.wait_for_line("up")
    os.killpg(worker.pid, signal.SIGTERM)
    os.kill(int(run.texts()[-1].split()[-1]), signal.SIGTERM)  # as a manager that signals every process does
    deployment.until(lambda: not deployment.store.workers.alive() or deployment.store.workers.alive()[0].stopping, "?")
    go.touch()
    assert run.wait().state == TaskState.SUCCESS
    assert worker.wait(10) == 0
    assert other.task().state == TaskState.QUEUED, "a stopping worker takes nothing more"
    assert deployment.store.workers.alive() == [], "it has said goodbye"
    assert not list((deployment.home / "worker-spool").iterdir())


def test_sigterm_interrupts_a_task_that_can_go_on_later(deployment: Any) -> None:
    worker = deployment.start_worker("-c", "1", YARROW_WORKER_GRACE="30")
    target = deployment.function(
        "chunks",
        "import time\ndef run(context):\n    print('up', flush=True)\n"
        "    while True:\n        context.check_interrupted()\n        time.sleep(0.02)\n",
    )
    run = deployment.start("chunks", t={"arguments": {"callable": target}})
    run.wait_for_line("up")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert run.attempts()[0].state == AttemptState.CANCELLED
    assert (run.task().state, run.task().try_number) == (TaskState.SCHEDULED, 0), "it runs again, for free"


def test_after_the_grace_a_task_is_stopped_and_runs_again_for_free(deployment: Any, tmp_path: Path) -> None:
    worker = deployment.start_worker("-c", "1", YARROW_WORKER_GRACE="0.5")
    run, pids = forever(deployment, tmp_path)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert not any(map(alive, pids))
    assert run.attempts()[0].state == AttemptState.CANCELLED
    assert run.task().state == TaskState.SCHEDULED


def test_the_main_process_never_loads_what_does_not_survive_a_fork(deployment: Any) -> None:
    worker = deployment.start_worker("-c", "1")
    target = deployment.function(
        "look",
        """
import os, sys
HEAVY = ("duckdb", "numpy", "onnxruntime", "pyarrow", "sklearn", "pandas", "polars")
def run():
    maps = open(f"/proc/{os.getppid()}/maps").read()
    return {"inherited": [name for name in HEAVY if name in sys.modules],
            "mapped": [name for name in HEAVY if f"/{name}" in maps], "parent": os.getppid()}
""",
    )
    run = deployment.start("look", t={"arguments": {"callable": target}})
    run.wait()
    # A pool child has what the main process had when it forked; the parent's own map is looked at as well.
    assert run.xcom() == {"inherited": [], "mapped": [], "parent": worker.pid}


def test_tasks_do_not_see_each_other(deployment: Any) -> None:
    deployment.start_worker("-c", "1")
    mess = deployment.function(
        "mess",
        """
import logging, os, sys
def run():
    os.environ["LEFT_BEHIND"] = "1"
    os.environ.pop("PATH")
    os.chdir("/")
    sys.stdout = None
    logging.getLogger().handlers.clear()
""",
    )
    look = deployment.function(
        "look",
        """
import logging, os
def run(context):
    print("printed")
    context.log.info("logged")
    return {"environment": "LEFT_BEHIND" in os.environ, "path": "PATH" in os.environ, "folder": os.getcwd(),
            "attempt": os.environ["YARROW_ATTEMPT_ID"]}
""",
    )
    deployment.start("mess", t={"arguments": {"callable": mess}}).wait()
    run = deployment.start("look", t={"arguments": {"callable": look}})
    run.wait()
    run.wait_for_line("logged")
    assert "printed" in run.texts()
    [attempt] = run.attempts()
    assert run.xcom() == {
        "environment": False,
        "path": True,
        "folder": os.getcwd(),
        "attempt": attempt.attempt_id,
    }


def test_changed_code_is_loaded_again(deployment: Any) -> None:
    deployment.start_worker("-c", "1")
    target = deployment.function("version", "def run():\n    return 1\n")
    run = deployment.start("first", t={"arguments": {"callable": target}})
    run.wait()
    deployment.function("version", "def run():\n    return 'two'\n")
    again = deployment.start("second", t={"arguments": {"callable": target}})
    again.wait()
    assert (run.xcom(), again.xcom()) == (1, "two")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"YARROW_WORKER_TOKEN": "w1.worker.0.forged"}, "The token is not valid"),
        ({"YARROW_BROKER_URL": ""}, "There is no broker"),
    ],
)
def test_a_worker_that_cannot_work_says_why_and_ends(
    deployment: Any, environment: dict[str, str], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    worker = deployment.start_worker("-c", "1", ready=False, **environment)
    assert worker.wait(10) != 0
    assert sentence in capfd.readouterr().err


def test_a_worker_for_an_unknown_queue_says_so(deployment: Any, capfd: pytest.CaptureFixture[str]) -> None:
    worker = deployment.start_worker("-q", "infrence", ready=False)
    assert worker.wait(10) != 0
    assert "There is no queue `infrence`" in capfd.readouterr().err


def test_without_its_minder_a_worker_ends_and_its_tasks_with_it(deployment: Any, tmp_path: Path) -> None:
    worker = deployment.start_worker("-c", "1")
    _, pids = forever(deployment, tmp_path)
    [folder] = (deployment.home / "worker-spool").iterdir()
    [minder] = [pid for pid in _minders(folder.name) if pid not in (worker.pid, pids[0])]
    os.kill(minder, signal.SIGKILL)
    assert worker.wait(5) != 0
    deployment.until(lambda: not any(map(alive, pids)), "something goes on")


def test_a_second_ctrl_c_stops_tasks_at_once(deployment: Any, tmp_path: Path) -> None:
    worker = deployment.start_worker("-c", "1", YARROW_WORKER_GRACE="60")
    run, pids = forever(deployment, tmp_path)
    worker.send_signal(signal.SIGINT)
    deployment.until(lambda: all(found.stopping for found in deployment.store.workers.alive()), "it does not stop")
    assert all(map(alive, pids))
    worker.send_signal(signal.SIGINT)
    worker.wait(8)
    assert not any(map(alive, pids))
    assert run.attempts()[0].state == AttemptState.CANCELLED


def test_a_task_that_prints_a_lot_loses_nothing(deployment: Any) -> None:
    deployment.start_worker("-c", "1")
    target = deployment.function("lots", "def run():\n    for number in range(30000):\n        print('line', number)\n")
    run = deployment.start("lots", t={"arguments": {"callable": target}})
    run.wait()
    run.wait_for_line("line 29999", limit=100_000)
    assert run.texts(limit=100_000) == [f"line {number}" for number in range(30000)]


def test_a_log_over_its_limit_is_cut_off_and_the_task_goes_on(deployment: Any) -> None:
    deployment.start_worker("-c", "1", YARROW_LOG_LIMIT="20000")
    target = deployment.function(
        "flood",
        "import os\ndef run():\n    for _ in range(200):\n        os.write(1, b'x' * 99_999 + b'\\n')\n    return 1\n",
    )
    run = deployment.start("flood", t={"arguments": {"callable": target}})
    assert run.wait().state == TaskState.SUCCESS
    run.wait_for_line("The log is cut off here: it has reached its limit of 20,000 bytes.")
    assert sum(map(len, run.texts())) < 200_000


def test_a_task_triggers_another_dag(deployment: Any) -> None:
    deployment.start_worker("-c", "1")
    target = deployment.function(
        "call", "def run(context):\n    return context.trigger_dag('other', params={}, logical_date=None)\n"
    )
    deployment.start("other", t={"operator": "bash", "arguments": {"command": "true"}}).wait()
    run = deployment.start("caller", t={"arguments": {"callable": target}})
    run.wait()
    assert deployment.store.runs.get("other", run.xcom()).run_type == "triggered"
    missing = deployment.function(
        "miss", "def run(context):\n    return context.trigger_dag('nothing', params={}, logical_date=None)\n"
    )
    task = deployment.start("misser", t={"arguments": {"callable": missing}, "retries": 3}).wait()
    assert task.state == TaskState.FAILED, "another try would not help"
    assert "nothing" in (task.reason or "")


def test_progress_reaches_the_store_while_the_task_runs(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "1")
    go = tmp_path / "go"
    target = deployment.function(
        "advance",
        "import os, time\ndef run(context, go):\n"
        "    context.progress(3, 10, 'files')\n    context.metric('rows_in', 5)\n"
        "    while not os.path.exists(go):\n        time.sleep(0.02)\n",
    )
    run = deployment.start("advance", t={"arguments": {"callable": target, "kwargs": {"go": str(go)}}})
    deployment.until(lambda: run.task().progress == {"done": 3, "total": 10, "unit": "files"}, "no progress")
    go.touch()
    run.wait()
    assert (run.attempts()[0].metrics or {})["rows_in"] == 5


def test_a_worker_consumes_again_after_the_broker_was_away(
    tmp_path_factory: pytest.TempPathFactory, make_deployment: Any
) -> None:
    broker = prepare(tmp_path_factory.mktemp("broker"))
    first = start_broker(broker)
    deployment = make_deployment(broker.url)
    worker = deployment.start_worker("-c", "1")
    deployment.start("before", t={"operator": "bash", "arguments": {"command": "true"}}).wait()
    first.kill()
    first.wait()
    second = start_broker(broker)
    deployment.executor.close()
    run = deployment.start("after", t={"operator": "bash", "arguments": {"command": "true"}})
    assert run.wait(seconds=30).state == TaskState.SUCCESS
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    second.kill()
    second.wait()


def test_a_wake_up_that_can_not_be_acknowledged_is_told_without_a_traceback() -> None:
    def record(message: str) -> logging.LogRecord:
        try:
            raise ConnectionError("refused")
        except ConnectionError:
            return logging.LogRecord("celery", logging.CRITICAL, "file", 1, message, ("x", "y"), sys.exc_info())

    unacknowledged, other = record("Couldn't ack %r, reason:%r"), record("Something else about %r and %r")
    assert told_briefly(unacknowledged)
    assert (unacknowledged.exc_info, unacknowledged.levelname) == (None, "WARNING")
    assert told_briefly(other)
    assert (other.exc_info is not None, other.levelname) == (True, "CRITICAL")


def test_a_pool_child_keeps_no_socket_of_the_main_process(deployment: Any) -> None:
    worker = deployment.start_worker("-c", "1")
    target = deployment.function("pid", "import os\ndef run():\n    return os.getpid()\n")
    run = deployment.start("first", t={"arguments": {"callable": target}})
    run.wait()
    os.kill(first := run.xcom(), signal.SIGKILL)
    deployment.until(lambda: not alive(first), "the child goes on")
    run = deployment.start("second", t={"arguments": {"callable": target}})
    run.wait()
    assert run.xcom() != first, "made when the main process had its connections to the broker"
    sockets = _sockets(worker.pid)
    assert sockets
    assert not sockets & _sockets(run.xcom())


def _sockets(pid: int) -> set[str]:
    links = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.add(os.readlink(descriptor))
    return {link for link in links if link.startswith("socket:")}


def start_broker(broker: Broker) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(broker.command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent())
    wait_until_up(broker, process)
    return process


def _nonce(deployment: Any, attempt_id: str) -> str:
    import sqlite3

    with sqlite3.connect(deployment.config.database_url.removeprefix("sqlite:///")) as database:
        return str(database.execute("SELECT nonce FROM attempt WHERE attempt_id = ?", (attempt_id,)).fetchone()[0])


def _minders(worker_id: str) -> list[int]:
    """The processes that hold the lock of a worker's spool folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                links = [os.readlink(link) for link in (process / "fd").iterdir()]
            except OSError:
                continue
            if any(worker_id in link for link in links):
                found.append(int(process.name))
    return found


def test_a_server_of_another_version_ends_a_worker_in_order(deployment: Any, tmp_path: Path) -> None:
    worker = deployment.start_worker("-c", "1", YARROW_WORKER_GRACE="30")
    go = tmp_path / "go"
    target = deployment.function(
        "wait",
        "import os, time\ndef run(go):\n    print('up', flush=True)\n    while not os.path.exists(go):\n"
        "        time.sleep(0.02)\n    return 7\n",
    )
    run = deployment.start("wait", t={"arguments": {"callable": target, "kwargs": {"go": str(go)}}})
    run.wait_for_line("up")
    deployment.faults.version = "2"
    deployment.until(lambda: "heartbeat" in deployment.faults.refused, "no heartbeat was refused")
    go.touch()
    assert worker.wait(10) == 2
    spool = deployment.home / "worker-spool"
    assert len(list(spool.glob("*/*.json"))) == 1, "the result waits for a worker of the server's version"
    deployment.faults.version = None
    deployment.start_worker("-c", "1")
    deployment.until(lambda: run.attempts()[0].state == AttemptState.SUCCESS, "the result is lost")

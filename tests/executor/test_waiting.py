"""Tasks that are put off, and results from the cache, with a real worker."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from yarrow.language.spec import CacheSpec
from yarrow.states import AttemptState, TaskState

pytestmark = pytest.mark.slow

LOOK = """
from datetime import timedelta
from pathlib import Path
from yarrow import Reschedule
def run(context, go, extra=None):
    looks = context.work_dir / "looks"
    count = len(looks.read_text()) + 1 if looks.exists() else 1
    looks.write_text("x" * count)
    print("look", count, flush=True)
    if not Path(go).exists():
        raise Reschedule(context.now() + timedelta(seconds=1), "Waiting for the go.")
    return {"looks": count, "since": context.first_started_at.isoformat()}
"""


def look(deployment: Any, go: Path, dag_id: str = "sensing", **fields: Any) -> Any:
    """Starts a run of a task that is put off by a second until there is a file."""
    target = deployment.function("look", LOOK)
    return deployment.start(dag_id, t={"arguments": {"callable": target, "kwargs": {"go": str(go)}}, **fields})


def check_one_try(run: Any, *, looks: int) -> None:
    """There was one try and one attempt, which began with its first look, and whose log has all of them."""
    task, (attempt,) = run.task(), run.attempts()
    assert (task.state, task.try_number) == (TaskState.SUCCESS, 1)
    assert attempt.state == AttemptState.SUCCESS
    found = run.xcom()
    assert found["looks"] >= looks
    assert found["since"] == attempt.started_at.isoformat()
    assert attempt.ended_at - attempt.started_at > timedelta(seconds=looks - 1)
    run.wait_for_line(f"look {found['looks']}")
    texts = [text for text in run.texts() if text.startswith("look")]
    assert texts == [f"look {number}" for number in range(1, found["looks"] + 1)]


def test_a_task_that_waits_holds_no_slot(deployment: Any, tmp_path: Path) -> None:
    """The only slot has to be free between the looks: else the task that gives the go would never run."""
    deployment.start_worker("-c", "1")
    go = tmp_path / "go"
    run = look(deployment, go)
    run.wait(TaskState.UP_FOR_RESCHEDULE)
    (attempt,) = run.attempts()
    assert (attempt.state, attempt.reason) == (AttemptState.DEFERRED, "Waiting for the go.")
    other = deployment.start("other", t={"operator": "bash", "arguments": {"command": ["touch", str(go)]}})
    assert other.wait().state == TaskState.SUCCESS
    run.wait()
    check_one_try(run, looks=2)
    assert any("Waiting for the go. Looking again at" in text for text in run.texts())
    work = deployment.home / "worker-work"
    assert not [path for path in deployment.home.rglob("looks") if path.is_file()], f"the work folder is gone: {work}"


def test_the_third_look_of_a_sensor_finds_what_it_waits_for(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "1")
    arguments = {"path": str(tmp_path / "in/*.csv"), "poke_interval": "1s", "timeout": "60s"}
    run = deployment.start("files", t={"operator": "wait_for_file", "arguments": arguments})
    run.wait_for_line("There is no file")
    deployment.until(
        lambda: deployment.advance() or sum("There is no file" in text for text in run.texts()) == 2, "no second look"
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").touch()
    assert run.wait().state == TaskState.SUCCESS
    assert run.xcom() == {"paths": [str(tmp_path / "in/a.csv")], "count": 1}
    assert len(run.attempts()) == 1


def test_a_sensor_that_waits_in_vain_is_not_tried_again(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "1")
    arguments = {"path": str(tmp_path / "none"), "poke_interval": "1s", "timeout": "1s"}
    task = {"operator": "wait_for_file", "arguments": arguments, "retries": 3}
    failed = deployment.start("vain", t=task)
    soft = deployment.start("soft", t={**task, "soft_fail": True})
    assert (failed.wait().state, failed.task().try_number) == (TaskState.FAILED, 1)
    assert "Waited for 1s in vain" in (failed.attempts()[0].reason or "")
    assert soft.wait().state == TaskState.SKIPPED


def test_the_next_look_may_be_on_another_worker(deployment: Any, tmp_path: Path) -> None:
    first = deployment.start_worker("-c", "1")
    go = tmp_path / "go"
    run = look(deployment, go)
    run.wait(TaskState.UP_FOR_RESCHEDULE)
    run.wait_for_line("look 1")  # it has arrived before the worker is gone
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    go.touch()
    deployment.start_worker("-c", "1")
    run.wait(seconds=60)
    check_one_try(run, looks=2)


@pytest.mark.parametrize("fault", ["lost answer", "away", "away for long"])
def test_a_deferral_that_is_hard_to_deliver(deployment: Any, tmp_path: Path, fault: str) -> None:
    deployment.start_worker("-c", "1")
    go = tmp_path / "go"
    if fault == "lost answer":
        deployment.faults.lose_answers["finish"] = 1
    else:
        deployment.faults.down_for = {"finish"}
    run = look(deployment, go)
    run.wait_for_line("look 1")
    if fault != "lost answer":
        if fault == "away for long":
            spool = deployment.home / "worker-spool"
            deployment.until(lambda: list(spool.rglob("*.json")), "the report is not kept")
            deployment.until(lambda: deployment.faults.requests.count("finish") > 6, "it is not repeated")
        assert run.task().state == TaskState.RUNNING
        deployment.faults.down_for = set()
    run.wait(TaskState.UP_FOR_RESCHEDULE)
    go.touch()
    run.wait()
    check_one_try(run, looks=2)
    deployment.until(lambda: not list((deployment.home / "worker-spool").rglob("*.json")), "a report is left")


def test_waiting_for_another_dag(deployment: Any) -> None:
    deployment.start_worker("-c", "1")
    other = deployment.start("ingest", t={"operator": "bash", "arguments": {"command": "sleep 2"}})
    date = deployment.store.runs.get("ingest", other.run_id).logical_date.isoformat()
    arguments = {"dag_id": "ingest", "task_id": "t", "logical_date": date, "poke_interval": "1s"}
    run = deployment.start(
        "report",
        t={"operator": "wait_for_task", "arguments": arguments},
        whole={"operator": "wait_for_task", "arguments": {**arguments, "task_id": None}},
        nowhere={"operator": "wait_for_task", "arguments": {**arguments, "dag_id": "unknown"}},
    )
    assert run.wait(seconds=40).state == TaskState.SUCCESS
    assert run.xcom() == {"run_id": other.run_id, "state": "success"}
    assert run.wait(task_id="nowhere").state == TaskState.FAILED
    assert "unknown" in (run.attempts("nowhere")[0].reason or "")
    other.wait()
    assert run.wait(task_id="whole").state == TaskState.SUCCESS
    assert run.xcom("whole") == {"run_id": other.run_id, "state": "success"}


def test_a_result_is_taken_from_the_cache(deployment: Any, tmp_path: Path) -> None:
    deployment.start_worker("-c", "1")
    source = "def run(day, folder):\n    open(folder + '/runs', 'a').write('x')\n    return {'day': day}\n"
    target = deployment.function("costly", source)
    kwargs = {"day": "monday", "folder": str(tmp_path)}
    task = {"arguments": {"callable": target, "kwargs": kwargs}, "cache": CacheSpec(ttl=3600.0)}
    reader = {
        "operator": "bash",
        "arguments": {"command": ["echo", "{{ xcom.t.day }}"]},
        "upstream": ("t",),
        "xcoms": ("t",),
    }
    runs = []
    for _ in range(2):
        runs.append(deployment.start("cached", t=task, reader=reader))
        runs[-1].wait(task_id="reader")
    first, second = runs
    assert (first.task().cached, second.task().cached) == (False, True)
    assert first.xcom() == second.xcom() == {"day": "monday"}
    assert second.xcom("reader") == "monday"
    assert (tmp_path / "runs").read_text() == "x"
    second.wait_for_line(f"Result taken from the cache: attempt {first.attempts()[0].attempt_id}")

    deployment.faults.down_for = {"cache"}
    third = deployment.start("cached", t=task)
    assert (third.wait().state, third.task().cached) == (TaskState.SUCCESS, False)
    third.wait_for_line("The cache could not be asked")
    deployment.faults.down_for = set()

    deployment.function("costly", source + "# another version\n")
    fourth = deployment.start("cached", t=task)
    assert (fourth.wait().state, fourth.task().cached) == (TaskState.SUCCESS, False)
    assert (tmp_path / "runs").read_text() == "xxx"


@pytest.mark.parametrize(
    ("fields", "tries"),
    [
        ({"operator": "bash", "arguments": {"command": "exit 7"}, "retry_on": ("ExitCode.7",)}, 2),
        ({"operator": "bash", "arguments": {"command": "exit 8"}, "retry_on": ("ExitCode.7",)}, 1),
        ({"operator": "bash", "arguments": {"command": "exit 8"}, "no_retry_on": ("ExitCode",)}, 1),
        ({"operator": "bash", "arguments": {"command": "sleep 60"}, "retry_on": ("Timeout",)}, 2),
        ({"operator": "bash", "arguments": {"command": "sleep 60"}, "no_retry_on": ("Timeout",)}, 1),
        ({"code": "raise ConnectionResetError", "retry_on": ("ConnectionError",)}, 2),
        ({"code": "raise ConnectionResetError", "retry_on": ("mine.Error",)}, 1),
        ({"code": "import os; os._exit(3)", "no_retry_on": ("ProcessDied",)}, 1),
        ({"code": "import os; os._exit(3)", "retry_on": ("ProcessDied",)}, 2),
    ],
)
def test_errors_are_retried_by_their_kind(deployment: Any, fields: dict[str, Any], tries: int) -> None:
    deployment.start_worker("-c", "1")
    fields = dict(fields)
    if code := fields.pop("code", None):
        fields["arguments"] = {"callable": deployment.function("failing", f"def run():\n    {code}\n")}
    run = deployment.start("kinds", t={"retries": 1, "retry_delay": 0.0, "execution_timeout": 1.0, **fields})
    assert run.wait().state == TaskState.FAILED
    assert len(run.attempts()) == tries

"""`yarrow standalone` as people use it: real processes, a folder of files, and the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

HELLO = """
params: {who: {type: string, default: world}}
tasks:
  greet:
    operator: bash
    with: {command: 'echo "Hello $WHO"; sleep $NAP', env: {WHO: "{{ params.who }}", NAP: "NAP_SECONDS"}}
  answer: {operator: bash, with: {command: "echo got {{ xcom.greet | tojson }}"}}
"""


def hello(nap: float = 0) -> str:
    return HELLO.replace("NAP_SECONDS", str(nap))


class Standalone:
    """A deployment in a folder of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home, self.dags, self.output = folder / "home", folder / "dags", folder / "output"
        self.dags.mkdir(exist_ok=True)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("YARROW_")},
            "YARROW_HOME": str(self.home),
            "YARROW_PARSE_INTERVAL": "0.5",
            **(environment or {}),
        }
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "yarrow", "standalone", "--dags", str(self.dags), "--port", "0"],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> str:
        """Waits until it says that it is ready, and returns its URL."""
        url = self.wait_for(r"ready after [0-9.]+ s: (\S+)")
        self.family = [self.process.pid, *descendants(self.process.pid)]
        return url

    def wait_for(self, pattern: str) -> str:
        deadline = time.monotonic() + 60
        while not (match := re.search(pattern, self.text())):
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)
        return match[match.re.groups]

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def yarrow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "yarrow", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def json(self, *arguments: str) -> Any:
        done = self.yarrow(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[Callable[..., Standalone]]:
    started: list[Standalone] = []

    def start(**environment: str) -> Standalone:
        started.append(Standalone(tmp_path, environment))
        return started[-1]

    yield start
    for deployment in started:
        deployment.end()


def eventually(look: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}/status").exists() and not is_zombie(pid)]


def is_zombie(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def test_the_life_of_a_file(standalone: Callable[..., Standalone]) -> None:
    it = standalone()
    url = it.wait_ready()
    with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:
        assert json.load(answer)["status"] == "ready"

    def listed() -> list[str]:
        return [dag["dag_id"] for dag in it.json("dags", "list")]

    assert listed() == []
    file = it.dags / "hello.yaml"
    file.write_text(hello())
    eventually(lambda: listed() == ["hello"], "the DAG is listed")

    done = it.yarrow("dags", "trigger", "hello", "--params", '{"who": "you"}', "--run-id", "r1", "--wait")
    assert done.returncode == 0, done.stderr + it.text()
    assert "answer success" in done.stdout
    assert it.json("runs", "show", "hello", "r1")["state"] == "success"
    logs = eventually(lambda: it.yarrow("tasks", "logs", "hello", "r1", "answer").stdout, "the log has arrived")
    assert "got Hello you" in logs

    file.write_text(hello().replace("operator: bash", "operator: bsh"))
    eventually(lambda: it.yarrow("dags", "errors").returncode == 1, "the fault is shown")
    assert "Did you mean `bash`?" in it.yarrow("dags", "errors").stderr
    assert it.yarrow("dags", "trigger", "hello", "--wait").returncode == 0  # by the last good version

    file.unlink()
    eventually(lambda: listed() == [], "the DAG is gone")
    assert len(it.json("runs", "list", "hello")) == 2  # its history stays


def test_sigterm_to_the_group_stops_everything(standalone: Callable[..., Standalone]) -> None:
    it = standalone()
    it.wait_ready()
    assert len(it.family) >= 5
    os.killpg(it.process.pid, signal.SIGTERM)
    assert it.process.wait(timeout=30) == 0
    assert alive(it.family) == []
    assert not (it.home / "broker.url").exists()
    assert "Traceback" not in it.text()
    assert it.text().endswith("yarrow | stopped\n")


def test_kill_leaves_nothing_behind_and_the_next_start_is_clean(standalone: Callable[..., Standalone]) -> None:
    short = {"YARROW_LEASE": "3", "YARROW_HEARTBEAT_INTERVAL": "0.5"}
    it = standalone(**short)
    (it.dags / "hello.yaml").write_text(hello(nap=1))
    it.wait_ready()
    eventually(lambda: it.json("dags", "list"), "the DAG is listed")
    it.json("dags", "trigger", "hello", "--run-id", "r1")
    eventually(lambda: it.json("runs", "show", "hello", "r1")["state"] == "running", "the run has started")
    it.process.kill()
    it.process.wait()
    eventually(lambda: alive(it.family) == [], "nothing is left")

    it.output.unlink()
    again = standalone(**short)
    again.wait_ready()
    again.yarrow("runs", "watch", "hello", "r1")
    assert again.json("runs", "show", "hello", "r1")["state"] == "success"


def test_a_part_that_dies_comes_back(standalone: Callable[..., Standalone]) -> None:
    it = standalone()
    url = it.wait_ready()
    (scheduler,) = [
        pid for pid in it.family if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"yarrow\0scheduler\0")
    ]
    os.kill(scheduler, signal.SIGKILL)
    it.wait_for("scheduler was killed by SIGKILL; it starts again")

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    (it.dags / "hello.yaml").write_text(hello())
    eventually(lambda: it.json("dags", "list"), "the new scheduler works")
    eventually(ready, "it is ready again")


def test_a_second_deployment_on_the_same_home_is_refused(standalone: Callable[..., Standalone]) -> None:
    it = standalone()
    it.wait_for("starting on")
    done = it.yarrow("standalone", "--dags", str(it.dags), "--port", "0")
    assert done.returncode == 2
    assert f"already runs on {it.home}." in done.stderr
    assert f"(process {it.process.pid}, http://127.0.0.1:" in done.stderr


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Calls `yarrow standalone`, which must refuse to start, and returns what it says."""
    (tmp_path / "dags").mkdir()

    def call(*arguments: str, **environment: str) -> str:
        home = tmp_path / "home"
        done = subprocess.run(
            [sys.executable, "-m", "yarrow", "standalone", *arguments],
            env={**os.environ, "YARROW_HOME": str(home), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode in (1, 2), done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stderr

    return call


def test_a_port_in_use_is_refused_before_anything_starts(refused: Callable[..., str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = refused("--dags", "dags", "--port", str(port))
    assert told.startswith(f"Error: Port {port} of 127.0.0.1 is in use by another program.")
    assert not (tmp_path / "home" / "broker").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dags", "nowhere"], "nowhere does not exist."),
        (["--dags", "file"], "file is not a folder."),
        (["--dags", "dags", "--host", "no.such.host.invalid"], "There is no address 'no.such.host.invalid'"),
        (["--dags", "dags", "--port", "70000"], "70000"),
    ],
)
def test_what_can_not_work_is_refused(
    refused: Callable[..., str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    assert message in refused(*arguments)


def test_a_home_that_is_a_file_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    assert "can't be made" in refused("--dags", "dags", "--port", "0")


def test_a_database_that_can_not_be_used_ends_the_start(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("This is no database. " * 100)
    told = refused("--dags", "dags", "--port", "0", YARROW_DATABASE_URL=f"sqlite:///{tmp_path}/file")
    assert told.startswith("Error: The ")
    assert f"{tmp_path}/file" in told


MAPPED = """
tasks:
  names: {operator: python, with: {callable: "builtins:list", args: [["a", "b", "c"]]}}
  shout:
    operator: bash
    expand: {name: "{{ xcom.names }}", number: [1, 2]}
    when: map.number == 1 or map.name != 'b'
    cache: true
    with: {command: ["echo", "{{ map.name }}{{ map.number }}"], output: last_line}
  collect:
    operator: python
    trigger_rule: none_failed
    outlets: [shouts]
    with: {callable: "builtins:list", args: ["{{ xcom.shout }}"]}
"""
AFTER = """
schedule: {datasets: [shouts]}
on_success: log
tasks:
  wait: {operator: wait_for_file, with: {path: "FLAG", poke_interval: 1s, timeout: 1h}}
  ask: {operator: approval, depends_on: [wait], with: {message: "Go on with {{ xcom.wait.count }}?", timeout: 1h}}
  then: {operator: bash, with: {command: ["echo", "{{ xcom.ask.by }}"], output: last_line}}
"""


def test_mapped_tasks_datasets_sensors_and_approvals(standalone: Callable[..., Standalone], tmp_path: Path) -> None:
    it = standalone(YARROW_WORKER_CONCURRENCY="1")
    url = it.wait_ready()
    flag = tmp_path / "flag"
    (it.dags / "after.yaml").write_text(AFTER.replace("FLAG", str(flag)))
    (it.dags / "mapped.yaml").write_text(MAPPED)
    eventually(lambda: len(it.json("dags", "list")) == 2, "the files are seen")

    def tasks(dag_id: str) -> dict[str, Any]:
        if not it.json("runs", "list", dag_id):
            return {}
        found = it.json("runs", "show", dag_id)["tasks"]
        return {(one["task_id"], one["map_index"]): one for one in found}

    def run_mapped() -> dict[str, Any]:
        assert it.yarrow("dags", "trigger", "mapped", "--wait").returncode == 0
        return tasks("mapped")

    first = run_mapped()
    assert [first["shout", index]["state"] for index in range(6)] == ["success"] * 3 + ["skipped"] + ["success"] * 2
    assert not any(one["cached"] for one in first.values())
    # The sensor looks, and the one slot is free for others between two looks.
    eventually(lambda: tasks("after").get(("wait", -1), {}).get("state") == "up_for_reschedule", "the sensor waits")
    second = run_mapped()
    assert [second["shout", index]["cached"] for index in range(6)] == [True] * 3 + [False] + [True] * 2
    flag.touch()
    eventually(lambda: tasks("after")["ask", -1]["state"] == "awaiting_input", "the approval asks")
    assert tasks("after")["wait", -1]["try_number"] == 1

    token = it.yarrow("config", "api-token").stdout.strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/api/v1/approvals", headers=headers)) as answer:
        [question, *_] = json.load(answer)
    assert question["message"] == "Go on with 1?"
    address = f"{url}/api/v1/approvals/after/{urllib.parse.quote(question['run_id'])}/ask"
    body = json.dumps({"answer": "approve", "by": "ada"}).encode()
    with urllib.request.urlopen(urllib.request.Request(address, body, headers)) as answer:
        assert json.load(answer)["answer"] == "approve"
    run = ("runs", "show", "after", question["run_id"])
    eventually(lambda: it.json(*run)["state"] == "success", "the run goes on")
    eventually(lambda: "after: run" in it.text() and "succeeded" in it.text(), "the notification is logged")

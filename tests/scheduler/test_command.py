"""`yarrow scheduler` as a process: wakes, stops, is killed at the worst moments, and loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from yarrow.config import Config
from yarrow.errors import ConfigError, Refused, SecondScheduler
from yarrow.protocol import Heartbeat, Report
from yarrow.store import Store
from yarrow.store.records import ClaimedAttempt, RunRecord
from yarrow.tokens import load_or_create_key, read_attempt_token
from yarrow.wakeup import Notifier
from yarrow_scheduler.command import open_executor, scheduler

pytestmark = pytest.mark.slow

DAG = """
tasks:
  a: {operator: bash, with: {command: 'true'}}
  b: {operator: bash, depends_on: [a], with: {command: 'true'}}
  c: {operator: bash, depends_on: [b], with: {command: 'true'}}
"""

# The executor of these processes delivers into a file. It kills its own process once, where CRASH says.
EXECUTOR = """
import os, signal
from functools import partial
from pathlib import Path

class FileExecutor:
    error = None

    def __init__(self, broker_url):
        self.box, self.mark = Path(os.environ["BOX"]), Path(os.environ["BOX"] + ".crashed")

    def publish(self, wakeups):
        self.crash("before publish")
        with self.box.open("a") as box:
            box.writelines(f"{wakeup.attempt_id} {wakeup.token} {wakeup.queue}\\n" for wakeup in wakeups)
        self.crash("after publish")
        return wakeups

    def crash(self, where):
        if os.environ.get("CRASH") == where and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self):
        pass
"""
ENTRY_POINTS = """
[yarrow.executors]
celery = box_executor:FileExecutor
[yarrow.commands]
scheduler = yarrow_scheduler.command:scheduler
"""


def eventually(happened: Callable[[], bool], seconds: float = 30.0) -> float:
    """Returns how long it took."""
    started = time.monotonic()
    pause = threading.Event()
    while not happened():
        assert time.monotonic() - started < seconds, "it did not happen in time"
        pause.wait(0.01)
    return time.monotonic() - started


class Deployment:
    """A home, a DAG folder, and a scheduler that can be started and killed."""

    def __init__(self, tmp_path: Path, database_url: str, broker_url: str) -> None:
        self.home, self.dags, self.box = tmp_path / "home", tmp_path / "dags", tmp_path / "box"
        self.home.mkdir()
        self.dags.mkdir()
        plugin = tmp_path / "plugin"
        info = plugin / "box_executor-1.0.dist-info"
        info.mkdir(parents=True)
        (plugin / "box_executor.py").write_text(EXECUTOR)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: box-executor\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(ENTRY_POINTS)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("YARROW_")},
            "PYTHONPATH": os.pathsep.join([str(plugin), *(os.path.abspath(path) for path in sys.path if path)]),
            "BOX": str(self.box),
            "YARROW_HOME": str(self.home),
            "YARROW_DATABASE_URL": database_url,
            "YARROW_BROKER_URL": broker_url,
            "YARROW_PARSE_INTERVAL": "0.2",
            "YARROW_LEASE": "30",
            "YARROW_DISPATCH_TIMEOUT": "2",
            "YARROW_HEARTBEAT_INTERVAL": "5",
        }
        self.log = tmp_path / "log"
        self.store = Store.open(database_url)
        self.key = load_or_create_key(self.home / "signing.key")
        self.claimed: list[ClaimedAttempt] = []
        self.refused = 0
        self.read = 0
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "yarrow", "scheduler", "--dags", str(self.dags)],
                env=self.environment | environment,
                stdout=log,
                stderr=log,
            )
        self.running.append(process)
        return process

    def work(self, state: str = "success") -> None:
        """Does what a worker does with what has been delivered since."""
        self.store.attempts.heartbeat(Heartbeat("w", "host", 1, ("*",), 2, "0"), 30.0)
        lines = self.box.read_text().splitlines() if self.box.exists() else []
        new, self.read = lines[self.read :], len(lines)
        for line in new:
            attempt_id, nonce = read_attempt_token(self.key, line.split()[1])
            try:
                claimed = self.store.attempts.claim(attempt_id, nonce, "w", 30.0)
            except Refused:
                self.refused += 1
                continue
            self.claimed.append(claimed)
            report = Report(attempt_id, state, reason=None if state == "success" else "it broke")
            self.store.attempts.finish(report, claimed.nonce, "w")

    def moved(self, before: int, runs: list[RunRecord]) -> bool:
        """Whether more has been claimed than before, or everything has ended."""
        self.work()
        return len(self.claimed) > before or all(self.ended(run.id) for run in runs)

    def known(self, dag_id: str) -> bool:
        return any(dag.dag_id == dag_id for dag in self.store.catalog.dags())

    def delivered(self) -> int:
        return self.box.stat().st_size if self.box.exists() else 0

    def has_more_than(self, before: int) -> bool:
        return self.delivered() > before

    def ended(self, run_id: int, state: str = "success") -> bool:
        self.work(state)
        return self.store.runs.by_id(run_id).state.finished

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.store.close()


@pytest.fixture
def deployment(tmp_path: Path, database_url: str, valkey_url: str) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, database_url, valkey_url)
    yield deployment
    deployment.close()


@pytest.fixture
def sqlite_deployment(tmp_path: Path, sqlite_url: str, valkey_url: str) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, sqlite_url, valkey_url)
    yield deployment
    deployment.close()


@contextmanager
def stopping(process: subprocess.Popen[bytes], with_signal: int = signal.SIGTERM) -> Iterator[None]:
    yield
    process.send_signal(with_signal)
    assert process.wait(15) == 0


@pytest.mark.parametrize("crash", ["before publish", "after publish"])
def test_a_scheduler_killed_between_commit_and_publish_loses_nothing(deployment: Deployment, crash: str) -> None:
    (deployment.dags / "d.yaml").write_text(DAG)
    first = deployment.start(CRASH=crash)
    eventually(lambda: deployment.known("d"))
    run = deployment.store.runs.trigger("d", who="tester")

    def died() -> bool:
        deployment.store.attempts.heartbeat(Heartbeat("w", "host", 1, ("*",), 2, "0"), 30.0)
        return first.poll() is not None

    eventually(died)
    assert first.returncode == -signal.SIGKILL
    with stopping(deployment.start(CRASH=crash)):
        eventually(lambda: deployment.ended(run.id), 60)
    assert deployment.store.runs.by_id(run.id).state == "success"
    assert [attempt.task_id for attempt in deployment.claimed] == ["a", "b", "c"], "each of them once"


def test_killed_again_and_again_it_still_gets_there(sqlite_deployment: Deployment) -> None:
    deployment = sqlite_deployment
    tasks = "".join(f"  t{i}: {{operator: bash, with: {{command: 'true'}}}}\n" for i in range(12))
    (deployment.dags / "wide.yaml").write_text("tasks:\n" + tasks)
    (deployment.dags / "d.yaml").write_text(DAG)
    process = deployment.start()
    eventually(lambda: deployment.known("d") and deployment.known("wide"))
    runs = [deployment.store.runs.trigger(dag_id, who="tester") for dag_id in ("d", "wide")]
    for _ in range(4):
        eventually(partial(deployment.moved, len(deployment.claimed), runs))
        process.kill()
        process.wait()
        process = deployment.start()
    eventually(lambda: process.pid in [scheduler.pid for scheduler in deployment.store.workers.schedulers()])
    with stopping(process):
        eventually(lambda: all(deployment.ended(run.id) for run in runs), 60)
    ran = [(attempt.dag_id, attempt.task_id) for attempt in deployment.claimed]
    assert len(ran) == len(set(ran)) == 15


def test_a_notification_wakes_it_at_once(sqlite_deployment: Deployment) -> None:
    deployment = sqlite_deployment
    (deployment.dags / "d.yaml").write_text(DAG)
    deployment.environment["YARROW_PARSE_INTERVAL"] = "5"
    process = deployment.start()
    eventually(lambda: deployment.known("d"))
    deployment.work()  # the worker is there
    with Notifier(deployment.environment["YARROW_BROKER_URL"]) as notifier, stopping(process, signal.SIGINT):
        took = []
        for _ in range(3):
            before = deployment.delivered()
            deployment.store.runs.trigger("d", who="tester")
            notifier.notify()
            took.append(eventually(partial(deployment.has_more_than, before)))
            deployment.work()
    assert min(took) < 1.0, "it would have slept for five seconds"


def test_files_come_and_go_while_it_runs(sqlite_deployment: Deployment) -> None:
    deployment = sqlite_deployment
    with stopping(deployment.start()):
        eventually(lambda: deployment.store.workers.schedulers() != [])
        path = deployment.dags / "late.yaml"
        path.write_text("schedule: '@daily'\nstart_date: 2026-01-01\n" + DAG)
        eventually(lambda: deployment.known("late"))
        eventually(lambda: deployment.store.runs.list("late") != [])
        path.write_text("tasks: [")
        eventually(lambda: deployment.store.catalog.import_errors() != [])
        assert deployment.known("late")
        path.unlink()
        eventually(lambda: not deployment.known("late"))
        assert deployment.store.runs.list("late") != []
    assert deployment.store.workers.schedulers() == [], "it took its leave"
    log = deployment.log.read_text()
    for words in ("scheduler started", "published late", "late.yaml:", "deactivated late", "scheduler stopped"):
        assert words in log
    assert "Traceback" not in log


def test_a_second_scheduler_on_sqlite_is_refused(sqlite_deployment: Deployment) -> None:
    deployment = sqlite_deployment
    with stopping(deployment.start()):
        eventually(lambda: deployment.store.workers.schedulers() != [])
        second = deployment.start()
        assert second.wait(30) == 1
        assert "Another scheduler works on this SQLite database" in deployment.log.read_text()
        with pytest.raises(SecondScheduler):
            deployment.store.workers.register_scheduler("third", "elsewhere", 1)


def test_it_waits_for_a_broker_that_is_not_there(sqlite_deployment: Deployment) -> None:
    deployment = sqlite_deployment
    (deployment.dags / "d.yaml").write_text(DAG)
    deployment.environment["YARROW_BROKER_URL"] = "redis://127.0.0.1:1/0"
    with stopping(deployment.start()):
        eventually(lambda: deployment.known("d"))
        run = deployment.store.runs.trigger("d", who="tester")
        eventually(lambda: deployment.ended(run.id))
    assert "the broker can't be heard" in deployment.log.read_text()


def test_without_any_broker_it_says_what_to_do(sqlite_deployment: Deployment) -> None:
    deployment = sqlite_deployment
    del deployment.environment["YARROW_BROKER_URL"]
    assert deployment.start().wait(30) == 2
    assert "There is no broker" in deployment.log.read_text()


def test_people_are_told_and_a_receiver_that_hangs_holds_nothing_up(
    sqlite_deployment: Deployment, receiver: Any
) -> None:
    deployment = sqlite_deployment
    receiver.answers = ["hang"]
    dag = f"tasks:\n  a:\n    operator: bash\n    with: {{command: 'false'}}\n    on_failure: [log, '{receiver.url}']\n"
    (deployment.dags / "bad.yaml").write_text(dag)
    (deployment.dags / "d.yaml").write_text(DAG)
    deployment.environment["YARROW_BASE_URL"] = "https://yarrow.example.com"
    deployment.environment["YARROW_NOTIFICATION_TIMEOUT"] = "60"
    with stopping(deployment.start()):
        eventually(lambda: deployment.known("bad") and deployment.known("d"))
        bad = deployment.store.runs.trigger("bad", who="tester")
        eventually(lambda: deployment.ended(bad.id, "failed"))
        (posted,) = receiver.wait()
        assert posted["headers"]["x-yarrow-event"] == "task.failure"
        assert posted["body"]["title"] == "bad: task a failed"
        assert posted["body"]["reason"] == "it broke"
        assert posted["body"]["url"] == f"https://yarrow.example.com/runs/{bad.id}/tasks/a"
        run = deployment.store.runs.trigger("d", who="tester")
        eventually(lambda: deployment.ended(run.id))
        assert not receiver.released.is_set()
        eventually(lambda: "bad: task a failed" in deployment.log.read_text())
        receiver.release()
        eventually(lambda: all(one.delivered_at for one in deployment.store.notifications.list()))
        assert len(deployment.store.notifications.list()) == 2


def test_a_missing_folder_is_told_and_waited_for(sqlite_deployment: Deployment) -> None:
    deployment = sqlite_deployment
    deployment.dags.rmdir()
    with stopping(deployment.start()):
        eventually(lambda: "can't be read (No such file or directory)" in deployment.log.read_text())
        deployment.dags.mkdir()
        (deployment.dags / "d.yaml").write_text(DAG)
        eventually(lambda: deployment.known("d"))


def test_the_command_runs_until_a_signal(
    tmp_path: Path, sqlite_url: str, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YARROW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YARROW_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("YARROW_BROKER_URL", valkey_url)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "d.yaml").write_text(DAG)
    store = Store.open(sqlite_url)

    def stop_when_there() -> None:
        try:
            eventually(lambda: any(dag.dag_id == "d" for dag in store.catalog.dags()))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_when_there)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    stopper.start()
    result = CliRunner().invoke(scheduler, ["--dags", str(tmp_path / "dags")])
    stopper.join(30)
    assert result.exit_code == 0, result.exception
    assert store.catalog.dag("d").is_active
    assert store.workers.schedulers() == []
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    store.close()


def test_an_executor_that_is_not_installed_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yarrow_scheduler.command.EXECUTORS", "yarrow.none")
    with pytest.raises(ConfigError, match="not installed"):
        open_executor(replace(config, broker_url="redis://127.0.0.1:1/0"))

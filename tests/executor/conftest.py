"""A deployment of real parts for the tests of the worker: store, Execution API over HTTP, Valkey and worker processes.

The scheduler's part is played by the test itself, step by step. Between worker and API sits a layer that can misbehave.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from yarrow import tokens
from yarrow.clock import utc_now
from yarrow.config import Config
from yarrow.decide import decide
from yarrow.executor import Wakeup
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.logs import LogStore
from yarrow.protocol import LogLine
from yarrow.states import TaskState
from yarrow.store import Store
from yarrow.store.records import AttemptRecord, TaskInstanceRecord
from yarrow_executor.dispatch import CeleryExecutor
from yarrow_webserver.execution import create_blueprint

Handler = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Faults:
    """A WSGI layer in front of the API."""

    def __init__(self, app: Handler) -> None:
        self._app = app
        self.down = False  # every request fails before anything is done
        self.down_for: set[str] = set()  # routes that fail
        self.lose_answers: dict[str, int] = {}  # route -> how many answers are lost after the work was done
        self.hold_next: dict[str, threading.Event] = {}  # route -> until when its next request is held back
        self.version: str | None = None  # the version that every worker is taken to speak
        self.requests: list[str] = []
        self.refused: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        route = environ["PATH_INFO"].rpartition("/")[2]
        self.requests.append(route)
        if self.down or route in self.down_for:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        if event := self.hold_next.pop(route, None):
            event.wait(20)
        if self.version:
            environ["HTTP_X_YARROW_PROTOCOL"] = self.version
            self.refused.append(route)
        if self.lose_answers.get(route):
            self.lose_answers[route] -= 1
            list(self._app(environ, lambda *_: None))
            start_response("502 Bad Gateway", [("Content-Length", "0")])
            return [b""]
        return self._app(environ, start_response)


class _Wakes:
    def notify(self) -> None:
        """The test looks by itself."""


class _QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        pass


class Deployment:
    """Everything but a scheduler."""

    def __init__(self, make_config: Callable[..., Config], tmp_path: Path, broker_url: str) -> None:
        self.config = make_config(broker_url=broker_url)
        self.home = self.config.home
        self.library = tmp_path / "library"
        self.library.mkdir()
        self.store = Store.open(self.config.database_url, clock=utc_now)
        self.store.workers.set_pools({"default_pool": 128})
        self.key = tokens.load_or_create_key(self.config.signing_key_file)
        self.logs = LogStore(self.config.logs_url)
        self.executor = CeleryExecutor(broker_url)
        app = Flask("test")
        app.register_blueprint(create_blueprint(self.config, self.store, self.key, _Wakes(), self.logs))
        self.faults = Faults(app.wsgi_app)
        self._server = make_server("127.0.0.1", 0, self.faults, threaded=True, request_handler=_QuietHandler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._runs = 0

    # Workers.

    def start_worker(self, *arguments: str, ready: bool = True, **environment: str) -> subprocess.Popen[bytes]:
        """Starts `yarrow worker` as a process group of its own."""
        known = len(self.store.workers.alive())
        process = subprocess.Popen(
            [sys.executable, "-c", "from yarrow_executor.command import worker; worker()", *arguments],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("YARROW_")},
                "PYTHONPATH": ":".join(path for path in sys.path if path),
                "YARROW_HOME": str(self.home),
                "YARROW_BROKER_URL": self.config.broker_url,
                "YARROW_API_URL": self.url,
                "YARROW_LEASE": "3",
                "YARROW_HEARTBEAT_INTERVAL": "0.5",
                "YARROW_SLOT_HOLD": "1",
                "YARROW_WORKER_PYTHON_PATH": str(self.library),
                "YARROW_WORKER_GRACE": "2",
                **environment,
            },
            start_new_session=True,
        )
        self._workers.append(process)
        if ready:
            self.until(lambda: len(self.store.workers.alive()) > known, "the worker has not come up")
        return process

    def function(self, name: str, source: str) -> str:
        """Writes a module for the operator `python`, and returns its `callable`."""
        (self.library / f"{name}.py").write_text(source)
        return f"{name}:run"

    # The scheduler's part.

    def start(self, dag_id: str, **tasks: Mapping[str, Any]) -> Run:
        """Publishes a DAG of these tasks, and starts a run of it."""
        specs = {
            task_id: TaskSpec(**{"task_id": task_id, "operator": "python", **fields})
            for task_id, fields in tasks.items()
        }
        self.store.catalog.publish([(DagSpec(dag_id, specs), "", f"{dag_id}.yaml")])
        self._runs += 1
        record = self.store.runs.trigger(dag_id, run_id=f"run {self._runs}", who="test")
        run = Run(self, record.id, dag_id, record.run_id)
        self.advance()
        return run

    def advance(self, *, times: int = 1) -> None:
        """One pass of a scheduler. `times`: how often each message is sent."""
        now = datetime.now(UTC)
        self.store.runs.start_due(now)
        for number in self.store.runs.undecided(now, 100):
            if snapshot := self.store.runs.snapshot(number):
                record = snapshot.record
                decisions = decide(snapshot.spec, record.view, snapshot.tasks, now, snapshot.xcoms)
                self.store.runs.apply(number, decisions, record.change_seq)
        self.store.attempts.grant(1000)
        rows = self.store.attempts.to_publish(dict.fromkeys(self.config.queues, 100), now)
        if rows:
            wakeups = [
                Wakeup(row.attempt_id, tokens.attempt_token(self.key, row.attempt_id, row.nonce), "any") for row in rows
            ]
            sent = self.executor.publish(wakeups * times)
            assert len(sent) == len(wakeups) * times, self.executor.error
            self.store.attempts.mark_published(rows, now + timedelta(seconds=60))

    def until(self, condition: Callable[[], Any], otherwise: str, seconds: float = 20.0) -> Any:
        """Looks until the condition holds, and returns what it returned."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, otherwise
            time.sleep(0.02)
        return found

    def close(self) -> None:
        for process in self._workers:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._workers:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.executor.close()
        self.store.close()


class Run:
    """A run that a test watches."""

    def __init__(self, deployment: Deployment, number: int, dag_id: str, run_id: str) -> None:
        self._deployment = deployment
        self.number = number
        self.dag_id = dag_id
        self.run_id = run_id

    def task(self, task_id: str = "t") -> TaskInstanceRecord:
        return self._deployment.store.runs.task_instance(self.dag_id, self.run_id, task_id)

    def attempts(self, task_id: str = "t") -> list[AttemptRecord]:
        return self._deployment.store.attempts.attempts(self.task(task_id).id)

    def wait(self, *states: TaskState, task_id: str = "t", seconds: float = 20.0) -> TaskInstanceRecord:
        """Plays the scheduler until the task is in one of these states (any final one by default)."""

        def reached() -> bool:
            state = self.task(task_id).state
            return state in states if states else state.finished

        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, f"{task_id} is {self.task(task_id)}"
            self._deployment.advance()
            time.sleep(0.02)
        return self.task(task_id)

    def log(self, task_id: str = "t", *, limit: int = 1000) -> list[LogLine]:
        return self._deployment.logs.read(self.dag_id, self.run_id, task_id, -1, 1, limit=limit)[0]

    def texts(self, task_id: str = "t", *, limit: int = 1000) -> list[str]:
        return [line.text for line in self.log(task_id, limit=limit)]

    def wait_for_line(self, text: str, task_id: str = "t", *, limit: int = 1000) -> None:
        self._deployment.until(
            lambda: any(text in line for line in self.texts(task_id, limit=limit)), f"no line {text!r}"
        )

    def xcom(self, task_id: str = "t") -> Any:
        return self._deployment.store.attempts.xcom(self.dag_id, self.run_id, task_id)


@pytest.fixture
def make_deployment(make_config: Callable[..., Config], tmp_path: Path) -> Iterator[Callable[[str], Deployment]]:
    """Makes a deployment that uses the broker with this URL."""
    made: list[Deployment] = []

    def make(broker_url: str) -> Deployment:
        made.append(Deployment(make_config, tmp_path, broker_url))
        return made[-1]

    yield make
    for deployment in made:
        deployment.close()


@pytest.fixture
def deployment(make_deployment: Callable[[str], Deployment], valkey_url: str) -> Deployment:
    """Store, Execution API and broker; workers are started by the test."""
    return make_deployment(valkey_url)

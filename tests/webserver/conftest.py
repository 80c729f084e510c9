"""What the tests of the web server share: an application on a real store, and a DAG with runs of every kind."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from yarrow.config import Config
from yarrow.language.faults import Fault
from yarrow.language.spec import DagSpec, ScheduleSpec, TaskSpec
from yarrow.logs import LogStore
from yarrow.protocol import Heartbeat, LogLine, Report
from yarrow.store import Store
from yarrow.store.records import FileRecord, RunRecord
from yarrow_webserver.app import create_app

SOURCE = "dag_id: flights\ntasks:\n  ingest: {operator: bash}  # <b>first</b>\n"


def flights(dag_id: str = "flights", **changes: Any) -> DagSpec:
    """A chain of three tasks."""
    tasks = {
        "ingest": TaskSpec("ingest", "bash", {"command": "true"}, retries=1),
        "score": TaskSpec("score", "bash", {"command": "true"}, upstream=("ingest",)),
        "publish": TaskSpec("publish", "bash", {"command": "true"}, upstream=("score",)),
    }
    values: dict[str, Any] = {
        "description": "Score every departure",
        "owner": "flight-ops",
        "tags": ("demo",),
        "schedule": ScheduleSpec(cron="@monthly", timezone="America/New_York"),
        "timezone": "America/New_York",
        "start_date": datetime(2025, 1, 1, tzinfo=UTC),
    }
    return DagSpec(dag_id, tasks, **values | changes)


class Deployment:
    """Moves a real store as the scheduler and a worker would."""

    def __init__(self, store: Store, log_store: LogStore, clock: Any) -> None:
        self.store = store
        self.logs = log_store
        self.clock = clock

    spec = staticmethod(flights)

    def publish(self, *specs: DagSpec, source: str = SOURCE) -> None:
        self.store.catalog.publish([(spec, source, f"{spec.dag_id}.yaml") for spec in specs])

    def break_file(self, path: str = "broken.yaml", faults: int = 1) -> None:
        found = [
            Fault(path, 3 + n, 5, "YRW012", f"unknown key `retires` {n}", "Did you mean `retries`?")
            for n in range(faults)
        ]
        self.store.catalog.record_files([FileRecord(path, 10, 1, None, None, tuple(found))])

    def trigger(self, dag_id: str = "flights", **values: Any) -> RunRecord:
        run = self.store.runs.trigger(dag_id, who="cli:ada", **values)
        self.store.runs.start_due()
        return self.store.runs.by_id(run.id)

    def decide(self) -> None:
        from yarrow.decide import decide

        for id in self.store.runs.undecided():
            snapshot = self.store.runs.snapshot(id)
            assert snapshot is not None
            decisions = decide(snapshot.spec, snapshot.record.view, snapshot.tasks, self.clock.now, snapshot.xcoms)
            self.store.runs.apply(id, decisions, snapshot.record.change_seq)

    def beat(self, *, stopping: bool = False) -> None:
        self.store.attempts.heartbeat(Heartbeat("w" * 16, "host", 1, ("*",), 4, "0.1.0", stopping=stopping), lease=60.0)

    def step(self, state: str = "success", seconds: float = 30, **report: Any) -> None:
        """One task runs: claimed, logged, finished after so many seconds."""
        claimed = self.claim()
        self.clock.advance(seconds)
        self.logs.append(
            claimed.dag_id,
            claimed.run_id,
            claimed.task_id,
            claimed.map_index,
            claimed.try_number,
            [LogLine(self.clock.now.isoformat(), "stdout", f"line of {claimed.task_id}")],
        )
        self.store.attempts.finish(
            Report(
                claimed.attempt_id,
                state,
                started_at=(self.clock.now - timedelta(seconds=seconds)).isoformat(),
                ended_at=self.clock.now.isoformat(),
                **report,
            ),
            claimed.nonce,
            "w" * 16,
            infra_budget=3,
        )
        self.decide()

    def claim(self) -> Any:
        self.decide()
        self.store.attempts.grant(32)
        claimed = self.store.attempts.next_for("default", "w" * 16, 60.0)
        assert claimed is not None
        return claimed


@pytest.fixture
def app(config: Config, sqlite_store: Store, clock: Any) -> Flask:
    return create_app(config, sqlite_store, clock)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def deployment(config: Config, sqlite_store: Store, clock: Any) -> Deployment:
    return Deployment(sqlite_store, LogStore(config.logs_url), clock)


@pytest.fixture
def page(client: FlaskClient) -> Callable[..., str]:
    """Fetches a page that must be there."""

    def fetch(path: str, **values: Any) -> str:
        answer = client.get(path, headers={"Accept": "text/html"}, **values)
        assert answer.status_code == 200, answer.text
        return answer.text

    return fetch

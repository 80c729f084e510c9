"""The context of one attempt: what its operator may know and do."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from yarrow import urls
from yarrow.clock import Clock
from yarrow.connections import Connection
from yarrow.errors import Fail, Interrupted, NotFound
from yarrow.jsontypes import Json
from yarrow.operator import OtherState
from yarrow.protocol import Assignment

_OUTPUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where an attempt works, the same for all attempts of a worker."""

    work_root: Path  # each task instance has a folder of its own below it
    objects_url: str  # fsspec URL of data sets and large XComs
    xcom_inline_limit: int  # bytes of JSON that a report carries; more goes to the objects
    cpus: int = 1  # how many threads a library should use
    dags_folder: Path = Path("dags")


class CachedResult(NamedTuple):
    """What an earlier attempt came to with the same inputs."""

    attempt_id: str
    run_id: str
    has_xcom: bool
    xcom: Json  # or {"$ref": url}


class Services(Protocol):
    """What the surroundings of an attempt do for it while it runs."""

    def progress(self, done: float, total: float | None, unit: str) -> None:
        """Takes note of how far the work is."""

    def metric(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Takes note of a figure. The report carries it as well."""

    def trigger_dag(self, dag_id: str, params: Mapping[str, Json], logical_date: datetime | None) -> str:
        """Creates a run of another DAG, once for a task instance, and returns its run_id."""

    def task_state(self, dag_id: str, task_id: str | None, logical_date: datetime) -> OtherState | None:
        """Looks up the state of a run of another DAG, or of a task in it; None when there is no such run."""

    def cached_result(self, key: str) -> CachedResult | None:
        """Looks up a result by its cache key; None when there is none, and when nobody answers."""

    def interrupted(self) -> bool:
        """Whether the worker wants to stop."""


class AttemptContext:
    """A `yarrow.Context` made of an assignment, the surroundings and the services of a worker."""

    def __init__(
        self,
        assignment: Assignment,
        surroundings: Surroundings,
        services: Services,
        log: logging.Logger,
        clock: Clock,
        started_at: datetime,
    ) -> None:
        """Args: started_at: When this execution began; of a try that was put off it is not the first."""
        self._assignment = assignment
        self._surroundings = surroundings
        self._services = services
        self._clock = clock
        self.dag_id = assignment.dag_id
        self.run_id = assignment.run_id
        self.task_id = assignment.task_id
        self.map_index = assignment.map_index
        self.try_number = assignment.try_number
        self.logical_date = datetime.fromisoformat(assignment.logical_date)
        self.data_interval_start = datetime.fromisoformat(assignment.data_interval_start)
        self.data_interval_end = datetime.fromisoformat(assignment.data_interval_end)
        self.timezone = assignment.timezone
        first = assignment.first_started_at
        self.first_started_at = datetime.fromisoformat(first) if first else started_at
        self.params = assignment.params
        self.downstream: Sequence[str] = assignment.dag_tasks
        self.log = log
        self.cpus = surroundings.cpus
        self.dags_folder = surroundings.dags_folder
        self.objects_url = surroundings.objects_url
        self.metrics: dict[str, Json] = {}

    def now(self) -> datetime:
        return self._clock()

    @cached_property
    def work_dir(self) -> Path:
        """Made when it is asked for: most tasks need none."""
        folder = work_dir(self._assignment, self._surroundings.work_root)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def connection(self, conn_id: str) -> Connection:
        uri = self._assignment.connections.get(conn_id)
        if uri is None:
            raise NotFound(
                f"The task was not given the connection `{conn_id}`.",
                hint="Name it in a parameter such as `conn_id`, or in a template as `conn." + conn_id + ".host`.",
            )
        return Connection.from_uri(conn_id, uri)

    def output_uri(self, name: str = "output") -> str:
        if not _OUTPUT_NAME.fullmatch(name):
            raise Fail(f"`{name}` can't be the name of an output.", hint="Use letters, digits, `-`, `_` and `.`.")
        return urls.join(self.objects_url, "datasets", self._assignment.identity, name) + "/"

    def progress(self, done: float, total: float | None = None, unit: str = "rows") -> None:
        self._services.progress(done, total, unit)

    def metric(self, name: str, value: float, **labels: str) -> None:
        value = float(value)
        if not math.isfinite(value):
            self.log.warning("The metric %s is %s and was left out.", name, value)
            return
        tags = ",".join(f"{label}={labels[label]}" for label in sorted(labels))
        self.metrics[f"{name}{{{tags}}}" if tags else name] = int(value) if value.is_integer() else value
        self._services.metric(name, value, labels)

    def trigger_dag(self, dag_id: str, *, params: Mapping[str, Json], logical_date: datetime | None) -> str:
        return self._services.trigger_dag(dag_id, params, logical_date)

    def task_state(self, dag_id: str, task_id: str | None, logical_date: datetime) -> OtherState | None:
        return self._services.task_state(dag_id, task_id, logical_date)

    def check_interrupted(self) -> None:
        if self._services.interrupted():
            raise Interrupted


def work_dir(assignment: Assignment, work_root: Path) -> Path:
    """The work folder of a task instance: the same for every try."""
    return work_root / assignment.identity

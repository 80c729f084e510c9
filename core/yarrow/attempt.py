"""Executes one attempt of a task: resolve, load, render, check, execute, classify, spill."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from yarrow.clock import Clock
from yarrow.jsontypes import Json
from yarrow.protocol import Assignment, Report


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where an attempt works, the same for all attempts of a worker."""

    work_root: Path  # each task instance has a folder of its own below it
    objects_url: str  # fsspec URL of data sets and large XComs
    xcom_inline_limit: int  # bytes of JSON that a report carries; more goes to the objects
    cpus: int = 1  # how many threads a library should use
    dags_folder: Path = Path("dags")  # where a relative path of a model or another input file is looked for


class Services(Protocol):
    """What the surroundings of an attempt do for it while it runs."""

    def progress(self, done: float, total: float | None, unit: str) -> None:
        """Takes note of how far the work is."""

    def metric(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Takes note of a figure. The report carries it as well."""

    def trigger_dag(self, dag_id: str, params: Mapping[str, Json], logical_date: datetime | None) -> str:
        """Creates a run of another DAG, once for a task instance, and returns its run_id."""

    def interrupted(self) -> bool:
        """Whether the worker wants to stop."""


def execute(
    assignment: Assignment, *, config: Surroundings, services: Services, log: logging.Logger, clock: Clock
) -> Report:
    """Executes one attempt and says how it ended; whatever the task raises ends up in the report."""
    raise NotImplementedError


def discard_work(assignment: Assignment, report: Report, work_root: Path) -> None:
    """Removes the work folder of a task instance that will have no further try. Call it once the report is accepted."""
    raise NotImplementedError

"""Asks what the schedules of a folder would bring: what would wait, be late, and how many slots it would take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from yarrow.language.spec import DagSpec

Durations: TypeAlias = Callable[[str, str], float]
"""How many seconds a task takes: (dag_id, task_id) -> seconds."""


Progress: TypeAlias = Callable[[datetime], object]
"""Is told how far a forecast has got."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What there is to run tasks with. None is as much as anybody wants."""

    slots: int | None = None  # of all workers
    pools: Mapping[str, int] | None = None  # a pool that is not named has no bound


@dataclass(frozen=True, slots=True)
class Miss:
    """A deadline that is missed."""

    dag_id: str
    logical_date: datetime
    task_id: str | None  # None: of the run
    due_at: datetime
    ended_at: datetime | None  # None: not within the forecast


@dataclass(frozen=True, slots=True)
class DagForecast:
    """What becomes of one DAG. Durations are seconds."""

    dag_id: str
    runs: int
    unfinished: int  # runs that are not over when the forecast is
    tasks: int  # task instances that ran
    mean_wait: float  # from when a task could run to when it had its slots
    longest_wait: float
    longest_wait_task: str | None
    longest_queue: float  # from when a run was due to when it could start, for `max_active_runs`
    mean_run: float
    longest_run: float
    misses: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a period would bring."""

    start: datetime
    end: datetime
    dags: tuple[DagForecast, ...]
    misses: tuple[Miss, ...]
    peak_slots: int  # the most slots that were taken at once
    peak_at: datetime | None
    peak_pools: Mapping[str, int]  # pool -> the most of its slots that were taken at once

    @property
    def runs(self) -> int:
        return sum(dag.runs for dag in self.dags)

    @property
    def tasks(self) -> int:
        return sum(dag.tasks for dag in self.dags)


def forecast(
    specs: Sequence[DagSpec],
    start: datetime,
    end: datetime,
    *,
    durations: Durations,
    capacity: Capacity | None = None,
    progress: Progress = lambda now: None,
) -> Forecast:
    """Returns what the schedules would bring between two instants, with the scheduler's own `decide`.

    Every task is taken to run once, to succeed, and to take as long as `durations` says: every `when` holds, branches
    go all ways, and a mapped task counts as one. Sensors and approvals take their time without a slot. Runs that were
    missed before `start` are not made up for.

    Args:
        specs: The DAGs.
        start, end: Aware. Runs are due from `start` on and before `end`; nothing is looked at after that.
        durations: See above.
        capacity: What there is to run tasks with.
        progress: Called now and then with the moment that the forecast has come to.

    Raises:
        UsageError: It would take more than `MOST_TASKS` task instances.
    """
    from yarrow.simulation.virtual_clock import World  # which makes the records above

    world = World(specs, start, end, durations, capacity or Capacity())
    world.run(progress)
    return world.result()

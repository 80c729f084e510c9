"""A DAG and its runs in a forecast: what is left of it there, when it is due, and how each run stands."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache

from yarrow.decide import PastView, RunView, TaskView
from yarrow.errors import NotFound
from yarrow.language.spec import AVERAGED_RUNS, FEWEST_AVERAGED_RUNS, DagSpec, DeadlineSpec
from yarrow.registry import operator_class
from yarrow.schedules.cron import is_continuous, is_once
from yarrow.sensor import Sensor
from yarrow.states import TaskState
from yarrow.timetable import NO_START, Interval, Timetable


@dataclass(eq=False, slots=True)
class VirtualRun:
    """One run."""

    dag: VirtualDag
    number: int
    view: RunView
    due_at: datetime
    tasks: dict[str, TaskView]
    scheduled_at: dict[str, datetime] = field(default_factory=dict)
    ended_at: datetime | None = None
    task_ends: dict[str, datetime] = field(default_factory=dict)

    def forget(self, *, states: bool) -> None:
        """Gives up, at the end of the run, what is of no use any more: there may be a million others."""
        self.scheduled_at = {}
        if states:
            self.tasks = {}
        if not any(task.deadline for task in self.dag.spec.tasks.values()):
            self.task_ends = {}


@dataclass(eq=False, slots=True)
class VirtualDag:
    """One DAG and what has become of it so far."""

    spec: DagSpec
    continuous: bool
    without_slot: frozenset[str]
    minds_past: bool  # some task waits for the run before
    fires: Iterator[Interval]
    queued: deque[VirtualRun] = field(default_factory=deque)
    active: int = 0
    busy: int = 0  # tasks in a slot
    pending: set[str] = field(default_factory=set)  # datasets that were published since its last run
    runs: list[VirtualRun] = field(default_factory=list)
    waits: Counter[str] = field(default_factory=Counter)  # task_id -> seconds in all
    longest: tuple[float, str | None] = (0.0, None)
    ran: int = 0
    busy_tasks: Counter[str] = field(default_factory=Counter)


@lru_cache(maxsize=100_000)
def view_of(task_id: str, state: TaskState) -> TaskView:
    """Nothing but its state tells a task instance of one run from that of another."""
    return TaskView(task_id, state, try_number=1)


def virtual_dag(spec: DagSpec, start: datetime) -> VirtualDag:
    """The DAG at an instant, before any run of it."""
    continuous = spec.schedule is not None and is_continuous(spec.schedule.cron)
    return VirtualDag(_plain(spec), continuous, _without_slot(spec), spec.looks_back, fires_of_dag(spec, start))


def fires_of_dag(spec: DagSpec, start: datetime) -> Iterator[Interval]:
    """The runs of a schedule that are due from an instant on; of `@continuous` the first of them."""
    if spec.schedule is None or spec.schedule.datasets:
        return
    if is_continuous(spec.schedule.cron):
        begin = max(start, spec.start_date or start)
        if spec.end_date is None or begin < spec.end_date:
            yield Interval.exact(begin)
        return
    timetable = Timetable.of(spec.schedule, spec.start_date or NO_START, spec.end_date)
    if is_once(spec.schedule.cron) and spec.start_date is None:
        return
    upcoming = next(iter(timetable.starting_after(start - timedelta(microseconds=1), 1)), None)
    while upcoming is not None:
        yield upcoming
        upcoming = timetable.next_interval(upcoming.logical_date)


def _plain(spec: DagSpec) -> DagSpec:
    """The DAG without what depends on values: conditions, lists, and answers of people."""
    tasks = {
        task_id: replace(
            task,
            when=None,
            expand=None,
            map_group=None,
            operator="wait" if task.operator == "approval" else task.operator,
        )
        for task_id, task in spec.tasks.items()
    }
    return replace(spec, tasks=tasks)


def _without_slot(spec: DagSpec) -> frozenset[str]:
    """The tasks that wait without a slot: sensors and approvals."""
    return frozenset(task_id for task_id, task in spec.tasks.items() if not _takes_slot(task.operator))


def _takes_slot(operator: str) -> bool:
    if operator in ("approval", "empty"):
        return False
    try:
        return not issubclass(operator_class(operator), Sensor)
    except NotFound:
        return True


def past_of(run: VirtualRun) -> PastView | None:
    """The run before; None: there is none, or no task cares."""
    if run.number == 0 or not run.dag.minds_past:
        return None
    before = run.dag.runs[run.number - 1]
    return PastView(before.view.run_id, {task_id: (view.state,) for task_id, view in before.tasks.items()})


def deadline_of(deadline: DeadlineSpec, run: VirtualRun) -> datetime | None:
    """When a deadline of a run passes; None: too few runs have ended to tell."""
    after = timedelta(seconds=deadline.after)
    if deadline.reference == "logical_date":
        return run.view.logical_date + after
    if deadline.reference == "data_interval_end":
        return run.view.data_interval_end + after
    if deadline.reference == "queued_at":
        return run.due_at + after
    ended = [other for other in run.dag.runs[: run.number] if other.ended_at is not None][-AVERAGED_RUNS:]
    if len(ended) < FEWEST_AVERAGED_RUNS:
        return None
    mean = sum((other.ended_at - other.due_at).total_seconds() for other in ended if other.ended_at) / len(ended)
    return run.due_at + timedelta(seconds=mean) + after

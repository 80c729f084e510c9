"""Checks what a DAG needs against what its deployment has: queues, pools, and the time that past runs took."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from yarrow.language import codes
from yarrow.language.drafts import DagDraft, TaskDraft
from yarrow.language.durations import format_duration
from yarrow.language.faults import Fault
from yarrow.language.graph import arrows
from yarrow.language.nodes import Node
from yarrow.language.spec import DagSpec, DeadlineSpec, ScheduleSpec
from yarrow.protocol import ALL_QUEUES
from yarrow.timetable import Timetable, has_moments

_SOME_DATE: Final = datetime(2024, 1, 1, tzinfo=UTC)
_SOME_RUNS: Final = 8
_NAMED: Final = 6


@dataclass(frozen=True, slots=True)
class Known:
    """What the deployment has; None: not known, so nothing is said."""

    queues: Collection[str] | None = None  # those that are configured
    pools: Mapping[str, int] | None = None  # with their slots
    served: Collection[str] | None = None  # the queues that its workers serve, or `*`
    durations: Mapping[tuple[str, str], float] | None = None  # (dag id, task id) -> mean seconds of past successes


def check_task(task: TaskDraft, known: Known) -> Iterator[Fault]:
    """Yields a warning for each thing that a task needs and the deployment has not."""
    queue, pool = task.values.get("queue", "default"), task.values.get("pool", "default_pool")
    if known.served is not None and queue not in known.served and ALL_QUEUES not in known.served:
        message = f"No worker serves the queue `{queue}` of the task `{task.task_id}` at the moment."
        hint = _listed("Queues that are served", known.served) or "No worker is there."
        yield task.fault("queue", codes.UNSERVED_QUEUE, message, hint, warning=True)
    elif known.queues is not None and "queue" in task.values and queue not in known.queues:
        yield _not_configured(task, "queue", queue, codes.UNKNOWN_QUEUE, known.queues)
    if known.pools is None:
        return
    if pool not in known.pools:
        if "pool" in task.values:
            yield _not_configured(task, "pool", pool, codes.UNKNOWN_POOL, known.pools)
    elif (wanted := task.values.get("pool_slots", 1)) > known.pools[pool]:
        message = (
            f"The task `{task.task_id}` takes {wanted} slots, and the pool `{pool}` has {known.pools[pool]}: "
            "it would never run."
        )
        hint = "Take fewer `pool_slots`, or give the pool more under `pools:` in yarrow.yaml."
        yield task.fault("pool_slots", codes.POOL_TOO_SMALL, message, hint, warning=True)


def _not_configured(task: TaskDraft, key: str, value: str, code: str, names: Collection[str]) -> Fault:
    message = f"The {key} `{value}` of the task `{task.task_id}` is not configured."
    hint = f"There are: {', '.join(sorted(names))}. Others go under `{key}s:` in yarrow.yaml."
    return task.fault(key, code, message, hint, warning=True)


def _listed(what: str, names: Collection[str]) -> str | None:
    return f"{what}: {', '.join(sorted(names))}." if names else None


def check_deadlines(draft: DagDraft, spec: DagSpec, known: Known) -> Iterator[Fault]:
    """Yields a warning for each deadline that passes before a run starts, or sooner than past runs took."""
    deadlines: list[tuple[str | None, DeadlineSpec, Node]] = []
    if spec.deadline is not None:
        deadlines.append((None, spec.deadline, draft.node.entries["deadline"]))
    for task_id, task in spec.tasks.items():
        if task.deadline is not None:
            deadlines.append((task_id, task.deadline, draft.tasks[task_id].place("deadline")))
    if not deadlines:
        return
    durations = known.durations or {}
    seconds = {task_id: durations.get((spec.dag_id, task_id), 0.0) for task_id in spec.tasks}
    paths = critical_paths(spec, seconds)
    wait = _wait_of(spec.schedule, spec.start_date)
    for name, deadline, node in deadlines:
        last = name or max(paths, key=lambda task_id: paths[task_id][0])
        fault = _too_short(deadline, wait, paths[last], f"the task `{name}`" if name else "the DAG", node)
        if fault is not None:
            yield fault


def critical_paths(spec: DagSpec, seconds: Mapping[str, float]) -> dict[str, tuple[float, tuple[str, ...]]]:
    """Returns for each task the longest way to its end: how many seconds that is, and the tasks on it that take time.

    Args:
        spec: The DAG.
        seconds: How long each task takes.
    """
    found: dict[str, tuple[float, tuple[str, ...]]] = {}
    for task_id, task in spec.tasks.items():
        before, way = max((found[upstream] for upstream in task.upstream), key=lambda path: path[0], default=(0.0, ()))
        own = seconds.get(task_id, 0.0)
        found[task_id] = (before + own, (*way, task_id) if own else way)
    return found


def _wait_of(schedule: ScheduleSpec | None, start_date: datetime | None) -> float:
    """For how many seconds after its logical date a run does not start yet: the shortest of some data intervals."""
    if schedule is None or schedule.semantics != "interval" or not has_moments(schedule):
        return 0.0
    runs = Timetable.of(schedule, start_date or _SOME_DATE).intervals(None, _SOME_RUNS)
    return min(((run.run_after - run.logical_date).total_seconds() for run in runs), default=0.0)


def _too_short(
    deadline: DeadlineSpec, wait: float, path: tuple[float, tuple[str, ...]], what: str, node: Node
) -> Fault | None:
    if deadline.reference == "average":
        return None
    wait = wait if deadline.reference == "logical_date" else 0.0
    after, left = format_duration(deadline.after), deadline.after - wait
    taken, way = path
    if wait and left <= 0:
        message = (
            f"The deadline of {what} always passes: a run starts when its data interval has ended, "
            f"{format_duration(wait)} after its logical date, and the deadline is {after} after that date."
        )
        hint = f"Write `{{after: {after}, from: data_interval_end}}`, or a longer time."
        return node.fault(codes.DEADLINE_TOO_SHORT, message, hint, "warning")
    if taken <= left:
        return None
    shown = arrows(way) if len(way) <= _NAMED else f"{arrows(way[:_NAMED])} → …"
    of_it = f", of which the data interval leaves {format_duration(left)}" if wait else ""
    message = (
        f"The deadline of {what} is {after} after `{deadline.reference}`{of_it}, and past runs took "
        f"{format_duration(round(taken))} on the way {shown}."
    )
    return node.fault(codes.DEADLINE_TOO_SHORT, message, "Allow more time.", "warning")

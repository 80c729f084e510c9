"""Estimates how long a plan takes and what it asks of pools, from the durations of past runs.

It is a lower bound made of simple parts, the largest of which counts: the runs in turn, so many at once, each as long
as the longest chain of its tasks; what tasks that wait for the run before take one after the other; and the work that
each pool, the DAG and the deployment have to do with the slots that they have. Tasks whose duration is unknown count as
the mean of the others, and nothing is estimated when less than half of them is known.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from yarrow.language.spec import DagSpec
from yarrow.plans.backfilling import selected_tasks
from yarrow.plans.partial import cut_out
from yarrow.plans.plan import Estimate, PoolUse, RunAction, RunChange
from yarrow.plans.requests import BackfillRequest, Request
from yarrow.plans.situation import Situation
from yarrow.states import TaskState

_KNOWN_ENOUGH = 0.5  # of the tasks


@dataclass(frozen=True, slots=True)
class _Work:
    """The task instances of one run that will run."""

    spec: DagSpec
    instances: Mapping[str, int]  # task_id -> how many of it


def estimate(request: Request, runs: Sequence[RunChange], situation: Situation) -> Estimate:
    """The estimate for all runs of a plan together."""
    works = [work for work in _works(request, runs, situation) if work.instances]
    tasks = list(dict.fromkeys(task_id for work, _ in _alike(works) for task_id in work.instances))
    known = [task_id for task_id in tasks if task_id in situation.durations]
    durations: dict[str, float] | None = None
    if tasks and len(known) >= _KNOWN_ENOUGH * len(tasks):
        mean = sum(situation.durations[task_id] for task_id in known) / len(known)
        durations = {task_id: situation.durations.get(task_id, mean) for task_id in tasks}
    at_once = request.max_active_runs if isinstance(request, BackfillRequest) else situation.newest.max_active_runs
    return Estimate(
        task_instances=sum(sum(work.instances.values()) for work in works),
        seconds=None if durations is None else round(_seconds(works, durations, at_once, situation), 3),
        known_tasks=len(known),
        tasks=len(tasks),
        pools=tuple(_pools(works, durations, situation)),
        order=_order(request, len(works), at_once),
    )


def _order(request: Request, runs: int, at_once: int) -> str:
    if runs < 2:
        return ""
    backwards = isinstance(request, BackfillRequest) and request.run_backwards
    return f"{'newest' if backwards else 'oldest'} first, {min(at_once, runs):,} at once"


# What will run


def _works(request: Request, runs: Sequence[RunChange], situation: Situation) -> Iterable[_Work]:
    specs = {run.run_id: run.spec for run in situation.runs}
    made = _Work(situation.newest, {})
    if isinstance(request, BackfillRequest) and any(run.action is RunAction.CREATE for run in runs):
        spec = cut_out(situation.newest, selected_tasks(request, situation.newest))
        made = _Work(spec, dict.fromkeys(spec.tasks, 1))
    kept: dict[tuple[str | None, tuple[tuple[str, int], ...]], _Work] = {}  # runs that are alike share what they need
    for run in runs:
        if run.action is RunAction.CREATE:
            yield made
        elif run.action is not RunAction.SKIP:
            spec = specs[run.run_id] if run.version != situation.newest.version else situation.newest
            counts = Counter(task.task_id for task in run.tasks if task.to_state == TaskState.NONE)
            if not run.tasks and run.task_count:
                counts = Counter(spec.tasks.keys())
            alike = (run.version, tuple(counts.items()))
            yield kept.setdefault(alike, _Work(spec, counts))


# How long it takes


def _seconds(works: Sequence[_Work], durations: Mapping[str, float], at_once: int, situation: Situation) -> float:
    chains = {id(work): _longest_chain(work, durations) for work, _ in _alike(works)}
    busy = _busy(works, durations)
    total = sum(seconds for _, seconds in busy.values())
    bounds = [
        _in_turn([chains[id(work)] for work in works], at_once),
        _one_after_another(works, durations),
        total / max(situation.newest.max_active_tasks, 1),
        *(
            slots / situation.pools[pool][0]
            for pool, (slots, _) in busy.items()
            if situation.pools.get(pool, (0, 0))[0]
        ),
    ]
    if situation.parallelism:
        bounds.append(total / situation.parallelism)
    return max(bounds)


def _longest_chain(work: _Work, durations: Mapping[str, float]) -> float:
    """Seconds of the longest way through the tasks of a run. Instances of a mapped task run beside one another."""
    ends: dict[str, float] = {}
    for task_id, task in work.spec.tasks.items():
        before = max((ends[upstream] for upstream in task.upstream), default=0.0)
        ends[task_id] = before + (durations[task_id] if task_id in work.instances else 0.0)
    return max(ends.values(), default=0.0)


def _in_turn(lengths: Sequence[float], at_once: int) -> float:
    """When the last of some runs ends, of which each starts as soon as fewer than so many are under way."""
    ends: list[float] = []
    for length in lengths:
        start = heapq.heappop(ends) if len(ends) >= at_once else 0.0
        heapq.heappush(ends, start + length)
    return max(ends, default=0.0)


def _one_after_another(works: Sequence[_Work], durations: Mapping[str, float]) -> float:
    """Seconds that the instances of a task take that wait for one another from run to run."""
    waits: Counter[str] = Counter()
    for work in works:
        for task_id in work.instances if work.spec.looks_back else ():
            task = work.spec.tasks[task_id]
            if task.depends_on_past or task.wait_for_downstream:
                waits[task_id] += 1
    return max((count * durations[task_id] for task_id, count in waits.items()), default=0.0)


# What it asks of pools


def _busy(works: Collection[_Work], durations: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """For each pool the seconds times slots, and the seconds, that the task instances take."""
    found: dict[str, tuple[float, float]] = {}
    for work, times in _alike(works):
        for task_id, count in work.instances.items():
            task, seconds = work.spec.tasks[task_id], durations[task_id] * count * times
            slots, plain = found.get(task.pool, (0.0, 0.0))
            found[task.pool] = (slots + seconds * task.pool_slots, plain + seconds)
    return found


def _pools(works: Collection[_Work], durations: Mapping[str, float] | None, situation: Situation) -> Iterable[PoolUse]:
    counts: Counter[str] = Counter()
    for work, times in _alike(works):
        for task_id, count in work.instances.items():
            counts[work.spec.tasks[task_id].pool] += count * times
    busy = None if durations is None else _busy(works, durations)
    for name in sorted(counts):
        slots, used = situation.pools.get(name, (0, 0))
        yield PoolUse(name, slots, used, counts[name], None if busy is None else round(busy[name][0], 3))


def _alike(works: Collection[_Work]) -> Iterable[tuple[_Work, int]]:
    """Each of the works that are different objects, and how often it stands there."""
    times = Counter(id(work) for work in works)
    return [(work, times[key]) for key, work in {id(work): work for work in works}.items()]

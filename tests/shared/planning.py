"""What the tests of plans share: runs as they stand, in a line each, by chance too, and what becomes of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from yarrow.language.spec import DagSpec
from yarrow.plans.plan import RunAction, RunChange, TaskAction
from yarrow.plans.situation import RunFacts, Situation, TaskFacts
from yarrow.states import RunState, TaskState

DAY = timedelta(days=1)
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 2, 1, tzinfo=UTC)


def fact(task_id: str, state: TaskState, map_index: int = -1, **fields: Any) -> TaskFacts:
    ran = state is not TaskState.NONE
    fields = {"attempt_id": f"{task_id}{map_index}#1" if ran else None, "try_number": int(ran), **fields}
    return TaskFacts(0, task_id, map_index, state, **fields)


def facts(spec: DagSpec, *given: TaskFacts, state: RunState = RunState.FAILED, day: int = 0, **states: Any) -> RunFacts:
    """A run: `a=SUCCESS`, or a list for the instances of a mapped task; the others are in the state `none`."""
    rows: list[TaskFacts] = []
    for task_id in spec.tasks:
        own = [one for one in given if one.task_id == task_id]
        found = states.get(task_id.replace(".", "__"), TaskState.NONE)
        if isinstance(found, list):
            own += [fact(task_id, one, index) for index, one in enumerate(found)]
        rows += own or [fact(task_id, found)]
    rows += [one for one in given if one.task_id not in spec.tasks]
    return RunFacts(
        id=day + 1,
        run_id=f"r{day}",
        run_type="scheduled",
        state=state,
        logical_date=FIRST + day * DAY,
        data_interval_start=FIRST + day * DAY,
        data_interval_end=FIRST + (day + 1) * DAY,
        spec=spec,
        version=spec.version,
        tasks=tuple(rows),
    )


def situation(*runs: RunFacts, newest: DagSpec | None = None, **fields: Any) -> Situation:
    fields = {"is_paused": False, "is_active": True, **fields}
    return Situation(now=NOW, dag_id="d", created_at=FIRST, newest=newest or runs[-1].spec, runs=runs, **fields)


def by_chance(spec: DagSpec, rng: random.Random, day: int = 0) -> RunFacts:
    """A run of a DAG whose task instances are in any states."""
    rows: list[TaskFacts] = []
    states = rng.sample(list(TaskState), rng.randint(1, len(TaskState)))
    for task_id, task in spec.tasks.items():
        several = range(rng.randint(1, 3)) if task.mapped and rng.random() < 0.6 else (-1,)
        for index in several:
            state = rng.choice(states)
            if state is TaskState.REMOVED and index <= 0:
                state = TaskState.NONE
            to = rng.choice([None, TaskState.NONE, TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED])
            stopping_to = to if state is TaskState.RUNNING else None
            has_xcom = state is TaskState.SUCCESS and rng.random() < 0.5
            rows.append(fact(task_id, state, index, stopping_to=stopping_to, has_xcom=has_xcom))
    return replace(facts(spec, state=rng.choice(list(RunState)), day=day), tasks=tuple(rows))


def carried_out(run: RunFacts, change: RunChange, newest: DagSpec | None = None) -> RunFacts:
    """A run after all of a plan has been done to it, except that what runs has not stopped yet."""
    if change.action is RunAction.SKIP:
        return run
    rows = {(one.task_id, one.map_index): one for one in run.tasks}
    for task in change.tasks:
        key, to_state = (task.task_id, task.map_index), TaskState(task.to_state)
        if task.action is TaskAction.ADD:
            assert key not in rows
            rows[key] = fact(task.task_id, to_state)
            continue
        one = rows.pop(key)
        if one.state is TaskState.RUNNING:
            one = replace(one, stopping_to=to_state)
        else:
            one = replace(one, state=to_state, has_xcom=one.has_xcom and not task.loses_xcom, stopping_to=None)
        if task.action is TaskAction.COLLAPSE and to_state is TaskState.NONE:
            one = replace(one, map_index=-1)
        assert (one.task_id, one.map_index) not in rows
        rows[one.task_id, one.map_index] = one
    spec = newest if newest is not None and change.version == newest.version else run.spec
    assert change.to_state is not None
    return replace(run, state=RunState(change.to_state), spec=spec, version=spec.version, tasks=tuple(rows.values()))


def words(changes: Sequence[Any]) -> list[str]:
    """Changes of task instances in a line each: "a clear", "m[1] collapse to removed"."""
    found = []
    for one in changes:
        name = one.task_id if one.map_index < 0 else f"{one.task_id}[{one.map_index}]"
        marked = one.to_state != TaskState.NONE and one.action is not TaskAction.REMOVE
        found.append(f"{name} {one.action}{f' to {one.to_state}' if marked else ''}")
    return found

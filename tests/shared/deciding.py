"""What the tests of `decide` share: DAGs and states in a line each, and what was decided as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from yarrow.decide import Decisions, RunView, TaskView, decide
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.mapping import Instance
from yarrow.states import RunState, TaskState

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RUN = RunView(
    dag_id="d",
    run_id="r",
    state=RunState.RUNNING,
    logical_date=datetime(2026, 1, 1, tzinfo=UTC),
    data_interval_start=datetime(2026, 1, 1, tzinfo=UTC),
    data_interval_end=NOW,
    params={"limit": 5},
)
N, S, F, K, U = TaskState.NONE, TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED, TaskState.UPSTREAM_FAILED
SCHEDULED, QUEUED, RUNNING = TaskState.SCHEDULED, TaskState.QUEUED, TaskState.RUNNING
REMOVED = TaskState.REMOVED


def task(task_id: str, *upstream: str, operator: str = "python", **fields: Any) -> TaskSpec:
    return TaskSpec(
        task_id=task_id, operator=operator, arguments=fields.pop("arguments", {}), upstream=upstream, **fields
    )


def dag(*tasks: TaskSpec, **fields: Any) -> DagSpec:
    return DagSpec(dag_id="d", tasks={item.task_id: item for item in tasks}, **fields)


def view(task_id: str, state: TaskState = N, **fields: Any) -> TaskView:
    return TaskView(task_id, state, **fields)


def views(
    spec: DagSpec, *given: TaskView, **states: TaskState | TaskView | list[TaskState]
) -> dict[Instance, TaskView]:
    """The task instances of a run. A list of states is that of the instances of a mapped task."""
    found: dict[Instance, TaskView] = {}
    for task_id in spec.tasks:
        state = states.get(task_id.replace(".", "__"), N)
        several = {one.map_index: one for one in given if one.task_id == task_id}
        if several:
            found |= {(task_id, index): one for index, one in several.items()}
        elif isinstance(state, list):
            found |= {
                (task_id, index): view(task_id, one, map_index=index, map_value={"x": index})
                for index, one in enumerate(state)
            }
        else:
            found[task_id, -1] = state if isinstance(state, TaskView) else view(task_id, state)
    return found


def decided(
    spec: DagSpec,
    xcoms: Mapping[Any, Any] | None = None,
    *given: TaskView,
    **states: TaskState | TaskView | list[TaskState],
) -> Decisions:
    """What is decided about a run. The key of an XCom is a task id, or that with a map index."""
    found = {name if isinstance(name, tuple) else (name, -1): value for name, value in (xcoms or {}).items()}
    return decide(spec, RUN, views(spec, *given, **states).values(), NOW, found)


def moves(decisions: Decisions) -> dict[Any, TaskState]:
    """Where each instance goes: by its task id, with the map index if it is mapped. None goes twice."""
    found: dict[Any, TaskState] = {}
    for decision in decisions.tasks:
        name = decision.task_id if decision.map_index < 0 else (decision.task_id, decision.map_index)
        assert name not in found, f"{name} moves twice"
        found[name] = decision.to_state
    return found


def reasons(decisions: Decisions) -> dict[Any, str | None]:
    return {one.task_id if one.map_index < 0 else (one.task_id, one.map_index): one.reason for one in decisions.tasks}


def applied(before: Mapping[Instance, TaskView], decisions: Decisions) -> dict[Instance, TaskView]:
    """The instances after all of it was carried out, as the store does that."""
    after = dict(before)
    for expansion in decisions.expansions:
        first = after.pop((expansion.task_id, -1))
        assert first.state is N
        for index, value in enumerate(expansion.values):
            after[expansion.task_id, index] = replace(first, map_index=index, map_value=value)
    for decision in decisions.tasks:
        one = after[decision.task_id, decision.map_index]
        assert one.state is decision.from_state
        if one.state is RUNNING:
            after[decision.task_id, decision.map_index] = replace(one, stopping=True)
            continue
        due_at = None if decision.question is None else decision.question.due_at
        after[decision.task_id, decision.map_index] = replace(
            one, state=decision.to_state, follow=decision.follow, wait_until=due_at
        )
    return after

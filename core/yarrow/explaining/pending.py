"""The states of a run as they are when the scheduler comes to a task instance: with all that it decides before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from yarrow.decision.decisions import Decisions, TaskDecision, TaskView
from yarrow.decision.run_end import DEADLOCK
from yarrow.decision.standing import Standing
from yarrow.language.spec import DagSpec
from yarrow.mapping import Instance
from yarrow.states import TaskState


def standing_at(spec: DagSpec, views: Iterable[TaskView], decisions: Decisions, instance: Instance) -> Standing:
    """The states in which it is decided on an instance, or would be if nothing is decided on it.

    Args:
        views: Every task instance of the run.
        decisions: What `decide` makes of them.
    """
    states = {(view.task_id, view.map_index): view for view in views}
    for expansion in decisions.expansions:
        if (expansion.task_id, -1) != instance:
            first = states.pop((expansion.task_id, -1))
            for index, value in enumerate(expansion.values):
                states[expansion.task_id, index] = replace(first, map_index=index, map_value=value)
    for decision in decisions.tasks:
        place = (decision.task_id, decision.map_index)
        if place == instance or decision.reason == DEADLOCK:
            break
        if decision.from_state is not TaskState.RUNNING and place in states:
            states[place] = replace(states[place], state=decision.to_state, follow=decision.follow)
    return Standing(spec, states.values())


def complete(spec: DagSpec, views: Sequence[TaskView]) -> Sequence[TaskView]:
    """With those that are missing because their run has not started: they have not started either."""
    present = {view.task_id for view in views}
    missing = [TaskView(task_id, TaskState.NONE) for task_id in spec.tasks if task_id not in present]
    return [*views, *missing] if missing else views


def decision_on(decisions: Decisions, instance: Instance) -> TaskDecision | None:
    """What is decided on an instance; None: nothing, or that it becomes several."""
    return next((one for one in decisions.tasks if (one.task_id, one.map_index) == instance), None)

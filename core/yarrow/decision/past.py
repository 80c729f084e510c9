"""Says what a task with `depends_on_past` or `wait_for_downstream` still waits for in the run before."""

from __future__ import annotations

from collections.abc import Sequence

from yarrow.decision.decisions import PastView
from yarrow.language.spec import TaskSpec
from yarrow.states import TaskState

_GOOD_ENOUGH = (TaskState.SUCCESS, TaskState.SKIPPED)


def unmet(task: TaskSpec, downstream: Sequence[str], past: PastView | None) -> str | None:
    """Returns a sentence about what the task waits for; None: nothing.

    Args:
        task: The task.
        downstream: The tasks directly downstream of it.
        past: The run before; None: there is none.
    """
    if past is None or not (task.depends_on_past or task.wait_for_downstream):
        return None
    for task_id in (task.task_id, *(downstream if task.wait_for_downstream else ())):
        for state in past.tasks.get(task_id, ()):  # a task that the run did not have holds nothing up
            if state not in _GOOD_ENOUGH:
                return f"`{task_id}` of the run before, {past.run_id}, has not succeeded: it is {_words(state)}"
    return None


def _words(state: TaskState) -> str:
    return "waiting" if state is TaskState.NONE else str(state)

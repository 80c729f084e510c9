"""Finds what a task instance waits for among those before it: the ones directly upstream, and the one at the root."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from yarrow.decision.standing import Standing
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.mapping import Instance
from yarrow.states import TaskState

_HOLDS_UP_MOST = (
    TaskState.NONE,  # though all is done that it waits for: it waits for the run before, or for the scheduler
    TaskState.AWAITING_INPUT,
    TaskState.UP_FOR_RETRY,
    TaskState.SCHEDULED,
    TaskState.QUEUED,
    TaskState.UP_FOR_RESCHEDULE,
    TaskState.RUNNING,
)


def awaited_by(spec: DagSpec, task: TaskSpec, map_index: int) -> Iterable[str]:
    """The tasks whose end an instance waits for."""
    if map_index < 0 and task.map_group is not None:
        return task.expand_xcoms
    if task.trigger_rule == "always":
        return ()
    return dict.fromkeys((*task.upstream, *spec.required_setups.get(task.task_id, ())))


def unfinished(spec: DagSpec, standing: Standing, task: TaskSpec, map_index: int) -> Iterator[Instance]:
    """Of each task that an instance waits for the instance that holds it up most."""
    for task_id in awaited_by(spec, task, map_index):
        for state in _HOLDS_UP_MOST:
            if first := standing.first_seen(task_id, task, map_index, (state,)):
                yield first
                break


def blocker(spec: DagSpec, standing: Standing, instance: Instance) -> Instance | None:
    """The instance at the root of what another one waits for: unfinished, and waiting for none itself.

    Of several it is the one that holds things up most; None: there is none.
    """
    roots: list[Instance] = []
    seen = {instance}
    waiting = [instance]
    while waiting:
        one = waiting.pop()
        before = []
        if standing.state(*one) is TaskState.NONE:
            before = list(unfinished(spec, standing, spec.tasks[one[0]], one[1]))
        if not before and one != instance:
            roots.append(one)
        for other in reversed(before):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return min(roots, key=lambda root: _HOLDS_UP_MOST.index(standing.state(*root)), default=None)

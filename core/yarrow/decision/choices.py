"""Works out which tasks are skipped by what a branch, a short circuit or a person chose."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from yarrow import approvals
from yarrow.decision.standing import Standing
from yarrow.language.spec import DagSpec
from yarrow.mapping import Instance
from yarrow.states import TaskState


def unwanted_instances(
    spec: DagSpec, standing: Standing, task_id: str, map_index: int, follow: Collection[str]
) -> tuple[Sequence[Instance], str]:
    """Returns the instances that an instance of a task skips by what it chose, and why. See `unwanted`."""
    children, reason = unwanted(spec, task_id, follow, standing.waits)
    found: list[Instance] = []
    for child in children:
        instances = standing.instances(child)
        indexes = (map_index,) if map_index in instances else tuple(instances)
        found += [(child, index) for index in indexes if instances[index] is TaskState.NONE]
    return found, reason


def unwanted(
    spec: DagSpec, task_id: str, follow: Collection[str], waits: Callable[[str], bool]
) -> tuple[Sequence[str], str]:
    """Returns the tasks that are to be skipped, in the order in which they are reached, and why.

    A branch skips the tasks directly downstream of it that it did not choose, but not those that come after one that
    it chose as well. Whatever else chooses skips all that comes after it, or nothing. Teardowns are never skipped. In
    a mapped group an instance chooses for its own index, and what is outside the group goes by its trigger rule.

    Args:
        task_id: The task that chose.
        follow: The directly downstream tasks that it chose.
        waits: Whether a task has not started, so that it can still be skipped.
    """
    task = spec.tasks[task_id]
    if task.operator in ("short_circuit", approvals.OPERATOR):
        rejected = task.operator == approvals.OPERATOR
        reason = f"`{task_id}` was rejected" if rejected else f"`{task_id}` cut off what comes after it"
        found: Iterable[str] = () if follow else _beyond(spec, _after(spec, task_id, task.map_group), task.map_group)
    else:
        reason = f"branch `{task_id}` did not choose it"
        found = _not_chosen(spec, task_id, frozenset(follow), waits)
    return [child for child in found if not spec.tasks[child].teardown and waits(child)], reason


def _not_chosen(spec: DagSpec, task_id: str, follow: Collection[str], waits: Callable[[str], bool]) -> Iterable[str]:
    group_id = spec.tasks[task_id].map_group
    children = _after(spec, task_id, group_id)
    others = [child for child in children if child not in follow and waits(child)]
    if not others:
        return ()
    reached = _beyond(spec, [child for child in children if child in follow], group_id)
    return [child for child in others if child not in reached]


def _beyond(spec: DagSpec, task_ids: Iterable[str], group_id: str | None) -> Collection[str]:
    """The tasks and all that is downstream of them within the group, in the order in which they are reached."""
    found = dict.fromkeys(task_ids)
    waiting = list(found)
    while waiting:
        for child in _after(spec, waiting.pop(), group_id):
            if child not in found:
                found[child] = None
                waiting.append(child)
    return found


def _after(spec: DagSpec, task_id: str, group_id: str | None) -> Sequence[str]:
    """The tasks directly downstream of one, within the group if there is one."""
    children = spec.downstream[task_id]
    if group_id is None:
        return children
    return [child for child in children if spec.tasks[child].map_group == group_id]

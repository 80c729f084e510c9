"""Works out what clearing some tasks does to the task instances of one run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from yarrow.language.spec import DagSpec
from yarrow.plans.closure import SELECTED, closed
from yarrow.plans.plan import TaskAction, TaskChange
from yarrow.plans.scope import instances
from yarrow.plans.situation import RunFacts, TaskFacts
from yarrow.states import TaskState

NEW = "new in the newest version"
REMAPPED = "mapped in another way in the newest version"
GONE = "not in the newest version"


def changes_of(
    run: RunFacts,
    selected: Collection[str],
    *,
    only: Callable[[TaskFacts], bool] | None = None,
    latest: DagSpec | None = None,
) -> list[TaskChange]:
    """What clearing some tasks of a run does to its task instances, in the order of the tasks and by map index.

    The setups and teardowns that they need are cleared as well. A mapped task becomes one instance again when what it
    is mapped over is cleared together with it.

    Args:
        selected: Task ids; a mapping of them tells why each is selected.
        only: Of the selected tasks only these task instances. What goes along with them is cleared as a whole.
        latest: The version that the run gets; None: it keeps its own.
    """
    if latest is not None and latest.version == run.version:
        latest = None
    whys = selected if isinstance(selected, Mapping) else dict.fromkeys(selected, SELECTED)
    return _Clearing(run, whys, only or (lambda one: True), latest).changes()


class _Clearing:
    """One run while it is worked out what is cleared in it."""

    def __init__(
        self, run: RunFacts, whys: Mapping[str, str], only: Callable[[TaskFacts], bool], latest: DagSpec | None
    ) -> None:
        self._run = run
        self._spec = latest or run.spec
        self._latest = latest
        self._only = only
        self._rows = instances(run)
        self._asked = {task_id: whys[task_id] for task_id in self._spec.tasks if task_id in whys}
        self._collapsed: set[str] = set()
        self._whys = self._close()

    def changes(self) -> list[TaskChange]:
        found = [change for task_id in self._spec.tasks for change in self._changes_of(task_id)]
        gone = [task_id for task_id in self._run.spec.tasks if task_id not in self._spec.tasks]
        for task_id in gone:
            found += [change_of(one, TaskAction.REMOVE, TaskState.REMOVED, GONE) for one in self._rows.get(task_id, ())]
        return found

    # Which tasks.

    def _close(self) -> dict[str, str]:
        """The tasks of which something is cleared, each with why."""
        whys = {task_id: why for task_id, why in self._asked.items() if self._is_touched(task_id)}
        if self._latest is not None:
            for task_id in self._spec.tasks if self._run.tasks else ():
                if task_id not in self._rows:
                    whys[task_id] = NEW
                elif self._is_remapped(task_id):
                    whys.setdefault(task_id, REMAPPED)
        while True:
            whys = closed(self._spec, whys)
            expanded = [task_id for task_id in self._spec.tasks if self._is_expanded(task_id)]
            anew = [one for one in expanded if one not in self._collapsed and self._maps_anew(one, whys)]
            if not anew:
                return whys
            for task_id in anew:
                self._collapse(task_id, whys)

    def _is_touched(self, task_id: str) -> bool:
        """Whether clearing it changes any of its instances."""
        return any(self._only(one) and not _is_cleared(one) for one in self._rows.get(task_id, ()))

    def _is_remapped(self, task_id: str) -> bool:
        """Whether the version that the run gets can't do with the instances that the task has."""
        old, new = self._run.spec.tasks.get(task_id), self._spec.tasks[task_id]
        if old is None or (old.mapped, old.map_group) == (new.mapped, new.map_group):
            return False
        return self._is_expanded(task_id) or not all(_is_cleared(one) for one in self._rows[task_id])

    def _is_expanded(self, task_id: str) -> bool:
        return any(one.map_index >= 0 for one in self._rows.get(task_id, ()))

    def _maps_anew(self, task_id: str, whys: Mapping[str, str]) -> bool:
        """Whether a task that has several instances gets others, because what it is mapped over changes.

        It does when it is cleared, and also when nothing of it has run: its instances are of no use then.
        """
        task, old = self._spec.tasks[task_id], self._run.spec.tasks.get(task_id)
        changes = old is None or (old.expand, old.map_group) != (task.expand, task.map_group)
        cleared = [source for source in task.expand_xcoms if source in whys]
        if task_id in whys or (task_id in self._asked and any(self._only(one) for one in self._rows[task_id])):
            return changes or bool(cleared) or not all(self._has_ended(source) for source in task.expand_xcoms)
        group = self._spec.map_groups[task.map_group] if task.map_group is not None else (task_id,)
        unused = all(_is_cleared(one) for member in group for one in self._rows.get(member, ()))
        return unused and (changes or bool(cleared))

    def _has_ended(self, task_id: str) -> bool:
        return all(one.state.finished for one in self._rows.get(task_id, ()))

    def _collapse(self, task_id: str, whys: dict[str, str]) -> None:
        """A mapped group becomes one again as a whole."""
        group = self._spec.tasks[task_id].map_group
        self._collapsed.add(task_id)
        whys.setdefault(task_id, self._asked.get(task_id, SELECTED))
        if group is not None:
            for member in self._spec.map_groups[group]:
                self._collapsed.add(member)
                whys.setdefault(member, f"in the mapped group {group}")

    # Which of their instances.

    def _changes_of(self, task_id: str) -> list[TaskChange]:
        rows = self._rows.get(task_id)
        if not rows:
            return self._new(task_id)
        if task_id not in self._whys:
            return []
        why = self._whys[task_id]
        if task_id in self._collapsed and rows[0].map_index >= 0:
            first, *others = rows
            return [
                change_of(first, TaskAction.COLLAPSE, TaskState.NONE, why),
                *(change_of(one, TaskAction.COLLAPSE, TaskState.REMOVED, why) for one in others),
            ]
        whole = self._asked.get(task_id) != why
        cleared = (one for one in rows if not _is_cleared(one) and (whole or self._only(one)))
        return [change_of(one, _clearing(one), TaskState.NONE, why) for one in cleared]

    def _new(self, task_id: str) -> list[TaskChange]:
        """A task of which the run has no instance, or has left it behind with an earlier version."""
        if self._latest is None or not self._run.tasks:
            return []
        left = [one for one in self._run.tasks if one.task_id == task_id]
        if left:
            first = min(left, key=lambda one: one.map_index)
            action = TaskAction.COLLAPSE if first.map_index >= 0 else _clearing(first)
            return [change_of(first, action, TaskState.NONE, NEW)]
        return [TaskChange(task_id, -1, TaskAction.ADD, TaskState.NONE.value, TaskState.NONE.value, NEW)]


def _clearing(one: TaskFacts) -> TaskAction:
    return TaskAction.STOP_AND_CLEAR if one.state is TaskState.RUNNING else TaskAction.CLEAR


def _is_cleared(one: TaskFacts) -> bool:
    """Whether it has not run since it was made or cleared, or is about to be so."""
    return one.state is TaskState.NONE or (one.state is TaskState.RUNNING and one.stopping_to == TaskState.NONE)


def change_of(one: TaskFacts, action: TaskAction, to_state: TaskState, why: str) -> TaskChange:
    """A change of a task instance as it stands."""
    return TaskChange(
        task_id=one.task_id,
        map_index=one.map_index,
        action=action,
        from_state=one.state.value,
        to_state=to_state.value,
        why=why,
        try_number=one.try_number,
        attempt_id=one.attempt_id,
        loses_xcom=one.has_xcom and to_state is not TaskState.SUCCESS,
    )

"""What differs between two versions of a DAG: its tasks, its settings, its params and its schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from yarrow.differences.changes import Change, changes
from yarrow.differences.renames import renames
from yarrow.differences.schedule_diff import SCHEDULE_FIELDS, ScheduleDiff, schedule_diff
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.schedules.upcoming import Progress

_PATHS: Final = {"arguments": "with", "expand_order": "expand (order)"}
_FOLLOWING: Final = {"xcoms": "arguments", "when_xcoms": "when", "expand_xcoms": "expand"}
"""Fields that say what follows from another one: they are told only when that one is the same."""
_APART: Final = ("dag_id", "tasks", "params", "groups", *SCHEDULE_FIELDS)


@dataclass(frozen=True, slots=True)
class TaskDiff:
    """What differs about one task."""

    task_id: str  # of a removed one in the old version, else in the new one
    kind: str  # added, removed, renamed or changed
    operator: str
    was: str | None = None  # of a renamed one its id in the old version
    upstream_added: Sequence[str] = ()  # as the new version calls them
    upstream_removed: Sequence[str] = ()  # as the old version calls them
    changes: Sequence[Change] = ()  # of one that is in both versions

    @property
    def rewired(self) -> bool:
        """Whether a task of both versions comes after other tasks than before."""
        return self.kind in ("renamed", "changed") and bool(self.upstream_added or self.upstream_removed)

    def to_json(self) -> dict[str, Any]:
        """`{task_id, kind, was, operator, upstream_added, upstream_removed, changes}`."""
        return {
            "task_id": self.task_id,
            "kind": self.kind,
            "was": self.was,
            "operator": self.operator,
            "upstream_added": list(self.upstream_added),
            "upstream_removed": list(self.upstream_removed),
            "changes": [change.to_json() for change in self.changes],
        }


@dataclass(frozen=True, slots=True)
class PartDiff:
    """What differs about a param or a task group."""

    name: str
    kind: str  # added, removed or changed
    changes: Sequence[Change] = ()  # of a param, in its JSON Schema; of a group, its `doc_md`

    def to_json(self) -> dict[str, Any]:
        """`{name, kind, changes}`."""
        return {"name": self.name, "kind": self.kind, "changes": [change.to_json() for change in self.changes]}


@dataclass(frozen=True, slots=True)
class DagDiff:
    """What differs between two versions of a DAG. It is empty exactly when they are the same version."""

    old: DagSpec
    new: DagSpec
    tasks: Sequence[TaskDiff] = ()  # in the order of the new version, those that went at the end
    settings: Sequence[Change] = ()  # of the DAG itself
    params: Sequence[PartDiff] = ()
    groups: Sequence[PartDiff] = ()
    schedule: ScheduleDiff | None = None

    @property
    def empty(self) -> bool:
        """Whether there is no difference of meaning."""
        return not (self.tasks or self.settings or self.params or self.groups or self.schedule)

    def to_json(self) -> dict[str, Any]:
        """Plain data with stable keys.

        `same` (bool), `tasks` (as `TaskDiff.to_json`), `settings` (changes of the DAG's own keys, as
        `Change.to_json`), `params` and `groups` (as `PartDiff.to_json`), `schedule` (as `ScheduleDiff.to_json`, or
        null when nothing about it differs). Durations are seconds, moments ISO 8601 in UTC.
        """
        return {
            "same": self.empty,
            "tasks": [task.to_json() for task in self.tasks],
            "settings": [change.to_json() for change in self.settings],
            "params": [part.to_json() for part in self.params],
            "groups": [part.to_json() for part in self.groups],
            "schedule": self.schedule.to_json() if self.schedule else None,
        }


def dag_diff(old: DagSpec, new: DagSpec, now: datetime, progress: Progress | None = None) -> DagDiff:
    """Returns what differs from `old` to `new`.

    Args:
        now: From when on fire times are compared.
        progress: How far the runs of the DAG have come, where that is known: it tells what a change of the schedule
            does to the next run.
    """
    before, after = old.canonical(), new.canonical()
    return DagDiff(
        old,
        new,
        tuple(_task_diffs(old, new, before["tasks"], after["tasks"])),
        tuple(_setting_changes(old, new, before, after)),
        tuple(_part_diffs(before.get("params", {}), after.get("params", {}))),
        tuple(_part_diffs(_docs(before), _docs(after))),
        schedule_diff(old, new, now, progress),
    )


def _docs(canonical: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Group id -> what is said of the group."""
    return {name: {"doc_md": doc} if doc is not None else {} for name, doc in canonical.get("groups", {}).items()}


def _task_diffs(old: DagSpec, new: DagSpec, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[TaskDiff]:
    renamed = renames(before, after)
    was = {new_id: old_id for old_id, new_id in renamed.items()}
    for task in new.tasks.values():
        task_id = task.task_id
        old_id = task_id if task_id in old.tasks else was.get(task_id)
        if old_id is None:
            yield TaskDiff(task_id, "added", task.operator, upstream_added=_sorted(task.upstream))
            continue
        found = TaskDiff(
            task_id,
            "renamed" if task_id in was else "changed",
            task.operator,
            was.get(task_id),
            _sorted(name for name in task.upstream if was.get(name, name) not in old.tasks[old_id].upstream),
            _sorted(name for name in old.tasks[old_id].upstream if renamed.get(name, name) not in task.upstream),
            tuple(_task_changes(before[old_id], after[task_id], old.tasks[old_id], task)),
        )
        if found.was or found.rewired or found.changes:
            yield found
    for task_id, task in old.tasks.items():
        if task_id not in new.tasks and task_id not in renamed:
            yield TaskDiff(task_id, "removed", task.operator, upstream_removed=_sorted(task.upstream))


def _task_changes(
    before: Mapping[str, Any], after: Mapping[str, Any], old: TaskSpec, new: TaskSpec
) -> Iterator[Change]:
    differing = {name for name in {*before, *after} if list(changes("", *_values(name, before, after, old, new)))}
    for name in _TASK_FIELDS:
        if name in differing and _FOLLOWING.get(name) not in differing:
            yield from changes(_PATHS.get(name, name), *_values(name, before, after, old, new))


def _values(
    name: str, before: Mapping[str, Any], after: Mapping[str, Any], old: TaskSpec | DagSpec, new: TaskSpec | DagSpec
) -> tuple[Any, Any]:
    """A field on both sides, at its default where the canonical form leaves it out."""
    return before.get(name, getattr(old, name, None)), after.get(name, getattr(new, name, None))


def _setting_changes(
    old: DagSpec, new: DagSpec, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Change]:
    yield from changes("dag_id", old.dag_id, new.dag_id)
    for name in _DAG_FIELDS:
        yield from changes(name, *_values(name, before, after, old, new))


def _part_diffs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[PartDiff]:
    for name in [*after, *(name for name in before if name not in after)]:
        if name not in before:
            yield PartDiff(name, "added", tuple(changes("", {}, after[name])))
        elif name not in after:
            yield PartDiff(name, "removed", tuple(changes("", before[name], {})))
        elif found := tuple(changes("", before[name], after[name])):
            yield PartDiff(name, "changed", found)


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


_TASK_FIELDS: Final = (
    *(one.name for one in dataclasses.fields(TaskSpec) if one.name not in ("task_id", "upstream")),
    "expand_order",
)
_DAG_FIELDS: Final = tuple(one.name for one in dataclasses.fields(DagSpec) if one.name not in _APART)

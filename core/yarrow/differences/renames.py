"""Finds the tasks that have the same definition under another id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from yarrow.differences.values import json_text

_DERIVED: Final = ("upstream", "xcoms", "when_xcoms", "expand_xcoms", "map_group")
"""What follows from the ids of other tasks and of groups; it is told apart."""

Task = Mapping[str, Any]


def renames(old: Mapping[str, Task], new: Mapping[str, Task]) -> dict[str, str]:
    """Returns old id -> new id of the tasks that were renamed.

    A task was renamed when one task went and one came with the same operator, arguments and settings. Where several
    have the same, it is those that come after the same tasks. Tasks that were renamed themselves count as the same,
    before a task as well as in its templates.

    Args:
        old, new: Tasks by id in topological order, each in its canonical form.
    """
    gone = {task_id: task for task_id, task in old.items() if task_id not in new}
    come = {task_id: task for task_id, task in new.items() if task_id not in old}
    before, after = _marks(gone), _marks(come)
    found: dict[str, str] = {}
    for place in (1, 0):  # at first those that also come after the same tasks
        one = _unique({task_id: mark[place] for task_id, mark in before.items() if task_id not in found})
        taken = set(found.values())
        other = _unique({task_id: mark[place] for task_id, mark in after.items() if task_id not in taken})
        found |= {old_id: other[mark] for mark, old_id in one.items() if mark in other}
    return found


def _unique(marks: Mapping[str, str]) -> dict[str, str]:
    """Mark -> task id, of the marks that a single task has."""
    found: dict[str, list[str]] = {}
    for task_id, mark in marks.items():
        found.setdefault(mark, []).append(task_id)
    return {mark: task_ids[0] for mark, task_ids in found.items() if len(task_ids) == 1}


def _marks(tasks: Mapping[str, Task]) -> dict[str, tuple[str, str]]:
    """For each task a mark of its definition, and one of its definition and all that is before it.

    Among these tasks a mark stands in place of an id, so that ids do not matter.
    """
    found: dict[str, tuple[str, str]] = {}
    for task_id, task in tasks.items():
        upstream = task.get("upstream", ())
        definition = json_text({key: value for key, value in task.items() if key not in _DERIVED})
        names = {name: found[name][0] for name in upstream if name in found}
        own = _hash(_with_names(definition, names))
        before = sorted(found[name][1] if name in found else f"task {name}" for name in upstream)
        found[task_id] = own, _hash(f"{own} {json_text(before)}")
    return found


def _with_names(text: str, names: Mapping[str, str]) -> str:
    """JSON text with a mark in place of an id wherever it names the XCom of a task: `xcom.load`, `xcom['load-2']`."""
    return _reference(names).sub(lambda found: f"xcom {names[found[1] or found[2]]}", text) if names else text


def _reference(task_ids: Collection[str]) -> re.Pattern[str]:
    one = "|".join(re.escape(task_id) for task_id in sorted(task_ids, key=len, reverse=True))
    quote = r"(?:'|\\\")"
    return re.compile(rf"xcom\.({one})(?![\w-])|xcom\[{quote}({one}){quote}\]")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

"""Finds the tasks that have the same definition under another id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from yarrow.differences.values import json_text

_DERIVED: Final = ("upstream", "xcoms", "when_xcoms", "expand_xcoms", "map_group")
"""What follows from the ids of other tasks and of groups; it is told apart."""

_MADE_UP: Final = "\0"
"""Stands before a name for both ids of a task in what is compared; no id has it."""

Task = Mapping[str, Any]


def renames(old: Mapping[str, Task], new: Mapping[str, Task]) -> dict[str, str]:
    """Returns old id -> new id of the tasks that were renamed.

    A task was renamed when one task went and one came with the same operator, arguments and settings; where several
    have the same, those that come after the same tasks. The names of renamed tasks in templates count as the same.

    Args:
        old, new: Tasks by id, in their canonical form.
    """
    found: dict[str, str] = {}
    gone = [task_id for task_id in old if task_id not in new]
    come = [task_id for task_id in new if task_id not in old]
    while gone and come:
        pairs = _pairs(gone, come, old, new, found, with_upstream=True)
        pairs = pairs or _pairs(gone, come, old, new, found, with_upstream=False)
        if not pairs:
            break
        found |= pairs
        gone = [task_id for task_id in gone if task_id not in pairs]
        come = [task_id for task_id in come if task_id not in pairs.values()]
    return found


def _pairs(
    gone: Iterable[str],
    come: Iterable[str],
    old: Mapping[str, Task],
    new: Mapping[str, Task],
    found: Mapping[str, str],
    *,
    with_upstream: bool,
) -> dict[str, str]:
    """The tasks that are the only ones with their definition on both sides."""
    marks = {new_id: f"{_MADE_UP}{new_id}" for new_id in found.values()}
    before = _by_definition(gone, old, {old_id: marks[new_id] for old_id, new_id in found.items()}, with_upstream)
    after = _by_definition(come, new, marks, with_upstream)
    return {
        ids[0]: after[text][0]
        for text, ids in before.items()
        if len(ids) == 1 and text in after and len(after[text]) == 1
    }


def _by_definition(
    task_ids: Iterable[str], tasks: Mapping[str, Task], names: Mapping[str, str], with_upstream: bool
) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for task_id in task_ids:
        definition = {key: value for key, value in tasks[task_id].items() if key not in _DERIVED}
        text = _with_names(json_text(definition), names)
        if with_upstream:
            text += json_text(sorted(names.get(name, name) for name in tasks[task_id].get("upstream", ())))
        found.setdefault(text, []).append(task_id)
    return found


def _with_names(text: str, names: Mapping[str, str]) -> str:
    """The text with other ids wherever it names the XCom of a task: `xcom.load`, `xcom['load-2']`."""
    for old in sorted(names, key=len, reverse=True):
        name = re.escape(old)
        pattern = rf"xcom\.{name}(?![\w-])|xcom\[(?:'|\\\"){name}(?:'|\\\")\]"
        text = re.sub(pattern, lambda _, put=names[old]: f"xcom {put}", text)  # type: ignore[misc]
    return text

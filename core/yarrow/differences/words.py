"""Says differences in words: a phrase for all of them, and values as people write them in a DAG file."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from yarrow.differences.changes import Change
from yarrow.differences.dag_diff import DagDiff, PartDiff, TaskDiff
from yarrow.differences.schedule_diff import Fire
from yarrow.differences.values import json_text
from yarrow.language.durations import format_duration
from yarrow.timetable import Interval

SAME: Final = "no semantic change"

_LONGEST_VALUE: Final = 70
"""Characters of a value that is told on one line."""
_MOST_LINES: Final = 60
"""Lines of one change of a long text."""

_DURATIONS: Final = frozenset(
    {
        "retry_delay",
        "max_retry_delay",
        "execution_timeout",
        "dagrun_timeout",
        "deadline.after",
        "cache.ttl",
        "schedule.every",
    }
)
_SETS: Final = frozenset(
    {
        *("tags", "outlets", "retry_on", "no_retry_on", "on_success", "on_failure", "on_retry", "on_deadline"),
        *("variables", "connections", "xcoms", "when_xcoms", "expand_xcoms", "schedule.datasets"),
    }
)
_NAMES: Final = {
    "variables": "variables named",
    "connections": "connections named",
    "xcoms": "XComs read",
    "when_xcoms": "XComs read by `when`",
    "expand_xcoms": "XComs read by `expand`",
    "map_group": "mapped group",
}
_PLAIN: Final = re.compile(r"[A-Za-z0-9_@][\w.:/@+-]*", re.ASCII)
_WORDS: Final = frozenset({"true", "false", "null", "none"})


def summary(diff: DagDiff) -> str:
    """All of it in a phrase: `2 tasks added, 1 rewired, schedule moved`."""
    counts = Counter(task.kind for task in diff.tasks if task.kind != "changed")
    counts["rewired"] = sum(task.rewired for task in diff.tasks)
    counts["changed"] = sum(bool(task.changes) for task in diff.tasks)
    parts: list[str] = []
    for kind in ("added", "removed", "renamed", "rewired", "changed"):
        if number := counts[kind]:
            noun = "" if parts else " task" if number == 1 else " tasks"
            parts.append(f"{number:,}{noun} {kind}")
    if diff.params:
        parts.append(f"{_some('param', [part.name for part in diff.params])} changed")
    if diff.groups:
        parts.append(f"{_some('group', [part.name for part in diff.groups])} changed")
    if diff.settings:
        parts.append(f"{_some('setting', _keys(diff.settings))} changed")
    if diff.schedule is not None:
        parts.append("schedule moved" if diff.schedule.moved else f"{', '.join(_keys(diff.schedule.changes))} changed")
    return ", ".join(parts) or SAME


def _some(noun: str, names: Sequence[str]) -> str:
    listed = ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2:,} more"
    return f"{noun}{'s' * (len(names) > 1)} {listed}"


def _keys(changes: Sequence[Change]) -> list[str]:
    """The keys of the DAG that changed, without what is within them."""
    return list(dict.fromkeys(re.split(r"[.\[]", change.path)[0] for change in changes))


def code(text: str) -> str:
    """The text as a code span of Markdown, whatever backticks it has; plain enough to be read as it is."""
    runs = [len(run) for run in re.findall("`+", text)]
    ticks = "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    blank = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{ticks}{blank}{text}{blank}{ticks}"


def name_of(path: str) -> str:
    """What to call a path."""
    return _NAMES.get(path) or _escaped(path)


def value_text(path: str, value: Any) -> str:
    """A value on one line, as a person would write it in a DAG file: `5m`, `[a, b]`, `"0 6 * * *"`."""
    if value is None:
        return "none"
    if path in _DURATIONS and isinstance(value, int | float) and value >= 0:
        return format_duration(value)
    if path in ("deadline", "cache", "schedule") and isinstance(value, dict):
        inside = (f"{key}: {value_text(f'{path}.{key}', item)}" for key, item in value.items() if item is not None)
        return f"{{{', '.join(inside)}}}"
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS and not _is_number(value)
        return value if plain else _escaped(json.dumps(value, ensure_ascii=False))
    if isinstance(value, list | tuple):
        return f"[{', '.join(value_text('', item) for item in value)}]"
    if isinstance(value, dict):
        entries = (f"{value_text('', key)}: {value_text('', item)}" for key, item in value.items())
        return f"{{{', '.join(entries)}}}"
    return json_text(value)


def members(change: Change) -> tuple[list[str], list[str]] | None:
    """What came to a list whose order means nothing, and what went; None when it is no such list."""
    if change.path not in _SETS:
        return None
    old, new = (list(value) if isinstance(value, list | tuple) else [] for value in (change.old, change.new))
    come = [value_text("", item) for item in new if item not in old]
    return come, [value_text("", item) for item in old if item not in new]


def is_long(change: Change) -> bool:
    """Whether a change is better told line by line."""
    return any(
        value is not None and ("\n" in str(value) or len(value_text(change.path, value)) > _LONGEST_VALUE)
        for value in (change.old, change.new)
    )


def line_diff(change: Change) -> list[str]:
    """A change line by line, each with `+`, `-` or a blank before it, or `@@ ...` between the places."""
    old, new = _lines(change, "old", "added"), _lines(change, "new", "removed")
    if old[-1:] == new[-1:] == [""]:  # both end with a line break
        old, new = old[:-1], new[:-1]
    found = [_escaped(line) for line in list(difflib.unified_diff(old, new, n=1, lineterm=""))[2:]]
    if len(found) > _MOST_LINES:
        return [*found[: _MOST_LINES - 1], f"@@ {len(found) - _MOST_LINES + 1:,} more lines @@"]
    return found


def task_names(diffs: Sequence[TaskDiff]) -> Iterator[list[TaskDiff]]:
    """The tasks in groups of those that changed in the same way, so that one setting of many is told once."""
    groups: dict[str, list[TaskDiff]] = {}
    for task in diffs:
        alike = task.kind == "changed" and not task.rewired
        key = json_text([change.to_json() for change in task.changes]) if alike else f"task {task.kind} {task.task_id}"
        groups.setdefault(key, []).append(task)
    yield from groups.values()


def part_words(part: PartDiff) -> str:
    """What a param that came or went is: `integer, default 10`."""
    values = {change.path: change.new if part.kind == "added" else change.old for change in part.changes}
    kind = values.get("type")
    words = [value_text("", kind)] if kind is not None else []
    if "default" in values:
        words.append(f"default {value_text('', values['default'])}")
    return ", ".join(words)


def fire_words(fire: Fire) -> str:
    """What the run covers that starts at a moment, and what it covered before."""
    words = _interval_words(fire.new or fire.old)
    if fire.kind == "changed":
        words += f", before {_interval_words(fire.old).removeprefix('covers ')}"
    return words


def moment(instant: datetime) -> str:
    """A moment in UTC, with seconds only when there are any."""
    utc = instant.astimezone(UTC)
    return utc.strftime("%Y-%m-%d %H:%M:%S" if utc.second else "%Y-%m-%d %H:%M")


def _interval_words(interval: Interval | None) -> str:
    if interval is None or interval.data_interval_start == interval.data_interval_end:
        return "covers no time"
    start, end = interval.data_interval_start, interval.data_interval_end
    return f"covers {moment(start)} to {moment(end)} ({format_duration((end - start).total_seconds())})"


def _lines(change: Change, side: str, absent: str) -> list[str]:
    value = getattr(change, side)
    if change.kind == absent or value is None:
        return []
    if isinstance(value, str):
        return value.split("\n")
    return json.dumps(value, indent=2, ensure_ascii=False).splitlines()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _escaped(text: str) -> str:
    """The text with escapes in place of what does not print: it must not draw on a terminal."""
    return "".join(one if one.isprintable() or one == "\t" else json.dumps(one)[1:-1] for one in text)

"""A comparison as Markdown, as GitHub shows it: for the description of a change, or a comment on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from yarrow.differences import words
from yarrow.differences.changes import Change
from yarrow.differences.dag_diff import PartDiff, TaskDiff
from yarrow.differences.report import Report, Side
from yarrow.differences.schedule_diff import ScheduleDiff
from yarrow.differences.words import code

_FIRES = {"added": "starts now", "removed": "does not start any more", "changed": "covers another time", "same": "same"}


def as_markdown(report: Report) -> str:
    """The comparison as Markdown, that ends with a line break. Values can't break out of their code spans."""
    diff = report.diff
    blocks = [
        [f"## `{report.new.spec.dag_id}`: {words.summary(diff)}"],
        [f"{_side(report.old)} → {_side(report.new)}"],
        *_section("Tasks", (line for alike in words.task_names(diff.tasks) for line in _task(alike))),
        *_section("Params", (line for part in diff.params for line in _part(part))),
        *_section("Groups", (line for part in diff.groups for line in _part(part))),
        *_section("Settings", _table_of_changes(diff.settings)),
        *(_schedule(diff.schedule, report) if diff.schedule is not None else ()),
        *_section("In this deployment", (f"- {line}" for line in (report.impact.sentences if report.impact else ()))),
        *_section("Notes", (f"- {note}" for note in report.notes)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _side(side: Side) -> str:
    return f"{code(side.name)} ({code(side.spec.version[:12])})"


def _section(heading: str, lines: Iterable[str]) -> Iterator[list[str]]:
    found = list(lines)
    if found:
        yield [f"### {heading}"]
        yield found


def _task(alike: Sequence[TaskDiff]) -> Iterator[str]:
    task = alike[0]
    names = ", ".join(code(one.task_id) for one in alike)
    if task.kind in ("added", "removed"):
        before = [*task.upstream_added, *task.upstream_removed]
        after = f", {'was ' if task.kind == 'removed' else ''}after {_codes(before)}" if before else ""
        yield f"- **{task.kind}** {names} ({code(task.operator)}){after}"
    elif task.was is not None:
        yield f"- **renamed** {code(task.was)} to {names}"
    else:
        yield f"- **{'changed' if task.changes else 'rewired'}** {names}"
    if task.rewired:
        parts = [f"after {_codes(task.upstream_added)} now"] if task.upstream_added else []
        parts += [f"not after {_codes(task.upstream_removed)} any more"] if task.upstream_removed else []
        yield f"  - rewired: {', '.join(parts)}"
    yield from (f"  {line}" for line in _list_of_changes(task.changes))


def _codes(names: Sequence[str]) -> str:
    return ", ".join(code(name) for name in names)


def _part(part: PartDiff) -> Iterator[str]:
    about = words.part_words(part) if part.kind != "changed" else ""
    yield f"- **{part.kind}** {code(part.name)}{f': {code(about)}' if about else ''}"
    if part.kind == "changed":
        yield from (f"  {line}" for line in _list_of_changes(part.changes))


def _list_of_changes(changes: Iterable[Change]) -> Iterator[str]:
    for change in changes:
        name = _name(change)
        lists = words.members(change)
        if lists is None and words.is_long(change):
            yield f"- {name}:"
            yield from (f"  {line}" for line in _fenced(words.line_diff(change)))
        else:
            yield f"- {name}: {_short(change)}"


def _name(change: Change) -> str:
    name = words.name_of(change.path)
    return name if name != change.path else code(name)


def _short(change: Change) -> str:
    lists = words.members(change)
    if lists is not None:
        come, gone = lists
        return "; ".join([*([f"added {_codes(come)}"] if come else []), *([f"removed {_codes(gone)}"] if gone else [])])
    old, new = (code(words.value_text(change.path, value)) for value in (change.old, change.new))
    if change.kind == "added":
        return f"added {new}"
    return f"removed {old}" if change.kind == "removed" else f"{old} → {new}"


def _fenced(lines: Sequence[str]) -> list[str]:
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}diff", *lines, fence]


def _table_of_changes(changes: Sequence[Change]) -> Iterator[str]:
    """A table of the short changes, and below it the long ones."""
    long = [change for change in changes if words.members(change) is None and words.is_long(change)]
    short = [change for change in changes if change not in long]
    if short:
        yield "| Setting | Change |"
        yield "| --- | --- |"
        yield from (f"| {_cell(_name(change))} | {_cell(_short(change))} |" for change in short)
    if short and long:
        yield ""
    yield from _list_of_changes(long)


def _schedule(schedule: ScheduleDiff, report: Report) -> Iterator[list[str]]:
    yield from _section("Schedule", _table_of_changes(schedule.changes))
    if schedule.old_words != schedule.new_words:
        yield [f"- was: {schedule.old_words}", f"- now: {schedule.new_words}"]
    if schedule.moved:
        yield [f"Runs that start after {words.moment(report.now)} UTC:"]
        rows = (
            f"| {words.moment(fire.run_after)} | {_FIRES[fire.kind]} | {_cell(words.fire_words(fire))} |"
            for fire in schedule.fires
        )
        yield ["| Start | Change | Data interval |", "| --- | --- | --- |", *rows]
    elif schedule.fires:
        yield ["The coming runs start at the same moments and cover the same times."]
    if schedule.consequences:
        yield [f"- {sentence}" for sentence in schedule.consequences]

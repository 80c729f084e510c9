"""A comparison as plain text, in the manner of a code review: `+` came, `-` went, `~` changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from yarrow.differences import words
from yarrow.differences.changes import Change
from yarrow.differences.dag_diff import PartDiff, TaskDiff
from yarrow.differences.report import Report, Side
from yarrow.differences.schedule_diff import ScheduleDiff

_SIGNS = {"added": "+", "removed": "-", "renamed": ">", "changed": "~", "same": " "}


def as_text(report: Report) -> str:
    """The comparison as lines that end with a line break."""
    return "".join(f"{line}\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    diff = report.diff
    yield f"{_side(report.old)} -> {_side(report.new)}"
    yield f"{words.summary(diff)}"
    yield from _section("Tasks", (line for alike in words.task_names(diff.tasks) for line in _task(alike)))
    yield from _section("Params", (line for part in diff.params for line in _part(part)))
    yield from _section("Groups", (line for part in diff.groups for line in _part(part)))
    yield from _section("Settings", _changes(diff.settings, "~ "))
    if diff.schedule is not None:
        yield from _section("Schedule", _schedule(diff.schedule, report))
    if report.impact is not None:
        yield from _section("In this deployment", report.impact.sentences)
    yield from _section("Notes", report.notes)


def _side(side: Side) -> str:
    return f"{side.name} ({side.spec.version[:12]})"


def _section(heading: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield ""
        yield heading
        yield from (f"  {line}" for line in found)


def _task(alike: Sequence[TaskDiff]) -> Iterator[str]:
    task, sign = alike[0], _SIGNS[alike[0].kind]
    if len(alike) > 1:
        yield f"{sign} {len(alike)} tasks: {', '.join(one.task_id for one in alike)}"
    elif task.kind in ("added", "removed"):
        before = [*task.upstream_added, *task.upstream_removed]
        after = f", {'was ' if task.kind == 'removed' else ''}after {', '.join(before)}" if before else ""
        yield f"{sign} {task.task_id} ({task.operator}){after}"
    else:
        yield f"{sign} {task.task_id}{f', renamed from {task.was}' if task.was else ''}"
    if task.rewired:
        yield f"    after: {_came_and_went(task.upstream_added, task.upstream_removed)}"
    yield from (f"    {line}" for line in _changes(task.changes))


def _came_and_went(come: Sequence[str], gone: Sequence[str]) -> str:
    return " ".join([*(f"+{name}" for name in come), *(f"-{name}" for name in gone)])


def _changes(changes: Iterable[Change], sign: str = "") -> Iterator[str]:
    for change in changes:
        name = f"{sign}{words.name_of(change.path)}"
        lists = words.members(change)
        if lists is not None:
            yield f"{name}: {_came_and_went(*lists)}"
        elif words.is_long(change):
            yield f"{name}:"
            yield from (f"    {line}" for line in words.line_diff(change))
        else:
            yield f"{name}: {_values(change)}"


def _values(change: Change) -> str:
    old, new = (words.value_text(change.path, value) for value in (change.old, change.new))
    if change.kind == "added":
        return f"+ {new}"
    return f"- {old}" if change.kind == "removed" else f"{old} -> {new}"


def _part(part: PartDiff) -> Iterator[str]:
    about = words.part_words(part) if part.kind != "changed" else ""
    yield f"{_SIGNS[part.kind]} {part.name}{f' ({about})' if about else ''}"
    if part.kind == "changed":
        yield from (f"    {line}" for line in _changes(part.changes))


def _schedule(schedule: ScheduleDiff, report: Report) -> Iterator[str]:
    yield from _changes(schedule.changes, "~ ")
    if schedule.old_words != schedule.new_words:
        yield f"was: {schedule.old_words}"
        yield f"now: {schedule.new_words}"
    if schedule.moved:
        yield f"runs that start after {words.moment(report.now)} (UTC):"
        for fire in schedule.fires:
            yield f"  {_SIGNS[fire.kind]} {words.moment(fire.run_after)}  {words.fire_words(fire)}"
    elif schedule.fires:
        yield "The coming runs start at the same moments and cover the same times."
    yield from schedule.consequences

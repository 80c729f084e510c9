"""Proves the schedule of a DAG: its zone, its cron expression, its dates, and what it means for params and catchup."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any

from yarrow.language import codes
from yarrow.language.drafts import DagDraft
from yarrow.language.faults import Fault
from yarrow.language.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yarrow.language.spec import ScheduleSpec
from yarrow.schedules.cron import is_continuous, is_once, parse_cron
from yarrow.schedules.zones import load_zone
from yarrow.timetable import check_schedule, has_moments


@dataclass(frozen=True, slots=True)
class Timing:
    """When a DAG runs."""

    schedule: ScheduleSpec | None
    timezone: str
    start_date: datetime | None  # aware, UTC
    end_date: datetime | None


def prove_timing(draft: DagDraft, faults: list[Fault]) -> Timing:
    """Returns when a DAG runs; what can't be followed is a fault."""
    entries, values = draft.node.entries, draft.values
    timezone: str = values.get("timezone", "UTC")
    zone: tzinfo = UTC
    try:
        zone = load_zone(timezone)
    except ValueError as error:
        faults.append(entries["timezone"].fault(codes.UNKNOWN_TIMEZONE, str(error)))
    # With a zone that is not there, the rest of the schedule is looked at in UTC.
    schedule = _schedule(draft, "UTC" if zone is UTC else timezone)
    if schedule is not None and (problem := _problem(schedule)) is not None:
        faults.append(_schedule_place(entries["schedule"]).fault(codes.BAD_SCHEDULE, problem))
    start = _date(draft, "start_date", zone, faults)
    end = _date(draft, "end_date", zone, faults)
    if start is not None and end is not None and end <= start:
        message = f"`end_date` ({values['end_date']}) is not after `start_date` ({values['start_date']})."
        faults.append(entries["end_date"].fault(codes.END_BEFORE_START, message, "`end_date` is exclusive."))
    _check_fit(draft, schedule, faults)
    return Timing(schedule, timezone, start, end)


def _schedule(draft: DagDraft, timezone: str) -> ScheduleSpec | None:
    value: Any = draft.values.get("schedule")
    if value is None:
        return None
    given = {"cron": value} if isinstance(value, str | list) else dict(value)
    for name in ("cron", "datasets"):
        if isinstance(given.get(name), list):
            given[name] = tuple(dict.fromkeys(given[name]))
    if isinstance(given.get("cron"), tuple) and len(given["cron"]) == 1:
        given["cron"] = given["cron"][0]
    return ScheduleSpec(timezone=timezone, **given, **draft.values.get("dst", {}))


@lru_cache(maxsize=4096)
def _problem(schedule: ScheduleSpec) -> str | None:
    try:
        check_schedule(schedule)
    except ValueError as error:
        return str(error)
    return None


def _schedule_place(node: Node) -> Node:
    """The cron expression within `schedule` that can't be followed, or the whole of it."""
    if isinstance(node, MappingNode):
        node = next((node.entries[kind] for kind in ("cron", "every", "datasets") if kind in node.entries), node)
    if isinstance(node, SequenceNode):
        return next((item for item in node.items if _is_bad_cron(item)), node)
    return node


def _is_bad_cron(node: Node) -> bool:
    if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
        return False
    try:
        parse_cron(node.value)
    except ValueError:
        return True
    return False


def _date(draft: DagDraft, name: str, zone: tzinfo, faults: list[Fault]) -> datetime | None:
    text = draft.values.get(name)
    if text is None:
        return None
    date = datetime.fromisoformat(text)
    try:
        return (date if date.tzinfo is not None else date.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        faults.append(draft.node.entries[name].fault(codes.BAD_DATE, f"`{name}` is out of the range of dates."))
        return None


def _check_fit(draft: DagDraft, schedule: ScheduleSpec | None, faults: list[Fault]) -> None:
    """What fits only some schedules. Nothing is said where the schedule itself has a fault."""
    entries, values = draft.node.entries, draft.values
    if schedule is None and "schedule" in entries and "schedule" not in values:
        return
    _check_catchup(draft, schedule, faults)
    if "dst" in values and (why := _clocks_do_not_matter(schedule)) is not None:
        faults.append(entries["dst"].fault(codes.NO_EFFECT, f"`dst` has no effect: {why}.", severity="warning"))
    if schedule is not None and schedule.datasets:
        _check_datasets(draft, schedule, faults)
    # One run follows on the other, so that there is never more than one.
    if schedule is not None and is_continuous(schedule.cron) and values.setdefault("max_active_runs", 1) > 1:
        message = f"`max_active_runs` is {values['max_active_runs']}, but `@continuous` has one run at a time."
        faults.append(entries["max_active_runs"].fault(codes.BAD_SCHEDULE, message, "Write 1, or leave it out."))
    params = entries.get("params")
    if schedule is not None and isinstance(params, MappingNode):
        for name, schema in draft.params.items():
            item = params.entries[name]
            if "default" not in schema and isinstance(item, MappingNode) and "default" not in item.entries:
                message = f"The param `{name}` has no default, and a scheduled run has nobody to ask for it."
                hint = "Add `default:`, or remove the schedule."
                faults.append(params.keys[name].fault(codes.PARAM_WITHOUT_DEFAULT, message, hint))


def _check_catchup(draft: DagDraft, schedule: ScheduleSpec | None, faults: list[Fault]) -> None:
    """Whether there are missed runs to make up for, and since when."""
    entries, values = draft.node.entries, draft.values
    if "max_catchup_runs" in values and not values.get("catchup"):
        message = "`max_catchup_runs` has no effect: without `catchup: true` no missed runs are made up for."
        faults.append(entries["max_catchup_runs"].fault(codes.NO_EFFECT, message, severity="warning"))
    if not values.get("catchup"):
        return
    why = None
    if schedule is None:
        why = "without a `schedule` there are no runs to make up for"
    elif schedule.datasets:
        why = "a run comes when data sets have been published, and none of that is ever missed"
    elif is_continuous(schedule.cron):
        why = "with `@continuous` a run covers all the time since the one before"
    if why is not None:
        faults.append(entries["catchup"].fault(codes.NO_EFFECT, f"`catchup` has no effect: {why}.", severity="warning"))
    elif "start_date" not in entries:
        message = "`catchup: true` needs a `start_date`: the runs since then are made up for."
        faults.append(entries["catchup"].fault(codes.CATCHUP_WITHOUT_START, message))


def _check_datasets(draft: DagDraft, schedule: ScheduleSpec, faults: list[Fault]) -> None:
    """What does not go well with a run that data sets bring about."""
    for name in ("start_date", "end_date"):
        if name in draft.node.entries:
            message = f"`{name}` has no effect: a run comes when data sets have been published, whenever that is."
            faults.append(draft.node.entries[name].fault(codes.NO_EFFECT, message, severity="warning"))
    for task in draft.tasks.values():
        for name in task.values.get("outlets") or ():
            if name in schedule.datasets:
                message = f"The task `{task.task_id}` publishes `{name}`, for which the DAG itself waits."
                hint = "Each run may bring about the next one, without end."
                place = task.node.entries.get("outlets", task.key)
                faults.append(place.fault(codes.ADVICE, message, hint, severity="warning"))


def _clocks_do_not_matter(schedule: ScheduleSpec | None) -> str | None:
    """Why changes of clocks don't matter to a schedule; None: they do."""
    if schedule is None:
        return "there is no schedule"
    if schedule.every is not None:
        return "`every` keeps its distance through changes of clocks"
    if not has_moments(schedule) or is_once(schedule.cron):
        return "the schedule names no local times"
    return None

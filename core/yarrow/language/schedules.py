"""Proves the schedule of a DAG: its zone, its cron expression, its dates, and what it means for params and catchup."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any

from yarrow.language import codes
from yarrow.language.drafts import DagDraft
from yarrow.language.faults import Fault
from yarrow.language.nodes import MappingNode, Node
from yarrow.language.spec import ScheduleSpec
from yarrow.timetable import check_schedule
from yarrow.zones import load_zone


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
    dst = draft.values.get("dst", {})
    if value is None:
        return None
    given = {"cron": value} if isinstance(value, str) else value
    return ScheduleSpec(timezone=timezone, **given, **dst)


@lru_cache(maxsize=4096)
def _problem(schedule: ScheduleSpec) -> str | None:
    try:
        check_schedule(schedule)
    except ValueError as error:
        return str(error)
    return None


def _schedule_place(node: Node) -> Node:
    """The cron expression within `schedule`, or the whole of it."""
    if isinstance(node, MappingNode):
        return node.entries.get("cron") or node.entries.get("every") or node
    return node


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
    if values.get("catchup") and schedule is None:
        message = "`catchup` has no effect: without a `schedule` there are no runs to make up for."
        faults.append(entries["catchup"].fault(codes.NO_EFFECT, message, severity="warning"))
    elif values.get("catchup") and "start_date" not in entries:
        message = "`catchup: true` needs a `start_date`: the runs since then are made up for."
        faults.append(entries["catchup"].fault(codes.CATCHUP_WITHOUT_START, message))
    if "dst" in values and (schedule is None or schedule.every is not None):
        why = "there is no schedule" if schedule is None else "`every` keeps its distance through changes of clocks"
        faults.append(entries["dst"].fault(codes.NO_EFFECT, f"`dst` has no effect: {why}.", severity="warning"))
    params = entries.get("params")
    if schedule is not None and isinstance(params, MappingNode):
        for name, schema in draft.params.items():
            item = params.entries[name]
            if "default" not in schema and isinstance(item, MappingNode) and "default" not in item.entries:
                message = f"The param `{name}` has no default, and a scheduled run has nobody to ask for it."
                hint = "Add `default:`, or remove the schedule."
                faults.append(params.keys[name].fault(codes.PARAM_WITHOUT_DEFAULT, message, hint))

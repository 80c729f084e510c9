"""The keys of a DAG file: one declaration each, from which the loader, the JSON Schema and the reference are made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from yarrow.language import codes
from yarrow.language.containers import Field, ListOf, Record, Union
from yarrow.language.faults import Fault
from yarrow.language.nodes import MappingNode
from yarrow.language.scalars import Boolean, CronText, Date, Duration, Enum, Null, Number, Text, ZoneText
from yarrow.language.shape import INVALID, Findings, did_you_mean, note_connection, unknown_key

TRIGGER_RULES: Final = (
    "all_success",
    "all_failed",
    "all_done",
    "all_done_min_one_success",
    "all_skipped",
    "one_failed",
    "one_success",
    "one_done",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "always",
)
DAG_ID: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,249}"
TASK_ID: Final = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}"
MAX_TASK_ID: Final = 250
"""Characters of a full task id, with its groups."""
ID_RULE: Final = "has up to 250 letters, digits, `_`, `-` and `.`, and begins with none of the last two"
_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"

_NAME_RULE: Final = "has up to 100 letters, digits, `_`, `-` and `.`, and begins with none of the last two"

_IDENTIFIER: Final = Text(pattern=_NAME, rule=_NAME_RULE)
DAG_ID_TEXT: Final = Text(pattern=DAG_ID, rule=ID_RULE)
_PROSE: Final = Text(literal=True)
_COUNT: Final = Number(integer=True, minimum=1, maximum=100_000)
_SEMANTICS: Final = Field(
    Enum(("interval", "trigger")),
    default="interval",
    doc="`interval`: the run covers the time up to the next fire and starts when that has passed. `trigger`: it starts "
    "at its logical date and covers no time.",
)

SCHEDULE_CRON: Final = CronText(nonempty=True)
SCHEDULE_MAPPINGS: Final[Mapping[str, Mapping[str, Field]]] = {
    "cron": {
        "cron": Field(SCHEDULE_CRON, required=True, doc="Five fields, or a preset such as `@daily`."),
        "semantics": _SEMANTICS,
    },
    "every": {
        "every": Field(Duration(seconds=True), required=True, doc="A fixed distance such as `15m`."),
        "semantics": _SEMANTICS,
    },
}
SCHEDULE: Final = Union([Null(), SCHEDULE_CRON, *(Record(fields) for fields in SCHEDULE_MAPPINGS.values())])

DST: Final[Mapping[str, Field]] = {
    "gap": Field(
        Enum(("shift", "skip")),
        default="shift",
        doc="A local time that does not exist because clocks go forward: `shift` it by as much, or `skip` it.",
    ),
    "fold": Field(
        Enum(("first", "second", "both")),
        default="second",
        doc="A local time that comes twice because the clocks go back: run at the `first`, the `second` or `both`.",
    ),
}

DEFAULT_ARGS: Final[Mapping[str, Field]] = {
    "retries": Field(
        Number(integer=True, minimum=0, maximum=1000), default=0, doc="How often a failed task is tried again."
    ),
    "retry_delay": Field(Duration(seconds=True), default="5m", doc="The wait before another try."),
    "retry_exponential_backoff": Field(
        Number(minimum=0, maximum=100),
        default=0,
        doc="Multiplies the delay with each further try; `2` doubles it, `0` leaves it as it is.",
    ),
    "max_retry_delay": Field(Duration(seconds=True), doc="The longest wait before another try."),
    "execution_timeout": Field(
        Duration(seconds=True, positive=True), doc="How long one try may take; then it is stopped and fails."
    ),
    "queue": Field(
        Text(pattern=_NAME, rule=_NAME_RULE), default="default", doc="The queue whose workers run the task."
    ),
    "pool": Field(
        Text(pattern=_NAME, rule=_NAME_RULE), default="default_pool", doc="The pool of which the task takes a slot."
    ),
    "priority_weight": Field(
        Number(integer=True, minimum=-1_000_000, maximum=1_000_000),
        default=1,
        doc="Of several tasks that could run, the one with the highest weight goes first.",
    ),
    "owner": Field(Text(nonempty=True), doc="Who looks after the task."),
    "trigger_rule": Field(
        Enum(TRIGGER_RULES), default="all_success", doc="What the direct upstream tasks must have come to."
    ),
}
"""Keys of a task that `default_args` of the DAG or of a group may set as well."""

TASK: Final[Mapping[str, Field]] = {
    "operator": Field(Text(nonempty=True), required=True, doc="What the task does: the name of an operator."),
    "depends_on": Field(
        ListOf(Text(nonempty=True)),
        doc="Tasks and groups that come before: the id of a neighbour in the same group, or a full id. A task whose "
        "XCom a template names comes before in any case.",
    ),
    "when": Field(
        Text(nonempty=True, literal=True),
        doc="An expression without braces, such as `xcom.check.rows > 0`; when it is false the task is skipped.",
    ),
    "doc_md": Field(_PROSE, doc="Markdown shown with the task."),
    **DEFAULT_ARGS,
}
"""Keys of a task, without `with`, whose shape depends on the operator."""

GROUP: Final[Mapping[str, Field]] = {
    "depends_on": Field(ListOf(Text(nonempty=True)), doc="What comes before the first tasks of the group."),
    "doc_md": Field(_PROSE, doc="Markdown shown with the group."),
}
"""Keys of a task group, without `tasks` and `default_args`."""

DAG: Final[Mapping[str, Field]] = {
    "dag_id": Field(
        Text(pattern=DAG_ID, rule=ID_RULE), doc="The id; by default the name of the file without its suffix."
    ),
    "description": Field(_PROSE, doc="One line on what the DAG is for."),
    "owner": Field(Text(nonempty=True), doc="Who looks after the DAG."),
    "tags": Field(ListOf(Text(nonempty=True)), doc="Words to find the DAG by."),
    "doc_md": Field(_PROSE, doc="Markdown shown with the DAG."),
    "schedule": Field(
        SCHEDULE,
        doc="When runs are due: five cron fields, a preset such as `@daily`, `{cron:, semantics:}`, `{every: 15m}`, or "
        "null for runs by hand only.",
    ),
    "timezone": Field(ZoneText(nonempty=True), default="UTC", doc="The IANA time zone of the schedule and of dates."),
    "dst": Field(Record(DST), doc="What to do when clocks are changed."),
    "start_date": Field(Date(), doc="The first logical date, ISO 8601; local time without an offset."),
    "end_date": Field(Date(), doc="The bound on logical dates, exclusive."),
    "catchup": Field(Boolean(), default=False, doc="Whether runs that were missed since `start_date` are made up for."),
    "max_active_runs": Field(_COUNT, default=16, doc="How many runs of the DAG may be active at once."),
    "max_active_tasks": Field(_COUNT, default=16, doc="How many tasks of the DAG may run at once, over all its runs."),
}
"""Keys of a DAG, without `params`, `default_args` and `tasks`."""

_LATER: Final[Mapping[str, str]] = {
    "expand": "Mapping a task over a list (`expand`) is not available in this version.",
    "datasets": "Schedules on data sets (`datasets`) are not available in this version.",
    "depends_on_past": "`depends_on_past` is not available in this version.",
    "wait_for_downstream": "`wait_for_downstream` is not available in this version.",
    "pool_slots": "`pool_slots` is not available in this version: a task takes one slot.",
    "weight_rule": "`weight_rule` is not available in this version: weights are as written.",
    "on_failure_callback": "Callbacks are not available in this version.",
    "on_success_callback": "Callbacks are not available in this version.",
    "dagrun_timeout": "`dagrun_timeout` is not available in this version.",
}
"""Words of the field that Yarrow does not have yet: said in so many words, rather than "unknown"."""

_ELSEWHERE: Final[Mapping[str, str]] = {
    "dependencies": "Write `depends_on`.",
    "upstream": "Write `depends_on`.",
    "needs": "Write `depends_on`.",
    "depends": "Write `depends_on`.",
    "schedule_interval": "Write `schedule`.",
    "cron": "Write `schedule`.",
    "task_groups": "A group is a task entry with `tasks:` of its own.",
    "task_id": "The id of a task is its key under `tasks`.",
    "condition": "Write `when`.",
    "if": "Write `when`.",
    "timeout": "Write `execution_timeout`.",
    "params": "`params` belong to the DAG, not to a task.",
    "args": "Parameters of the operator belong under `with`.",
    "arguments": "Parameters of the operator belong under `with`.",
    "type": "Write `operator`.",
    "uses": "Write `operator`.",
    "name": "A DAG has a `dag_id`; the id of a task is its key under `tasks`.",
    "id": "A DAG has a `dag_id`; the id of a task is its key under `tasks`.",
    "timetable": "Write `schedule`.",
    "tz": "Write `timezone`.",
    "default": "Write `default_args`.",
    "defaults": "Write `default_args`.",
}


def check_fields(
    node: MappingNode, fields: Mapping[str, Field], found: Findings, *, also: tuple[str, ...] = (), what: str
) -> dict[str, Any]:
    """Returns the valid values of a mapping's known keys; everything else about it is a fault.

    Args:
        fields: The keys, with their shapes.
        also: Keys that the caller checks itself.
        what: What the mapping is, such as "a task", for messages.
    """
    values: dict[str, Any] = {}
    for key, item in node.entries.items():
        known = fields.get(key)
        if known is None:
            if key not in also:
                found.faults.append(stray_key(node, key, (*fields, *also), what))
            continue
        value = known.shape.check(item, found, f"`{key}`")
        if value is not INVALID:
            values[key] = value
        note_connection(key, item, found)
    return values


def stray_key(node: MappingNode, key: str, known: tuple[str, ...], what: str) -> Fault:
    """The fault of a key that does not belong here, with the best advice there is."""
    if key in _LATER:
        return node.keys[key].fault(codes.NOT_AVAILABLE, _LATER[key])
    hint = _ELSEWHERE.get(key) or did_you_mean(key, known)
    if hint is None and key in TASK:
        hint = f"It is a key of a task, not of {what}."
    if hint is None and key in DAG:
        hint = f"It is a key of the DAG, not of {what}."
    return unknown_key(node, key, known, hint)


def id_fault(node: MappingNode, key: str) -> Fault | None:
    """What is wrong with the id of a task or group."""
    if re.fullmatch(TASK_ID, key):
        return None
    hint = "Use up to 100 letters, digits, `_` and `-`."
    if "." in key:
        hint = "The dot is for tasks in groups: nest the task under a group instead."
    return node.keys[key].fault(codes.BAD_ID, f"The task id `{key[:100]}` is not allowed.", hint)

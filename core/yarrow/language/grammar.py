"""The keys of a DAG file: one declaration each, from which the loader, the JSON Schema and the reference are made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from yarrow.decision.trigger_rules import TEARDOWN_RULE, TRIGGER_RULES
from yarrow.language import codes, elsewhere
from yarrow.language.containers import Field, ListOf, Record, Union
from yarrow.language.faults import Fault
from yarrow.language.nodes import MappingNode
from yarrow.language.scalars import Boolean, CronText, Date, Duration, Enum, Null, Number, Text, ZoneText
from yarrow.language.shape import INVALID, Findings, did_you_mean, note_connection, unknown_key
from yarrow.language.task_shapes import CACHE, DATASET, DEADLINE, ERROR_KINDS, EXPANSION, TARGETS

WEIGHT_RULES: Final = ("downstream", "upstream", "absolute")
DAG_ID: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,249}"
TASK_ID: Final = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}"
MAX_TASK_ID: Final = 250
"""Characters of a full task id, with its groups."""
ID_RULE: Final = "has up to 250 letters, digits, `_`, `-` and `.`, and begins with none of the last two"
_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"

_NAME_RULE: Final = "has up to 100 letters, digits, `_`, `-` and `.`, and begins with none of the last two"

DAG_ID_TEXT: Final = Text(pattern=DAG_ID, rule=ID_RULE)
_PROSE: Final = Text(literal=True)
_COUNT: Final = Number(integer=True, minimum=1, maximum=100_000)
_SEMANTICS: Final = Field(
    Enum(("interval", "trigger")),
    default="interval",
    doc="`interval`: the run covers the time up to the next fire and starts when that has passed. `trigger`: it starts "
    "at its logical date and covers no time.",
)

_CRON: Final = CronText(nonempty=True)
_CRONS: Final = ListOf(_CRON, minimum=1)
SCHEDULE_MAPPINGS: Final[Mapping[str, Mapping[str, Field]]] = {
    "cron": {
        "cron": Field(
            Union([_CRON, _CRONS]),
            required=True,
            doc="Five fields, or a preset such as `@daily`; or a list of them, each of whose moments counts once.",
        ),
        "semantics": _SEMANTICS,
    },
    "every": {
        "every": Field(Duration(seconds=True), required=True, doc="A fixed distance such as `15m`."),
        "semantics": _SEMANTICS,
    },
    "datasets": {
        "datasets": Field(
            ListOf(DATASET, minimum=1),
            required=True,
            doc="Names of data sets: a run when tasks of other DAGs, or people, have published them.",
        ),
        "mode": Field(
            Enum(("all", "any")),
            default="all",
            doc="Whether a run needs that `all` of them have been published since the run before, or `any`.",
        ),
    },
}
SCHEDULE: Final = Union([Null(), _CRON, _CRONS, *(Record(fields) for fields in SCHEDULE_MAPPINGS.values())])

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

_NOTICES: Final = "`log`, the id of a connection, or a URL; one or a list of them."

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
    "retry_on": Field(
        ERROR_KINDS,
        doc="Only errors of these kinds are tried again: names of classes, `Timeout`, `ExitCode.99`, `HttpStatus.503`.",
    ),
    "no_retry_on": Field(ERROR_KINDS, doc="Errors of these kinds are not tried again, whatever `retry_on` says."),
    "soft_fail": Field(Boolean(), default=False, doc="Whether it ends as skipped where it would end as failed."),
    "execution_timeout": Field(
        Duration(seconds=True, positive=True), doc="How long one try may take; then it is stopped and fails."
    ),
    "queue": Field(
        Text(pattern=_NAME, rule=_NAME_RULE), default="default", doc="The queue whose workers run the task."
    ),
    "pool": Field(
        Text(pattern=_NAME, rule=_NAME_RULE), default="default_pool", doc="The pool of which the task takes a slot."
    ),
    "pool_slots": Field(_COUNT, default=1, doc="How many slots of its pool the task takes."),
    "priority_weight": Field(
        Number(integer=True, minimum=-1_000_000, maximum=1_000_000),
        default=1,
        doc="Of several tasks that could run, the one with the highest weight goes first.",
    ),
    "weight_rule": Field(
        Enum(WEIGHT_RULES),
        default="downstream",
        doc="What counts as the weight: its own with those of all tasks after it (`downstream`), with those of all "
        "before it (`upstream`), or its own alone (`absolute`).",
    ),
    "max_active_tis_per_dag": Field(
        _COUNT, doc="How many instances of the task may run at once, over all runs of the DAG."
    ),
    "max_active_tis_per_dagrun": Field(_COUNT, doc="How many instances of the task may run at once in one run."),
    "depends_on_past": Field(
        Boolean(), default=False, doc="Whether it waits until the task has succeeded or was skipped in the run before."
    ),
    "wait_for_downstream": Field(
        Boolean(),
        default=False,
        doc="Whether it waits, besides, for the tasks directly after it in the run before. Implies `depends_on_past`.",
    ),
    "max_map_length": Field(_COUNT, default=1024, doc="How many instances `expand` may give."),
    "deadline": Field(
        DEADLINE,
        doc="By when the task must have succeeded: `2h` after the logical date, or `{after: 2h, from: queued_at}`.",
    ),
    "on_success": Field(TARGETS, doc=f"Whom to tell when it has succeeded: {_NOTICES}"),
    "on_failure": Field(TARGETS, doc=f"Whom to tell when it has failed: {_NOTICES}"),
    "on_retry": Field(TARGETS, doc=f"Whom to tell when it is tried again: {_NOTICES}"),
    "on_deadline": Field(TARGETS, doc=f"Whom to tell when its deadline has passed: {_NOTICES}"),
    "owner": Field(Text(nonempty=True), doc="Who looks after the task."),
    "trigger_rule": Field(
        Enum(tuple(TRIGGER_RULES)), default="all_success", doc="What the direct upstream tasks must have come to."
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
    "expand": Field(
        EXPANSION,
        doc="Maps the task: an instance for each combination of the values, `map.name` in its templates. Each "
        "name has a list, or a template that gives one.",
    ),
    "setup": Field(Boolean(), default=False, doc="Whether it prepares what the tasks after it need."),
    "teardown": Field(
        Boolean(),
        default=False,
        doc="Whether it cleans up after the setups directly before it. It runs when tasks failed too, and the state of "
        "the run does not depend on it.",
    ),
    "on_failure_fail_dagrun": Field(
        Boolean(), default=False, doc="Of a teardown: whether the run fails when it fails."
    ),
    "outlets": Field(ListOf(DATASET), doc="The data sets that the task publishes by its success."),
    "cache": Field(
        CACHE,
        doc="Whether an earlier result with the same inputs will do: `true`, or `{ttl: 7d, key: ...}`.",
    ),
    "doc_md": Field(_PROSE, doc="Markdown shown with the task."),
    **DEFAULT_ARGS,
    "trigger_rule": Field(
        Enum((*TRIGGER_RULES, TEARDOWN_RULE)),
        default="all_success",
        doc=f"What the direct upstream tasks must have come to. `{TEARDOWN_RULE}` is that of teardowns, by default.",
    ),
}
"""Keys of a task, without `with`, whose shape depends on the operator."""

GROUP: Final[Mapping[str, Field]] = {
    "depends_on": Field(ListOf(Text(nonempty=True)), doc="What comes before the first tasks of the group."),
    "expand": Field(
        EXPANSION,
        doc="Maps the group: each of its tasks has an instance for each combination of the values, `map.name` "
        "in its templates. An instance sees those of the same index only.",
    ),
    "max_map_length": DEFAULT_ARGS["max_map_length"],
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
        doc="When runs are due: five cron fields, a preset such as `@daily`, a list of them, `{cron:, semantics:}`, "
        "`{every: 15m}`, `{datasets: [...], mode:}`, or null for runs by hand only.",
    ),
    "timezone": Field(ZoneText(nonempty=True), default="UTC", doc="The IANA time zone of the schedule and of dates."),
    "dst": Field(Record(DST), doc="What to do when clocks are changed."),
    "start_date": Field(Date(), doc="The first logical date, ISO 8601; local time without an offset."),
    "end_date": Field(Date(), doc="The bound on logical dates, exclusive."),
    "catchup": Field(Boolean(), default=False, doc="Whether runs that were missed since `start_date` are made up for."),
    "max_catchup_runs": Field(
        Number(integer=True, minimum=1, maximum=10_000),
        doc="How many missed runs are made up for at most; the oldest beyond them are left out, and recorded.",
    ),
    "max_active_runs": Field(_COUNT, default=16, doc="How many runs of the DAG may be active at once."),
    "max_active_tasks": Field(_COUNT, default=16, doc="How many tasks of the DAG may run at once, over all its runs."),
    "dagrun_timeout": Field(
        Duration(seconds=True, positive=True),
        doc="How long a run may take from its start; then its tasks are stopped or skipped, and it fails.",
    ),
    "max_consecutive_failed_dag_runs": Field(
        Number(integer=True, minimum=0, maximum=100_000),
        default=0,
        doc="After how many failed runs in a row the DAG is paused; 0: never.",
    ),
    "fail_fast": Field(
        Boolean(), default=False, doc="Whether the first failure ends the run: what runs is stopped, the rest skipped."
    ),
    "run_state": Field(
        Enum(("leaves", "all_tasks")),
        default="leaves",
        doc="What a run comes to: `leaves`: the state of its last tasks; `all_tasks`: any failed task fails it.",
    ),
    "deadline": Field(
        DEADLINE,
        doc="By when a run must have succeeded: `2h` after its logical date, or `{after: 2h, from: queued_at}`.",
    ),
    "on_success": Field(TARGETS, doc=f"Whom to tell when a run has succeeded: {_NOTICES}"),
    "on_failure": Field(TARGETS, doc=f"Whom to tell when a run has failed: {_NOTICES}"),
    "on_retry": Field(TARGETS, doc=f"Whom to tell when any of its tasks is tried again: {_NOTICES}"),
    "on_deadline": Field(
        TARGETS,
        doc="Whom to tell when the deadline of a run has passed, or of a task that names nobody itself: " + _NOTICES,
    ),
}
"""Keys of a DAG, without `params`, `default_args` and `tasks`."""


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
    hint = elsewhere.KEYS.get(key)
    if hint is None and key in TASK:
        hint = f"It is a key of a task, not of {what}."
    if hint is None and key in DAG:
        hint = f"It is a key of the DAG, not of {what}."
    hint = hint or did_you_mean(key, known)
    return unknown_key(node, key, known, hint)


def id_fault(node: MappingNode, key: str) -> Fault | None:
    """What is wrong with the id of a task or group."""
    if re.fullmatch(TASK_ID, key):
        return None
    hint = "Use up to 100 letters, digits, `_` and `-`."
    if "." in key:
        hint = "The dot is for tasks in groups: nest the task under a group instead."
    return node.keys[key].fault(codes.BAD_ID, f"The task id `{key[:100]}` is not allowed.", hint)

"""The compiled form of a DAG: frozen, plain data, and all that the rest of Yarrow ever sees of a DAG file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from yarrow.jsontypes import Json


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """When runs are due. Exactly one of `cron`, `every` and `datasets` is set."""

    cron: str | tuple[str, ...] | None = None  # five fields or a preset with @; several of them fire in turn
    every: float | None = None  # seconds
    datasets: tuple[str, ...] = ()  # a run when these were published
    mode: str = "all"  # of datasets: a run when all of them, or any of them, were published since the last one
    semantics: str = (
        "interval"  # interval: the run covers [logical_date, next) and starts when it has ended; or trigger
    )
    timezone: str = "UTC"
    gap: str = "shift"  # a local time that does not exist: shift it forward, or skip it
    fold: str = "second"  # a local time that comes twice: first, second or both

    @property
    def crons(self) -> tuple[str, ...]:
        """The cron expressions, one or several; none for another kind of schedule."""
        if self.cron is None:
            return ()
        return (self.cron,) if isinstance(self.cron, str) else self.cron


@dataclass(frozen=True, slots=True)
class DeadlineSpec:
    """By when a run or a task must have succeeded; else people are told, whether anything runs or not."""

    after: float  # seconds; may be zero
    reference: str = "logical_date"  # logical_date, data_interval_end, queued_at (of the run) or average
    # average: the mean duration of the newest successful runs of the DAG, counted from when the run was queued


AVERAGED_RUNS = 10
"""How many successful runs the average is taken of, at most."""
FEWEST_AVERAGED_RUNS = 3
"""From fewer than these no average is taken, and a deadline that counts from it is not set."""


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """Whether the result of a task may be one that an earlier run came to with the same inputs."""

    ttl: float | None = None  # seconds; None: for ever
    key: str | None = None  # a template that stands for the rendered parameters; None: the parameters themselves


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task of a DAG."""

    task_id: str  # "group.task" inside groups
    operator: str
    arguments: Mapping[str, Json]  # `with:`, templates unrendered
    upstream: tuple[str, ...] = ()  # direct upstream task ids, sorted: depends_on and every XCom that a template names
    trigger_rule: str = "all_success"
    when: str | None = None  # an expression without braces
    retries: int = 0
    retry_delay: float = 300.0  # seconds
    retry_exponential_backoff: float = 0.0  # multiplier for each further try; 0 is off
    max_retry_delay: float | None = None  # seconds
    retry_on: tuple[str, ...] = ()  # only errors of these kinds are worth another try; empty: all are
    no_retry_on: tuple[str, ...] = ()  # errors of these kinds are not
    soft_fail: bool = False  # where it would end as failed it ends as skipped
    execution_timeout: float | None = None  # seconds, for each try
    queue: str = "default"
    pool: str = "default_pool"
    pool_slots: int = 1
    priority_weight: int = 1  # as written; `DagSpec.weights` has what counts
    weight_rule: str = "downstream"  # downstream, upstream or absolute
    max_active_tis_per_dag: int | None = None
    max_active_tis_per_dagrun: int | None = None
    depends_on_past: bool = False
    wait_for_downstream: bool = False  # implies depends_on_past
    setup: bool = False
    teardown: bool = False
    on_failure_fail_dagrun: bool = False  # of a teardown: its failure counts
    expand: Mapping[str, Json] | None = None  # name -> a list, or a template that gives one; their cross product
    expand_xcoms: tuple[str, ...] = ()  # the task ids whose XCom `expand` names
    max_map_length: int = 1024
    map_group: str | None = None  # the mapped group that it is in, whose `expand` it then has
    outlets: tuple[str, ...] = ()  # the datasets that its success publishes
    cache: CacheSpec | None = None
    deadline: DeadlineSpec | None = None
    on_success: tuple[str, ...] = ()  # whom to tell: `log`, the id of a connection, or a URL
    on_failure: tuple[str, ...] = ()
    on_retry: tuple[str, ...] = ()
    on_deadline: tuple[str, ...] = ()
    owner: str | None = None
    doc_md: str | None = None
    xcoms: tuple[str, ...] = ()  # the task ids whose XCom the arguments name
    when_xcoms: tuple[str, ...] = ()  # the task ids whose XCom `when` names
    variables: tuple[str, ...] = ()  # the variables that the arguments or `when` name
    connections: tuple[str, ...] = ()  # the connections that the arguments name

    @property
    def mapped(self) -> bool:
        """Whether it becomes several task instances, itself or together with its group."""
        return self.expand is not None

    @property
    def failure_counts(self) -> bool:
        """Whether its failure is one of the run; that of a teardown is only when it says so."""
        return not self.teardown or self.on_failure_fail_dagrun


@dataclass(frozen=True)
class DagSpec:
    """One DAG. Tasks stand in a topological order that is the file's order wherever the graph allows it."""

    dag_id: str
    tasks: Mapping[str, TaskSpec]
    description: str | None = None
    owner: str | None = None
    tags: tuple[str, ...] = ()
    doc_md: str | None = None
    schedule: ScheduleSpec | None = None
    timezone: str = "UTC"
    start_date: datetime | None = None  # aware, UTC
    end_date: datetime | None = None  # aware, UTC; the bound on logical dates, exclusive
    catchup: bool = False
    max_catchup_runs: int | None = None  # older ones that were missed are left out, and that is recorded
    max_active_runs: int = 16
    max_active_tasks: int = 16
    dagrun_timeout: float | None = None  # seconds from the start of the run
    max_consecutive_failed_dag_runs: int = 0  # after so many in a row the DAG is paused; 0: never
    fail_fast: bool = False
    run_state: str = "leaves"  # leaves: the state of a run is that of its last tasks; all_tasks: any failure counts
    deadline: DeadlineSpec | None = None
    on_success: tuple[str, ...] = ()  # of a run; whom to tell: `log`, the id of a connection, or a URL
    on_failure: tuple[str, ...] = ()  # of a run
    on_retry: tuple[str, ...] = ()  # of any of its tasks
    on_deadline: tuple[str, ...] = ()  # of a run, and of its tasks that name nobody themselves
    params: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)  # name -> JSON Schema with its default
    groups: Mapping[str, str | None] = field(default_factory=dict)  # task group id -> its doc_md

    @cached_property
    def downstream(self) -> Mapping[str, tuple[str, ...]]:
        """Direct downstream task ids of each task, in the order of `tasks`."""
        found: dict[str, list[str]] = {task_id: [] for task_id in self.tasks}
        for task in self.tasks.values():
            for upstream in task.upstream:
                found[upstream].append(task.task_id)
        return {task_id: tuple(children) for task_id, children in found.items()}

    @cached_property
    def weights(self) -> Mapping[str, int]:
        """The priority weight of each task that counts, by its `weight_rule`, within 32 bits as Airflow has it.

        `downstream`: its own and those of all tasks after it; `upstream`: its own and those of all before it.
        """
        rules = {task.weight_rule for task in self.tasks.values()}
        places = {task_id: place for place, task_id in enumerate(self.tasks)}
        reached: dict[str, Mapping[str, int]] = {}
        if "upstream" in rules:
            upstream = {task_id: task.upstream for task_id, task in self.tasks.items()}
            reached["upstream"] = _all_reached(self.tasks, upstream, places)
        if "downstream" in rules:
            reached["downstream"] = _all_reached(reversed(list(self.tasks)), self.downstream, places)
        written: dict[int, int] = {}  # weight -> the tasks that have it, as bits like those of `reached`
        for task_id, task in self.tasks.items():
            written[task.priority_weight] = written.get(task.priority_weight, 0) | 1 << places[task_id]
        found = {}
        for task_id, task in self.tasks.items():
            others = reached[task.weight_rule][task_id] if task.weight_rule in reached else 0
            weight = task.priority_weight + sum(value * (bits & others).bit_count() for value, bits in written.items())
            found[task_id] = max(min(weight, _LARGEST_WEIGHT), -_LARGEST_WEIGHT)
        return found

    @cached_property
    def mapped_tasks(self) -> tuple[str, ...]:
        """The ids of the tasks that become several task instances."""
        return tuple(task_id for task_id, task in self.tasks.items() if task.mapped)

    @cached_property
    def map_groups(self) -> Mapping[str, tuple[str, ...]]:
        """The tasks of each mapped group, in the order of `tasks`."""
        found: dict[str, list[str]] = {}
        for task_id, task in self.tasks.items():
            if task.map_group is not None:
                found.setdefault(task.map_group, []).append(task_id)
        return {group_id: tuple(task_ids) for group_id, task_ids in found.items()}

    @cached_property
    def required_setups(self) -> Mapping[str, tuple[str, ...]]:
        """The setups that a task needs though they are not directly upstream of it. A task that needs none is absent.

        It needs a setup upstream of it that has no teardown, or one that comes after the task.
        """
        found: dict[str, list[str]] = {}
        upstream = {task_id: task.upstream for task_id, task in self.tasks.items()}
        for setup in [task_id for task_id, task in self.tasks.items() if task.setup]:
            children = self.downstream[setup]
            needing = _beyond(children, self.downstream)
            if teardowns := [child for child in children if self.tasks[child].teardown]:
                needing &= _beyond(teardowns, upstream)
            for task_id in needing.difference(children):
                if not self.tasks[task_id].teardown:
                    found.setdefault(task_id, []).append(setup)
        return {task_id: tuple(setups) for task_id, setups in found.items()}

    @cached_property
    def effective_leaves(self) -> tuple[str, ...]:
        """The last tasks, whose states are that of the run. A teardown whose failure does not count is as if absent."""
        counting = {task_id: task for task_id, task in self.tasks.items() if task.failure_counts}
        leaves = [task_id for task_id in counting if not any(child in counting for child in self.downstream[task_id])]
        return tuple(leaves) or tuple(task_id for task_id in self.tasks if not self.downstream[task_id])

    @cached_property
    def looks_back(self) -> bool:
        """Whether any of its tasks waits for the run before."""
        return any(task.depends_on_past or task.wait_for_downstream for task in self.tasks.values())

    @cached_property
    def has_deadline(self) -> bool:
        """Whether its runs, or any of its tasks, have a deadline."""
        return self.deadline is not None or any(task.deadline is not None for task in self.tasks.values())

    @cached_property
    def version(self) -> str:
        """The identity of the compiled graph: SHA-256, hexadecimal, of `canonical()` as JSON."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def canonical(self) -> dict[str, Any]:
        """As `to_json`, but without the orders that mean nothing: two specs with the same meaning have the same.

        The order of keys and of tasks means nothing, nor that of lists that are sets: tags, data sets, cron
        expressions, who is told. The order of lists in arguments and params does. So does that of the names in
        `expand`, and of the keys of a mapping there, which is the order of the instances.
        """
        data = self.to_json()
        for part, names in ((data, _DAG_TUPLES), (data.get("schedule", {}), ("cron", "datasets"))):
            _sort_lists(part, names)
        for task in data["tasks"].values():
            _sort_lists(task, _TUPLES)
            order = _order_of(task.get("expand") or {})
            if order != sorted(order):
                task["expand_order"] = order
        return data

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal spec. Fields at their default are left out."""
        data = _changed_fields(self, _DAG_DEFAULTS)
        data["dag_id"] = self.dag_id
        data["tasks"] = {task_id: _task_to_json(task) for task_id, task in self.tasks.items()}
        if self.schedule is not None:
            data["schedule"] = _changed_fields(self.schedule, _SCHEDULE_DEFAULTS)
        if self.deadline is not None:
            data["deadline"] = dataclasses.asdict(self.deadline)
        for name in ("start_date", "end_date"):
            if name in data:
                data[name] = data[name].isoformat()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DagSpec:
        """The inverse of `to_json`. Keys of a newer Yarrow are an error: a spec is never half understood."""
        values = dict(data)
        values["tasks"] = {task_id: _task_from_json(task_id, task) for task_id, task in data["tasks"].items()}
        if "schedule" in values:
            values["schedule"] = ScheduleSpec(**_with_tuples(values["schedule"], ("cron", "datasets")))
        if "deadline" in values:
            values["deadline"] = DeadlineSpec(**values["deadline"])
        for name in ("start_date", "end_date"):
            if name in values:
                values[name] = datetime.fromisoformat(values[name])
        return cls(**_with_tuples(values, _DAG_TUPLES))


_LARGEST_WEIGHT = 2**31 - 1


def _all_reached(
    order: Iterable[str], neighbours: Mapping[str, Sequence[str]], places: Mapping[str, int]
) -> Mapping[str, int]:
    """For each task all that can be reached from it, as bits. Each of its neighbours stands before it in the order."""
    found: dict[str, int] = {}
    for task_id in order:
        bits = 0
        for other in neighbours[task_id]:
            bits |= found[other] | 1 << places[other]
        found[task_id] = bits
    return found


def _beyond(task_ids: Iterable[str], neighbours: Mapping[str, Sequence[str]]) -> set[str]:
    """All that can be reached from some tasks, and they themselves."""
    found = set(task_ids)
    waiting = list(found)
    while waiting:
        for other in neighbours[waiting.pop()]:
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def _sort_lists(data: dict[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if isinstance(data.get(name), list | tuple):
            data[name] = sorted(data[name])


def _order_of(expand: Mapping[str, Json]) -> list[str]:
    """The names in the order in which they count, each followed by the keys of the mapping that it is mapped over."""
    return [path for name, value in expand.items() for path in (name, *_keys_of(name, value))]


def _keys_of(name: str, value: Json) -> list[str]:
    return [f"{name}.{key}" for key in value] if isinstance(value, Mapping) else []


def _with_tuples(data: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    values = dict(data)
    for name in names:
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    return values


def _defaults(cls: type[Any], without: frozenset[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        if item.name not in without:
            found[item.name] = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return found


_TASK_DEFAULTS = _defaults(TaskSpec, frozenset({"task_id", "operator", "arguments", "cache", "deadline"}))
_SCHEDULE_DEFAULTS = _defaults(ScheduleSpec, frozenset())
_DAG_DEFAULTS = _defaults(DagSpec, frozenset({"dag_id", "tasks", "schedule", "deadline"}))
_TUPLES = tuple(name for name, default in _TASK_DEFAULTS.items() if default == ())
_DAG_TUPLES = tuple(name for name, default in _DAG_DEFAULTS.items() if default == ())


def _changed_fields(value: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, default in defaults.items():
        given = getattr(value, name)
        if given != default:
            data[name] = list(given) if type(given) is tuple else given
    return data


def _task_to_json(task: TaskSpec) -> dict[str, Any]:
    data = _changed_fields(task, _TASK_DEFAULTS)
    data["operator"] = task.operator
    if task.arguments:
        data["arguments"] = task.arguments
    for name in ("cache", "deadline"):
        if (part := getattr(task, name)) is not None:
            data[name] = dataclasses.asdict(part)
    return data


def _task_from_json(task_id: str, data: Mapping[str, Any]) -> TaskSpec:
    values = _with_tuples(data, _TUPLES)
    values.setdefault("arguments", {})
    if "cache" in values:
        values["cache"] = CacheSpec(**values["cache"])
    if "deadline" in values:
        values["deadline"] = DeadlineSpec(**values["deadline"])
    return TaskSpec(task_id=task_id, **values)

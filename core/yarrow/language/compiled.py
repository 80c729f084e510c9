"""Compiles the drafts of a DAG that has been proved into its specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from yarrow.language.drafts import DagDraft, TaskDraft
from yarrow.language.references import Named
from yarrow.language.schedules import Timing
from yarrow.language.spec import CacheSpec, DagSpec, DeadlineSpec, TaskSpec
from yarrow.language.template import without_braces

_GIVEN_APART: Final = ("operator", "depends_on", "when", "expand", "max_map_length", "cache", "deadline")
_TARGETS: Final = ("on_success", "on_failure", "on_retry", "on_deadline")
_DAG_VALUES: Final = (
    "description",
    "owner",
    "doc_md",
    "catchup",
    "max_catchup_runs",
    "max_active_runs",
    "max_active_tasks",
    "dagrun_timeout",
    "max_consecutive_failed_dag_runs",
    "fail_fast",
    "run_state",
)


def compile_dag(dag_id: str, draft: DagDraft, timing: Timing, tasks: Sequence[TaskSpec]) -> DagSpec:
    """Returns the specification of a DAG without faults; the tasks are in order."""
    values = draft.values
    given: dict[str, Any] = {name: values[name] for name in _DAG_VALUES if name in values}
    given |= {name: _several(values[name]) for name in _TARGETS if name in values}
    return DagSpec(
        dag_id=dag_id,
        tasks={task.task_id: task for task in tasks},
        tags=tuple(values.get("tags", ())),
        schedule=timing.schedule,
        timezone=timing.timezone,
        start_date=timing.start_date,
        end_date=timing.end_date,
        deadline=_deadline(values.get("deadline")),
        params=draft.params,
        groups={group.group_id: group.doc_md for group in draft.groups.values()},
        **given,
    )


def compile_task(draft: TaskDraft, named: Named, of_group: Named | None, upstream: Sequence[str]) -> TaskSpec:
    """Returns the specification of a task without faults.

    Args:
        named: What it names.
        of_group: What the `expand` of the mapped group names that it is in.
        upstream: The task ids directly upstream, sorted.
    """
    assert draft.arguments is not None
    values: dict[str, Any] = {
        name: _several(value) if name in _TARGETS or isinstance(value, list) else value
        for name, value in draft.values.items()
        if name not in _GIVEN_APART
    }
    values["depends_on_past"] = values.get("depends_on_past", False) or values.get("wait_for_downstream", False)
    when = draft.values.get("when")
    group = draft.group.mapped_by
    expand_xcoms = of_group.expand_xcoms if of_group is not None else named.expand_xcoms
    longest = draft.values.get("max_map_length") if group is None else group.max_map_length
    if draft.expand is not None and longest is not None:
        values["max_map_length"] = longest
    return TaskSpec(
        task_id=draft.task_id,
        operator=draft.operator_name,
        arguments=draft.arguments,
        upstream=tuple(upstream),
        when=None if when is None else without_braces(when),
        expand=draft.expand,
        expand_xcoms=tuple(sorted(expand_xcoms)),
        map_group=draft.map_group,
        cache=_cache(draft.values.get("cache")),
        deadline=_deadline(draft.values.get("deadline")),
        xcoms=tuple(sorted(named.xcoms)),
        when_xcoms=tuple(sorted(named.when_xcoms)),
        variables=tuple(sorted(named.variables)),
        connections=tuple(sorted(named.connections)),
        **values,
    )


def _deadline(value: Any) -> DeadlineSpec | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return DeadlineSpec(value)
    return DeadlineSpec(value["after"], value.get("from", "logical_date"))


def _cache(value: Any) -> CacheSpec | None:
    if isinstance(value, Mapping):
        return CacheSpec(value.get("ttl"), value.get("key"))
    return CacheSpec() if value else None


def _several(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))

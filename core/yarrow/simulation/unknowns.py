"""What a simulation can't know: the XComs that nobody gave, and what is taken in the place of what they decide."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from yarrow import approvals
from yarrow.jsontypes import Json
from yarrow.language.operations import Path
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.language.template import compile_expression, shorten, template_names
from yarrow.mapping import Instance


@dataclass(frozen=True, slots=True)
class Assumed:
    """A DAG in which everything that hangs on an unknown XCom is replaced by an assumption."""

    spec: DagSpec
    whens: Mapping[str, str] = field(default_factory=dict)  # task id -> what is assumed of its `when`, a sentence
    lists: Mapping[str, str] = field(default_factory=dict)  # task id -> what is assumed of its `expand`
    unknown_maps: Mapping[str, frozenset[str]] = field(default_factory=dict)  # task id -> its unknown `map` names


def assume(spec: DagSpec, unknown: Collection[str]) -> Assumed:
    """Replaces what names the XCom of one of the `unknown` tasks.

    A `when` counts as true, a list of `expand` becomes one of a single unknown value (None), and the message of a
    question is shown as it is written.
    """
    if not unknown:
        return Assumed(spec)
    tasks: dict[str, TaskSpec] = {}
    whens: dict[str, str] = {}
    lists: dict[str, str] = {}
    maps: dict[str, frozenset[str]] = {}
    for task_id, task in spec.tasks.items():
        changed = task
        unknown_lists = _unknown_lists(task, unknown)
        if unknown_lists:
            maps[task_id] = frozenset(unknown_lists)
            lists[task_id] = (
                f"`{task_id}` is taken as one task instance: its `expand` names "
                f"{xcoms_of(_named(unknown_lists.values(), unknown))}."
            )
            values: dict[str, Json] = {
                name: [None] if name in unknown_lists else value for name, value in (task.expand or {}).items()
            }
            changed = replace(changed, expand=values)
        why = None if task.when is None else _why_unknown(task.when, task.when_xcoms, unknown, maps.get(task_id, ()))
        if why is not None:
            whens[task_id] = f"`when` of `{task_id}` is taken as true: `{shorten(task.when or '')}` names {why}."
            changed = replace(changed, when=None, when_xcoms=())
        if task.operator == approvals.OPERATOR and set(task.xcoms) & set(unknown):
            changed = replace(changed, arguments=_unrendered(task.arguments), xcoms=())
        tasks[task_id] = changed
    return Assumed(replace(spec, tasks=tasks), whens, lists, maps)


def xcoms_of(task_ids: Iterable[str]) -> str:
    """ "the XCom of `a`, which was not given", for a sentence."""
    named = [f"`{task_id}`" for task_id in sorted(task_ids)]
    if len(named) == 1:
        return f"the XCom of {named[0]}, which was not given"
    return f"the XComs of {', '.join(named[:-1])} and {named[-1]}, which were not given"


def decisive_xcoms(spec: DagSpec) -> frozenset[str]:
    """The tasks whose XComs a decision hangs on: those that some `when`, `expand` or question names."""
    named: set[str] = set()
    for task in spec.tasks.values():
        named.update(task.when_xcoms, task.expand_xcoms, task.xcoms if task.operator == approvals.OPERATOR else ())
    return frozenset(named)


def unknown_map(paths: Iterable[Path], unknown: Collection[str]) -> str | None:
    """The first of some paths that names an unknown value of `map`, for a sentence; None: there is none."""
    for path in paths:
        if path[0] == "map" and unknown and (len(path) == 1 or path[1] in unknown):
            return f"`map.{path[1]}`, whose value is not known" if len(path) > 1 else "`map`, which is not known"
    return None


def given_xcoms(given: Mapping[str, Json], instances: Collection[Instance]) -> dict[Instance, Json]:
    """The given XComs by instance: of a mapped task a list is given, of which each instance has the one at its index.

    Args:
        instances: Those that succeeded.
    """
    found: dict[Instance, Json] = {}
    for task_id, index in instances:
        if task_id not in given:
            continue
        value = given[task_id]
        if index < 0:
            found[task_id, index] = value
        elif isinstance(value, list | tuple) and index < len(value):
            found[task_id, index] = value[index]
    return found


def _unrendered(arguments: Mapping[str, Json]) -> dict[str, Json]:
    """The parameters of a question as they are written; one that is a duration is left out where it is a template."""
    message = str(arguments.get("message", "")).replace("{{", "{ {")
    plain = {name: value for name, value in arguments.items() if "{{" not in str(value)}
    return {**plain, "message": message}


def _unknown_lists(task: TaskSpec, unknown: Collection[str]) -> dict[str, Json]:
    """The entries of `expand` that name an unknown XCom."""
    return {
        name: value
        for name, value in (task.expand or {}).items()
        if isinstance(value, str) and _named([value], unknown)
    }


def _named(values: Iterable[Json], task_ids: Collection[str]) -> set[str]:
    """Those of some tasks whose XComs some templates name. A task of a group has several parts in its path."""
    paths = (path for value in values for path in template_names(value) if path[0] == "xcom")
    return {".".join(path[1:end]) for path in paths for end in range(2, len(path) + 1)} & set(task_ids)


def _why_unknown(when: str, when_xcoms: Collection[str], unknown: Collection[str], maps: Collection[str]) -> str | None:
    missing = set(when_xcoms) & set(unknown)
    if missing:
        return xcoms_of(missing)
    return unknown_map(compile_expression(when).names, maps)

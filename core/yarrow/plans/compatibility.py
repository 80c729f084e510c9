"""What people should know before runs of one version of a DAG go on in another one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from yarrow.differences.values import same_json
from yarrow.differences.words import code
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.params import violations

_NAMED = 5
"""How many tasks a sentence names one by one."""


def compatibility(
    pinned: DagSpec,
    latest: DagSpec,
    params: Iterable[Mapping[str, Json]] | None = None,
    cleared: Collection[str] = (),
) -> list[str]:
    """Says in sentences what is another way for runs of `pinned` that go on in `latest`.

    Args:
        pinned: The version that the runs have.
        latest: The version that they get.
        params: The params of the runs; by default those that `pinned` gives to a run that is given none.
        cleared: The tasks that are known to be executed anew in all of the runs.

    Returns:
        Nothing when nothing matters to the runs: descriptions, tags, the schedule, who is told.
    """
    given = [_defaults(pinned)] if params is None else list(params)
    found = [
        *_tasks(pinned, latest),
        *_edges(pinned, latest),
        *_conditions(pinned, latest),
        *_mappings(pinned, latest),
        *_sources(pinned, latest, cleared),
        *_params(latest, given),
        *_run_state(pinned, latest),
    ]
    return list(dict.fromkeys(found))


def _defaults(spec: DagSpec) -> dict[str, Json]:
    return {name: schema["default"] for name, schema in spec.params.items() if "default" in schema}


def _tasks(pinned: DagSpec, latest: DagSpec) -> Iterator[str]:
    gone = [task_id for task_id in pinned.tasks if task_id not in latest.tasks]
    if gone:
        verb, state = ("is", "it becomes") if len(gone) == 1 else ("are", "they become")
        yield f"{_listed(gone)} {verb} not in it any more: {state} `removed`, with the history kept."
    new = [task_id for task_id in latest.tasks if task_id not in pinned.tasks]
    if new:
        verb = "is new in it: it runs" if len(new) == 1 else "are new in it: they run"
        yield f"{_listed(new)} {verb} too, selected or not."
    changed = [task.task_id for task in _common(pinned, latest) if _does_otherwise(pinned, task)]
    if changed:
        verb = "does" if len(changed) == 1 else "do"
        yield f"{_listed(changed)} {verb} something else in it: the operator or its arguments changed."


def _edges(pinned: DagSpec, latest: DagSpec) -> Iterator[str]:
    for task in _common(pinned, latest):
        before = pinned.tasks[task.task_id]
        come = [name for name in task.upstream if name not in before.upstream]
        gone = [name for name in before.upstream if name not in task.upstream]
        if come:
            yield f"`{task.task_id}` comes after {_listed(come)} in it{', not' if gone else ''}{_after(gone)}."
        elif gone:
            yield f"`{task.task_id}` does not come{_after(gone)} in it any more."


def _after(names: Sequence[str]) -> str:
    return f" after {_listed(names)}" if names else ""


def _conditions(pinned: DagSpec, latest: DagSpec) -> Iterator[str]:
    for task in _common(pinned, latest):
        before = pinned.tasks[task.task_id]
        if task.trigger_rule != before.trigger_rule:
            yield (
                f"The trigger rule of `{task.task_id}` is `{task.trigger_rule}` in it, and was `{before.trigger_rule}`."
            )
        if task.when != before.when:
            condition = f"another condition in it: {code(task.when)}" if task.when else "no condition in it any more"
            yield f"`{task.task_id}` has {condition}."
        for role in ("setup", "teardown"):
            if getattr(task, role) != getattr(before, role):
                news = f"is a {role} in it, and was none" if getattr(task, role) else f"is no {role} in it any more"
                yield f"`{task.task_id}` {news}."


def _run_state(pinned: DagSpec, latest: DagSpec) -> Iterator[str]:
    if pinned.run_state != latest.run_state:
        yield f"The state of the run is found in another way in it: `run_state` is `{latest.run_state}`."
    if pinned.fail_fast != latest.fail_fast:
        news = "ends the run in it: `fail_fast` is on" if latest.fail_fast else "does not end the run in it any more"
        yield f"The first failure {news}."


def _mappings(pinned: DagSpec, latest: DagSpec) -> Iterator[str]:
    for task in _common(pinned, latest):
        before = pinned.tasks[task.task_id]
        if same_mapping(before, task):
            continue
        if not before.mapped:
            yield f"`{task.task_id}` is mapped in it: it becomes several task instances."
        elif not task.mapped:
            yield f"`{task.task_id}` is not mapped in it any more: its instances become one."
        else:
            yield f"`{task.task_id}` is mapped over something else in it: its instances are made anew."


def _sources(pinned: DagSpec, latest: DagSpec, cleared: Collection[str]) -> Iterator[str]:
    """Readers of XComs that may get one of a task that would give another one now."""
    for task in latest.tasks.values():
        changed = [
            name
            for name in dict.fromkeys((*task.expand_xcoms, *task.when_xcoms, *task.xcoms))
            if name in pinned.tasks and name not in cleared and _gives_otherwise(pinned.tasks[name], latest.tasks[name])
        ]
        if changed:
            which = "that is" if len(changed) == 1 else "those are"
            yield (
                f"`{task.task_id}` takes the XCom of {_listed(changed)}, which changed: unless {which} cleared too, "
                "it gets what the older version left."
            )


def _params(latest: DagSpec, given: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    for name, schema in latest.params.items():
        if any(name not in params for params in given):
            readers = [task.task_id for task in latest.tasks.values() if _names_param(task, name)]
            effect = f": {_listed(readers)} can't be rendered" if readers else "; no task names it"
            yield f"The param `{name}` is new in it, and the run has no value for it{effect}."
        for params in given:
            for problem in violations(name, params[name], schema) if name in params else ():
                yield f"A param of the run does not fit it any more: {problem}"
    strange = dict.fromkeys(name for params in given for name in params if name not in latest.params)
    if strange:
        verb = "is" if len(strange) == 1 else "are"
        yield f"{_listed(list(strange))} {verb} no param of it any more: the value stays with the run."


def _names_param(task: TaskSpec, name: str) -> bool:
    wanted = re.compile(rf"params(\.{re.escape(name)}(?![\w-])|\[['\"]{re.escape(name)}['\"]\])")
    return any(wanted.search(text) for text in _texts([task.arguments, task.when, task.expand]))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _common(pinned: DagSpec, latest: DagSpec) -> Iterator[TaskSpec]:
    """The tasks of the newer version that the older one has too."""
    return (task for task in latest.tasks.values() if task.task_id in pinned.tasks)


def _does_otherwise(pinned: DagSpec, task: TaskSpec) -> bool:
    before = pinned.tasks[task.task_id]
    return before.operator != task.operator or not same_json(before.arguments, task.arguments)


def same_mapping(before: TaskSpec, after: TaskSpec) -> bool:
    """Whether a task is mapped over the same values; the order of the names counts, as it is that of the instances."""
    one, other = (None if task.expand is None else list(task.expand.items()) for task in (before, after))
    return before.map_group == after.map_group and same_json(one, other)


def _gives_otherwise(before: TaskSpec, after: TaskSpec) -> bool:
    same = before.operator == after.operator and same_json(before.arguments, after.arguments)
    return not (same and same_mapping(before, after))


def _listed(names: Sequence[str]) -> str:
    shown = [f"`{name}`" for name in names]
    if len(shown) <= _NAMED:
        return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))
    return f"{', '.join(shown[: _NAMED - 1])} and {len(shown) - _NAMED + 1:,} more"

"""Proves what needs the whole DAG, its graph, references and schedule, and compiles it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yarrow.jsontypes import Json
from yarrow.language import codes
from yarrow.language.drafts import DagDraft, TaskDraft
from yarrow.language.faults import Fault
from yarrow.language.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yarrow.language.references import Named, References
from yarrow.language.schedules import prove_timing
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.language.template import without_braces
from yarrow.language.wiring import Wiring


@dataclass(frozen=True, slots=True)
class Known:
    """What the deployment has; None: not known, so nothing is said."""

    queues: Collection[str] | None = None
    pools: Collection[str] | None = None


def prove_dag(draft: DagDraft, dag_id: str, known: Known, faults: list[Fault]) -> DagSpec | None:
    """Returns the compiled DAG, or None when anything about it is an error."""
    references = References(draft, faults)
    named = {task.task_id: references.of(task) for task in draft.tasks.values()}
    timing = prove_timing(draft, faults)
    wiring = Wiring(draft, named, faults)
    order = wiring.wire()
    for task in draft.tasks.values():
        _check_deployment(task, known, faults)
    _ask_operators(draft, wiring, faults)
    if any(fault.severity == "error" for fault in faults):
        return None
    tasks = {
        task_id: _task_spec(draft.tasks[task_id], named[task_id], sorted(wiring.graph.upstream[task_id]))
        for task_id in order
    }
    values = draft.values
    return DagSpec(
        dag_id=dag_id,
        tasks=tasks,
        description=values.get("description"),
        owner=values.get("owner"),
        tags=tuple(values.get("tags", ())),
        doc_md=values.get("doc_md"),
        schedule=timing.schedule,
        timezone=timing.timezone,
        start_date=timing.start_date,
        end_date=timing.end_date,
        catchup=values.get("catchup", False),
        max_active_runs=values.get("max_active_runs", 16),
        max_active_tasks=values.get("max_active_tasks", 16),
        params=draft.params,
        groups={group.group_id: group.doc_md for group in draft.groups.values()},
    )


def _task_spec(draft: TaskDraft, named: Named, upstream: Sequence[str]) -> TaskSpec:
    assert draft.arguments is not None
    values = {name: value for name, value in draft.values.items() if name not in ("operator", "depends_on", "when")}
    when = draft.values.get("when")
    return TaskSpec(
        task_id=draft.task_id,
        operator=draft.operator_name,
        arguments=draft.arguments,
        upstream=tuple(upstream),
        when=None if when is None else without_braces(when),
        xcoms=tuple(sorted(named.xcoms)),
        when_xcoms=tuple(sorted(named.when_xcoms)),
        variables=tuple(sorted(named.variables)),
        connections=tuple(sorted(named.connections)),
        **values,
    )


def _check_deployment(task: TaskDraft, known: Known, faults: list[Fault]) -> None:
    for key, names, code in (
        ("queue", known.queues, codes.UNKNOWN_QUEUE),
        ("pool", known.pools, codes.UNKNOWN_POOL),
    ):
        value = task.values.get(key)
        if names is None or value is None or value in names:
            continue
        place = task.node.entries.get(key, task.key)
        message = f"The {key} `{value}` of the task `{task.task_id}` is not configured."
        hint = f"There are: {', '.join(sorted(names))}. Others go under `{key}s:` in yarrow.yaml."
        faults.append(place.fault(code, message, hint, severity="warning"))


def _ask_operators(draft: DagDraft, wiring: Wiring, faults: list[Fault]) -> None:
    """Lets each operator check its own task. The graph is only asked about, so a circle does not matter."""
    children: dict[str, list[str]] = {task_id: [] for task_id in draft.tasks}
    for task_id, upstream in wiring.graph.upstream.items():
        for parent in upstream:
            children[parent].append(task_id)
    for task in draft.tasks.values():
        if task.operator is not None and task.arguments is not None:
            faults.extend(_operator_faults(task, task.arguments, children[task.task_id]))


def _operator_faults(task: TaskDraft, arguments: Mapping[str, Json], downstream: list[str]) -> list[Fault]:
    assert task.operator is not None
    found: list[Fault] = []
    templates = {id(site.node) for site in task.sites if site.kind == "template"}
    try:
        for path, sentence in task.operator.check(arguments, downstream):
            node = _node_at(task, path)
            if id(node) not in templates:  # what a template will give is not known yet
                found.append(node.fault(codes.BAD_VALUE, sentence))
        for path, sentence in task.operator.advise(arguments):
            found.append(_node_at(task, path).fault(codes.ADVICE, sentence, severity="warning"))
    except Exception as error:  # noqa: BLE001 - a third party's check may raise anything
        if templates:
            return found  # a text where it expected a list: the worker sees the rendered value
        message = f"The operator `{task.operator_name}` can't check the task: {type(error).__name__}: {error}"
        found.append(task.key.fault(codes.BROKEN_OPERATOR, message))
    return found


def _node_at(task: TaskDraft, path: Sequence[str | int]) -> Node:
    """The node of a value within `with:`, or the nearest above it."""
    node: Any = task.node.entries.get("with", task.key)
    for step in path:
        inner: Node | None = None
        if isinstance(node, MappingNode):
            inner = node.entries.get(str(step))
        elif isinstance(node, SequenceNode) and isinstance(step, int) and 0 <= step < len(node.items):
            inner = node.items[step]
        if inner is None:
            break
        node = inner
    assert isinstance(node, Node | ScalarNode)
    return node

"""Proves what needs the whole DAG, its graph, references and schedule, and compiles it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yarrow.jsontypes import Json
from yarrow.language import codes
from yarrow.language.compiled import compile_dag, compile_task
from yarrow.language.deployment import Known, check_deadlines, check_task
from yarrow.language.drafts import DagDraft, TaskDraft
from yarrow.language.faults import Fault
from yarrow.language.mapped import check_mapping
from yarrow.language.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yarrow.language.references import References
from yarrow.language.schedules import prove_timing
from yarrow.language.settings import check_settings
from yarrow.language.spec import DagSpec
from yarrow.language.traps import find_traps
from yarrow.language.wiring import Wiring


def prove_dag(draft: DagDraft, dag_id: str, known: Known, faults: list[Fault]) -> DagSpec | None:
    """Returns the compiled DAG, or None when anything about it is an error."""
    references = References(draft, faults)
    named = {task.task_id: references.of(task) for task in draft.tasks.values()}
    by_groups = {
        group.group_id: references.of_group(group) for group in draft.groups.values() if group.expand is not None
    }
    timing = prove_timing(draft, faults)
    wiring = Wiring(draft, named, by_groups, faults)
    order = wiring.wire()
    check_settings(draft, faults)
    check_mapping(draft, wiring.graph, faults)
    for task in draft.tasks.values():
        faults.extend(check_task(task, known))
    _ask_operators(draft, wiring, faults)
    if any(fault.severity == "error" for fault in faults):
        return None
    tasks = [
        compile_task(task, named[task_id], by_groups.get(task.map_group or ""), sorted(wiring.graph.upstream[task_id]))
        for task_id in order
        for task in (draft.tasks[task_id],)
    ]
    spec = compile_dag(dag_id, draft, timing, tasks)
    faults.extend(find_traps(draft, spec, named))
    faults.extend(check_deadlines(draft, spec, known))
    return spec


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

"""Checks where tasks and groups are mapped with `expand`, and over what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from yarrow import approvals
from yarrow.language import codes
from yarrow.language.drafts import DagDraft, GroupDraft, TaskDraft
from yarrow.language.faults import Fault
from yarrow.language.graph import Graph, within
from yarrow.language.nodes import MappingNode, Node
from yarrow.mapping import count_in_words


def check_mapping(draft: DagDraft, graph: Graph, faults: list[Fault]) -> None:
    """Adds the faults of everything that is mapped where it can't be, or into too many instances or none."""
    for group in draft.groups.values():
        _check_group(group, draft, graph, faults)
    for task in draft.tasks.values():
        _check_task(task, faults)


def _check_group(group: GroupDraft, draft: DagDraft, graph: Graph, faults: list[Fault]) -> None:
    assert group.node is not None
    assert group.parent is not None
    if group.expand is None:
        if "max_map_length" in group.node.entries:
            faults.append(_no_effect(group.node.entries["max_map_length"], f"the group `{group.group_id}`"))
        return
    node = group.node.entries["expand"]
    outer = group.parent.mapped_by
    if outer is not None:
        faults.append(_nested(node, f"The group `{group.group_id}`", outer))
    _check_length(node, group.expand, group.max_map_length, f"The group `{group.group_id}`", faults)
    for task_id, upstream in graph.upstream.items():
        for parent, origin in upstream.items():
            if not within(parent, group.group_id) or within(task_id, group.group_id) or not _chooses(draft, parent):
                continue
            message = (
                f"`{task_id}` comes directly after `{parent}`, which chooses for each instance of the mapped group "
                f"`{group.group_id}`, and is not in that group."
            )
            faults.append(origin.fault(codes.BAD_MAPPING, message, "Move it into the group."))


def _chooses(draft: DagDraft, task_id: str) -> bool:
    task = draft.tasks[task_id]
    return task.control and task.operator_name != "short_circuit"


def _check_task(task: TaskDraft, faults: list[Fault]) -> None:
    expand = task.values.get("expand")
    if expand is None:
        if "max_map_length" in task.node.entries and "expand" not in task.node.entries:
            faults.append(_no_effect(task.node.entries["max_map_length"], f"the task `{task.task_id}`"))
        return
    node = task.node.entries["expand"]
    outer = task.group.mapped_by
    if outer is not None:
        faults.append(_nested(node, f"The task `{task.task_id}`", outer))
    if task.control or task.operator_name == approvals.OPERATOR:
        message = f"A task with the operator `{task.operator_name}` can't be mapped by itself."
        hint = "Map a group that it is in together with the tasks after it."
        faults.append(node.fault(codes.BAD_MAPPING, message, hint))
    _check_length(node, expand, task.values.get("max_map_length", 1024), f"The task `{task.task_id}`", faults)


def _nested(node: Node, what: str, outer: GroupDraft) -> Fault:
    message = f"{what} is in the mapped group `{outer.group_id}` and can't be mapped once more."
    hint = "Map the group over several names: they give their cross product."
    return node.fault(codes.BAD_MAPPING, message, hint)


def _no_effect(node: Node, what: str) -> Fault:
    return node.fault(codes.USELESS, f"`max_map_length` has no effect: {what} has no `expand`.", None, "warning")


def _check_length(node: Node, expand: Mapping[str, Any], longest: int, what: str, faults: list[Fault]) -> None:
    """What the lists that are written out tell of the number of instances."""
    lengths = {name: len(value) for name, value in expand.items() if not isinstance(value, str)}
    empty = next((name for name, length in lengths.items() if length == 0), None)
    if empty is not None:
        place = node.entries[empty] if isinstance(node, MappingNode) else node
        message = f"{what} is always skipped: `expand.{empty}` is empty."
        faults.append(place.fault(codes.ALWAYS_SKIPPED, message, None, "warning"))
        return
    count = math.prod(lengths.values())
    if count > longest:
        message = (
            f"{what} would have {count_in_words(count)} instances, more than `max_map_length` ({longest:,}) allows."
        )
        faults.append(node.fault(codes.BAD_MAPPING, message, "Set a higher `max_map_length`, or shorten the lists."))

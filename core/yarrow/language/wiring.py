"""Wires the tasks of a DAG: `depends_on`, groups and XCom references become one graph, and circles become faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from yarrow.language import codes
from yarrow.language.drafts import DagDraft, GroupDraft
from yarrow.language.faults import Fault
from yarrow.language.graph import Graph, Origin, arrows, edges_of, within
from yarrow.language.nodes import ScalarNode
from yarrow.language.references import Named
from yarrow.language.shape import did_you_mean

MAX_CYCLES: Final = 20
"""Circles that are named in one file."""
MAX_SEARCHES: Final = 200
"""Ways looked for in a graph with circles: enough to explain it, and never long."""

_Wish: TypeAlias = tuple[str, str, Origin]
"""A dependency in which at least one side is a group: downstream id, upstream id, the place that says so."""


class Wiring:
    """Builds the graph of one DAG."""

    def __init__(
        self,
        draft: DagDraft,
        named: Mapping[str, Named],
        named_by_groups: Mapping[str, Named],
        faults: list[Fault],
    ) -> None:
        """`named` is what the tasks name, `named_by_groups` what the `expand` of mapped groups names."""
        self.draft = draft
        self.named = named
        self.named_by_groups = named_by_groups
        self.faults = faults
        self.graph = Graph(list(draft.tasks))

    def wire(self) -> list[str]:
        """Fills the graph and returns the tasks in order; shorter when there is a circle, which is then a fault."""
        wishes: list[_Wish] = []
        for task_id, node, target in self._task_wishes():
            if target in self.draft.groups:
                wishes.append((task_id, target, Origin(node)))
            else:
                self.graph.add(task_id, target, Origin(node))
        wishes += self._group_wishes()
        wishes += self._mapping_wishes()
        self._add_references()
        # What is deeper first: the roots and leaves of a group depend on the edges within it.
        wishes.sort(key=lambda wish: -_common_depth(wish[0], wish[1]))
        for downstream, upstream, origin in wishes:
            leaves = self._ends(upstream, leaves=True)
            for task_id in self._ends(downstream, leaves=False):
                for leaf in leaves:
                    self.graph.add(task_id, leaf, origin)
        order = self.graph.order()
        if len(order) < len(self.draft.tasks):
            self._explain_cycles(set(self.draft.tasks) - set(order))
        return order

    def _task_wishes(self) -> Iterator[tuple[str, ScalarNode, str]]:
        for task in self.draft.tasks.values():
            for node in task.depends_on:
                target = self._resolve(node, task.group)
                if target is None:
                    continue
                if target == task.task_id:
                    message = f"The task `{task.task_id}` depends on itself."
                    self.faults.append(node.fault(codes.SELF_DEPENDENCY, message))
                elif target in self.draft.groups and within(task.task_id, target):
                    message = f"The task `{task.task_id}` depends on the group `{target}` that it is in."
                    self.faults.append(node.fault(codes.SELF_DEPENDENCY, message))
                else:
                    yield task.task_id, node, target

    def _group_wishes(self) -> Iterator[_Wish]:
        for group in self.draft.groups.values():
            assert group.parent is not None
            for node in group.depends_on:
                target = self._resolve(node, group.parent)
                if target is None:
                    continue
                if within(target, group.group_id) or within(group.group_id, target):
                    how = "itself" if target == group.group_id else f"`{target}`, and one of them is inside the other"
                    message = f"The group `{group.group_id}` depends on {how}."
                    self.faults.append(node.fault(codes.SELF_DEPENDENCY, message))
                else:
                    yield group.group_id, target, Origin(node)

    def _mapping_wishes(self) -> Iterator[_Wish]:
        """The first tasks of a mapped group come after those whose XCom its `expand` names."""
        for group_id, named in self.named_by_groups.items():
            for upstream, origin in named.expand_xcoms.items():
                if within(upstream, group_id):
                    message = f"`expand` of the group `{group_id}` names the XCom of `{upstream}`, which is in it."
                    self.faults.append(origin.fault(codes.NOT_UPSTREAM, message))
                else:
                    yield group_id, upstream, origin

    def _resolve(self, node: ScalarNode, scope: GroupDraft) -> str | None:
        """The full id of a task or group: a neighbour by its short id, or anything by its full id."""
        name = str(node.value)
        if name in scope.members:
            return scope.members[name]
        if name in self.draft.tasks or name in self.draft.groups:
            return name
        known = [*scope.members, *self.draft.tasks, *self.draft.groups]
        hint = did_you_mean(name, known)
        elsewhere = [full_id for full_id in known if full_id.endswith(f".{name}")]
        if elsewhere:
            hint = f"Write the full id: `{elsewhere[0]}`."
        self.faults.append(node.fault(codes.UNKNOWN_TASK, f"There is no task or group `{name[:100]}`.", hint))
        return None

    def _add_references(self) -> None:
        for task_id, named in self.named.items():
            for upstream, origin in (*named.xcoms.items(), *named.when_xcoms.items(), *named.expand_xcoms.items()):
                if upstream == task_id:
                    message = f"`xcom.{task_id}` is the task's own XCom, which does not exist before it has run."
                    self.faults.append(origin.fault(codes.NOT_UPSTREAM, message))
                else:
                    self.graph.add(task_id, upstream, origin)

    def _ends(self, name: str, *, leaves: bool) -> list[str]:
        if name in self.draft.tasks:
            return [name]
        members = [task_id for task_id in self.draft.tasks if within(task_id, name)]
        return edges_of(members, self.graph.upstream, leaves=leaves)

    def _explain_cycles(self, caught: set[str]) -> None:
        """Names templates that refer to a task further down, then every circle that is left."""
        graph = self.graph
        searches = 0
        for task_id in [name for name in graph.tasks if name in caught]:
            for upstream, origin in list(graph.upstream[task_id].items()):
                if not origin.template or upstream not in caught or searches >= MAX_SEARCHES:
                    continue
                searches += 1
                path = graph.path(upstream, task_id, without_templates=True)
                if path is not None:
                    message = f"`{task_id}` names the XCom of `{upstream}`, which runs after it: {arrows(path)}."
                    self.faults.append(origin.fault(codes.NOT_UPSTREAM, message))
                    del graph.upstream[task_id][upstream]
        for _ in range(MAX_CYCLES):
            cycle = graph.cycle()
            if cycle is None:
                return
            self._name_cycle(cycle)

    def _name_cycle(self, cycle: list[str]) -> None:
        place = {task_id: number for number, task_id in enumerate(self.graph.tasks)}
        first = min(range(len(cycle)), key=lambda index: place[cycle[index]])
        turned = cycle[first:] + cycle[:first]  # each has the next one upstream
        way = [turned[0], *reversed(turned)]
        origin = self.graph.upstream[turned[0]].pop(turned[1 % len(turned)])
        message = f"Tasks depend on each other in a circle: {_cut(way)}."
        self.faults.append(origin.fault(codes.CYCLE, message, "Remove one of these dependencies."))


def _cut(way: list[str]) -> str:
    if len(way) <= 20:
        return arrows(way)
    return f"{arrows(way[:10])} → … ({len(way) - 20} more) … → {arrows(way[-10:])}"


def _common_depth(one: str, other: str) -> int:
    depth = 0
    for left, right in zip(one.split("."), other.split("."), strict=False):
        if left != right:
            break
        depth += 1
    return depth

"""The graph of a DAG's tasks: dependencies on groups spread out, circles found and named, a stable order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from yarrow.language.faults import Fault
from yarrow.language.nodes import ScalarNode


@dataclass(slots=True)
class Graph:
    """Edges among tasks, each with the place in the file that says so, and whether a template does."""

    tasks: Sequence[str]  # in the order of the file
    upstream: dict[str, dict[str, Origin]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.upstream = {task: {} for task in self.tasks}

    def add(self, task: str, upstream: str, origin: Origin) -> None:
        before = self.upstream[task].get(upstream)
        if before is None or (before.template and not origin.template):
            self.upstream[task][upstream] = origin

    def order(self) -> list[str]:
        """A topological order, the file's wherever it can be; shorter than `tasks` when there is a circle."""
        place = {task: number for number, task in enumerate(self.tasks)}
        waiting = {task: len(found) for task, found in self.upstream.items()}
        children: dict[str, list[str]] = {task: [] for task in self.tasks}
        for task, found in self.upstream.items():
            for upstream in found:
                children[upstream].append(task)
        ready = [place[task] for task, count in waiting.items() if count == 0]
        heapq.heapify(ready)
        ordered: list[str] = []
        while ready:
            task = self.tasks[heapq.heappop(ready)]
            ordered.append(task)
            for child in children[task]:
                waiting[child] -= 1
                if waiting[child] == 0:
                    heapq.heappush(ready, place[child])
        return ordered

    def cycle(self) -> list[str] | None:
        """One circle: tasks of which each has the next one upstream, and the last one the first."""
        done: set[str] = set()
        for start in self.tasks:
            if start in done:
                continue
            path: list[str] = [start]
            on_path = {start: 0}
            walks = [iter(self.upstream[start])]
            while walks:
                upstream = next(walks[-1], None)
                if upstream is None:
                    walks.pop()
                    finished = path.pop()
                    del on_path[finished]
                    done.add(finished)
                elif upstream in on_path:
                    return path[on_path[upstream] :]
                elif upstream not in done:
                    on_path[upstream] = len(path)
                    path.append(upstream)
                    walks.append(iter(self.upstream[upstream]))
        return None

    def path(self, start: str, goal: str, *, without_templates: bool) -> list[str] | None:
        """The shortest way from a task to one of its ancestors."""
        came_from: dict[str, str] = {}
        level = [start]
        while level:
            following: list[str] = []
            for task in level:
                for upstream, origin in self.upstream[task].items():
                    if upstream in came_from or (without_templates and origin.template):
                        continue
                    came_from[upstream] = task
                    if upstream == goal:
                        return _walk_back(came_from, start, goal)
                    following.append(upstream)
            level = following
        return None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an edge comes from."""

    node: ScalarNode
    offset: int = 0  # within the text of the node
    template: bool = False  # a template names the XCom; otherwise `depends_on`

    def fault(self, code: str, message: str, hint: str | None = None) -> Fault:
        return self.node.fault_at(self.offset, code, message, hint)


def arrows(tasks: Iterable[str]) -> str:
    """A way through the graph in the direction of the data: `a → b → c`."""
    return " → ".join(tasks)


def within(task: str, group: str) -> bool:
    """Whether a task or group lies in a group, or is it."""
    return not group or task == group or task.startswith(group + ".")


def edges_of(tasks: Iterable[str], upstream: Mapping[str, Mapping[str, Origin]], *, leaves: bool) -> list[str]:
    """The leaves of a set of tasks (nothing in the set is downstream), or its roots (nothing in it is upstream)."""
    members = list(tasks)
    inside = set(members)
    if leaves:
        followed = {found for task in members for found in upstream[task] if found in inside}
        return [task for task in members if task not in followed]
    return [task for task in members if inside.isdisjoint(upstream[task])]


def _walk_back(came_from: Mapping[str, str], start: str, goal: str) -> list[str]:
    path = [goal]
    while path[-1] != start or len(path) == 1:
        path.append(came_from[path[-1]])
    return path

"""The tasks of a forecast that could run and wait for their slots, in the order in which they would get them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TypeAlias

from yarrow.simulation.virtual_dag import VirtualRun

Waiting: TypeAlias = tuple[VirtualRun, str]
"""A task of a run."""

_Place: TypeAlias = tuple[int, datetime, int, Waiting]  # weight, logical date, arrival
_Line: TypeAlias = tuple[str, str]


class VirtualQueue:
    """Waiting tasks in lines, one for each task of a DAG: those of one line need the same room.

    The first of a line speaks for all of it. When it does not fit, its line is set aside until something of its pool
    or of its DAG has ended.
    """

    def __init__(self) -> None:
        self._lines: dict[_Line, list[_Place]] = {}
        self._heads: list[tuple[tuple[int, datetime, int], _Line]] = []
        self._aside: dict[_Line, None] = {}
        self._arrivals = 0

    def add(self, run: VirtualRun, task_id: str) -> None:
        """Lets a task wait for its turn: by weight, logical date and arrival."""
        self._arrivals += 1
        place = (-run.dag.spec.weights[task_id], run.view.logical_date, self._arrivals, (run, task_id))
        name = (run.dag.spec.dag_id, task_id)
        line = self._lines.setdefault(name, [])
        heapq.heappush(line, place)
        if line[0] is place and name not in self._aside:
            heapq.heappush(self._heads, (place[:3], name))

    def freed(self, dag_id: str, pool: str, pool_of: Callable[[_Line], str]) -> None:
        """Takes back the lines that were set aside and may fit now: those of a DAG and of a pool."""
        for name in [name for name in self._aside if name[0] == dag_id or pool_of(name) == pool]:
            del self._aside[name]
            heapq.heappush(self._heads, (self._lines[name][0][:3], name))

    def take(self, fits: Callable[[VirtualRun, str], bool]) -> Iterator[Waiting]:
        """Yields, in order, those that fit; asked again after each, for it has taken its room by then."""
        while self._heads:
            key, name = heapq.heappop(self._heads)
            line = self._lines.get(name)
            if line is None or name in self._aside or line[0][:3] != key:
                continue  # somebody else was the first of its line since
            run, task_id = line[0][3]
            if not fits(run, task_id):
                self._aside[name] = None
                continue
            heapq.heappop(line)
            if line:
                heapq.heappush(self._heads, (line[0][:3], name))
            else:
                del self._lines[name]
            yield run, task_id

"""What is still free of each limit, while task instances are granted one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Select, and_, false, or_, tuple_

from yarrow.protocol import ALL_QUEUES
from yarrow.store.rows import AnyRow
from yarrow.store.tables import task_instance

_LEFT_OUT = 1000  # full tasks that a query leaves out; the candidates of others are read, and passed over one by one


class Room:
    """What is still free of each limit."""

    def __init__(self, parallelism: int, pools: Mapping[str, int], used: Sequence[AnyRow]) -> None:
        self.tasks = parallelism - sum(row.tasks for row in used)
        self._pools = dict(pools)
        self._dag_tasks: Counter[str] = Counter()
        self._full_dags: set[str] = set()
        self.of_tasks: TaskRoom | None = None
        for row in used:
            self._dag_tasks[row.dag_id] += row.tasks
            if row.pool in self._pools:
                self._pools[row.pool] -= int(row.slots)

    def take(self, candidate: AnyRow) -> bool:
        """Takes the candidate's slots if all of them are free."""
        if self.left_in_dag(candidate) <= 0:
            self._full_dags.add(candidate.dag_id)
            return False
        if candidate.pool_slots > self.left_in_pool(candidate):
            return False
        if self.of_tasks is not None and not self.of_tasks.take(candidate):
            return False
        self._dag_tasks[candidate.dag_id] += 1
        self._pools[candidate.pool] -= candidate.pool_slots
        self.tasks -= 1
        return True

    def left_in_dag(self, candidate: AnyRow) -> int:
        """How many more task instances of the candidate's DAG may have a slot. Below 0 when a limit was lowered."""
        return int(candidate.max_active_tasks - self._dag_tasks[candidate.dag_id])

    def left_in_pool(self, candidate: AnyRow) -> int:
        """How many slots of the candidate's pool are free."""
        return self._pools.get(candidate.pool, 0)

    def narrow(self, query: Select[Any], served: Collection[str] | None) -> Select[Any]:
        """The query without the candidates that are known to have no room."""
        fits = [
            and_(task_instance.c.pool == name, task_instance.c.pool_slots <= free)
            for name, free in self._pools.items()
            if free > 0
        ]
        query = query.where(or_(false(), *fits))
        if self._full_dags:
            query = query.where(task_instance.c.dag_id.not_in(sorted(self._full_dags)))
        if self.of_tasks is not None:
            query = self.of_tasks.narrow(query)
        if served is not None and ALL_QUEUES not in served:
            query = query.where(task_instance.c.queue.in_(sorted(served)))
        return query


class TaskRoom:
    """What is still free of the limits that single tasks have: instances of theirs in their DAG, and in a run."""

    def __init__(self, used: Sequence[AnyRow], chosen: Sequence[AnyRow]) -> None:
        """Args:
        used: How many instances of each task hold a slot, by run.
        chosen: Single task instances that are to hold one as well.
        """
        self._in_dag: Counter[tuple[str, str]] = Counter()
        self._in_run: Counter[tuple[int, str]] = Counter()
        # With the limit itself, which may be another one in another version of the DAG.
        self._full_in_dag: dict[tuple[str, str, int], None] = {}
        self._full_in_run: dict[tuple[int, str, int], None] = {}
        for row in used:
            self._in_dag[row.dag_id, row.task_id] += row.tasks
            self._in_run[row.dag_run_id, row.task_id] += row.tasks
        for row in chosen:
            self._count(row)

    def take(self, candidate: AnyRow) -> bool:
        """Counts the candidate in if its task has room for it."""
        if candidate.max_per_dag is not None and self.left_in_dag(candidate) <= 0:
            self._full_in_dag[candidate.dag_id, candidate.task_id, candidate.max_per_dag] = None
            return False
        if candidate.max_per_run is not None and self.left_in_run(candidate) <= 0:
            self._full_in_run[candidate.dag_run_id, candidate.task_id, candidate.max_per_run] = None
            return False
        self._count(candidate)
        return True

    def left_in_dag(self, candidate: AnyRow) -> int:
        """How many more instances of a task with such a limit may have a slot, in all runs of its DAG."""
        return int(candidate.max_per_dag - self._in_dag[candidate.dag_id, candidate.task_id])

    def left_in_run(self, candidate: AnyRow) -> int:
        """How many more instances of a task with such a limit may have a slot in the candidate's run."""
        return int(candidate.max_per_run - self._in_run[candidate.dag_run_id, candidate.task_id])

    def _count(self, row: AnyRow) -> None:
        self._in_dag[row.dag_id, row.task_id] += 1
        self._in_run[row.dag_run_id, row.task_id] += 1

    def narrow(self, query: Select[Any]) -> Select[Any]:
        """The query without the instances of tasks that are known to have no room."""
        columns = task_instance.c
        for limit, key, full in (
            (columns.max_per_dag, (columns.dag_id, columns.task_id), self._full_in_dag),
            (columns.max_per_run, (columns.dag_run_id, columns.task_id), self._full_in_run),
        ):
            if full:
                listed = list(islice(full, _LEFT_OUT))
                query = query.where(or_(limit.is_(None), tuple_(*key, limit).not_in(listed)))
        return query

"""Any state of the tables that limits look at, set up in a real store, and what may be granted in it by their words."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from yarrow.protocol import Heartbeat
from yarrow.states import SLOT_TASK_STATES, AttemptState, RunState, TaskState
from yarrow.store import Store
from yarrow.store.database import Database
from yarrow.store.tables import attempt, dag, dag_run, task_instance

SCHEDULED, QUEUED, RUNNING = TaskState.SCHEDULED, TaskState.QUEUED, TaskState.RUNNING

POOLS = ("p1", "p2", "gone")
DAGS = ("d1", "d2")
TASKS = ("a", "b")


@dataclass(frozen=True)
class Row:
    """A task instance as the limits see it."""

    dag_id: str
    run: int
    task_id: str
    state: TaskState
    pool: str
    pool_slots: int
    priority_class: int
    weight: int
    max_per_dag: int | None
    max_per_run: int | None
    queue: str
    deferred: bool


@dataclass(frozen=True)
class Scene:
    """All that there is, and the limits."""

    rows: Sequence[Row]
    pools: dict[str, int]
    max_active_tasks: dict[str, int]
    paused: frozenset[str]
    parallelism: int
    served: frozenset[str]

    def fits(self, taken: Iterable[Row], row: Row) -> bool:
        """Whether this one may have a slot besides those that are taken: each limit as its words say."""
        taken = list(taken)
        same = [one for one in taken if (one.dag_id, one.task_id) == (row.dag_id, row.task_id)]
        return (
            row.dag_id not in self.paused
            and row.queue in self.served
            and len(taken) < self.parallelism
            and sum(one.dag_id == row.dag_id for one in taken) < self.max_active_tasks[row.dag_id]
            and row.pool in self.pools
            and sum(one.pool_slots for one in taken if one.pool == row.pool) + row.pool_slots <= self.pools[row.pool]
            and (row.max_per_dag is None or len(same) < row.max_per_dag)
            and (row.max_per_run is None or sum(one.run == row.run for one in same) < row.max_per_run)
        )

    def granted(self) -> list[int]:
        """Which rows are to be granted: in the order of priority, each that fits besides those before it."""
        taken = [row for row in self.rows if row.state in SLOT_TASK_STATES and self.keeps(row)]
        places = [place for place, row in enumerate(self.rows) if row.state is SCHEDULED or not self.keeps(row)]
        chosen = []
        for place in sorted(places, key=self.order):
            if self.fits(taken, self.rows[place]):
                taken.append(self.rows[place])
                chosen.append(place)
        return chosen

    def order(self, place: int) -> tuple[int, int, int, int]:
        """Who goes first."""
        row = self.rows[place]
        return -row.priority_class, -row.weight, row.run, place

    def keeps(self, row: Row) -> bool:
        """Whether a row keeps the slot that it has: a queued one that no worker can take does not."""
        return row.state is not QUEUED or row.queue in self.served


rows = st.builds(
    Row,
    dag_id=st.sampled_from(DAGS),
    run=st.integers(0, 1),
    task_id=st.sampled_from(TASKS),
    state=st.sampled_from([SCHEDULED, SCHEDULED, SCHEDULED, QUEUED, RUNNING, TaskState.UP_FOR_RESCHEDULE]),
    pool=st.sampled_from(POOLS),
    pool_slots=st.integers(1, 3),
    priority_class=st.sampled_from([0, 0, -1]),
    weight=st.integers(1, 2),
    max_per_dag=st.none() | st.integers(1, 3),
    max_per_run=st.none() | st.integers(1, 2),
    queue=st.sampled_from(["default", "default", "gpu"]),
    deferred=st.booleans(),
)
scenes = st.builds(
    Scene,
    rows=st.lists(rows, max_size=14),
    pools=st.fixed_dictionaries({"p1": st.integers(1, 4), "p2": st.integers(2, 6)}),
    max_active_tasks=st.fixed_dictionaries({name: st.integers(1, 6) for name in DAGS}),
    paused=st.sampled_from([frozenset(), frozenset(), frozenset(), frozenset({"d1"})]),
    parallelism=st.integers(1, 10),
    served=st.sampled_from([frozenset({"default", "gpu"}), frozenset({"default"})]),
)


class Hall:
    """A database in which scenes are set up, one after the other."""

    def __init__(self, folder: Path, template: Path) -> None:
        shutil.copyfile(template, folder / "hall.db")
        self.url = f"sqlite:///{folder}/hall.db"
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.store = Store.open(self.url, clock=lambda: self.now)
        self.database = Database(self.url)
        self.runs: dict[tuple[str, int], int] = {}

    def open(self, stage_dag: Any, stage_task: Any) -> None:
        for name in DAGS:
            spec = stage_dag(name, [stage_task(task_id) for task_id in TASKS])
            self.store.catalog.publish([(spec, "", f"{name}.yaml")])
            for number in range(2):
                at = self.now + timedelta(days=number)
                run = self.store.runs.create(
                    spec, spec.version, run_id=f"r{number}", run_type="manual", interval=(at, at, at, at), params={}
                )
                assert run is not None
                self.runs[name, number] = run.id
        self.database.write(lambda connection: connection.execute(update(dag_run).values(state=RunState.RUNNING)))

    def set_up(self, scene: Scene) -> None:
        self.store.workers.set_pools(scene.pools)
        self.store.workers.register_scheduler("s", "host", 1)
        self.store.attempts.heartbeat(Heartbeat("w", "host", 1, tuple(sorted(scene.served)), 4, "0.1.0"), 60.0)

        def work(connection: Any) -> None:
            connection.execute(attempt.delete())
            connection.execute(task_instance.delete())
            for name in DAGS:
                limits = {"max_active_tasks": scene.max_active_tasks[name], "is_paused": name in scene.paused}
                connection.execute(update(dag).where(dag.c.dag_id == name).values(**limits))
            for place, row in enumerate(scene.rows):
                connection.execute(insert(task_instance), self.instance(place, row))
                if self.attempt_state(row) is not None:
                    connection.execute(insert(attempt), self.attempt(place, row))

        self.database.write(work)

    def instance(self, place: int, row: Row) -> dict[str, Any]:
        return {
            "id": place + 1,
            "dag_run_id": self.runs[row.dag_id, row.run],
            "dag_id": row.dag_id,
            "logical_date": self.now + timedelta(days=row.run),
            "task_id": row.task_id,
            "map_index": place,
            "state": row.state,
            "try_number": 1 if self.attempt_state(row) is AttemptState.DEFERRED else 0,
            "max_tries": 1,
            "queue": row.queue,
            "pool": row.pool,
            "pool_slots": row.pool_slots,
            "priority_class": row.priority_class,
            "priority_weight": row.weight,
            "max_per_dag": row.max_per_dag,
            "max_per_run": row.max_per_run,
            "attempt_id": f"a{place}" if self.attempt_state(row) is not None else None,
        }

    def attempt(self, place: int, row: Row) -> dict[str, Any]:
        state = self.attempt_state(row)
        begun = state is not AttemptState.QUEUED or row.deferred
        return {
            "attempt_id": f"a{place}",
            "task_instance_id": place + 1,
            "try_number": 1,
            "state": state,
            "queue": row.queue,
            "nonce": "old",
            "created_at": self.now,
            "started_at": self.now if begun else None,
        }

    @staticmethod
    def attempt_state(row: Row) -> AttemptState | None:
        match row.state:
            case TaskState.SCHEDULED:
                return AttemptState.DEFERRED if row.deferred else None
            case TaskState.UP_FOR_RESCHEDULE:
                return AttemptState.DEFERRED
        return AttemptState(row.state)

    def states(self) -> list[TaskState]:
        query = select(task_instance.c.state).order_by(task_instance.c.id)
        return list(self.database.read(lambda connection: connection.execute(query).scalars().all()))

    def newest_attempts(self) -> dict[int, Any]:
        query = select(attempt, task_instance.c.id.label("place")).join(
            task_instance, task_instance.c.attempt_id == attempt.c.attempt_id
        )
        return {row.place - 1: row for row in self.database.read(lambda connection: connection.execute(query).all())}

    def close(self) -> None:
        self.store.close()
        self.database.close()

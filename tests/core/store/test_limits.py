"""The limits within which task instances are granted: none is ever exceeded, and nothing that fits is left behind."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from yarrow.protocol import Report
from yarrow.states import SLOT_TASK_STATES, AttemptState, TaskState
from yarrow.store import Store
from yarrow.store.database import Database
from yarrow.store.tables import attempt, dag, task_instance

SCHEDULED, QUEUED, RUNNING = TaskState.SCHEDULED, TaskState.QUEUED, TaskState.RUNNING


def queued(stage: Any, run: Any) -> set[str]:
    return {task_id for task_id, state in stage.states(run).items() if state is QUEUED}


def widen(store_url: str, run: Any, task_id: str, count: int) -> None:
    """Makes of one scheduled task instance as many as if it were mapped."""
    database = Database(store_url)

    def work(connection: Any) -> None:
        mine = (task_instance.c.dag_run_id == run.id) & (task_instance.c.task_id == task_id)
        row = dict(connection.execute(select(task_instance).where(mine)).one()._mapping)
        connection.execute(update(task_instance).where(mine).values(map_index=0))
        del row["id"]
        connection.execute(insert(task_instance), [{**row, "map_index": index} for index in range(1, count)])

    database.write(work)
    database.close()


def test_a_task_has_a_limit_in_all_runs_of_its_dag(stage: Any) -> None:
    spec = stage.dag(tasks=[stage.task("a", max_active_tis_per_dag=2, priority_weight=9), stage.task("b")])
    stage.publish(spec)
    runs = [stage.run(spec, f"r{number}") for number in range(4)]
    for run in runs:
        stage.schedule(run, "a", "b")
    assert stage.store.attempts.grant(100) == 6
    assert [queued(stage, run) for run in runs] == [{"a", "b"}, {"a", "b"}, {"b"}, {"b"}]
    stage.finish(stage.claim())
    assert [queued(stage, run) for run in runs] == [{"b"}, {"a", "b"}, {"b"}, {"b"}]
    assert stage.store.attempts.grant(100) == 1
    assert [queued(stage, run) for run in runs] == [{"b"}, {"a", "b"}, {"a", "b"}, {"b"}]


def test_a_mapped_task_has_a_limit_in_its_run(stage: Any, database_url: str) -> None:
    tasks = [stage.task("a", max_active_tis_per_dagrun=3, priority_weight=9), stage.task("b")]
    spec = stage.dag(tasks=tasks)
    stage.publish(spec)
    runs = [stage.run(spec, f"r{number}") for number in range(2)]
    for run in runs:
        stage.schedule(run, "a", "b")
        widen(database_url, run, "a", 5)
    assert stage.store.attempts.grant(100) == 8
    for run in runs:
        states = Counter((one.task_id, one.state) for one in stage.store.runs.task_instances(run.id))
        assert states == {("a", QUEUED): 3, ("a", SCHEDULED): 2, ("b", QUEUED): 1}
    assert stage.store.attempts.grant(100) == 0


def test_both_limits_of_a_task_hold_together(stage: Any, database_url: str) -> None:
    spec = stage.dag(tasks=[stage.task("a", max_active_tis_per_dag=4, max_active_tis_per_dagrun=3)])
    stage.publish(spec)
    runs = [stage.run(spec, f"r{number}", stage.clock() + timedelta(days=number)) for number in range(3)]
    for run in runs:
        stage.schedule(run, "a")
        widen(database_url, run, "a", 5)
    assert stage.store.attempts.grant(100) == 4
    counts = [stage.store.runs.task_state_counts([run.id])[run.id].get("queued", 0) for run in runs]
    assert counts == [3, 1, 0]


def test_a_wide_task_at_its_limit_hides_none_and_is_passed_over_at_once(stage: Any, database_url: str) -> None:
    """Thousands of instances of higher priority stand before one that is free to go."""
    stage.publish(*(specs := [wide_dag(stage, name) for name in ("wide", "deep")]))
    stage.publish(stage.dag("free", [stage.task("free")]))
    for spec in specs:
        run = stage.run(spec)
        stage.schedule(run, "a")
        widen(database_url, run, "a", 4000)
    free = stage.run(stage.dag("free", [stage.task("free")]))
    stage.schedule(free, "free")
    assert stage.store.attempts.grant(8) == 3
    assert queued(stage, free) == {"free"}
    assert stage.store.attempts.grant(8) == 0


def wide_dag(stage: Any, name: str) -> Any:
    limit = "max_active_tis_per_dag" if name == "wide" else "max_active_tis_per_dagrun"
    return stage.dag(name, [stage.task("a", priority_weight=9, **{limit: 1})], max_active_tasks=9999)


@pytest.mark.parametrize("limit", [None, 4])
def test_a_version_with_a_wider_limit_is_not_held_up_by_one_with_a_narrow_one(stage: Any, limit: int | None) -> None:
    old, new = (
        stage.dag(tasks=[stage.task("a", max_active_tis_per_dag=most)], max_active_runs=100) for most in (1, limit)
    )
    stage.publish(old)
    runs = [stage.run(old, f"old{number}") for number in range(70)]
    stage.publish(new)
    runs += [stage.run(new, f"new{number}") for number in range(3)]
    for run in runs:
        stage.schedule(run, "a")
    assert stage.store.attempts.grant(5) == 4  # more than a page of old ones stand before the new ones
    assert [run.run_id for run in runs if queued(stage, run)] == ["old0", "new0", "new1", "new2"]


def test_what_was_chosen_before_a_limit_was_met_counts(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is first seen on a later page, after instances of the same task without one were chosen."""
    monkeypatch.setattr("yarrow.store.granting.PAGE", 1)
    free, limited = (stage.dag(tasks=[stage.task("a", max_active_tis_per_dag=limit)]) for limit in (None, 3))
    stage.publish(free)
    for number in range(3):
        stage.schedule(stage.run(free, f"free{number}"), "a")
    stage.publish(limited)
    run = stage.run(limited, "limited")
    stage.schedule(run, "a")
    assert stage.store.attempts.grant(100) == 3
    assert queued(stage, run) == set()


def test_what_waits_without_a_slot_counts_for_no_limit(stage: Any) -> None:
    stage.store.workers.set_pools({"default_pool": 1})
    tasks = [stage.task("a", max_active_tis_per_dag=1, max_active_tis_per_dagrun=1)]
    spec = stage.dag(tasks=tasks, max_active_tasks=1)
    stage.publish(spec)
    first, second = stage.run(spec, "first"), stage.run(spec, "second")
    stage.schedule(first, "a")
    stage.schedule(second, "a")
    claimed = stage.claim()
    assert stage.store.attempts.grant(1) == 0
    stage.finish(claimed, "deferred", resume_at=(stage.clock() + timedelta(minutes=1)).isoformat())
    assert stage.store.attempts.grant(1) == 1
    assert queued(stage, second) == {"a"}
    stage.decide(first, ("a", TaskState.UP_FOR_RESCHEDULE, SCHEDULED))
    assert stage.store.attempts.grant(1) == 0, "it asks for a slot like any other"


def test_schedulers_at_once_never_exceed_the_limit_of_a_task(postgres_stage: Any, postgres_url: str) -> None:
    stage = postgres_stage
    tasks = [
        stage.task("a", max_active_tis_per_dag=5, max_active_tis_per_dagrun=2),
        stage.task("b", max_active_tis_per_dagrun=1),
    ]
    spec = stage.dag(tasks=tasks, max_active_tasks=1000)
    stage.publish(spec)
    runs = [stage.run(spec, f"r{number}") for number in range(6)]
    for run in runs:
        stage.schedule(run, "a", "b")
        for task_id in ("a", "b"):
            widen(postgres_url, run, task_id, 20)
    over: list[str] = []
    database = Database(postgres_url)

    def schedule_and_work(worker: str) -> None:
        store = Store.open(postgres_url, clock=stage.clock)
        for _ in range(15):
            store.attempts.grant(100)
            over.extend(database.read(exceeded))
            claimed = store.attempts.next_for("default", worker, 60)
            if claimed is not None:
                state = "deferred" if claimed.map_index % 3 == 0 else "success"
                resume_at = (stage.clock() + timedelta(seconds=5)).isoformat()
                report = Report(claimed.attempt_id, state, resume_at=resume_at)
                store.attempts.finish(report, claimed.nonce, worker)
        store.close()

    threads = [Thread(target=schedule_and_work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stage.store.attempts.grant(100)
    counts = database.read(in_slots)
    database.close()
    assert over == []
    assert counts["dag", "a"] == 5
    assert [counts[run.id, "b"] for run in runs] == [1] * 6


def in_slots(connection: Any) -> Counter[tuple[int | str, str]]:
    """How many instances of each task hold a slot, in each run and in the whole DAG."""
    query = select(task_instance.c.dag_run_id, task_instance.c.task_id).where(
        task_instance.c.state.in_(SLOT_TASK_STATES)
    )
    found: Counter[tuple[int | str, str]] = Counter()
    for dag_run_id, task_id in connection.execute(query):
        found["dag", task_id] += 1
        found[dag_run_id, task_id] += 1
    return found


def exceeded(connection: Any) -> list[str]:
    """Which limits are exceeded at this moment: one statement sees one state of the database."""
    limits = {("dag", "a"): 5, ("dag", "b"): 1000}
    counts = in_slots(connection)
    return [f"{key}: {count}" for key, count in counts.items() if count > limits.get(key, {"a": 2, "b": 1}[key[1]])]


# Any state of the tables: what is granted is legal, and there is nothing that could be granted besides.

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
        for place in sorted(places, key=lambda place: (-self.rows[place].weight, self.rows[place].run, place)):
            if self.fits(taken, self.rows[place]):
                taken.append(self.rows[place])
                chosen.append(place)
        return chosen

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

    def set_up(self, scene: Scene) -> None:
        self.store.workers.set_pools(scene.pools)

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


@pytest.mark.slow
@pytest.mark.parametrize("page", [1000, 2])
def test_each_grant_is_legal_and_leaves_nothing_behind(
    tmp_path: Path, sqlite_template: Path, sqlite_stage: Any, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yarrow.store.granting.PAGE", page)
    hall = Hall(tmp_path, sqlite_template)
    hall.open(sqlite_stage.dag, sqlite_stage.task)

    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
    @given(scene=scenes)
    def judge(scene: Scene) -> None:
        hall.set_up(scene)
        expected = scene.granted()
        event(f"granted: {min(len(expected), 4)}")
        count = hall.store.attempts.grant(scene.parallelism, served=scene.served, now=hall.now)
        assert count == len(expected)
        attempts = hall.newest_attempts()
        states = hall.states()
        for place, row in enumerate(scene.rows):
            kept = row.state if scene.keeps(row) else SCHEDULED
            assert states[place] is (QUEUED if place in expected else kept)
            if place in expected:
                goes_on = hall.attempt_state(row) is not None and row.deferred
                assert (attempts[place].attempt_id == f"a{place}") == goes_on
                assert attempts[place].state is AttemptState.QUEUED
                assert attempts[place].nonce != "old"
                assert attempts[place].try_number == 1
        taken = [row for place, row in enumerate(scene.rows) if states[place] in SLOT_TASK_STATES]
        left = [row for place, row in enumerate(scene.rows) if states[place] is SCHEDULED]
        assert not any(scene.fits(taken, row) for row in left)
        assert hall.store.attempts.grant(scene.parallelism, served=scene.served, now=hall.now) == 0

    try:
        judge()
    finally:
        hall.close()

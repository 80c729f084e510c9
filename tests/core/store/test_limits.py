"""The limits within which task instances are granted: none is ever exceeded, and nothing that fits is left behind."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from sqlalchemy import insert, select, update

from limits import Hall, Scene, scenes
from yarrow.protocol import Report
from yarrow.states import SLOT_TASK_STATES, AttemptState, TaskState
from yarrow.store import Store
from yarrow.store.database import Database
from yarrow.store.tables import task_instance

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

"""Many at once on PostgreSQL: schedulers, workers and people, and nobody sees an error."""

import random
from collections.abc import Sequence
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Connection, text

from together import together
from yarrow.decide import Decisions, TaskDecision
from yarrow.errors import Refused
from yarrow.language.spec import ScheduleSpec
from yarrow.protocol import Heartbeat, Report, RunningAttempt
from yarrow.states import RunState, TaskState
from yarrow.store import Store, starting
from yarrow.store.database import Database


def under_way(store: Store, run_ids: Sequence[int]) -> bool:
    return any(not one.state.finished for id in run_ids for one in store.runs.task_instances(id))


def schedule_until_done(store: Store, run_ids: Sequence[int]) -> None:
    while under_way(store, run_ids):
        for id in store.runs.undecided():
            snapshot = store.runs.snapshot(id)
            if snapshot is None:
                continue
            moves = [
                TaskDecision(view.task_id, view.state, TaskState.SCHEDULED)
                for view in snapshot.tasks
                if view.state in (TaskState.NONE, TaskState.UP_FOR_RETRY, TaskState.UP_FOR_RESCHEDULE)
            ]
            store.runs.apply(id, Decisions(tuple(moves)), snapshot.record.change_seq)
        store.attempts.grant(20)


def work_until_done(store: Store, run_ids: Sequence[int], worker: str) -> None:
    dice = random.Random(worker)
    while under_way(store, run_ids):
        claimed = store.attempts.next_for("default", worker, 60)
        while claimed is not None:
            running = (RunningAttempt(claimed.attempt_id, 1.0),)
            store.attempts.heartbeat(Heartbeat(worker, "h", 1, ["default"], 1, "0", running), 60)
            state = dice.choice(["success", "success", "failed", "cancelled", "deferred"])
            soon = claimed.lease_until.isoformat()
            report = Report(claimed.attempt_id, state, xcom=worker, has_xcom=True, resume_at=soon)
            claimed = store.attempts.finish(report, claimed.nonce, worker, next_for="default").next


@pytest.mark.slow
def test_schedulers_workers_and_people_at_once(postgres_stage: Any, postgres_url: str) -> None:
    stage = postgres_stage
    stage.store.workers.set_pools({"default_pool": 20})
    # Tasks that look at the run before make each end of theirs touch other runs as well; those that publish, DAGs.
    fields = {"retries": 2, "retry_delay": 0.0, "depends_on_past": True, "outlets": ("done",)}
    spec = stage.dag(tasks=[stage.task(f"t{number}", max_active_tis_per_dag=1, **fields) for number in range(20)])
    stage.publish(spec, stage.dag("reader", schedule=ScheduleSpec(datasets=("done",))))
    run_ids = [stage.run(spec, f"r{day}", stage.clock() + timedelta(days=day)).id for day in range(3)]
    stores = [Store.open(postgres_url, clock=stage.clock) for _ in range(6)]

    def cancel(store: Store) -> None:
        for number in range(0, 60, 7):
            store.attempts.cancel("d", f"r{number % 3}", f"t{number % 20}", who="ann")

    errors = together(
        lambda: schedule_until_done(stores[0], run_ids),
        lambda: schedule_until_done(stores[1], run_ids),
        lambda: work_until_done(stores[2], run_ids, "w1"),
        lambda: work_until_done(stores[3], run_ids, "w2"),
        lambda: work_until_done(stores[4], run_ids, "w3"),
        lambda: cancel(stores[5]),
    )
    for store in stores:
        store.close()
    assert errors == []
    for instance in [one for id in run_ids for one in stage.store.runs.task_instances(id)]:
        attempts = stage.store.attempts.attempts(instance.id)
        assert sum(one.state == "success" for one in attempts) == (instance.state is TaskState.SUCCESS)
        assert sum(one.state == "failed" for one in attempts) <= 3
    database = Database(postgres_url)
    query = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert database.read(lambda connection: connection.execute(query).scalar()) == 0
    database.close()


def test_one_of_many_deliveries_is_accepted(stage: Any, database_url: str) -> None:
    stage.begin()
    attempt_id, nonce = stage.dispatch()
    stores = [Store.open(database_url, clock=stage.clock) for _ in range(5)]
    answers: list[str] = []

    def deliver(store: Store) -> None:
        try:
            store.attempts.claim(attempt_id, nonce, "w", 60)
            answers.append("accepted")
        except Refused:
            answers.append("refused")

    assert together(*[lambda store=store: deliver(store) for store in stores]) == []
    assert sorted(answers) == ["accepted"] + ["refused"] * 4
    for store in stores:
        store.close()


def test_one_of_many_reports_is_accepted(stage: Any, database_url: str) -> None:
    stage.begin()
    claimed = stage.claim()
    stores = [Store.open(database_url, clock=stage.clock) for _ in range(5)]
    answers: list[bool] = []

    def report(store: Store) -> None:
        outcome = store.attempts.finish(Report(claimed.attempt_id, "success"), claimed.nonce, "w1")
        answers.append(outcome.repeated)

    assert together(*[lambda store=store: report(store) for store in stores]) == []
    assert sorted(answers) == [False] + [True] * 4
    for store in stores:
        store.close()


def test_a_run_is_created_once_and_started_within_the_limit(stage: Any, database_url: str) -> None:
    spec = stage.dag(max_active_runs=2)
    stage.publish(spec)
    stores = [Store.open(database_url, clock=stage.clock) for _ in range(4)]

    def create(store: Store) -> None:
        at = stage.clock()
        for number in range(5):
            store.runs.create(
                spec, spec.version, run_id=f"r{number}", run_type="scheduled", interval=(at, at, at, at), params={}
            )
            store.runs.start_due()

    assert together(*[lambda store=store: create(store) for store in stores]) == []
    assert stage.store.runs.state_counts() == {"d": {"queued": 3, "running": 2}}
    for store in stores:
        store.close()


def test_a_run_that_another_scheduler_is_just_starting_counts(postgres_stage: Any, postgres_url: str) -> None:
    """What one scheduler has not committed another one can't see: it has to wait for it."""
    stage = postgres_stage
    stage.publish(spec := stage.dag(max_active_runs=1))
    at, earlier = stage.clock(), stage.clock() - timedelta(days=1)
    stage.run(spec, "later", at, start=False)
    ahead, other = Database(postgres_url, stage.clock), Store.open(postgres_url, clock=stage.clock)
    held_up = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    started: list[list[int]] = []
    thread = Thread(target=lambda: started.append(other.runs.start_due()))

    def start_while_another_one_looks(connection: Connection) -> list[int]:
        interval = (earlier, earlier, at, at)
        values = {"run_type": "manual", "interval": interval, "params": {}, "at": at}
        stage.store.runs.insert(connection, spec, run_id="earlier", **values)
        ids = starting.start(connection, stage.store.runs._specs, at)
        thread.start()
        for _ in range(1000):
            if not thread.is_alive() or connection.execute(held_up).scalar_one():
                break
            thread.join(0.01)
        return ids

    assert len(ahead.write(start_while_another_one_looks)) == 1
    thread.join(60)
    assert started == [[]]
    assert stage.store.runs.get("d", "earlier").state is RunState.RUNNING
    assert stage.store.runs.get("d", "later").state is RunState.QUEUED
    ahead.close()
    other.close()

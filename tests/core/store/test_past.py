"""Tasks that look at the run before: what the snapshot shows of it, and when a later run is decided on again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from together import together
from yarrow.decision.decisions import Decisions, PastView, TaskDecision
from yarrow.language.spec import DagSpec
from yarrow.states import RunState, TaskState
from yarrow.store import Store

NONE, SCHEDULED, RUNNING = TaskState.NONE, TaskState.SCHEDULED, TaskState.RUNNING
SUCCESS, FAILED, SKIPPED = TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED
DAYS = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 6)]


def careful_dag(stage: Any, **fields: Any) -> DagSpec:
    tasks = [stage.task("a", wait_for_downstream=True), stage.task("b", upstream=("a",)), stage.task("c")]
    return stage.dag(tasks=tasks, **fields)


def create(stage: Any, spec: DagSpec, number: int, run_type: str = "scheduled") -> Any:
    at = DAYS[number]
    run = stage.store.runs.create(
        spec, spec.version, run_id=f"{run_type}{number}", run_type=run_type, interval=(at, at, at, at), params={}
    )
    stage.store.runs.start_due(DAYS[-1])
    return stage.store.runs.by_id(run.id)


def past(stage: Any, run: Any) -> PastView | None:
    return stage.store.runs.snapshot(run.id).past


def test_a_snapshot_shows_the_run_before(stage: Any) -> None:
    spec = careful_dag(stage)
    stage.publish(spec)
    first, third = create(stage, spec, 0), create(stage, spec, 2)
    assert past(stage, first) is None
    assert past(stage, third) == PastView("scheduled0", {"a": [NONE], "b": [NONE]})  # `c` and `d` do not matter
    stage.decide(first, ("a", NONE, SKIPPED))
    assert past(stage, third).tasks == {"a": [SKIPPED], "b": [NONE]}
    second = create(stage, spec, 1, "manual")  # comes later, is for an earlier day
    assert past(stage, third).run_id == "manual1"
    assert past(stage, second).run_id == "scheduled0"
    stage.decide(third, ("a", NONE, SCHEDULED))
    assert past(stage, third) is None  # nobody asks any more


def test_with_catchup_only_scheduled_runs_are_before(stage: Any) -> None:
    spec = careful_dag(stage, catchup=True)
    stage.publish(spec)
    create(stage, spec, 0)
    create(stage, spec, 1, "manual")
    assert past(stage, create(stage, spec, 2)).run_id == "scheduled0"
    assert past(stage, create(stage, spec, 3, "manual")).run_id == "scheduled2"


def test_of_runs_for_one_moment_the_older_one_is_before(stage: Any) -> None:
    spec = careful_dag(stage)
    stage.publish(spec)
    first, second = create(stage, spec, 1), create(stage, spec, 1, "manual")
    assert past(stage, first) is None
    assert past(stage, second).run_id == "scheduled1"


def test_every_instance_of_a_mapped_task_is_shown(stage: Any) -> None:
    mapped = stage.task("a", depends_on_past=True, expand={"n": [1, 2]})
    spec = stage.dag(tasks=[mapped, stage.task("b", upstream=("a",))])
    stage.publish(spec)
    first, second = create(stage, spec, 0), create(stage, spec, 1)
    moves = [TaskDecision("a", NONE, FAILED, map_index=0), TaskDecision("a", NONE, SCHEDULED, map_index=1)]
    assert stage.decide(first, *moves, expand={"a": 2})
    assert past(stage, second).tasks == {"a": [FAILED, SCHEDULED]}


def test_a_task_that_ends_has_later_running_runs_decided_on(stage: Any) -> None:
    spec = careful_dag(stage, max_active_runs=3)
    stage.publish(spec)
    runs = [create(stage, spec, number) for number in (1, 0, 2, 3)]
    second, first, third, waiting = runs
    assert waiting.state is RunState.QUEUED
    for run in (second, first, third):
        assert stage.decide(run)
    assert stage.store.runs.undecided() == []
    stage.schedule(second, "a", "c")
    assert stage.store.runs.undecided() == []  # nothing has ended
    stage.finish(stage.claim())
    assert stage.store.runs.undecided() == [second.id, third.id]  # not the earlier one, nor the one that waits
    for run in (second, third):
        stage.decide(run)
    assert stage.decide(second, ("b", NONE, SKIPPED))
    assert stage.store.runs.undecided() == [third.id]
    stage.decide(third)
    assert stage.store.attempts.cancel("d", second.run_id, "c", who="ann")
    assert stage.store.runs.undecided() == [second.id, third.id]


def test_an_older_version_that_does_not_look_back_holds_nobody_up_for_ever(stage: Any) -> None:
    old, new = stage.dag(tasks=[stage.task("a")]), stage.dag(tasks=[stage.task("a", depends_on_past=True)])
    stage.publish(old)
    first = create(stage, old, 0)
    stage.publish(new)
    second, same = create(stage, new, 1), create(stage, old, 2)
    stage.decide(second)
    stage.decide(same)
    assert past(stage, second).tasks == {"a": [NONE]}
    assert stage.decide(first, ("a", NONE, SKIPPED), end=RunState.SUCCESS)
    assert stage.store.runs.undecided() == [second.id]
    assert past(stage, second).tasks == {"a": [SKIPPED]}


def test_runs_that_wait_for_each_other_end_without_a_deadlock(postgres_stage: Any, postgres_url: str) -> None:
    """Tasks of five runs end at once, whose ids and dates go opposite ways; each touches those after it."""
    stage = postgres_stage
    tasks = [stage.task(f"t{number}", depends_on_past=True) for number in range(8)]
    spec = stage.dag(tasks=tasks, max_active_tasks=100)
    stage.publish(spec)
    runs = [create(stage, spec, number) for number in (4, 3, 2, 1, 0)]
    for run in runs:
        stage.schedule(run, *spec.tasks)
    stage.store.attempts.grant(100)
    stores = [Store.open(postgres_url, clock=stage.clock) for _ in range(5)]

    def work(store: Store, worker: str) -> None:
        claimed = store.attempts.next_for("default", worker, 60)
        while claimed is not None:
            claimed = stage_finish(store, claimed, worker)

    def stage_finish(store: Store, claimed: Any, worker: str) -> Any:
        from yarrow.protocol import Report

        report = Report(claimed.attempt_id, "success")
        return store.attempts.finish(report, claimed.nonce, worker, next_for="default").next

    def decide(store: Store) -> None:
        for _ in range(10):
            for id in store.runs.undecided():
                snapshot = store.runs.snapshot(id)
                store.runs.apply(id, Decisions(), snapshot.record.change_seq)

    works = [lambda store=store, name=f"w{n}": work(store, name) for n, store in enumerate(stores[:4])]
    assert together(*works, lambda: decide(stores[4])) == []
    assert deadlocks(postgres_url) == 0
    for run in runs:
        assert set(stage.states(run).values()) == {SUCCESS}
    for store in stores:
        store.close()


def deadlocks(url: str) -> int:
    from sqlalchemy import text

    from yarrow.store.database import Database

    database = Database(url)
    query = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    try:
        return int(database.read(lambda connection: connection.execute(query).scalar_one()))
    finally:
        database.close()


@pytest.mark.parametrize("max_active_runs", [1])
def test_a_run_starts_as_soon_as_the_one_before_has_ended(stage: Any, max_active_runs: int) -> None:
    spec = stage.dag(max_active_runs=max_active_runs)
    stage.publish(spec)
    first, second = create(stage, spec, 0), create(stage, spec, 1)
    assert (first.state, second.state) == (RunState.RUNNING, RunState.QUEUED)
    assert stage.end(first)
    assert stage.store.runs.start_due(DAYS[-1] + timedelta(microseconds=1)) == [second.id]


def test_a_run_that_has_not_begun_holds_no_later_one_up(stage: Any) -> None:
    """It may wait for the place of that later run: they would wait for each other."""
    spec = careful_dag(stage, max_active_runs=1)
    stage.publish(spec)
    late = create(stage, spec, 3, "manual")
    early = create(stage, spec, 1, "manual")
    assert (late.state, early.state) == (RunState.RUNNING, RunState.QUEUED)
    assert past(stage, late) is None
    stage.decide(late, end=RunState.FAILED)
    stage.store.runs.start_due(DAYS[-1])
    assert past(stage, early) is None

"""Data sets: what is published waits for each DAG that names it, and is consumed by one run alone."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest

from yarrow.errors import UsageError
from yarrow.language.spec import DagSpec, ScheduleSpec
from yarrow.states import RunState
from yarrow.store.datasets import WaitingDag, published
from yarrow.store.tables import dag_dataset, dag_run_dataset, dataset_pending


def waiting_for(stage: Any, *names: str, dag_id: str = "d", mode: str = "all", **settings: Any) -> DagSpec:
    """A published DAG that waits for these data sets."""
    spec: DagSpec = stage.dag(dag_id, schedule=ScheduleSpec(datasets=names, mode=mode), **settings)
    stage.publish(spec)
    return spec


def make_run(stage: Any, spec: DagSpec) -> Any:
    return stage.store.datasets.make_run(spec, spec.version, stage.clock())


def rows(stage: Any, table: Any) -> list[Any]:
    return stage.store.datasets._database.read(lambda connection: connection.execute(table.select()).all())  # type: ignore[no-any-return]


def pending(stage: Any, dag_id: str = "d") -> list[str]:
    return [event.dataset for event in stage.store.datasets.ready(dag_id)]


def test_publishing_is_for_each_dag_that_waits(stage: Any) -> None:
    waiting_for(stage, "a", dag_id="one")
    waiting_for(stage, "a", "b", dag_id="two", mode="any")
    waiting_for(stage, "b", dag_id="three")
    assert stage.store.datasets.publish("a", "somebody") == ["one", "two"]
    assert [pending(stage, dag_id) for dag_id in ("one", "two", "three")] == [["a"], ["a"], []]
    assert stage.store.datasets.publish("c", "somebody") == []
    a, b, c = stage.store.datasets.list()
    assert (a.dataset, a.published_at, a.published_by) == ("a", stage.clock(), "somebody")
    assert a.waiting == (WaitingDag("one", "all", 1), WaitingDag("two", "any", 1))
    assert (b.dataset, b.published_at, [one.dag_id for one in b.waiting]) == ("b", None, ["three", "two"])
    assert (c.dataset, c.waiting) == ("c", ())
    assert a.to_json()["waiting"][1] == {"dag_id": "two", "mode": "any", "pending": 1}


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 251, ".x", "é"])
def test_names_that_are_refused(sqlite_stage: Any, name: str) -> None:
    with pytest.raises(UsageError, match="not the name of a data set"):
        sqlite_stage.store.datasets.publish(name, "somebody")


def test_all_waits_for_each_and_any_for_one(stage: Any) -> None:
    every, one = waiting_for(stage, "a", "b", dag_id="every"), waiting_for(stage, "a", "b", dag_id="one", mode="any")
    stage.store.datasets.publish("a", "somebody")
    stage.store.datasets.publish("a", "somebody")
    assert make_run(stage, every) == (None, False)
    record, _ = make_run(stage, one)
    assert record.run_type == "dataset"
    stage.clock.advance(60)
    stage.store.datasets.publish("b", "somebody")
    record, _ = make_run(stage, every)
    assert record.run_id == f"dataset__{stage.clock().isoformat()}"
    assert record.logical_date == record.data_interval_end == stage.clock()
    assert record.data_interval_start == stage.clock() - timedelta(seconds=60)
    assert (pending(stage, "every"), pending(stage, "one")) == ([], ["b"])
    assert [row.event_id for row in rows(stage, dag_run_dataset) if row.dag_run_id == record.id] == [1, 2, 3]
    assert make_run(stage, every) == (None, False)


def test_the_run_covers_what_the_runs_cover_that_published(stage: Any) -> None:
    spec = waiting_for(stage, "a", "b", mode="any")
    source = stage.dag("source", [stage.task("t")])
    stage.publish(source)
    begin = datetime.fromisoformat("2025-06-01T00:00:00+00:00")
    run = stage.run(source, "r1", begin)
    publish(stage, ["a"], run)
    record, _ = make_run(stage, spec)
    assert (record.data_interval_start, record.data_interval_end) == (begin, begin + timedelta(days=1))
    assert record.logical_date == stage.clock()
    (first, *_) = stage.store.datasets.list()
    assert first.published_by == "source r1 t"


def publish(stage: Any, names: list[str], run: Any) -> None:
    """As a task of the run does."""
    database = stage.store.datasets._database
    source = {"dag_id": run.dag_id, "run_id": run.run_id, "task_id": "t", "map_index": -1}
    database.write(
        lambda connection: published(database, connection, names, **source, who="worker w1", at=stage.clock())
    )


def test_two_runs_for_events_of_one_instant(stage: Any) -> None:
    spec = waiting_for(stage, "a")
    run_ids = []
    for _ in range(2):
        stage.store.datasets.publish("a", "somebody")
        record, _ = make_run(stage, spec)
        run_ids.append(record.run_id)
    instant = stage.clock().isoformat()
    assert run_ids == [f"dataset__{instant}", f"dataset__{instant}__2"]


def test_no_more_runs_than_may_be_active_and_then_one_for_all(stage: Any) -> None:
    spec = waiting_for(stage, "a", max_active_runs=1)
    stage.store.datasets.publish("a", "somebody")
    record, _ = make_run(stage, spec)
    for _ in range(3):
        stage.clock.advance(1)
        stage.store.datasets.publish("a", "somebody")
    assert make_run(stage, spec) == (None, True)
    assert [dag.dag_id for dag in stage.store.catalog.due(stage.clock())] == ["d"]
    stage.store.runs.start_due()
    stage.end(stage.store.runs.by_id(record.id), RunState.FAILED)
    record, _ = make_run(stage, spec)
    assert record.data_interval_end - record.data_interval_start == timedelta(seconds=2)
    assert pending(stage) == []
    assert stage.store.catalog.due(stage.clock()) == []


def test_a_paused_dag_loses_nothing(stage: Any) -> None:
    spec = waiting_for(stage, "a", "b")
    stage.store.catalog.set_paused("d", True, "somebody")
    stage.store.datasets.publish("a", "somebody")
    stage.store.datasets.publish("b", "somebody")
    assert make_run(stage, spec) == (None, False)
    stage.store.catalog.set_paused("d", False, "somebody")
    assert [dag.dag_id for dag in stage.store.catalog.unscheduled()] == ["d"]
    assert make_run(stage, spec)[0] is not None


def test_a_dag_waits_for_what_its_newest_version_names(stage: Any) -> None:
    first = waiting_for(stage, "a", "b", mode="any")
    stage.store.datasets.publish("a", "somebody")
    stage.store.datasets.publish("b", "somebody")
    second = waiting_for(stage, "b", "c", mode="any")
    assert pending(stage) == ["b"]
    assert make_run(stage, first) == (None, False), "it is not the newest version"
    assert make_run(stage, second)[0] is not None
    stage.publish(stage.dag(schedule=ScheduleSpec(cron="@daily")))
    assert rows(stage, dag_dataset) == []
    assert stage.store.datasets.publish("b", "somebody") == []


def test_a_dag_whose_file_is_gone_waits_for_nothing(stage: Any) -> None:
    spec = waiting_for(stage, "a", "b")
    stage.store.datasets.publish("a", "somebody")
    stage.store.catalog.deactivate(["d"])
    assert rows(stage, dag_dataset) == []
    assert make_run(stage, spec) == (None, False)
    assert stage.store.datasets.publish("b", "somebody") == []
    stage.publish(spec)
    assert pending(stage) == ["a"], "what came before it went is kept"


def test_several_schedulers_make_one_run_and_lose_no_event(postgres_stage: Any) -> None:
    stage = postgres_stage
    spec = waiting_for(stage, "a", max_active_runs=100)
    made: list[Any] = []

    def schedule() -> None:
        for _ in range(25):
            made.append(make_run(stage, spec)[0])

    def work() -> None:
        for _ in range(25):
            stage.store.datasets.publish("a", "somebody")

    threads = [threading.Thread(target=target) for target in (schedule, schedule, schedule, work, work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    made.append(make_run(stage, spec)[0])
    runs = [record for record in made if record is not None]
    consumed = [row.event_id for row in rows(stage, dag_run_dataset)]
    assert sorted(consumed) == sorted(set(consumed))
    assert len(consumed) == 50
    assert (
        len({record.id for record in runs})
        == len(runs)
        == len({row.dag_run_id for row in rows(stage, dag_run_dataset)})
    )
    assert rows(stage, dataset_pending) == []

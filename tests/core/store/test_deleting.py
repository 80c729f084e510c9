"""Deleting runs and DAGs: all that belongs to them goes, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, update

from yarrow.decision.decisions import Question, TaskDecision
from yarrow.errors import Conflict, NotFound, Refused, UsageError
from yarrow.language.spec import CacheSpec, DagSpec, DeadlineSpec, ScheduleSpec, TaskSpec
from yarrow.states import RunState, TaskState
from yarrow.store import Store
from yarrow.store.records import FileRecord, RunRecord
from yarrow.store.tables import attempt, dag_run, metadata, plan, task_instance

OBJECT = {"$ref": "file:///objects/xcom/one.json"}


def in_database(store: Store, work: Callable[[Connection], Any]) -> Any:
    return store.runs._database.write(work)


def row_counts(store: Store) -> dict[str, int]:
    """How many rows each table has that has any, but for what is no run's and no DAG's."""

    def count(connection: Connection) -> dict[str, int]:
        return {
            name: found
            for name, table in metadata.tables.items()
            if name not in ("pool", "worker", "scheduler")
            and (found := connection.execute(select(func.count()).select_from(table)).scalar_one())
        }

    counted: dict[str, int] = store.runs._database.read(count)
    return counted


def full_run(stage: Any, spec: DagSpec, run_id: str = "r", **fields: Any) -> RunRecord:
    """A run that has ended, with an attempt and an XCom."""
    run: RunRecord = stage.run(spec, run_id)
    stage.schedule(run, "a")
    stage.finish(stage.claim(), has_xcom=True, **{"xcom": {"rows": 1}, **fields})
    stage.decide(run, ("b", TaskState.NONE, TaskState.SKIPPED), end=RunState.SUCCESS)
    return stage.store.runs.by_id(run.id)  # type: ignore[no-any-return]


def lines(store: Store, dag_id: str = "d") -> list[tuple[str, str | None, str]]:
    return [(event.kind, event.run_id, event.who) for event in store.runs.events(dag_id)]


def test_a_run_goes_with_all_that_belongs_to_it_and_its_history_stays(stage: Any) -> None:
    spec = stage.dag(deadline=DeadlineSpec(60.0, "queued_at"), on_success=("log",))
    stage.publish(spec)
    before = row_counts(stage.store)
    full_run(stage, spec)
    told = len(lines(stage.store))
    counted = stage.store.deletions.count_runs("d", ["r"])
    deleted = stage.store.deletions.runs("d", ["r"], who="ann")
    assert deleted.runs == counted.runs == [("d", "r")]
    expected = {"runs": 1, "task_instances": 2, "attempts": 1, "xcoms": 1, "deadlines": 1, "notifications": 1}
    assert +deleted.counts == +counted.counts == expected
    assert lines(stage.store)[told:] == [("run.deleted", "r", "ann")]
    assert row_counts(stage.store) == before | {"event": told + 1}
    with pytest.raises(NotFound):
        stage.store.runs.get("d", "r")


def test_what_a_run_asked_a_person_and_what_it_was_made_for_goes_too(stage: Any) -> None:
    ask = TaskSpec("a", "approval", {"message": "Go on?"})
    spec = stage.dag(tasks=[ask], schedule=ScheduleSpec(datasets=("x",)))
    stage.publish(spec)
    stage.store.datasets.publish("x", "ann")
    run, _ = stage.store.datasets.make_run(spec, spec.version, stage.clock())
    stage.store.runs.start_due()
    before = row_counts(stage.store)
    assert stage.decide(run, TaskDecision("a", TaskState.NONE, TaskState.AWAITING_INPUT, question=Question("Go on?")))
    assert row_counts(stage.store)["approval"] == 1
    stage.decide(run, ("a", TaskState.AWAITING_INPUT, TaskState.FAILED), end=RunState.FAILED)
    assert stage.store.deletions.runs("d", [run.run_id], who="ann").counts["approvals"] == 1
    after = row_counts(stage.store)
    assert not {"approval", "dag_run", "dag_run_dataset", "task_instance"} & after.keys()
    assert after["dataset_event"] == before["dataset_event"] == 1


@pytest.mark.parametrize("case", ["queued", "running", "still stopping"])
def test_a_run_that_is_not_over_is_refused_and_so_are_those_named_with_it(stage: Any, case: str) -> None:
    spec = stage.dag(max_active_runs=2)
    stage.publish(spec)
    full_run(stage, spec, "over")
    run = stage.run(spec, "busy", start=case != "queued")
    if case == "still stopping":
        stage.schedule(run, "a")
        stage.claim()
        ended = update(dag_run).where(dag_run.c.id == run.id).values(state=RunState.FAILED, ended_at=stage.clock())
        in_database(stage.store, lambda connection: connection.execute(ended))
    before = row_counts(stage.store)
    for verb in (stage.store.deletions.count_runs, lambda *names: stage.store.deletions.runs(*names, who="ann")):
        with pytest.raises(Conflict) as caught:
            verb("d", ["over", "busy"])
        said = str(caught.value)
        assert "'busy'" in said
        if case == "still stopping":
            assert "still runs" in said
        else:
            assert f"is {case}" in said
            assert "`yarrow runs mark failed d busy`" in said
    assert row_counts(stage.store) == before


def test_unknown_names_are_told(stage: Any) -> None:
    spec = stage.dag()
    stage.publish(spec)
    full_run(stage, spec, "monday")
    before = row_counts(stage.store)
    with pytest.raises(NotFound, match="Did you mean 'monday'"):
        stage.store.deletions.runs("d", ["monday", "mondai"], who="ann")
    with pytest.raises(NotFound, match="no DAG 'x'"):
        stage.store.deletions.runs("x", ["monday"], who="ann")
    assert row_counts(stage.store) == before


def test_a_name_given_twice_counts_once(stage: Any) -> None:
    spec = stage.dag()
    stage.publish(spec)
    full_run(stage, spec)
    assert stage.store.deletions.runs("d", ["r", "r"], who="ann").counts["runs"] == 1


def test_the_place_of_a_large_xcom_is_told_once_nothing_names_it(stage: Any) -> None:
    """The object may also be that of a result in the cache, and of runs that took it from there."""
    spec = stage.dag(tasks=[stage.task("a", cache=CacheSpec(60.0)), stage.task("b", upstream=("a",))])
    stage.publish(spec)
    delete = stage.store.deletions.runs
    full_run(stage, spec, "first", xcom=OBJECT, cache_key="a" * 64)
    full_run(stage, spec, "second", xcom=OBJECT, cached=True)
    stage.store.cache.clear()
    assert delete("d", ["first"], who="ann").references == []
    assert delete("d", ["second"], who="ann").references == [OBJECT["$ref"]]
    full_run(stage, spec, "third", xcom=OBJECT, cache_key="a" * 64)
    assert delete("d", ["third"], who="ann").references == []
    full_run(stage, spec, "fourth", xcom={"$ref": "file:///objects/xcom/two.json"})
    assert delete("d", ["fourth"], who="ann").references == ["file:///objects/xcom/two.json"]
    gone(stage, spec)
    assert [one for step in stage.store.deletions.dag("d", who="ann") for one in step.references] == [OBJECT["$ref"]]


def test_two_people_delete_the_same_run_once(postgres_stage: Any) -> None:
    spec = postgres_stage.dag()
    postgres_stage.publish(spec)
    full_run(postgres_stage, spec)
    told: list[Any] = []

    def work() -> None:
        try:
            told.append(postgres_stage.store.deletions.runs("d", ["r"], who="ann").counts["runs"])
        except NotFound as error:
            told.append(type(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(str, told)) == sorted(map(str, [1, NotFound, NotFound, NotFound]))
    assert [kind for kind, _, _ in lines(postgres_stage.store)].count("run.deleted") == 1


def gone(stage: Any, spec: DagSpec) -> None:
    stage.store.catalog.deactivate([spec.dag_id])


def delete_dag(store: Store, dag_id: str = "d") -> Mapping[str, int]:
    total: dict[str, int] = {}
    for step in store.deletions.dag(dag_id, who="ann"):
        for what, count in step.counts.items():
            total[what] = total.get(what, 0) + count
    return total


def test_a_dag_goes_with_everything_and_one_line_stays(stage: Any) -> None:
    spec = stage.dag(schedule=ScheduleSpec(datasets=("x",)), deadline=DeadlineSpec(60.0, "queued_at"))
    other = stage.dag("other")
    stage.publish(other)
    full_run(stage, other)
    kept = row_counts(stage.store)
    kept_lines = lines(stage.store, "other")
    stage.publish(spec)
    stage.store.datasets.publish("x", "ann")
    full_run(stage, spec, cache_key=None)
    at = stage.clock()
    row = {
        "id": "f" * 12,
        "kind": "clear",
        "dag_id": "d",
        "document": {},
        "runs": [],
        "run_count": 0,
        "digest": "",
        "planned_by": "ann",
    }
    in_database(
        stage.store,
        lambda connection: connection.execute(insert(plan), [{**row, "planned_at": at, "planned_by": "ann"}]),
    )
    gone(stage, spec)
    counted = stage.store.deletions.count_dag("d")
    deleted = delete_dag(stage.store)
    assert deleted == dict(counted.counts)
    assert deleted["dags"] == deleted["versions"] == deleted["plans"] == deleted["runs"] == 1
    assert lines(stage.store) == [("dag.deleted", None, "ann")]
    assert lines(stage.store, "other") == kept_lines
    # What was published is not the DAG's own: retention sees to it.
    assert row_counts(stage.store) == kept | {"event": kept["event"] + 1, "dataset_event": 1}
    with pytest.raises(NotFound):
        stage.store.catalog.dag("d")


def test_a_dag_that_comes_back_begins_anew(stage: Any) -> None:
    spec = stage.dag()
    for _ in range(2):
        stage.publish(spec)
        full_run(stage, spec)
        gone(stage, spec)
        delete_dag(stage.store)
    stage.publish(spec)
    assert [version.number for version in stage.store.catalog.versions("d")] == [1]
    assert [kind for kind, _, _ in lines(stage.store)] == ["dag.deleted", "dag.deleted", "dag.version"]


def test_a_dag_with_its_file_is_refused(stage: Any) -> None:
    stage.publish(stage.dag())
    before = row_counts(stage.store)
    for verb in (stage.store.deletions.count_dag, lambda name: delete_dag(stage.store, name)):
        with pytest.raises(UsageError, match=r"d\.yaml in the DAG folder.*Remove the file first"):
            verb("d")
        with pytest.raises(NotFound):
            verb("unknown")
    assert row_counts(stage.store) == before


def test_a_dag_with_a_run_in_flight_is_refused_whole(stage: Any) -> None:
    spec = stage.dag(max_active_runs=1)
    stage.publish(spec)
    full_run(stage, spec, "over")
    stage.run(spec, "busy")
    gone(stage, spec)
    before = row_counts(stage.store)
    with pytest.raises(Conflict, match="'busy'"):
        delete_dag(stage.store)
    assert row_counts(stage.store) == before


def test_deleting_a_dag_can_be_taken_up_again(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = stage.dag()
    stage.publish(spec)
    at = stage.clock()

    def runs(connection: Connection) -> None:
        interval = {"data_interval_start": at, "data_interval_end": at, "run_after": at, "queued_at": at}
        shared = {"dag_id": "d", "run_type": "manual", "version": spec.version, "state": "failed", "params": {}}
        rows = [
            {**shared, **interval, "run_id": f"r{n}", "logical_date": at + timedelta(days=n), "ended_at": at}
            for n in range(500)
        ]
        connection.execute(insert(dag_run), rows)

    in_database(stage.store, runs)
    gone(stage, spec)
    steps = stage.store.deletions.dag("d", who="ann")
    assert len(next(steps).runs) == 200
    del steps  # the command was broken off
    assert row_counts(stage.store)["dag_run"] == 300
    assert stage.store.catalog.dag("d") is not None
    assert delete_dag(stage.store)["runs"] == 300
    assert row_counts(stage.store).keys() == {"event"}


def test_the_file_that_took_the_place_of_a_dag_keeps_what_is_known_of_it(stage: Any) -> None:
    stage.store.catalog.publish([(stage.dag(), "#", "shared.yaml")])
    stage.store.catalog.publish([(stage.dag("other"), "#", "shared.yaml")])
    file = FileRecord("shared.yaml", size=1, mtime_ns=1, content_hash="h", dag_id="other", faults=(), parsed_at=None)
    stage.store.catalog.record_files([file])
    gone(stage, stage.dag())
    delete_dag(stage.store)
    assert list(stage.store.catalog.files()) == ["shared.yaml"]


def test_late_news_of_an_attempt_that_is_gone_is_refused(stage: Any) -> None:
    spec = stage.dag()
    stage.publish(spec)
    run = stage.run(spec)
    stage.schedule(run, "a")
    claimed = stage.claim()
    stage.finish(claimed)
    stage.decide(run, ("b", TaskState.NONE, TaskState.SKIPPED), end=RunState.SUCCESS)
    stage.store.deletions.runs("d", ["r"], who="ann")
    with pytest.raises(Refused):
        stage.finish(claimed)
    assert in_database(stage.store, lambda connection: connection.execute(select(attempt)).all()) == []
    assert in_database(stage.store, lambda connection: connection.execute(select(task_instance)).all()) == []

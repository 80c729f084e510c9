"""The versions of a DAG, and what a new one would touch."""

from typing import Any

import pytest
from sqlalchemy import insert, update

from yarrow.differences.impact import ActiveBackfill, Dataset, RunsInFlight
from yarrow.errors import NotFound, UsageError
from yarrow.language.spec import DagSpec, ScheduleSpec
from yarrow.states import RunState
from yarrow.store.tables import backfill, dag_run, dag_version


def write(stage: Any, statement: Any) -> None:
    stage.store.runs._database.write(lambda connection: connection.execute(statement))


@pytest.fixture
def specs(stage: Any) -> list[DagSpec]:
    """Three versions of the DAG d, published one after the other."""
    found = [stage.dag(description=f"version {number}") for number in (1, 2, 3)]
    for spec in found:
        stage.publish(spec)
        stage.clock.advance(60)
    return found


def cut(stage: Any, spec: DagSpec) -> DagSpec:
    """A part of a version, as a backfill of some of its tasks makes one."""
    part = stage.dag(tasks=[spec.tasks["a"]], description="a part")
    values = {"dag_id": "d", "version": part.version, "number": -1, "cut_from": spec.version}
    write(stage, insert(dag_version).values(**values, spec=part.to_json(), source="", created_at=stage.clock()))
    return part


def test_a_version_is_found_by_its_number_or_the_beginning_of_its_hash(stage: Any, specs: list[DagSpec]) -> None:
    versions = stage.store.versions
    assert versions.find("d", "2").version == specs[1].version
    assert versions.find("d", specs[0].version[:6]).number == 1
    assert versions.find("d", f" {specs[2].version.upper()} ").number == 3
    assert [one.number for one in stage.store.catalog.versions("d")] == [3, 2, 1]


@pytest.mark.parametrize("text", ["4", "0", "-1", "f" * 64, "000000"])
def test_a_version_that_there_is_not(stage: Any, specs: list[DagSpec], text: str) -> None:
    with pytest.raises(UsageError, match=r"no version"):
        stage.store.versions.find("d", text)


@pytest.mark.parametrize("text", ["", "newest", "abc", "abcdeg"])
def test_what_names_no_version(stage: Any, specs: list[DagSpec], text: str) -> None:
    with pytest.raises(UsageError, match="its number, or by its hash, of which 6 characters are enough"):
        stage.store.versions.find("d", text)


def test_a_hash_that_is_not_enough(stage: Any, specs: list[DagSpec]) -> None:
    other = specs[0].version[:8] + "0" * 56
    row = {"dag_id": "d", "version": other, "number": 4, "spec": specs[0].to_json(), "source": ""}
    write(stage, insert(dag_version).values(**row, created_at=stage.clock()))
    with pytest.raises(UsageError, match=f"2 versions of the DAG 'd' begin with {other[:6]}. Give more of it."):
        stage.store.versions.find("d", other[:6])
    assert stage.store.versions.find("d", other[:9]).number == 4


def test_an_unknown_dag(stage: Any, specs: list[DagSpec]) -> None:
    with pytest.raises(NotFound, match=r"no DAG 'dd'\. Did you mean 'd'"):
        stage.store.versions.find("dd", "1")
    standing, progress = stage.store.versions.standing("dd", [])
    assert (standing.in_flight, standing.backfills, progress) == ([], [], None)


def test_a_part_of_a_version_is_none_of_its_own(stage: Any, specs: list[DagSpec]) -> None:
    part = cut(stage, specs[1])
    assert [one.number for one in stage.store.catalog.versions("d")] == [3, 2, 1]
    with pytest.raises(NotFound):
        stage.store.versions.find("d", part.version)
    stage.run(specs[1], "whole")
    stage.run(part, "part", start=False)
    counts = stage.store.versions.run_counts("d")
    assert {version: sum(states.values()) for version, states in counts.items()} == {specs[1].version: 2}


def test_runs_are_counted_by_version_and_state(stage: Any, specs: list[DagSpec]) -> None:
    ended = stage.run(specs[0], "r1")
    stage.end(ended, RunState.FAILED)
    stage.run(specs[0], "r2")
    stage.run(specs[2], "r3", start=False)
    assert stage.store.versions.run_counts("d") == {
        specs[0].version: {RunState.FAILED: 1, RunState.RUNNING: 1},
        specs[2].version: {RunState.QUEUED: 1},
    }


def test_what_is_in_flight(stage: Any, specs: list[DagSpec]) -> None:
    stage.end(stage.run(specs[0], "over"))
    for number in range(7):
        stage.run(specs[0], f"r{number}", start=number < 2)
    stage.run(specs[2], "newer", start=False)
    standing, progress = stage.store.versions.standing("d", [])
    assert standing.in_flight == [
        RunsInFlight(specs[2].version, 3, {"queued": 1}, ["newer"]),
        RunsInFlight(specs[0].version, 1, {"running": 2, "queued": 5}, ["r0", "r1", "r2", "r3", "r4"]),
    ]
    assert progress is not None
    assert progress.scheduled_through is None


def test_backfills_that_have_runs_left(stage: Any, specs: list[DagSpec]) -> None:
    at = stage.clock()
    common = {"dag_id": "d", "plan_id": "p", "from_date": at, "to_date": at, "reprocess": "none", "created_by": "me"}
    common |= {"max_active_runs": 1, "run_backwards": False, "priority_class": -1, "run_count": 1, "created_at": at}
    for number, cancelled_at in ((1, None), (2, at), (3, None)):
        write(stage, insert(backfill).values(id=number, cancelled_at=cancelled_at, **common))
    for number, state in ((1, "queued"), (1, "queued"), (1, "running"), (2, "running"), (3, "success")):
        run = stage.run(specs[0], f"b{number}{state}{stage.clock()}", start=False)
        write(stage, update(dag_run).where(dag_run.c.id == run.id).values(state=state, backfill_id=number))
        stage.clock.advance(1)
    assert stage.store.versions.standing("d", [])[0].backfills == [ActiveBackfill(1, 2, 1)]


def test_who_has_to_do_with_a_data_set(stage: Any, specs: list[DagSpec]) -> None:
    publisher = stage.dag("p", [stage.task("a", outlets=("x_y",))])
    similar = stage.dag("q", [stage.task("x_y")])
    gone = stage.dag("gone", [stage.task("a", outlets=("x_y",))])
    waiting = [stage.dag(name, schedule=ScheduleSpec(datasets=("x_y", "z"))) for name in ("w", "v", "d")]
    stage.publish(publisher, similar, gone, *waiting)
    stage.store.catalog.deactivate(["gone"])
    standing, _ = stage.store.versions.standing("d", ["x_y", "z", "other"])
    assert standing.datasets == {
        "other": Dataset(),
        "x_y": Dataset(("v", "w"), ("p",)),
        "z": Dataset(("v", "w")),
    }

"""What is read of a DAG and its runs before a plan is made."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from cleared import bring, clear, instances, mapped, mark
from yarrow.errors import NotFound, UsageError
from yarrow.plans.requests import BackfillRequest, ClearRequest
from yarrow.plans.situation import Situation
from yarrow.states import RunState, TaskState
from yarrow.store import situations

DAY = timedelta(days=1)


def load(stage: Any, *, backfill: bool = False, locked: bool = False, **fields: Any) -> Situation:
    request = (BackfillRequest if backfill else ClearRequest)(dag_id=fields.pop("dag_id", "d"), **fields)
    database, specs = stage.store.runs._database, stage.store.runs._specs
    run = database.write if locked else database.read
    return run(lambda connection: situations.load(connection, specs, request, stage.clock(), locked=locked))


def daily(stage: Any, count: int = 5, **fields: Any) -> list[Any]:
    spec = stage.dag(max_active_runs=count, **fields)
    stage.publish(spec)
    return [stage.run(spec, f"r{day}", stage.clock() + day * DAY) for day in range(count)]


@pytest.mark.parametrize("locked", [True, False])
def test_runs_are_found_by_name_and_span_and_side(stage, locked) -> None:
    daily(stage)
    start = stage.clock()
    for fields, wanted in [
        ({"run_ids": ("r3", "r1")}, "13"),
        ({"run_ids": ("r2",), "past": True}, "012"),
        ({"run_ids": ("r2",), "future": True}, "234"),
        ({"run_ids": ("r2",), "past": True, "future": True}, "01234"),
        ({"from_date": start + DAY, "to_date": start + 3 * DAY}, "123"),
        ({"from_date": start + 3 * DAY}, "34"),
        ({"to_date": start + DAY}, "01"),
        ({"from_date": start + 9 * DAY}, ""),
    ]:
        found = load(stage, locked=locked, **fields)
        assert [run.run_id for run in found.runs] == [f"r{day}" for day in wanted]
        assert all(len(run.tasks) == 2 for run in found.runs)


def test_what_there_is_not_is_told_with_the_nearest_name(stage) -> None:
    daily(stage)
    with pytest.raises(NotFound, match="no run 'rr1'") as error:
        load(stage, run_ids=("r1", "rr1"))
    assert error.value.hint == "Did you mean 'r1'?"
    with pytest.raises(NotFound, match="no DAG 'dd'") as error:
        load(stage, dag_id="dd", run_ids=("r1",))
    assert error.value.hint == "Did you mean 'd'?"
    with pytest.raises(UsageError, match="Name the runs"):
        load(stage)
    with pytest.raises(UsageError, match="not both"):
        load(stage, run_ids=("r1",), from_date=stage.clock())


@pytest.mark.parametrize("end", [None, "clear", "failed"])
def test_a_task_instance_is_told_as_it_stands(stage, end) -> None:
    run, claimed = bring(stage, "running", retries=2)
    if end == "clear":
        clear(stage)
    elif end is not None:
        mark(stage, end)
    (facts,) = load(stage, run_ids=("r",)).runs
    first, second = facts.tasks
    assert (first.task_id, first.state, first.attempt_id) == ("a", TaskState.RUNNING, claimed.attempt_id)
    assert (first.try_number, first.max_tries, first.has_xcom) == (1, 3, False)
    assert first.stopping_to == {"clear": "none"}.get(str(end), end)
    assert (second.task_id, second.state, second.stopping_to) == ("b", TaskState.NONE, None)
    assert (facts.id, facts.state, facts.version) == (run.id, RunState.RUNNING, run.version)


def test_one_that_is_cancelled_may_still_succeed(stage) -> None:
    bring(stage, "running")
    stage.store.attempts.cancel("d", "r", "a", who="ann")
    assert load(stage, run_ids=("r",)).runs[0].tasks[0].stopping_to is None


def test_xcoms_count_while_others_may_see_them(stage) -> None:
    bring(stage, "success")
    assert [one.has_xcom for one in load(stage, run_ids=("r",)).runs[0].tasks] == [True, False]
    clear(stage)
    assert [one.has_xcom for one in load(stage, run_ids=("r",)).runs[0].tasks] == [False, False]


def test_instances_stand_in_the_order_of_their_tasks(stage) -> None:
    mapped(stage, 3)
    assert instances(stage) == {0: "scheduled", 1: "scheduled", 2: "scheduled"}
    (facts,) = load(stage, run_ids=("r",)).runs
    assert [(one.task_id, one.map_index) for one in facts.tasks] == [("a", -1), ("m", 0), ("m", 1), ("m", 2), ("z", -1)]
    assert facts.tasks[2].map_value == {"n": 1}


def test_a_dag_whose_file_is_gone_is_told_with_its_last_version(stage) -> None:
    runs = daily(stage, 1)
    stage.store.catalog.deactivate(["d"])
    found = load(stage, run_ids=("r0",))
    assert (found.is_active, found.newest.version) == (False, runs[0].version)
    assert found.numbers == {runs[0].version: 1}
    assert found.pools == {"default_pool": (128, 0)}


@pytest.mark.parametrize("locked", [True, False])
def test_a_backfill_looks_at_its_span_and_at_the_run_before_it_if_tasks_do(stage, locked) -> None:
    runs = daily(stage, 3)
    span = {"from_date": stage.clock() + DAY, "to_date": stage.clock() + 2 * DAY}
    found = load(stage, backfill=True, locked=locked, **span)
    assert ([run.run_id for run in found.runs], found.before) == (["r1", "r2"], None)
    assert [run.tasks for run in found.runs] == [(), ()], "with 3,650 runs they would be very many"
    found = load(stage, backfill=True, locked=locked, reprocess="failed", **span)
    assert [len(run.tasks) for run in found.runs] == [2, 2]
    stage.publish(stage.dag(tasks=[stage.task("a", depends_on_past=True)]))
    found = load(stage, backfill=True, locked=locked, **span)
    assert found.before is not None
    assert (found.before.run_id, found.before.id, len(found.before.tasks)) == ("r0", runs[0].id, 2)


def test_many_runs_are_read_with_few_queries(stage) -> None:
    daily(stage, 40)
    statements: list[str] = []
    engine = stage.store.runs._database._reader
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for locked in (False, True):
        statements.clear()
        assert len(load(stage, from_date=stage.clock(), locked=locked).runs) == 40
        assert len(statements) < 16

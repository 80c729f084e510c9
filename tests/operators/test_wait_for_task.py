"""Waiting for a task or a run of another DAG."""

from datetime import UTC, datetime
from typing import Any

import pytest

from yarrow import Fail, NotYet, Skip
from yarrow.operator import OtherState
from yarrow.states import TaskState
from yarrow.testing import run_dag
from yarrow_operators.wait_for_task import WaitForTask

DAY = datetime(2013, 1, 1, tzinfo=UTC)


def missing(task: WaitForTask, context: Any) -> str:
    answer = task.poke(context)
    assert isinstance(answer, NotYet)
    return answer.reason


def test_a_task_of_the_same_logical_date(context: Any) -> None:
    task = WaitForTask(dag_id="ingest", task_id="load")
    assert missing(task, context).startswith("There is no such run yet: the task `load` of the DAG `ingest`")
    for state in ("none", "running", "up_for_retry", "skipped"):
        context.states = {("ingest", "load", DAY): OtherState("r1", state)}
        assert missing(task, context).endswith(f"which is {state}.")
    context.states = {("ingest", "load", DAY): OtherState("r1", "success")}
    assert task.poke(context) == {"run_id": "r1", "state": "success"}


def test_a_whole_run(context: Any) -> None:
    context.states = {("ingest", None, DAY): OtherState("r1", "success")}
    assert WaitForTask(dag_id="ingest").poke(context) == {"run_id": "r1", "state": "success"}


@pytest.mark.parametrize("state", ["failed", "upstream_failed"])
def test_what_has_failed_is_not_waited_for(context: Any, state: str) -> None:
    context.states = {("ingest", "load", DAY): OtherState("r1", state)}
    with pytest.raises(Fail, match=f"would wait in vain: .* is {state}"):
        WaitForTask(dag_id="ingest", task_id="load").poke(context)
    missing(WaitForTask(dag_id="ingest", task_id="load", failed_states=[]), context)


def test_other_states(context: Any) -> None:
    context.states = {("ingest", "load", DAY): OtherState("r1", "skipped")}
    found: Any = WaitForTask(dag_id="ingest", task_id="load", allowed_states=["success", "skipped"]).poke(context)
    assert found["state"] == "skipped"
    with pytest.raises(Skip, match="which is skipped"):
        WaitForTask(dag_id="ingest", task_id="load", skipped_states=["skipped"]).poke(context)
    with pytest.raises(Fail):
        WaitForTask(dag_id="ingest", task_id="load", failed_states=["skipped"]).poke(context)
    context.states = {("ingest", "load", DAY): OtherState("r1", "failed")}
    assert WaitForTask(dag_id="ingest", task_id="load", allowed_states=["failed"]).poke(context)


@pytest.mark.parametrize(
    ("fields", "date"),
    [
        ({"offset": "1d"}, datetime(2012, 12, 31, tzinfo=UTC)),
        ({"offset": "90m"}, datetime(2012, 12, 31, 22, 30, tzinfo=UTC)),
        ({"logical_date": "2012-12-30T01:00:00+01:00"}, datetime(2012, 12, 30, tzinfo=UTC)),
        ({"logical_date": "2012-12-30"}, datetime(2012, 12, 30, 5, tzinfo=UTC)),
    ],
)
def test_another_logical_date(context: Any, fields: dict[str, Any], date: datetime) -> None:
    context.timezone = "America/New_York"
    context.states = {("ingest", None, date): OtherState("r0", "success")}
    found: Any = WaitForTask(dag_id="ingest", **fields).poke(context)
    assert found["run_id"] == "r0"


@pytest.mark.parametrize(
    ("offset", "expected"), [("1d", (10, 5)), ("24h", (10, 5)), ("23h", (10, 5)), ("22h", (10, 6))]
)
def test_days_on_which_the_clocks_change(context: Any, offset: str, expected: tuple[int, int]) -> None:
    context.timezone = "America/New_York"
    context.logical_date = datetime(2013, 3, 11, 4, tzinfo=UTC)  # midnight there, and so is 5:00 UTC the day before
    day, hour = expected
    context.states = {("ingest", None, datetime(2013, 3, day, hour, tzinfo=UTC)): OtherState("r0", "success")}
    assert WaitForTask(dag_id="ingest", offset=offset).poke(context)


def test_a_date_that_is_none(context: Any) -> None:
    with pytest.raises(Fail, match="`logical_date` is not a date and time: 'monday'"):
        WaitForTask(dag_id="ingest", logical_date="monday").poke(context)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"logical_date": "2013-01-01", "offset": "1d"}, ("offset",)),
        ({"logical_date": "monday"}, ("logical_date",)),
        ({"allowed_states": ["success", "failed"], "failed_states": ["failed"]}, ("failed_states",)),
        ({"allowed_states": []}, ("allowed_states",)),
    ],
)
def test_it_is_checked_when_its_file_is_loaded(arguments: dict[str, Any], path: tuple[str, ...]) -> None:
    assert [place for place, _ in WaitForTask.check({"dag_id": "x", **arguments}, ())] == [path]
    assert list(WaitForTask.check({"dag_id": "x", "offset": "1d", "allowed_states": ["failed"]}, ())) == []


def test_in_a_test_run_the_other_dag_has_succeeded() -> None:
    result = run_dag("tasks:\n  w:\n    operator: wait_for_task\n    with: {dag_id: other, task_id: load}\n")
    assert result.tasks["w"].state == TaskState.SUCCESS
    assert result.tasks["w"].xcom == {"run_id": "inline__other", "state": "success"}

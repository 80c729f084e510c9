"""The operators that steer a run: empty, branch, short_circuit and trigger_dag."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from yarrow.errors import Fail
from yarrow_operators.branch import Branch
from yarrow_operators.empty import Empty
from yarrow_operators.short_circuit import ShortCircuit
from yarrow_operators.trigger_dag import TriggerDag


def test_empty_does_nothing(context: Any) -> None:
    Empty().execute(context)


@pytest.mark.parametrize(
    ("values", "follow"),
    [
        ((True, True), ["retrain"]),
        ((False, True), ["report", "notify"]),
        ((False, False), ["archive"]),
    ],
)
def test_branch_follows_the_first_condition_that_is_true(
    context: Any, values: tuple[bool, bool], follow: list[str]
) -> None:
    context.downstream = ("retrain", "report", "notify", "archive")
    task = Branch(
        conditions=[
            {"if": values[0], "then": ["retrain"]},
            {"if": values[1], "then": ["report", "notify", "report"]},
        ],
        otherwise=["archive"],
    )

    assert task.execute(context) == {"follow": follow}


def test_branch_without_otherwise_follows_nothing(context: Any) -> None:
    assert Branch(conditions=[{"if": False, "then": ["a"]}]).execute(context) == {"follow": []}


def test_branch_refuses_a_task_that_is_not_downstream(context: Any) -> None:
    context.downstream = ("a", "b")

    with pytest.raises(Fail, match=r"`c` is not directly downstream .* Directly downstream: `a`, `b`"):
        Branch(conditions=[{"if": True, "then": ["c"]}]).execute(context)


def test_branch_is_checked_when_its_file_is_loaded() -> None:
    arguments = {"conditions": [{"if": "{{ params.x }}", "then": ["a", "c"]}], "otherwise": ["d"]}

    problems = dict(Branch.check(arguments, ("a", "b")))

    assert list(problems) == [("conditions", 0, "then", 1), ("otherwise", 0)]
    assert "`c` is not directly downstream" in problems["conditions", 0, "then", 1]
    assert list(Branch.check({"conditions": [{"if": True, "then": ["a"]}]}, ("a", "b"))) == []


def test_short_circuit(context: Any) -> None:
    assert ShortCircuit(condition=True).execute(context) == {"follow": None}
    assert ShortCircuit(condition=False).execute(context) == {"follow": []}


def test_the_operators_that_steer_say_so() -> None:
    assert Branch.control
    assert ShortCircuit.control
    assert not TriggerDag.control


def test_trigger_dag(context: Any) -> None:
    task = TriggerDag(dag_id="report", params={"day": "2013-01-01"}, logical_date="2013-01-01T02:00:00+02:00")

    assert task.execute(context) == {"dag_id": "report", "run_id": "manual__2"}
    date = datetime(2013, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert context.triggered == [("report", {"day": "2013-01-01"}, date)]


def test_trigger_dag_dates(context: Any) -> None:
    TriggerDag(dag_id="report").execute(context)
    TriggerDag(dag_id="report", logical_date="2013-01-01").execute(context)

    assert [date for _, _, date in context.triggered] == [None, datetime(2013, 1, 1, tzinfo=UTC)]
    with pytest.raises(Fail, match="is not a date: 'monday'"):
        TriggerDag(dag_id="report", logical_date="monday").execute(context)

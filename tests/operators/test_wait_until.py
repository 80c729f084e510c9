"""Waiting for a moment."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from yarrow import Fail, Reschedule
from yarrow.states import TaskState
from yarrow.testing import FrozenClock, run_dag
from yarrow_operators.wait_until import WaitUntil


def moment(context: Any, **fields: Any) -> datetime:
    """Until when it waits, looking once; and it has waited long enough then."""
    context.time = context.first_started_at = datetime(2000, 1, 1, tzinfo=UTC)
    task = WaitUntil(timeout="3650d", **fields)
    context.first_started_at = datetime(2012, 1, 1, tzinfo=UTC)
    with pytest.raises(Reschedule) as caught:
        task.execute(context)
    context.time = caught.value.until
    assert task.execute(context) == {"at": caught.value.until.isoformat()}
    return caught.value.until


@pytest.mark.parametrize(
    ("fields", "timezone", "expected"),
    [
        ({"at": "2013-02-01T18:00:00"}, "UTC", "2013-02-01T18:00"),
        ({"at": "2013-02-01T18:00:00"}, "America/New_York", "2013-02-01T23:00"),
        ({"at": "2013-02-01T18:00:00+01:00"}, "America/New_York", "2013-02-01T17:00"),
        ({"delay": "90m"}, "America/New_York", "2013-02-01T01:30"),
        ({"time": "06:00"}, "UTC", "2013-02-01T06:00"),
        ({"time": "6:00:30"}, "America/New_York", "2013-01-31T11:00:30"),  # there it is still January
    ],
)
def test_moments(context: Any, fields: dict[str, str], timezone: str, expected: str) -> None:
    context.timezone = timezone
    assert moment(context, **fields) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("end", "time", "expected"),
    [
        ("2013-03-10T06:00", "02:30", "2013-03-10T07:30"),  # it does not exist: shifted forward to 03:30
        ("2013-11-03T06:00", "01:30", "2013-11-03T05:30"),  # it comes twice: the first one
    ],
)
def test_times_of_days_on_which_the_clocks_change(context: Any, end: str, time: str, expected: str) -> None:
    context.timezone = "America/New_York"
    context.data_interval_end = datetime.fromisoformat(end).replace(tzinfo=UTC)
    assert moment(context, time=time) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_a_moment_that_has_passed(context: Any) -> None:
    context.time = datetime(2013, 2, 1, 6, 0, 1, tzinfo=UTC)
    assert WaitUntil(time="06:00").execute(context) == {"at": "2013-02-01T06:00:00+00:00"}


def test_a_moment_beyond_the_timeout_fails_at_once(context: Any) -> None:
    with pytest.raises(Fail, match=r"2013-03-01 00:00:00.* is further away than the `timeout` of 7d"):
        WaitUntil(at="2013-03-01").execute(context)
    with pytest.raises(Reschedule):
        WaitUntil(at="2013-03-01", timeout="60d").execute(context)


def test_a_text_that_is_no_moment(context: Any) -> None:
    with pytest.raises(Fail, match="`at` is not a date and time: 'noon'"):
        WaitUntil(at="noon").execute(context)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({}, ()),
        ({"at": "2013-01-01", "delay": "5m"}, ("delay",)),
        ({"at": "noon"}, ("at",)),
    ],
)
def test_it_is_checked_when_its_file_is_loaded(arguments: dict[str, str], path: tuple[str, ...]) -> None:
    assert [place for place, _ in WaitUntil.check(arguments, ())] == [path]
    assert list(WaitUntil.check({"time": "06:00"}, ())) == []


def test_a_dag_waits_and_is_executed_twice() -> None:
    clock = FrozenClock(datetime(2026, 1, 2, tzinfo=UTC))
    dag = """
schedule: "@daily"
start_date: 2026-01-01
tasks:
  wait: {operator: wait_until, with: {delay: 6h}}
"""
    result = run_dag(dag, clock=clock)
    task = result.tasks["wait"]
    assert (task.state, task.tries) == (TaskState.SUCCESS, 1)
    assert task.xcom == {"at": (clock() + timedelta(hours=6)).isoformat()}
    assert len(task.log) == 1

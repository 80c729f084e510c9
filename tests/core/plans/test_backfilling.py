from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deciding import dag, task
from planning import DAY, FIRST, NOW, fact, facts, situation, words
from yarrow.errors import InvalidParams, NotFound, UsageError
from yarrow.language.spec import DagSpec, ScheduleSpec
from yarrow.plans.backfilling import plan_backfill
from yarrow.plans.plan import RunAction, RunChange
from yarrow.plans.requests import BackfillRequest
from yarrow.plans.situation import RunFacts
from yarrow.plans.span import MOST_OUTSIDE
from yarrow.states import RunState, TaskState

N, S, F, K, U = TaskState.NONE, TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED, TaskState.UPSTREAM_FAILED
SUCCESS, FAILED, RUNNING, QUEUED = RunState.SUCCESS, RunState.FAILED, RunState.RUNNING, RunState.QUEUED
DAILY = ScheduleSpec(cron="@daily")
START = datetime(2025, 1, 1, tzinfo=UTC)


def daily(*tasks: Any, **fields: Any) -> DagSpec:
    return dag(*tasks, **{"schedule": DAILY, "start_date": START, **fields})


CHAIN = daily(task("a"), task("b", "a"), task("c", "b"))
PAST = daily(task("a", depends_on_past=True), task("b", "a"))


def day(number: int) -> datetime:
    return FIRST + number * DAY


def backfill(
    spec: DagSpec,
    *runs: RunFacts,
    first: int | datetime = 0,
    last: int | datetime = 4,
    world: dict[str, Any] | None = None,
    **fields: Any,
) -> list[RunChange]:
    """The plan for days that are counted from FIRST."""
    dates = [day(one) if isinstance(one, int) else one for one in (first, last)]
    request = BackfillRequest(dag_id="d", from_date=dates[0], to_date=dates[1], **fields)
    return plan_backfill(request, situation(*runs, newest=spec, **(world or {})))


def verdicts(changes: list[RunChange]) -> dict[int, str]:
    """What becomes of each day: its action, or the beginning of the reason why it is left out."""
    return {
        (one.logical_date - FIRST).days: str(one.action) if one.reason is None else one.reason.split(":")[0]
        for one in changes
    }


# Which data intervals.


def test_makes_a_run_for_each_data_interval_both_ends_included() -> None:
    made = backfill(CHAIN, first=0, last=2)
    assert [(one.run_id, one.action, one.from_state, one.to_state) for one in made] == [
        ("backfill__2026-01-01T00:00:00+00:00", RunAction.CREATE, None, "queued"),
        ("backfill__2026-01-02T00:00:00+00:00", RunAction.CREATE, None, "queued"),
        ("backfill__2026-01-03T00:00:00+00:00", RunAction.CREATE, None, "queued"),
    ]
    assert (made[0].data_interval_start, made[0].data_interval_end) == (day(0), day(1))
    assert {(one.version, one.task_count) for one in made} == {(CHAIN.version, 3)}


def test_dates_between_logical_dates_take_in_what_lies_between_them() -> None:
    found = backfill(CHAIN, first=day(0) + timedelta(hours=1), last=day(2) + timedelta(hours=1))
    assert list(verdicts(found)) == [1, 2]


def test_an_interval_that_is_not_over_is_left_out_and_later_ones_are_not_listed() -> None:
    found = backfill(CHAIN, first=29, last=40, world={})  # now is the beginning of day 31
    assert verdicts(found) == {29: "create", 30: "create", 31: "not over yet"}
    assert found[-1].reason == "not over yet: its data interval ends at 2026-02-02T00:00:00Z"


def test_a_trigger_schedule_covers_no_time() -> None:
    spec = daily(task("a"), schedule=ScheduleSpec(cron="@daily", semantics="trigger"))
    (one,) = backfill(spec, first=31, last=40)
    assert (one.action, one.data_interval_start, one.data_interval_end) == (RunAction.CREATE, NOW, NOW)


def test_what_is_outside_the_dates_of_the_dag_is_listed_as_such() -> None:
    spec = daily(task("a"), start_date=day(2), end_date=day(5))
    found = backfill(spec, first=0, last=6)
    assert verdicts(found) == {
        0: "outside the dates of the DAG, whose start_date is 2026-01-03T00",
        1: "outside the dates of the DAG, whose start_date is 2026-01-03T00",
        **dict.fromkeys((2, 3, 4), "create"),
        5: "outside the dates of the DAG, whose end_date is 2026-01-06T00",
        6: "outside the dates of the DAG, whose end_date is 2026-01-06T00",
    }


def test_very_many_outside_dates_are_not_all_listed() -> None:
    spec = daily(task("a"), start_date=day(0))
    found = backfill(spec, first=datetime(1990, 1, 1, tzinfo=UTC), last=1)
    assert len(found) == MOST_OUTSIDE + 2
    assert str(found[MOST_OUTSIDE - 1].reason).endswith("; more of them are not listed")


def test_follows_the_time_zone_of_the_schedule() -> None:
    spec = daily(task("a"), schedule=ScheduleSpec(cron="0 0 * * *", timezone="Europe/Berlin"))
    first, last = datetime(2025, 3, 29, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC)
    hours = [one.logical_date.hour for one in backfill(spec, first=first, last=last)]
    assert hours == [23, 22, 22]  # UTC, before and after the clocks are put forward


@pytest.mark.parametrize(
    ("spec", "fields", "message"),
    [
        (dag(task("a")), {}, "this one has no schedule"),
        (daily(task("a"), schedule=ScheduleSpec(datasets=("x",))), {}, "waits for data sets"),
        (
            daily(task("a"), schedule=ScheduleSpec(cron="@continuous")),
            {},
            "only a DAG with a schedule of its own times",
        ),
        (daily(task("a"), schedule=ScheduleSpec(cron="@once")), {}, "the schedule of this one is @once"),
        (CHAIN, {"first": 3, "last": 2}, "from 2026-01-04T00:00:00Z to 2026-01-03T00:00:00Z, which is earlier"),
        (CHAIN, {"first": 32, "last": 33}, "are in the future"),
        (CHAIN, {"reprocess": "all"}, "none, failed, completed, not 'all'"),
        (CHAIN, {"reprocess": "completed", "whole_runs": True}, "only when failed ones are reprocessed"),
        (CHAIN, {"max_active_runs": 0}, "a number from 1 to"),
        (CHAIN, {"priority_class": 101}, "between -100 and 100"),
        (CHAIN, {"tasks": "x"}, "no task `x`"),
        (CHAIN, {"tasks": " , "}, "selector is empty"),
        (PAST, {"run_backwards": True}, "`a` looks at the run before its own"),
        (
            daily(task("a", wait_for_downstream=True), task("b", "a")),
            {"run_backwards": True},
            "`a` looks at the run before its own",
        ),
    ],
)
def test_refuses_with_a_sentence(spec: DagSpec, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        backfill(spec, **fields)
    assert message in str(caught.value)


def test_a_span_between_two_logical_dates_names_them() -> None:
    spec = daily(task("a"), schedule=ScheduleSpec(cron="@weekly"))
    with pytest.raises(UsageError, match="nearest are 2026-01-04T00:00:00Z and 2026-01-11T00:00:00Z"):
        backfill(spec, first=4, last=6)


def test_more_runs_than_a_backfill_may_have_are_refused() -> None:
    spec = daily(task("a"), schedule=ScheduleSpec(every=60.0))
    with pytest.raises(UsageError, match="more than 100,000 logical dates"):
        backfill(spec, first=START, last=day(0))


def test_a_dag_whose_file_is_gone_is_refused_and_a_paused_one_is_not() -> None:
    with pytest.raises(NotFound, match="is gone"):
        backfill(CHAIN, world={"is_active": False})
    assert set(verdicts(backfill(CHAIN, world={"is_paused": True})).values()) == {"create"}


def test_params_must_fit_the_schema() -> None:
    spec = daily(task("a"), params={"limit": {"type": "integer", "default": 1}})
    with pytest.raises(InvalidParams, match="limit"):
        backfill(spec, params={"limit": "many"})
    assert set(verdicts(backfill(spec, params={"limit": 3})).values()) == {"create"}


def test_backwards_the_latest_come_first() -> None:
    assert list(verdicts(backfill(CHAIN, run_backwards=True))) == [4, 3, 2, 1, 0]


def test_ten_years_of_days_take_little_time() -> None:
    began = time.perf_counter()
    found = backfill(daily(task("a"), start_date=datetime(2010, 1, 1, tzinfo=UTC)), first=day(0) - 3650 * DAY, last=-1)
    assert len(found) == 3650
    assert time.perf_counter() - began < 2


# Runs that there are.


def existing() -> list[RunFacts]:
    """Of each kind one: done, failed, running, queued, and one that ended although a task of it is still stopped."""
    return [
        facts(CHAIN, state=SUCCESS, day=0, a=S, b=S, c=S),
        facts(CHAIN, state=FAILED, day=1, a=S, b=F, c=U),
        facts(CHAIN, state=RUNNING, day=2, a=S, b=TaskState.RUNNING),
        facts(CHAIN, state=QUEUED, day=3),
        facts(CHAIN, fact("b", TaskState.RUNNING, stopping_to="failed"), state=FAILED, day=4, a=S, c=K),
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["exists", "exists", "in flight", "in flight", "in flight", "create"]),
        (
            {"reprocess": "failed"},
            ["exists", "rerun failed", "in flight", "in flight", "in flight", "create"],
        ),
        (
            {"reprocess": "failed", "whole_runs": True},
            ["exists", "rerun all", "in flight", "in flight", "in flight", "create"],
        ),
        (
            {"reprocess": "completed"},
            ["rerun all", "rerun all", "in flight", "in flight", "in flight", "create"],
        ),
    ],
)
def test_what_becomes_of_runs_that_there_are(fields: dict[str, Any], expected: list[str]) -> None:
    assert list(verdicts(backfill(CHAIN, *existing(), last=5, **fields)).values()) == expected


def test_failed_reruns_what_failed_and_what_depends_on_it() -> None:
    run = facts(CHAIN, fact("a", S, has_xcom=True), state=FAILED, b=F, c=U)
    (change,) = backfill(CHAIN, run, last=0, reprocess="failed")
    assert (change.run_id, change.from_state, change.to_state, change.task_count) == ("r0", "failed", "queued", 2)
    assert words(change.tasks) == ["b clear", "c clear"]
    (whole,) = backfill(CHAIN, run, last=0, reprocess="failed", whole_runs=True)
    assert words(whole.tasks) == ["a clear", "b clear", "c clear"]


def test_a_failed_run_in_which_nothing_failed_is_left_alone() -> None:
    run = facts(CHAIN, state=FAILED, a=S, b=K, c=K)  # it took too long
    (change,) = backfill(CHAIN, run, last=0, reprocess="failed")
    assert change.reason == "exists: it is failed, but none of its tasks failed"
    assert verdicts(backfill(CHAIN, run, last=0, reprocess="failed", whole_runs=True)) == {0: "rerun all"}


def test_of_several_runs_of_a_date_the_newest_counts() -> None:
    old = facts(CHAIN, state=FAILED, a=F)
    new = replace(facts(CHAIN, state=SUCCESS, a=S, b=S, c=S), id=9, run_id="again")
    (change,) = backfill(CHAIN, old, new, last=0, reprocess="failed")
    assert (change.run_id, change.action) == ("again", RunAction.SKIP)


def test_a_run_keeps_its_version_and_a_new_one_gets_the_newest() -> None:
    old = daily(task("a"))
    found = backfill(CHAIN, facts(old, state=SUCCESS, a=S), last=1, reprocess="completed")
    assert [(one.version, one.task_count) for one in found] == [(old.version, 1), (CHAIN.version, 3)]


def test_a_run_of_a_version_that_looks_back_does_not_go_backwards() -> None:
    run = facts(PAST, state=SUCCESS, a=S, b=S)
    found = backfill(CHAIN, run, last=1, reprocess="completed", run_backwards=True)
    assert verdicts(found) == {1: "create", 0: "blocked by depends_on_past"}
    assert backfill(CHAIN, run, last=0, reprocess="completed")[0].action is RunAction.RERUN_ALL


def test_params_that_the_version_of_a_run_does_not_take_leave_it_out() -> None:
    newest = daily(task("a"), params={"limit": {"type": "integer", "default": 1}})
    run = facts(daily(task("a")), state=SUCCESS, a=S)
    (change,) = backfill(newest, run, last=0, reprocess="completed", params={"limit": 2})
    assert change.reason is not None
    assert change.reason.startswith("its version of the DAG takes other params: ")


def test_a_run_that_was_cancelled_before_it_ran_again_can_be_rerun() -> None:
    (change,) = backfill(CHAIN, facts(CHAIN, state=FAILED), last=0, reprocess="failed")  # all is in the state `none`
    assert (change.action, change.tasks, change.task_count) == (RunAction.RERUN_FAILED, (), 3)


# Tasks that look at the run before.


def test_a_failed_run_before_the_span_blocks_what_comes_after_it() -> None:
    before = facts(PAST, state=FAILED, day=-1, a=F, b=U)
    found = backfill(PAST, last=1, world={"before": before})
    assert verdicts(found) == {0: "blocked by depends_on_past", 1: "blocked by depends_on_past"}
    assert found[1].reason == (
        "blocked by depends_on_past: `a` of the run before, r-1, has not succeeded: it is failed"
    )


def test_what_is_rerun_blocks_nothing_and_what_stays_failed_does() -> None:
    failed = facts(PAST, state=FAILED, day=1, a=F, b=U)
    assert verdicts(backfill(PAST, failed, last=2, reprocess="failed")) == {0: "create", 1: "rerun failed", 2: "create"}
    assert verdicts(backfill(PAST, failed, last=2)) == {0: "create", 1: "exists", 2: "blocked by depends_on_past"}


def test_a_failure_of_a_task_that_nobody_looks_back_at_blocks_nothing() -> None:
    failed = facts(PAST, state=FAILED, day=0, a=S, b=F)
    assert verdicts(backfill(PAST, failed, last=1)) == {0: "exists", 1: "create"}
    downstream = daily(task("a", depends_on_past=True, wait_for_downstream=True), task("b", "a"))
    failed = facts(downstream, state=FAILED, day=0, a=S, b=F)
    assert verdicts(backfill(downstream, failed, last=1)) == {0: "exists", 1: "blocked by depends_on_past"}


@pytest.mark.parametrize(("catchup", "expected"), [(True, "create"), (False, "blocked by depends_on_past")])
def test_with_catchup_runs_by_hand_are_not_the_run_before(catchup: bool, expected: str) -> None:
    spec = daily(task("a", depends_on_past=True), catchup=catchup)
    by_hand = replace(
        facts(spec, state=FAILED, day=0, a=F), run_type="manual", logical_date=day(0) + timedelta(hours=1)
    )
    assert verdicts(backfill(spec, by_hand, last=1)) == {0: "create", 1: expected}


# Some of the tasks.


def test_new_runs_consist_of_the_selected_tasks() -> None:
    (change,) = backfill(CHAIN, last=0, tasks="b+")
    assert (change.action, change.task_count) == (RunAction.CREATE, 2)
    assert change.version not in (None, CHAIN.version)
    assert [(need.task_id, need.of_task_id, need.what, need.there) for need in change.needs] == [
        ("b", "a", "state", False)
    ]


def test_all_tasks_by_a_selector_are_the_newest_version_itself() -> None:
    assert backfill(CHAIN, last=0, tasks="a+")[0].version == CHAIN.version


def test_a_new_run_can_not_do_without_the_output_of_a_task_that_is_not_selected() -> None:
    spec = daily(task("a"), task("b", "a", xcoms=("a",)))
    (change,) = backfill(spec, last=0, tasks="b")
    assert change.reason == "`b` needs the output of `a`, which is not selected and not there"
    assert [(need.what, need.there) for need in change.needs] == [("xcom", False)]
    assert backfill(spec, last=0, tasks="+b")[0].action is RunAction.CREATE


def test_setups_and_teardowns_come_along() -> None:
    spec = daily(
        task("make", setup=True),
        task("work", "make"),
        task("more", "work"),
        task("drop", "make", "more", teardown=True),
    )
    assert backfill(spec, last=0, tasks="work")[0].task_count == 3


@pytest.mark.parametrize(("has_xcom", "action"), [(True, RunAction.RERUN_ALL), (False, RunAction.SKIP)])
def test_a_rerun_of_some_tasks_needs_the_outputs_of_the_others(has_xcom: bool, action: RunAction) -> None:
    spec = daily(task("a"), task("b", "a", xcoms=("a",)), task("c", "b"))
    run = facts(spec, fact("a", S, has_xcom=has_xcom), state=SUCCESS, b=S, c=S)
    (change,) = backfill(spec, run, last=0, tasks="b", reprocess="completed")
    assert change.action is action
    if action is RunAction.RERUN_ALL:
        assert words(change.tasks) == ["b clear"]
        assert [(need.task_id, need.of_task_id, need.there) for need in change.needs] == [("b", "a", True)]
    else:
        assert change.reason == "`b` needs the output of `a`, which is not selected and not there"


def test_a_rerun_that_would_end_at_once_is_left_out() -> None:
    run = facts(CHAIN, state=FAILED, a=F, b=U, c=U)
    (change,) = backfill(CHAIN, run, last=0, tasks="b+", reprocess="failed")
    assert change.reason == "`b` would not run again: upstream task `a` failed"
    assert backfill(CHAIN, run, last=0, tasks="a+", reprocess="failed")[0].action is RunAction.RERUN_FAILED


def test_failed_with_a_selector_reruns_what_is_both() -> None:
    spec = daily(task("a"), task("b"), task("c", "a", "b", trigger_rule="all_done"))
    run = facts(spec, state=FAILED, a=F, b=F, c=S)
    (change,) = backfill(spec, run, last=0, tasks="a", reprocess="failed")
    assert words(change.tasks) == ["a clear"]
    done = facts(spec, state=FAILED, a=S, b=F, c=F)
    (change,) = backfill(spec, done, last=0, tasks="a", reprocess="failed")
    assert change.reason == "exists: it is failed, but none of its selected tasks failed"


def test_a_run_whose_version_has_not_the_selected_task_is_left_out() -> None:
    run = facts(daily(task("a")), state=SUCCESS, a=S)
    (change,) = backfill(CHAIN, run, last=0, tasks="b", reprocess="completed")
    assert change.reason == "its version has no task `b`"


def test_what_looks_back_but_is_not_selected_blocks_nothing() -> None:
    before = facts(PAST, state=FAILED, day=-1, a=F, b=U)
    assert verdicts(backfill(PAST, last=0, tasks="b", world={"before": before})) == {0: "create"}
    assert verdicts(backfill(PAST, last=0, tasks="b", run_backwards=True)) == {0: "create"}

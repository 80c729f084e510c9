"""Deadlines: what sets them, when they count as met, and that a missed one is told once, whatever ran."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite

from yarrow.decision.decisions import TaskDecision
from yarrow.language.spec import DeadlineSpec, ScheduleSpec
from yarrow.states import RunState, TaskState
from yarrow.store import deadlines, notifications
from yarrow.timetable import scheduled_run_id

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NONE, SUCCESS, FAILED, SKIPPED = TaskState.NONE, TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED


def within(hours: float, reference: str = "logical_date") -> DeadlineSpec:
    return DeadlineSpec(hours * 3600.0, reference)


def pending(stage: Any) -> dict[tuple[str, str], Any]:
    """(run, task) -> when it is due, of the deadlines that have not passed."""
    return {(one.run_id, one.task_id): one.due_at for one in stage.store.deadlines.list(missed=False)}


def missed(stage: Any) -> list[tuple[str, str]]:
    """(run, task) of what was missed, sorted."""
    return sorted((one.run_id, one.task_id) for one in stage.store.deadlines.list())


def judge(stage: Any) -> list[tuple[str, str]]:
    return sorted((one.run_id, one.task_id) for one in stage.store.deadlines.judge()[1])


def told(stage: Any) -> list[tuple[str, str | None, str]]:
    return [(one.run_id, one.task_id, one.target) for one in reversed(stage.store.notifications.list(limit=1000))]


def kinds(stage: Any) -> list[str]:
    events = stage.store.runs.events(limit=10_000)
    return [event.kind for event in events if event.kind.endswith("deadline_missed")]


def scheduled(stage: Any, spec: Any, date: Any, *, following: Any = None) -> Any:
    """Creates the scheduled run of a day, as the scheduler does, and moves the DAG on to the following one."""
    advance = (following, following + DAY) if following else (None, None)
    return stage.store.runs.create(
        spec,
        spec.version,
        run_id=scheduled_run_id(date),
        run_type="scheduled",
        interval=(date, date, date + DAY, date + DAY),
        params={},
        advance=advance,
    )


def expect(stage: Any, spec: Any, date: Any) -> None:
    """Works out the next run of the DAG: that of this day."""
    stage.publish(spec)
    (record,) = stage.store.catalog.unscheduled()
    assert stage.store.catalog.set_schedule(record, next_logical_date=date, next_run_after=date + DAY)


# What sets them


@pytest.mark.parametrize(
    ("reference", "hours"), [("logical_date", 2), ("data_interval_end", 26), ("queued_at", 12), ("average", None)]
)
def test_a_run_gets_its_deadline_when_it_is_made(stage: Any, reference: str, hours: float | None) -> None:
    spec = stage.dag(deadline=within(2, reference))
    stage.publish(spec)
    date = stage.clock()
    stage.clock.advance(10 * 3600)
    scheduled(stage, spec, date)
    assert pending(stage) == ({} if hours is None else {(scheduled_run_id(date), ""): date + hours * HOUR})
    assert stage.store.deadlines.next_due() == (None if hours is None else date + hours * HOUR)


def test_each_task_may_have_its_own(stage: Any) -> None:
    tasks = [stage.task("a", deadline=within(1)), stage.task("b"), stage.task("c", deadline=within(0.5, "queued_at"))]
    spec = stage.dag(tasks=tasks)
    stage.publish(spec)
    stage.run(spec)
    assert pending(stage) == {("r", "a"): stage.clock() + HOUR, ("r", "c"): stage.clock() + HOUR / 2}


def test_a_run_by_hand_for_the_past_gets_none_that_had_passed(stage: Any) -> None:
    spec = stage.dag(tasks=[stage.task("a", deadline=within(1, "queued_at"))], deadline=within(1))
    stage.publish(spec)
    stage.run(spec, date=stage.clock() - 30 * DAY)
    assert pending(stage) == {("r", "a"): stage.clock() + HOUR}


def test_a_dag_without_deadlines_costs_and_keeps_nothing(stage: Any) -> None:
    stage.publish(stage.dag())
    stage.run(stage.dag())
    assert pending(stage) == {}
    assert stage.store.deadlines.next_due() is None
    assert stage.store.deadlines.judge() == (0, [])


def test_the_average_is_of_the_newest_successful_runs(stage: Any) -> None:
    start = stage.clock()
    task = stage.task("a", deadline=within(0, "average"))
    spec = stage.dag(tasks=[task, stage.task("b")], deadline=within(1, "average"), max_active_runs=100)
    stage.publish(spec)

    def run(number: int, seconds: float, end: RunState = RunState.SUCCESS) -> None:
        """A run whose task `a` takes a third of the time."""
        run = stage.run(spec, f"r{number}", start + number * DAY)
        stage.clock.advance(seconds / 3)
        assert stage.decide(run, ("a", NONE, SUCCESS))
        stage.clock.advance(seconds / 3 * 2)
        assert stage.decide(run, ("b", NONE, SUCCESS), end=end)

    run(1, 99_999)
    for number in range(2, 4):
        run(number, 300)
    assert pending(stage) == {}, "two are not enough, however they ended"
    run(4, 60_000, RunState.FAILED)
    for number in range(5, 13):
        run(number, 900)
    stage.store.deadlines.judge()
    at = stage.clock()
    stage.run(spec, "now", start + 20 * DAY)
    mean = (2 * 300 + 8 * 900) / 10
    due = {task_id: due_at for (run_id, task_id), due_at in pending(stage).items() if run_id == "now"}
    assert due == {"": at + timedelta(seconds=mean) + HOUR, "a": at + timedelta(seconds=mean / 3)}


# When they are met


def test_a_run_that_has_succeeded_in_time_meets_it(stage: Any) -> None:
    spec = stage.dag(deadline=within(1), on_deadline=("ops",))
    stage.publish(spec)
    run = stage.run(spec)
    stage.clock.advance(3600)
    stage.end(run)
    assert stage.store.deadlines.judge() == (1, [])
    assert (pending(stage), missed(stage), told(stage)) == ({}, [], [])


@pytest.mark.parametrize("how", ["late", "failed", "running", "queued"])
def test_a_run_that_has_not_is_told_once(stage: Any, how: str) -> None:
    spec = stage.dag(deadline=within(1), on_deadline=("ops", "boss"))
    stage.publish(spec)
    run = stage.run(spec, start=how != "queued")
    if how == "failed":
        stage.end(run, RunState.FAILED)
    stage.clock.advance(3599)
    assert judge(stage) == []
    stage.clock.advance(1.5)
    if how == "late":
        stage.end(run)
    assert judge(stage) == [("r", "")]
    assert judge(stage) == []
    assert missed(stage) == [("r", "")]
    assert told(stage) == [("r", None, "ops"), ("r", None, "boss")]
    assert kinds(stage) == ["run.deadline_missed"]
    (event,) = [event for event in stage.store.runs.events("d", "r") if event.kind == "run.deadline_missed"]
    state = {"late": "success"}.get(how, how)
    assert event.reason == f"due at 2026-01-01 01:00:00 UTC, {state}"
    payload = stage.store.notifications.list()[0].payload
    assert (payload["event"], payload["state"], payload["path"]) == ("run.deadline", state, f"/runs/{run.id}")


def test_it_is_missed_without_anybody_to_tell(stage: Any) -> None:
    spec = stage.dag(deadline=within(1))
    stage.publish(spec)
    stage.run(spec)
    stage.clock.advance(3600)
    assert judge(stage) == [("r", "")]
    assert told(stage) == []
    assert kinds(stage) == ["run.deadline_missed"]


def test_a_task_meets_it_by_succeeding_or_being_skipped(stage: Any) -> None:
    tasks = [stage.task(name, deadline=within(1)) for name in ("good", "skipped", "bad", "waiting")]
    spec = stage.dag(tasks=[*tasks, stage.task("own", deadline=within(1), on_deadline=("me",))], on_deadline=("ops",))
    stage.publish(spec)
    run = stage.run(spec)
    assert stage.decide(run, ("good", NONE, SUCCESS), ("skipped", NONE, SKIPPED), ("bad", NONE, FAILED))
    stage.clock.advance(3600)
    assert judge(stage) == [("r", "bad"), ("r", "own"), ("r", "waiting")]
    assert sorted(told(stage)) == [("r", "bad", "ops"), ("r", "own", "me"), ("r", "waiting", "ops")]
    assert kinds(stage) == ["task.deadline_missed"] * 3
    assert pending(stage) == {}


def test_a_task_that_ends_late_has_missed_it(stage: Any) -> None:
    spec = stage.dag(tasks=[stage.task("a", deadline=within(1))])
    stage.publish(spec)
    run = stage.run(spec)
    stage.clock.advance(3601)
    assert stage.decide(run, ("a", NONE, SUCCESS))
    assert judge(stage) == [("r", "a")]


def test_each_instance_of_a_mapped_task_counts(stage: Any) -> None:
    mapped = stage.task("a", deadline=within(1), expand={"n": [1, 2]})
    spec = stage.dag(tasks=[mapped])
    stage.publish(spec)
    runs = [stage.run(spec, run_id) for run_id in ("good", "bad", "unexpanded")]
    for run in runs[:2]:
        assert stage.decide(run, expand={"a": 2})
    assert stage.decide(runs[0], move("a", 0), move("a", 1))
    assert stage.decide(runs[1], move("a", 0))
    stage.clock.advance(3600)
    assert judge(stage) == [("bad", "a"), ("unexpanded", "a")]


def move(task_id: str, map_index: int) -> TaskDecision:
    return TaskDecision(task_id, NONE, SUCCESS, map_index=map_index)


def test_they_are_judged_a_bounded_number_at_a_time(stage: Any) -> None:
    spec = stage.dag(tasks=[stage.task(f"t{number}", deadline=within(1)) for number in range(5)])
    stage.publish(spec)
    stage.run(spec)
    stage.clock.advance(3600)
    passed, found = stage.store.deadlines.judge(limit=3)
    assert (passed, len(found)) == (3, 3)
    assert stage.store.deadlines.judge(limit=3)[0] == 2


def test_two_schedulers_tell_it_once(stage: Any) -> None:
    spec = stage.dag(deadline=within(1), on_deadline=("ops",))
    stage.publish(spec)
    stage.run(spec)
    stage.clock.advance(3600)
    deadlines = stage.store.deadlines
    read = deadlines._database.read
    first: list[Any] = []

    def read_and_be_overtaken(work: Any) -> Any:
        found = read(work)
        if not first:
            first.append(None)
            first[0] = judge(stage)
        return found

    deadlines._database.read = read_and_be_overtaken
    try:
        assert deadlines.judge()[1] == []
    finally:
        del deadlines._database.read
    assert first == [[("r", "")]]
    assert len(told(stage)) == 1


# When nothing runs


def test_a_run_that_never_came_to_be_is_missed(stage: Any) -> None:
    date = stage.clock()
    expect(stage, stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(26), on_deadline=("ops",)), date)
    assert pending(stage) == {(scheduled_run_id(date), ""): date + 26 * HOUR}
    stage.clock.advance(26 * 3600)
    assert judge(stage) == [(scheduled_run_id(date), "")]
    payload = stage.store.notifications.list()[0].payload
    assert (payload["state"], payload["path"]) == ("missing", "/dags/d")
    assert "It is not there yet." in payload["body"]


def test_data_interval_end_is_known_beforehand_too(stage: Any) -> None:
    date = stage.clock()
    expect(stage, stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(2, "data_interval_end")), date)
    assert pending(stage) == {(scheduled_run_id(date), ""): date + 26 * HOUR}


@pytest.mark.parametrize("reference", ["queued_at", "average"])
def test_what_counts_from_a_run_waits_for_the_run(stage: Any, reference: str) -> None:
    expect(stage, stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(2, reference)), stage.clock())
    assert pending(stage) == {}


def test_the_run_that_comes_to_be_late_is_not_told_of_again(stage: Any) -> None:
    date = stage.clock()
    spec = stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(26), on_deadline=("ops",))
    expect(stage, spec, date)
    stage.clock.advance(26 * 3600)
    judge(stage)
    scheduled(stage, spec, date, following=date + DAY)
    assert judge(stage) == []
    assert len(told(stage)) == 1
    assert pending(stage) == {(scheduled_run_id(date + DAY), ""): date + DAY + 26 * HOUR}, "the next one is waited for"
    stage.clock.advance(24 * 3600)
    assert judge(stage) == [(scheduled_run_id(date + DAY), "")]


def test_a_run_that_comes_to_be_in_time_keeps_it(stage: Any) -> None:
    date = stage.clock()
    spec = stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(26))
    expect(stage, spec, date)
    stage.clock.advance(24 * 3600)
    run = scheduled(stage, spec, date)
    stage.store.runs.start_due()
    assert pending(stage) == {(scheduled_run_id(date), ""): date + 26 * HOUR}
    stage.end(run)
    stage.clock.advance(2 * 3600)
    assert stage.store.deadlines.judge() == (1, [])


def test_nobody_waits_for_a_paused_dag(stage: Any) -> None:
    date = stage.clock()
    expect(stage, stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(26), on_deadline=("ops",)), date)
    stage.store.catalog.set_paused("d", True, "ann")
    stage.clock.advance(26 * 3600)
    assert stage.store.deadlines.judge() == (1, [])
    stage.store.catalog.set_paused("d", False, "ann")
    (record,) = stage.store.catalog.unscheduled()
    stage.store.catalog.set_schedule(record, next_logical_date=date + DAY, next_run_after=date + 2 * DAY)
    assert pending(stage) == {(scheduled_run_id(date + DAY), ""): date + DAY + 26 * HOUR}
    assert told(stage) == []


@pytest.mark.parametrize("how", ["gone", "without deadline", "another schedule"])
def test_a_run_that_nobody_waits_for_any_more_is_not_missed(stage: Any, how: str) -> None:
    date = stage.clock()
    spec = stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(26), on_deadline=("ops",))
    expect(stage, spec, date)
    if how == "gone":
        stage.store.catalog.deactivate(["d"])
    elif how == "without deadline":
        expect(stage, stage.dag(schedule=ScheduleSpec(cron="@daily")), date)
    else:
        expect(stage, stage.dag(schedule=ScheduleSpec(cron="@weekly"), deadline=within(26)), date + 3 * DAY)
    stage.clock.advance(26 * 3600)
    assert stage.store.deadlines.judge() == (1, [])
    assert told(stage) == []


def test_another_deadline_takes_the_place_of_the_one_before(stage: Any) -> None:
    date = stage.clock()
    expect(stage, stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(26)), date)
    expect(stage, stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(30)), date)
    assert pending(stage) == {(scheduled_run_id(date), ""): date + 30 * HOUR}


def test_a_missed_one_stays_what_it_was(stage: Any) -> None:
    date = stage.clock()
    expect(stage, stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(26)), date)
    stage.clock.advance(26 * 3600)
    judge(stage)
    expect(stage, stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(30)), date)
    (kept,) = stage.store.deadlines.list()
    assert kept.due_at == date + 26 * HOUR
    assert pending(stage) == {}


def test_looking_for_what_is_due_reads_nothing_else(sqlite_stage: Any, sqlite_url: str) -> None:
    """The loop asks for deadlines, and the courier for notifications, by indexes that leave out what is done with."""
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    queries = {
        str(deadlines._NEXT_DUE.compile(dialect=sqlite.dialect())): "ix_deadline_due",
        str(deadlines._DUE.compile(dialect=sqlite.dialect())): "ix_deadline_due",
        str(_pending()): "ix_notification_due",
    }
    try:
        for query, index in queries.items():
            parameters = ["x"] * query.count("?")
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", parameters)]
            assert len(plan) == 1, plan
            assert index in plan[0]
    finally:
        connection.close()


def _pending() -> Any:
    parameters = {"but": ["ops"], "limit": 1}
    return notifications._PENDING.params(parameters).compile(
        dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True}
    )


def test_one_that_can_not_be_judged_hinders_no_other(stage: Any) -> None:
    fields = {"deadline": within(1, "queued_at"), "on_deadline": ("ops",)}
    stage.publish(stage.dag("bad", **fields), stage.dag("good", **fields))
    stage.run(stage.dag("bad", **fields), start=False)
    stage.run(stage.dag("good", **fields), start=False)
    stage.damage("bad")
    stage.clock.advance(3600)
    assert len(judge(stage)) == 2
    assert [one.dag_id for one in stage.store.notifications.list()] == ["good"]
    (line,) = [event for event in stage.store.runs.events("bad") if event.kind == "run.deadline_missed"]
    assert "nobody could be told: KeyError" in line.reason
    assert judge(stage) == []


def test_the_run_after_those_that_are_left_out_is_expected(stage: Any) -> None:
    stage.publish(stage.dag(schedule=ScheduleSpec(cron="@daily"), deadline=within(1, "data_interval_end")))
    date = stage.clock()
    record = stage.store.catalog.dag("d")
    assert stage.store.catalog.leave_out(record, date - DAY, (date, date + DAY), "Too many.")
    assert pending(stage) == {(scheduled_run_id(date), ""): date + DAY + HOUR}

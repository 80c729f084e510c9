import time
from datetime import UTC, datetime, timedelta

import pytest

from yarrow.errors import UsageError
from yarrow.forecast import Capacity, Forecast, forecast
from yarrow.language.spec import DagSpec, DeadlineSpec, ScheduleSpec, TaskSpec

START = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)
HOURLY = ScheduleSpec(cron="@hourly")


def task(task_id: str, *upstream: str, operator: str = "bash", **fields: object) -> TaskSpec:
    return TaskSpec(task_id, operator, fields.pop("arguments", {}), upstream=upstream, **fields)  # type: ignore[arg-type]


def dag(dag_id: str, *tasks: TaskSpec, **fields: object) -> DagSpec:
    return DagSpec(dag_id, {task.task_id: task for task in tasks}, **fields)  # type: ignore[arg-type]


def ask(*specs: DagSpec, seconds: float = 60.0, days: float = 1, **capacity: object) -> Forecast:
    return forecast(
        specs,
        START,
        START + days * DAY,
        durations=lambda dag_id, task_id: seconds,
        capacity=Capacity(**capacity),  # type: ignore[arg-type]
    )


def test_a_chain_takes_the_sum_of_its_tasks() -> None:
    result = ask(dag("d", task("a"), task("b", "a"), task("c", "b"), schedule=HOURLY))
    [found] = result.dags
    assert (found.runs, found.tasks, found.mean_run, found.longest_wait) == (24, 72, 180.0, 0.0)
    assert (result.peak_slots, result.peak_at) == (1, START)


def test_what_is_due_before_or_at_the_end_does_not_count() -> None:
    assert ask(dag("d", task("a"), schedule=ScheduleSpec(cron="0 0 * * *")), days=2).runs == 2, "at 00:00, twice"


def test_too_few_slots_make_tasks_wait() -> None:
    wide = dag("wide", *(task(f"t{number}") for number in range(6)), schedule=ScheduleSpec(cron="@daily"))
    assert ask(wide).peak_slots == 6
    [found] = ask(wide, slots=2).dags
    assert (found.longest_run, found.longest_wait, found.mean_wait) == (180.0, 120.0, 60.0)


def test_pools_and_limits_of_the_dag_hold() -> None:
    tasks = [task(f"t{number}", pool="gpu", pool_slots=2) for number in range(3)]
    once = ScheduleSpec(cron="@daily")
    pooled = ask(dag("d", *tasks, schedule=once), pools={"gpu": 4})
    assert (pooled.peak_slots, pooled.peak_pools) == (2, {"gpu": 4})
    assert ask(dag("d", *tasks, schedule=once, max_active_tasks=1)).peak_slots == 1
    alone = [task(f"t{number}", max_active_tis_per_dag=1) for number in range(2)]
    every = ScheduleSpec(every=30.0)
    assert ask(dag("d", alone[0], schedule=every, start_date=START), days=0.01).peak_slots == 1


def test_a_blocked_task_hides_none_that_could_run() -> None:
    first = task("first", pool="narrow", priority_weight=100, weight_rule="absolute")
    second = task("second", pool="narrow", priority_weight=99, weight_rule="absolute")
    third = task("third")
    [found] = ask(
        dag("d", first, second, third, schedule=ScheduleSpec(cron="@daily")), pools={"narrow": 1}, slots=2
    ).dags
    assert (found.longest_wait_task, found.longest_run) == ("second", 120.0)


def test_runs_wait_for_each_other() -> None:
    slow = dag("slow", task("a"), schedule=HOURLY, max_active_runs=1)
    [found] = ask(slow, seconds=5400.0).dags
    assert found.longest_queue > 0
    assert found.unfinished > 0
    assert found.tasks < found.runs


def test_deadlines_are_missed() -> None:
    spec = dag(
        "d",
        task("a"),
        task("b", "a", deadline=DeadlineSpec(150.0, "queued_at")),
        schedule=ScheduleSpec(cron="@daily"),
        deadline=DeadlineSpec(86400.0 + 100.0),
    )
    assert [miss.task_id for miss in ask(spec).misses] == [None], "the run ends after 120 s"
    assert [miss.task_id for miss in ask(spec, seconds=80.0).misses] == [None, "b"]
    assert ask(spec, seconds=40.0).misses == ()
    [miss] = ask(spec).misses
    assert (miss.due_at, miss.ended_at) == (START + timedelta(seconds=100), START + timedelta(seconds=120))


def test_one_dag_sets_off_another() -> None:
    producer = dag(
        "producer",
        task("make", outlets=("rows",)),
        task("call", operator="trigger_dag", arguments={"dag_id": "called"}),
        schedule=HOURLY,
    )
    reader = dag("reader", task("read"), schedule=ScheduleSpec(datasets=("rows",)))
    both = dag("both", task("read"), schedule=ScheduleSpec(datasets=("rows", "never"), mode="all"))
    either = dag("either", task("read"), schedule=ScheduleSpec(datasets=("rows", "never"), mode="any"))
    result = ask(producer, reader, both, either, dag("called", task("a")))
    assert {found.dag_id: found.runs for found in result.dags} == {
        "producer": 24,
        "reader": 24,
        "both": 0,
        "either": 24,
        "called": 24,
    }


def test_what_is_published_during_a_run_is_gathered_for_the_next() -> None:
    source = dag("source", task("t", outlets=("x",)), schedule=ScheduleSpec(every=60.0), start_date=START)
    reader = dag("reader", task("r"), schedule=ScheduleSpec(datasets=("x",)), max_active_runs=1)
    result = forecast(
        [source, reader],
        START,
        START + timedelta(minutes=30),
        durations=lambda dag_id, task_id: 1.0 if dag_id == "source" else 600.0,
        capacity=Capacity(),
    )
    found = {one.dag_id: one for one in result.dags}
    assert (found["source"].runs, found["reader"].runs) == (29, 3), "one after the other, ten minutes each"
    assert found["reader"].longest_queue == 0.0


def test_sensors_and_approvals_take_no_slot() -> None:
    spec = dag(
        "d",
        task("file", operator="wait_for_file"),
        task("ask", operator="approval"),
        schedule=ScheduleSpec(cron="@daily"),
    )
    result = ask(spec)
    assert (result.peak_slots, result.tasks) == (0, 2)


def test_a_run_that_takes_too_long_is_stopped_and_makes_room_for_the_next() -> None:
    spec = dag("d", task("a"), task("b", "a"), schedule=HOURLY, dagrun_timeout=30.0, max_active_runs=1)
    result = ask(spec, seconds=60.0, days=0.25)
    [found] = result.dags
    assert (found.runs, found.unfinished, found.tasks) == (6, 0, 6), "the second task of each never ran"
    assert (found.longest_run, found.longest_queue, result.peak_slots) == (30.0, 0.0, 1)


def test_continuous_runs_follow_on_each_other() -> None:
    schedule = ScheduleSpec(cron="@continuous")
    begin, end = START + timedelta(minutes=10), START + timedelta(minutes=20)
    result = ask(dag("d", task("a"), schedule=schedule, start_date=begin, end_date=end), seconds=60.0, days=0.25)
    [found] = result.dags
    assert (found.runs, found.unfinished, result.peak_slots) == (11, 0, 1), "the last begins as the schedule ends"
    quick = ask(dag("d", task("a", operator="empty"), schedule=schedule), seconds=0.0, days=1 / 1440)
    assert quick.dags[0].runs == 60, "no two of them in one second"


def test_a_task_waits_for_the_run_before() -> None:
    spec = dag("d", task("a", depends_on_past=True), schedule=HOURLY)
    [found] = ask(spec, seconds=4000.0, days=0.25).dags
    assert found.longest_run > 4000.0


def test_conditions_and_lists_are_left_out() -> None:
    conditional = task("b", "a", when="xcom.a > 3", when_xcoms=("a",))
    mapped = task("c", "a", expand={"x": "{{ xcom.a }}"}, expand_xcoms=("a",))
    assert ask(dag("d", task("a"), conditional, mapped, schedule=ScheduleSpec(cron="@daily"))).tasks == 3


def test_a_year_of_an_hourly_dag_is_followed_to_its_end_in_seconds() -> None:
    spec = dag("d", task("a"), task("b", "a"), schedule=HOURLY)
    began = time.process_time()
    [found] = ask(spec, days=365).dags
    assert time.process_time() - began < 30, "a few seconds, and a busy machine is given its time"
    assert (found.runs, found.unfinished, found.tasks) == (8760, 0, 17520)


def test_what_would_take_far_too_long_is_refused_at_once() -> None:
    spec = dag("d", task("a"), task("b", "a"), schedule=ScheduleSpec(cron="* * * * *"))
    with pytest.raises(UsageError, match="about 2,100,000 task instances; at most 1,000,000") as caught:
        ask(spec, days=730)
    assert caught.value.hint == "Ask for a shorter period."


def test_lines_that_do_not_fit_are_looked_at_again_when_there_is_room() -> None:
    often = ScheduleSpec(every=60.0)
    narrow = dag("narrow", task("a", pool="one"), schedule=often, start_date=START)
    other = dag("other", task("a", pool="one"), schedule=often, start_date=START)
    result = ask(narrow, other, seconds=25.0, days=0.05, pools={"one": 1})
    assert [(found.unfinished, found.longest_wait) for found in result.dags] == [(0, 0.0), (0, 25.0)]
    assert result.peak_pools == {"one": 1}


def test_progress_is_told() -> None:
    told: list[datetime] = []
    spec = dag("d", task("a"), schedule=ScheduleSpec(cron="* * * * *"))
    forecast([spec], START, START + DAY, durations=lambda dag_id, task_id: 1.0, progress=told.append)
    assert told == sorted(told)
    assert len(told) > 2
    assert told[-1] == START + DAY


def test_what_would_take_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yarrow.simulation.virtual_clock.MOST_TASKS", 99)
    assert ask(dag("d", task("a"), schedule=HOURLY), days=4).tasks == 96
    with pytest.raises(UsageError, match="shorter period"):
        ask(dag("d", task("a"), schedule=HOURLY), days=5)

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select

from yarrow.errors import Conflict, InvalidParams, NotFound, UsageError
from yarrow.language.spec import DeadlineSpec, ScheduleSpec
from yarrow.states import RunState, TaskState
from yarrow.store.tables import task_instance

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_run_is_created_with_its_task_instances(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a", retries=2, queue="gpu", priority_weight=7), stage.task("b", pool="db")])
    stage.publish(spec)
    run = stage.run(spec, start=False)
    assert (run.state, run.run_type, run.version) == (RunState.QUEUED, "manual", spec.version)
    a, b = stage.store.runs.task_instances(run.id)
    assert (a.task_id, a.state, a.max_tries, a.queue, a.priority_weight) == ("a", TaskState.NONE, 3, "gpu", 7)
    assert (b.pool, b.try_number, b.run_id, b.map_index) == ("db", 0, "r", -1)
    (line,) = stage.store.runs.events("d", "r")
    assert (line.kind, line.from_state, line.to_state) == ("run.state", None, "queued")


def test_task_instances_carry_what_their_limits_and_their_priority_need(stage) -> None:
    limits = {"pool_slots": 3, "max_active_tis_per_dag": 5, "max_active_tis_per_dagrun": 4}
    tasks = [
        stage.task("a", priority_weight=2, **limits),
        stage.task("b", upstream=("a",), priority_weight=3, weight_rule="upstream"),
        stage.task("c", upstream=("b",), priority_weight=4, weight_rule="absolute"),
    ]
    spec = stage.dag(tasks=tasks)
    stage.publish(spec)
    run = stage.run(spec)
    found = stage.store.runs.task_instances(run.id)
    assert [(one.task_id, one.priority_weight, one.pool_slots) for one in found] == [
        ("a", 9, 3),  # with all that comes after it
        ("b", 5, 1),  # with all that comes before it
        ("c", 4, 1),
    ]
    columns = (task_instance.c.max_per_dag, task_instance.c.max_per_run)
    query = select(*columns).order_by(task_instance.c.id)
    rows = stage.store._database.read(lambda connection: connection.execute(query).all())
    assert [tuple(row) for row in rows] == [(5, 4), (None, None), (None, None)]


def test_a_run_exists_once_and_the_pointer_moves_all_the_same(stage) -> None:
    spec = stage.dag()
    stage.publish(spec)
    interval = (JANUARY, JANUARY, FEBRUARY, FEBRUARY)

    def create(advance):
        return stage.store.runs.create(
            spec, spec.version, run_id="s", run_type="scheduled", interval=interval, params={}, advance=advance
        )

    assert create(None) is not None
    assert stage.store.catalog.dag("d").scheduled_through is None
    assert create((FEBRUARY, MARCH)) is None
    record = stage.store.catalog.dag("d")
    assert (record.scheduled_through, record.next_logical_date, record.next_run_after) == (JANUARY, FEBRUARY, MARCH)
    assert len(stage.store.runs.list("d")) == 1


def test_the_pointer_never_moves_backwards(stage) -> None:
    spec = stage.dag()
    stage.publish(spec)
    for date, advance in ((FEBRUARY, (MARCH, MARCH)), (JANUARY, (FEBRUARY, FEBRUARY))):
        stage.store.runs.create(
            spec,
            spec.version,
            run_id=date.isoformat(),
            run_type="scheduled",
            interval=(date, date, date, date),
            params={},
            advance=advance,
        )
    record = stage.store.catalog.dag("d")
    assert (record.scheduled_through, record.next_logical_date) == (FEBRUARY, MARCH)


def test_trigger_fills_in_defaults_and_checks_params(stage) -> None:
    params = {"limit": {"type": "integer", "minimum": 1, "default": 5}, "city": {"type": "string"}}
    stage.publish(stage.dag(params=params))
    run = stage.store.runs.trigger("d", params={"city": "Ulm"}, who="ann")
    assert run.params == {"limit": 5, "city": "Ulm"}
    assert (run.triggered_by, run.run_type, run.run_id) == ("ann", "manual", "manual__2026-01-01T00:00:00+00:00")
    with pytest.raises(InvalidParams, match="`city` must be given"):
        stage.store.runs.trigger("d", who="ann", run_id="2")
    with pytest.raises(InvalidParams, match="`limit`: 0 is less than the minimum of 1"):
        stage.store.runs.trigger("d", params={"city": "Ulm", "limit": 0}, who="ann", run_id="3")
    with pytest.raises(InvalidParams, match="no param `limt`, did you mean `limit`"):
        stage.store.runs.trigger("d", params={"city": "Ulm", "limt": 3}, who="ann", run_id="4")
    assert len(stage.store.runs.list("d")) == 1


def test_trigger_twice_conflicts_unless_that_is_fine(stage) -> None:
    stage.publish(stage.dag())
    first = stage.store.runs.trigger("d", who="ann", run_id="x")
    with pytest.raises(Conflict, match="a run 'x' already"):
        stage.store.runs.trigger("d", who="ann", run_id="x")
    assert stage.store.runs.trigger("d", who="ann", run_id="x", exist_ok=True) == first


def test_a_logical_date_at_the_end_of_the_calendar_is_refused(stage) -> None:
    stage.publish(stage.dag(deadline=DeadlineSpec(86_400.0, "logical_date")))
    east = timezone(timedelta(hours=14))
    for date in (datetime(9999, 12, 31, 12, tzinfo=UTC), datetime(1, 1, 1, tzinfo=east)):
        with pytest.raises(UsageError, match="years 1800 to 9989"):
            stage.store.runs.trigger("d", logical_date=date, who="ann")
    assert stage.store.runs.trigger("d", logical_date=datetime(9989, 12, 31, tzinfo=UTC), who="ann")


def test_a_dag_that_is_gone_is_not_triggered(stage) -> None:
    stage.publish(stage.dag())
    stage.store.catalog.deactivate(["d"])
    with pytest.raises(NotFound, match=r"its file d\.yaml is not in the DAG folder"):
        stage.store.runs.trigger("d", who="ann")
    with pytest.raises(NotFound, match="no DAG 'x'"):
        stage.store.runs.trigger("x", who="ann")


@pytest.mark.parametrize(
    ("date", "start", "end"),
    [
        (FEBRUARY, FEBRUARY, MARCH),  # a logical date of the schedule
        (FEBRUARY + timedelta(days=3), JANUARY, FEBRUARY),  # any other: the latest that is complete
        (JANUARY - timedelta(days=3), JANUARY - timedelta(days=3), JANUARY - timedelta(days=3)),  # before the first
    ],
)
def test_a_manual_run_gets_a_data_interval(stage, date, start, end) -> None:
    stage.publish(stage.dag(schedule=ScheduleSpec(cron="@monthly"), start_date=JANUARY))
    run = stage.store.runs.trigger("d", who="ann", logical_date=date)
    assert (run.data_interval_start, run.data_interval_end) == (start, end)


def test_a_manual_run_of_a_schedule_without_a_start_date_gets_the_latest_interval(stage) -> None:
    stage.publish(stage.dag(schedule=ScheduleSpec(cron="@monthly")))
    run = stage.store.runs.trigger("d", who="ann", logical_date=FEBRUARY + timedelta(days=3))
    assert (run.data_interval_start, run.data_interval_end) == (JANUARY, FEBRUARY)


def test_runs_start_oldest_first_within_max_active_runs(stage) -> None:
    one, two = stage.dag("one", max_active_runs=1), stage.dag("two", max_active_runs=2)
    stage.publish(one, two)
    for spec in (one, two):
        for date in (MARCH, JANUARY, FEBRUARY):
            stage.run(spec, f"{date:%b}", date, start=False)
    started = stage.store.runs.start_due()
    names = [(run.dag_id, run.run_id) for run in map(stage.store.runs.by_id, started)]
    assert sorted(names) == [("one", "Jan"), ("two", "Feb"), ("two", "Jan")]
    assert stage.store.runs.start_due() == []
    assert stage.end(stage.store.runs.get("one", "Jan"))
    assert [stage.store.runs.by_id(id).run_id for id in stage.store.runs.start_due()] == ["Feb"]
    assert stage.store.runs.active_count("one") == 2


def test_a_paused_dag_or_a_future_run_does_not_start(stage) -> None:
    spec = stage.dag()
    stage.publish(spec)
    stage.store.catalog.set_paused("d", True, "ann")
    run = stage.run(spec)
    assert run.state == RunState.QUEUED
    stage.store.catalog.set_paused("d", False, "ann")
    assert stage.store.runs.start_due() == [run.id]
    later = stage.clock() + timedelta(hours=1)
    interval = (later, later, later, later)
    future = stage.store.runs.create(
        spec, spec.version, run_id="later", run_type="manual", interval=interval, params={}
    )
    assert stage.store.runs.start_due() == []
    stage.clock.advance(3600)
    assert stage.store.runs.start_due() == [future.id]


def test_runs_are_listed_newest_first_in_pages(stage) -> None:
    spec = stage.dag(max_active_runs=2)
    stage.publish(spec, stage.dag("other"))
    runs = [stage.run(spec, f"r{number}") for number in range(5)]
    stage.run(stage.dag("other"), "x")
    page = stage.store.runs.list("d", limit=2)
    assert [run.run_id for run in page] == ["r4", "r3"]
    assert [run.run_id for run in stage.store.runs.list("d", limit=2, before=page[-1].id)] == ["r2", "r1"]
    assert {run.run_id for run in stage.store.runs.list("d", state="running")} == {"r0", "r1"}
    assert len(stage.store.runs.list()) == 6
    assert stage.store.runs.get("d", "r2") == stage.store.runs.by_id(runs[2].id)
    stage.run(spec, "manual")
    with pytest.raises(NotFound, match=r"no run 'mnaual'\. Did you mean 'manual'"):
        stage.store.runs.get("d", "mnaual")
    with pytest.raises(NotFound, match="no run with id 999"):
        stage.store.runs.by_id(999)


def test_counts_and_latest_runs(stage) -> None:
    spec = stage.dag(max_active_runs=1)
    stage.publish(spec, stage.dag("empty"))
    late = stage.run(spec, "late", MARCH)
    early = stage.run(spec, "early", JANUARY)
    assert stage.store.runs.latest() == {"d": late}
    assert stage.store.runs.latest(["empty"]) == {}
    assert stage.store.runs.state_counts() == {"d": {"running": 1, "queued": 1}}
    assert stage.store.runs.state_counts(["empty"]) == {}
    stage.schedule(late, "a")
    counts = stage.store.runs.task_state_counts([late.id, early.id])
    assert counts == {late.id: {"scheduled": 1, "none": 1}, early.id: {"none": 2}}


def test_a_task_instance_is_found_by_its_names(stage) -> None:
    run = stage.begin()
    assert stage.store.runs.task_instance("d", "r", "b").dag_run_id == run.id
    with pytest.raises(NotFound, match="has no task 'c'"):
        stage.store.runs.task_instance("d", "r", "c")


def test_events_are_read_in_order_from_where_one_left_off(stage) -> None:
    run = stage.begin()
    lines = stage.store.runs.events("d", "r")
    assert [(line.task_id, line.to_state) for line in lines] == [
        (None, "queued"),
        (None, "running"),
        ("a", "scheduled"),
    ]
    stage.schedule(run, "b")
    (news,) = stage.store.runs.events(after=lines[-1].id)
    assert (news.task_id, news.who, news.at) == ("b", "scheduler", stage.clock())
    assert stage.store.runs.events("d", "r", "a") == [lines[2]]
    assert len(stage.store.runs.events(limit=2)) == 2

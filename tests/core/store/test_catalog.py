from datetime import UTC, datetime, timedelta

import pytest

from yarrow.errors import NotFound
from yarrow.language.faults import Fault
from yarrow.language.spec import ScheduleSpec
from yarrow.store import Store
from yarrow.store.records import FileRecord

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)


def test_files_are_remembered_replaced_and_forgotten(store: Store) -> None:
    error = Fault("a.yaml", 3, 5, "YRW012", "unknown key `retires`", "did you mean `retries`?")
    warning = Fault("b.yaml", 1, 1, "YRW050", "no owner", severity="warning")
    store.catalog.record_files(
        [FileRecord("a.yaml", 10, 1, "h1", "a", (error,)), FileRecord("b.yaml", 20, 2**62, "h2", "b", (warning,))]
    )
    assert store.catalog.files()["b.yaml"].mtime_ns == 2**62
    assert [file.path for file in store.catalog.import_errors()] == ["a.yaml"]
    assert store.catalog.import_errors()[0].faults == (error,)

    store.catalog.record_files([FileRecord("a.yaml", 11, 3, "h3", "a")])
    assert store.catalog.import_errors() == []
    store.catalog.forget_files(["b.yaml", "never.yaml"])
    assert list(store.catalog.files()) == ["a.yaml"]


def test_nothing_to_do_is_fine(store: Store) -> None:
    store.catalog.record_files([])
    store.catalog.forget_files([])
    assert store.catalog.publish([]) == []
    assert store.catalog.deactivate([]) == []
    assert store.catalog.set_schedules([]) == 0
    assert store.catalog.dags() == []


def test_a_dag_is_published_with_what_listings_show(stage) -> None:
    schedule = ScheduleSpec(every=900.0)
    spec = stage.dag(
        "etl", description="Loads", owner="ops", tags=("x", "y"), schedule=schedule, timezone="Europe/Berlin"
    )
    assert stage.store.catalog.publish([(spec, "text", "sub/etl.yaml")]) == ["etl"]
    (record,) = stage.store.catalog.dags()
    assert (record.dag_id, record.path, record.version) == ("etl", "sub/etl.yaml", spec.version)
    assert (record.description, record.owner, list(record.tags)) == ("Loads", "ops", ["x", "y"])
    assert (record.schedule, record.timezone, record.max_active_runs) == ("every 15m", "Europe/Berlin", 16)
    assert stage.store.catalog.spec("etl") == spec
    assert stage.store.catalog.source("etl") == "text"
    assert record.to_json()["created_at"] == "2026-01-01T00:00:00+00:00"


def test_only_a_change_makes_a_version(stage) -> None:
    first, second = stage.dag(), stage.dag(description="other")
    stage.publish(first)
    stage.clock.advance(60)
    assert stage.store.catalog.publish([(first, "a comment more", "d.yaml")]) == []
    assert stage.store.catalog.publish([(second, "2", "d.yaml")]) == ["d"]
    assert stage.store.catalog.publish([(first, "1", "d.yaml")]) == ["d"]
    assert stage.store.catalog.dag("d").version == first.version
    versions = stage.store.catalog.versions("d")
    assert [(one.number, one.version) for one in versions] == [(2, second.version), (1, first.version)]
    assert [line.kind for line in stage.store.runs.events("d")] == ["dag.version"] * 3
    assert stage.store.catalog.spec("d", second.version) == second


def test_a_renamed_file_is_no_new_version(stage) -> None:
    spec = stage.dag()
    stage.publish(spec)
    assert stage.store.catalog.publish([(spec, "same", "elsewhere.yaml")]) == []
    assert stage.store.catalog.dag("d").path == "elsewhere.yaml"
    assert len(stage.store.catalog.versions("d")) == 1


def test_a_dag_whose_file_is_gone_keeps_its_history_and_may_return(stage) -> None:
    spec = stage.dag()
    stage.publish(spec)
    run = stage.run(spec)
    assert stage.store.catalog.deactivate(["d", "unknown"]) == ["d"]
    assert stage.store.catalog.deactivate(["d"]) == []
    assert stage.store.catalog.dags() == []
    assert not stage.store.catalog.dag("d").is_active
    assert stage.store.catalog.dags(active_only=False) != []
    assert stage.store.runs.get("d", "r") == run
    assert stage.store.catalog.unscheduled() == []

    stage.publish(spec)
    assert [one.dag_id for one in stage.store.catalog.unscheduled()] == ["d"]


def test_an_unknown_name_gets_a_suggestion(stage) -> None:
    stage.publish(stage.dag("late_flights"))
    with pytest.raises(NotFound, match=r"late_flihgts'\. Did you mean 'late_flights'"):
        stage.store.catalog.dag("late_flihgts")
    with pytest.raises(NotFound, match="no version abc"):
        stage.store.catalog.spec("late_flights", "abc")
    with pytest.raises(NotFound, match="no version abc"):
        stage.store.catalog.source("late_flights", "abc")


def test_the_schedule_pointer_is_set_and_becomes_due(stage) -> None:
    catalog = stage.store.catalog
    stage.publish(stage.dag("a"), stage.dag("b"), stage.dag("never"))
    a, b, never = catalog.unscheduled()
    assert catalog.due(MARCH) == []  # nothing is known yet
    assert catalog.next_due() is None
    assert catalog.set_schedule(a, next_logical_date=JANUARY, next_run_after=FEBRUARY)
    assert catalog.set_schedule(b, next_logical_date=JANUARY, next_run_after=JANUARY)
    assert catalog.set_schedule(never, next_logical_date=None, next_run_after=None)
    assert catalog.unscheduled() == []
    assert catalog.next_due() == JANUARY
    assert [one.dag_id for one in catalog.due(FEBRUARY)] == ["b", "a"]
    assert [one.dag_id for one in catalog.due(FEBRUARY, limit=1)] == ["b"]
    assert catalog.due(FEBRUARY)[1].next_logical_date == JANUARY


def test_a_schedule_computed_for_an_older_state_is_refused(stage) -> None:
    catalog = stage.store.catalog
    stage.publish(stage.dag())
    (old,) = catalog.unscheduled()
    spec = stage.dag(description="changed")
    stage.publish(spec)
    assert not catalog.set_schedule(old, next_logical_date=JANUARY, next_run_after=JANUARY)
    (now,) = catalog.unscheduled()
    interval = (JANUARY, JANUARY, FEBRUARY, FEBRUARY)
    stage.store.runs.create(
        spec, spec.version, run_id="s", run_type="scheduled", interval=interval, params={}, advance=(FEBRUARY, MARCH)
    )
    assert not catalog.set_schedule(now, next_logical_date=JANUARY, next_run_after=JANUARY)
    (now,) = catalog.unscheduled()
    assert now.scheduled_through == JANUARY
    assert catalog.set_schedule(now, next_logical_date=FEBRUARY, next_run_after=MARCH)


def test_a_paused_dag_is_not_due_and_is_computed_anew_when_unpaused(stage) -> None:
    catalog = stage.store.catalog
    stage.publish(stage.dag())
    catalog.set_schedule(catalog.unscheduled()[0], next_logical_date=JANUARY, next_run_after=JANUARY)
    assert catalog.set_paused("d", True, "ann")
    assert not catalog.set_paused("d", True, "ann")
    assert catalog.due(MARCH) == []
    assert catalog.next_due() is None
    stage.publish(stage.dag(description="a new version stays paused"))
    assert catalog.dag("d").is_paused
    assert catalog.set_paused("d", False, "bob")
    assert [one.dag_id for one in catalog.unscheduled()] == ["d"]
    lines = [(line.kind, line.who) for line in stage.store.runs.events("d") if "paused" in line.kind]
    assert lines == [("dag.paused", "ann"), ("dag.unpaused", "bob")]
    with pytest.raises(NotFound):
        catalog.set_paused("nope", True, "ann")


def test_many_dags_at_once(stage) -> None:
    specs = [stage.dag(f"d{number:04}") for number in range(1500)]
    assert len(stage.store.catalog.publish([(spec, "", f"{spec.dag_id}.yaml") for spec in specs])) == 1500
    records = stage.store.catalog.unscheduled()
    assert stage.store.catalog.set_schedules([(one, JANUARY, JANUARY) for one in records]) == 1500
    assert len(stage.store.catalog.due(JANUARY, limit=2000)) == 1500
    assert len(stage.store.catalog.deactivate([spec.dag_id for spec in specs])) == 1500


def test_a_version_that_can_not_be_read_any_more_is_replaced(stage) -> None:
    stage.publish(stage.dag(schedule=ScheduleSpec(cron="@daily")))
    record, day = stage.store.catalog.dag("d"), timedelta(days=1)
    assert stage.store.catalog.leave_out(record, JANUARY, (JANUARY + day, JANUARY + 2 * day), "Too many.")
    stage.damage("d")
    newer = stage.dag(schedule=ScheduleSpec(cron="@hourly"))
    assert stage.store.catalog.publish([(newer, "", "d.yaml"), (stage.dag("other"), "", "o.yaml")]) == ["d", "other"]
    assert stage.store.catalog.dag("d").version == newer.version

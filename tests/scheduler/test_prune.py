"""Retention on a schedule: once an hour, in small steps, beside a loop that goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from yarrow.clock import utc_now
from yarrow.config import Config
from yarrow.errors import StoreError
from yarrow.language.spec import DagSpec, ScheduleSpec
from yarrow.logs import LogStore
from yarrow.protocol import LogLine
from yarrow.states import RunState
from yarrow.store import Store
from yarrow.store.tables import dag_run
from yarrow_scheduler.loop import Scheduler
from yarrow_scheduler.prune import Pruner

MakeDag = Callable[..., DagSpec]
DAY = 86_400.0


@pytest.fixture
def daily(make_dag: MakeDag) -> DagSpec:
    """A DAG that makes up for its days."""
    return make_dag(
        "d", "a", schedule=ScheduleSpec(cron="@daily"), start_date=datetime(2025, 12, 1, tzinfo=UTC), catchup=True
    )


@pytest.fixture
def keeping(make_config: Callable[..., Config]) -> Callable[[float], Config]:
    """A configuration that keeps ended runs for so many days."""
    return lambda days: make_config(retention=days * DAY)


def to_the_end(pruner: Pruner, clock: Any, limit: int = 1000) -> int:
    """Steps until nothing is too old. Returns how many steps that took."""
    for count in range(limit):
        if pruner.step(clock()) > 60:
            return count
    raise AssertionError("it does not come to an end")


def test_what_is_older_than_the_retention_goes_once_an_hour(
    engine: Any, daily: DagSpec, keeping: Callable[[float], Config], clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = keeping(10)
    engine.add_worker()
    engine.publish(daily)
    engine.settle()
    logs = LogStore(config.logs_url)
    names = [run.run_id for run in engine.runs("d")]
    assert len(names) == 31
    for name in names:
        logs.append("d", name, "a", -1, 1, [LogLine("", "log", "x", "INFO")])
    age(engine.store, names[:20], clock() - timedelta(days=11))
    pruner = Pruner(engine.store, config, clock)
    with caplog.at_level(logging.INFO, "yarrow_scheduler"):
        to_the_end(pruner, clock)
    assert [run.run_id for run in engine.runs("d")] == names[20:]
    assert sorted(path.name for path in (Path(config.home) / "logs/d").iterdir()) == sorted(
        path.replace(":", "%3A") for path in names[20:]
    )
    assert "20 runs" in caplog.text

    age(engine.store, names[20:25], clock() - timedelta(days=11))
    clock.advance(3500)
    assert 0 < pruner.step(clock()) <= 100
    assert len(engine.runs("d")) == 11
    clock.advance(101)
    to_the_end(pruner, clock)
    assert len(engine.runs("d")) == 6


def age(store: Store, run_ids: list[str], ended_at: datetime) -> None:
    """Has runs ended back then."""
    statement = update(dag_run).where(dag_run.c.run_id.in_(run_ids)).values(ended_at=ended_at)
    store.runs._database.write(lambda connection: connection.execute(statement))


def test_the_schedule_does_not_bring_back_what_is_gone(
    engine: Any, daily: DagSpec, keeping: Callable[[float], Config], clock: Any
) -> None:
    engine.add_worker()
    engine.publish(daily)
    engine.settle()
    names = [run.run_id for run in engine.runs("d")]
    age(engine.store, names, clock() - timedelta(days=11))
    to_the_end(Pruner(engine.store, keeping(10), clock), clock)
    assert [run.run_id for run in engine.runs("d")] == names[-1:]
    engine.start_scheduler()
    engine.settle()
    assert [run.run_id for run in engine.runs("d")] == names[-1:]
    engine.advance(DAY, step=3600)
    engine.settle()
    assert len(engine.runs("d")) == 2


def test_nor_what_a_person_has_deleted_were_it_the_newest(engine: Any, daily: DagSpec) -> None:
    engine.add_worker()
    engine.publish(daily)
    engine.settle()
    names = [run.run_id for run in engine.runs("d")]
    engine.store.deletions.runs("d", [names[3], names[-1]], who="ann")
    engine.start_scheduler()  # which knows nothing but what stands in the database
    engine.settle()
    left = [run.run_id for run in engine.runs("d")]
    assert left == [name for name in names if name not in (names[3], names[-1])]
    # Another version, and another life of the file, make no difference.
    engine.publish(replace(daily, description="another"))
    engine.settle()
    engine.store.catalog.deactivate(["d"])
    engine.publish(daily)
    engine.settle()
    assert [run.run_id for run in engine.runs("d")] == left
    engine.advance(DAY, step=3600)
    engine.settle()
    after = [run.run_id for run in engine.runs("d")]
    assert after[:-1] == left
    assert after[-1] not in names
    engine.assert_ended("d", RunState.SUCCESS)


def test_without_retention_nothing_is_begun(sqlite_engine: Any, keeping: Callable[[float], Config], clock: Any) -> None:
    pruner = Pruner(sqlite_engine.store, keeping(0), clock)
    pruner.start()
    assert not pruner._thread.is_alive()
    pruner.close()


def test_a_database_that_is_away_does_not_end_it(
    sqlite_engine: Any,
    daily: DagSpec,
    keeping: Callable[[float], Config],
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = sqlite_engine.store
    real = store.pruning.steps

    def away(*_: Any, **__: Any) -> Any:
        monkeypatch.setattr(store.pruning, "steps", real)
        raise StoreError("The database is away.")

    monkeypatch.setattr(store.pruning, "steps", away)
    sqlite_engine.publish(daily)
    sqlite_engine.add_worker()
    sqlite_engine.settle()
    names = [run.run_id for run in sqlite_engine.runs("d")]
    age(store, names, clock() - timedelta(days=11))
    hours = iter(range(1000))  # each look at the clock is an hour later
    pruner = Pruner(store, keeping(10), lambda: clock() + timedelta(hours=next(hours)))
    pruner.start()
    deadline = time.monotonic() + 30
    while len(sqlite_engine.runs("d")) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    pruner.close()
    assert not pruner._thread.is_alive()
    assert len(sqlite_engine.runs("d")) == 1
    assert "pruning failed: The database is away." in caplog.text


def test_a_scheduler_prunes_while_it_runs(
    sqlite_engine: Any, make_dag: MakeDag, make_config: Callable[..., Config]
) -> None:
    """The real loop with its threads, on a database with something to delete."""
    store = sqlite_engine.store
    spec = make_dag("d", "a")
    sqlite_engine.publish(spec)
    old = utc_now() - timedelta(days=100)
    rows = ended(spec, old, 120)
    store.runs._database.write(lambda connection: connection.execute(dag_run.insert(), rows))
    scheduler = Scheduler(make_config(retention=90 * DAY), store, sqlite_engine.executor, b"k" * 64)
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    deadline = time.monotonic() + 30
    while store.runs.list("d") and time.monotonic() < deadline:
        time.sleep(0.02)
    scheduler.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert store.runs.list("d") == []


def test_two_schedulers_prune_the_same_database(
    postgres_store: Store, make_dag: MakeDag, keeping: Callable[[float], Config], clock: Any
) -> None:
    spec = make_dag("d", "a")
    postgres_store.catalog.publish([(spec, "", "d.yaml")])
    rows = ended(spec, clock() - timedelta(days=11), 300)
    postgres_store.runs._database.write(lambda connection: connection.execute(dag_run.insert(), rows))
    pruners = [Pruner(postgres_store, keeping(10), clock) for _ in range(2)]
    threads = [threading.Thread(target=to_the_end, args=(pruner, clock)) for pruner in pruners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert postgres_store.runs.list("d") == []
    assert sum(pruner._total["runs"] for pruner in pruners) == 300


def ended(spec: DagSpec, at: datetime, count: int) -> list[dict[str, Any]]:
    """Rows of runs that ended then."""
    moments = dict.fromkeys(("data_interval_start", "data_interval_end", "run_after", "queued_at", "ended_at"), at)
    row = {"dag_id": spec.dag_id, "run_type": "manual", "version": spec.version, "state": "success", "params": {}}
    return [{**row, **moments, "run_id": f"r{n}", "logical_date": at + timedelta(minutes=n)} for n in range(count)]

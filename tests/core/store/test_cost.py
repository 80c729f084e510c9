"""What the verbs cost: statements are counted and query plans read, because times depend on the machine."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from yarrow.decide import Decisions

Statements = list[tuple[str, Any]]
Counter = Callable[[], AbstractContextManager[Statements]]


@pytest.fixture
def statements() -> Counter:
    """Collects the statements that are executed inside a block."""

    @contextmanager
    def collect() -> Iterator[Statements]:
        found: Statements = []

        def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
            if not statement.startswith(("BEGIN", "SELECT pg_catalog")):
                found.append((statement, parameters[0] if many else parameters))

        event.listen(Engine, "before_cursor_execute", note)
        try:
            yield found
        finally:
            event.remove(Engine, "before_cursor_execute", note)

    return collect


def test_a_busy_slot_costs_few_statements(stage: Any, statements: Counter) -> None:
    spec = stage.dag(tasks=[stage.task(f"t{number}") for number in range(3)])
    stage.begin(spec, *spec.tasks)
    claimed = stage.finish(stage.claim(), next_for="default").next  # the spec has been read by now
    with statements() as found:
        assert stage.finish(claimed, xcom=1, has_xcom=True, next_for="default").next is not None
    assert len(found) <= 10


def test_wide_runs_are_moved_in_bulk(stage: Any, statements: Counter) -> None:
    spec = stage.dag(tasks=[stage.task(f"t{number}") for number in range(500)], max_active_tasks=1000)
    stage.store.workers.set_pools({"default_pool": 1000})
    stage.publish(spec)
    with statements() as found:
        run = stage.run(spec, start=False)
    assert len(found) <= 5
    stage.store.runs.start_due()
    with statements() as found:
        stage.schedule(run, *spec.tasks)
    assert len(found) <= 8
    with statements() as found:
        assert stage.store.attempts.grant(1000) == 500
    assert len(found) <= 8


def test_a_folder_is_published_in_bulk(stage: Any, statements: Counter) -> None:
    specs = [stage.dag(f"d{number}") for number in range(900)]
    offers = [(spec, "text", f"{spec.dag_id}.yaml") for spec in specs]
    with statements() as found:
        stage.store.catalog.publish(offers)
    assert len(found) <= 7
    with statements() as found:
        stage.store.catalog.publish(offers)
    assert len(found) == 1


def test_pages_cost_the_same_however_much_there_is(stage: Any, statements: Counter) -> None:
    def pages() -> int:
        with statements() as found:
            stage.store.workers.health()
            stage.store.catalog.dags()
            stage.store.runs.latest()
            stage.store.runs.state_counts()
            runs = stage.store.runs.list()
            stage.store.runs.task_state_counts([run.id for run in runs])
            stage.store.runs.task_instances(runs[0].id)
        return len(found)

    stage.publish(*[stage.dag(f"d{number}") for number in range(20)])
    stage.run(stage.dag("d0"))
    before = pages()
    for number in range(20):
        stage.run(stage.dag(f"d{number}"), "again")
        stage.beat(worker=f"w{number}")
    assert pages() == before <= 12


def test_an_idle_pass_only_looks(sqlite_stage: Any, statements: Counter) -> None:
    stage = sqlite_stage
    stage.finish(stage.claim()) if stage.begin() else None
    run = stage.store.runs.get("d", "r")
    stage.decide(run, wait_until=None)
    with statements() as found:
        idle_pass(stage)
    assert [statement for statement, _ in found if not statement.startswith("SELECT")] == []
    assert len(found) <= 16


def idle_pass(stage: Any) -> None:
    store, now = stage.store, stage.clock()
    store.catalog.due(now)
    store.catalog.unscheduled()
    store.catalog.next_due()
    store.runs.start_due()
    store.runs.undecided()
    store.runs.next_wait()
    store.attempts.grant(100, served={"default"})
    store.attempts.to_publish({"default": 4})
    store.attempts.outstanding()
    store.attempts.expire_leases()
    store.attempts.fail_unserved(3600)
    store.attempts.next_deadline()


def test_no_pass_reads_what_is_finished(sqlite_stage: Any, statements: Counter, sqlite_url: str) -> None:
    """Each query of the loop and of a busy slot goes by an index that leaves finished rows out."""
    stage = sqlite_stage
    stage.store.catalog.record_files([])
    stage.begin(stage.dag(tasks=[stage.task("a"), stage.task("b", upstream=("a",), xcoms=("a",))]), "a", "b")
    with statements() as found:
        idle_pass(stage)
        stage.dispatch()
        claimed = stage.store.attempts.next_for("default", "w", 60)
        stage.finish(claimed, xcom=1, has_xcom=True, next_for="default")
        stage.beat(claimed.attempt_id)
        run = stage.store.runs.get("d", "r")
        stage.store.runs.apply(run.id, Decisions(), run.change_seq)
        idle_pass(stage)
        stage.store.workers.health()
        stage.store.workers.pools()
    scans = re.compile(r"SCAN (dag_run|task_instance|attempt|event)(?! USING (COVERING )?INDEX ix_)")
    faults = []
    for statement, parameters in found:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            plan = explain(sqlite_url, statement, parameters)
            faults += [(line, re.sub(r"\s+", " ", statement)[:300]) for line in plan if scans.match(line)]
    assert faults == []


def explain(url: str, statement: str, parameters: Any) -> list[str]:
    import sqlite3

    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    finally:
        connection.close()

"""What the verbs cost: statements are counted and query plans read, because times depend on the machine."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from yarrow.decision.decisions import Decisions, TaskDecision
from yarrow.language.spec import CacheSpec
from yarrow.states import TaskState

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


def test_what_a_task_does_not_use_costs_it_nothing(stage: Any, statements: Counter) -> None:
    """Limits of single tasks, attempts that were put off and the cache: a look each, only for who has them."""

    def cost(**fields: Any) -> tuple[int, int]:
        name = f"d{len(stage.store.catalog.dags())}"
        spec = stage.dag(name, [stage.task(f"t{number}", **fields) for number in range(2)])
        stage.publish(spec)
        stage.schedule(stage.run(spec), *spec.tasks)
        with statements() as granting:
            assert stage.store.attempts.grant(1000) == 2
        stage.store.attempts.next_for("default", "w", 60)
        claimed = stage.store.attempts.next_for("default", "w", 60)
        with statements() as finishing:
            stage.finish(claimed, cache_key="a" * 64)
        return len(granting), len(finishing)

    cost()  # reads what is kept in memory
    granting, finishing = cost()
    assert (granting, finishing) == (7, 5)
    assert cost(max_active_tis_per_dag=5, max_active_tis_per_dagrun=5) == (granting + 1, finishing)
    assert cost(cache=CacheSpec(60.0)) == (granting, finishing + 1)


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


def test_what_is_given_up_together_costs_few_statements(stage: Any, statements: Counter) -> None:
    spec = stage.dag(tasks=[stage.task(f"t{number:05}") for number in range(10_000)], max_active_tasks=20_000)
    stage.store.workers.set_pools({"default_pool": 20_000})
    stage.publish(spec)
    run = stage.run(spec)
    first, *others = spec.tasks
    stage.schedule(run, first)
    stage.store.attempts.grant(1)
    moves = [(first, TaskState.QUEUED, TaskState.SKIPPED, "late")]
    moves += [(task_id, TaskState.NONE, TaskState.SKIPPED, "late") for task_id in others]
    with statements() as found:
        assert stage.decide(run, *moves)
    # A look at 1000 task instances and a move of 1000, ten times, and one statement for the attempt.
    assert len(found) <= 30


def test_a_wide_expansion_costs_few_statements(stage: Any, statements: Counter) -> None:
    spec = stage.dag(tasks=[stage.task("a", expand={"n": []}), stage.task("b", upstream=("a",))])
    stage.publish(spec)
    run = stage.run(spec)
    moves = [TaskDecision("a", TaskState.NONE, TaskState.SCHEDULED, map_index=index) for index in range(1000)]
    with statements() as found:
        assert stage.decide(run, *moves, expand={"a": 1000})
    assert len(found) <= 12
    with statements() as found:
        assert len(stage.store.runs.snapshot(run.id).tasks) == 1001
    assert len(found) <= 2
    late = TaskDecision("a", TaskState.SCHEDULED, TaskState.SKIPPED, "late", map_index=7)
    with statements() as found:
        assert stage.decide(run, late)
    looked = [parameters for statement, parameters in found if "map_index IN" in statement]
    assert len(looked) == 1
    assert len(looked[0]) == 3  # it looks for the one instance, not at all of them


def test_looking_back_costs_two_statements_and_nothing_when_no_task_does(stage: Any, statements: Counter) -> None:
    def look(spec: Any) -> int:
        stage.publish(spec)
        runs = [stage.run(spec, f"r{number}") for number in range(2)]
        with statements() as found:
            stage.store.runs.snapshot(runs[1].id)
        return len(found)

    plain = look(stage.dag("plain"))
    assert look(stage.dag("careful", tasks=[stage.task("a", depends_on_past=True)])) <= plain + 2


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
    limited = {"max_active_tis_per_dag": 9, "cache": CacheSpec(60.0)}
    stage.begin(stage.dag(tasks=[stage.task("a", **limited), stage.task("b", upstream=("a",), xcoms=("a",))]), "a", "b")
    with statements() as found:
        idle_pass(stage)
        stage.dispatch()
        stage.store.cache.get("a" * 64, "d", "a")
        stage.store.cache.clear(before=stage.clock())
        stage.store.attempts.awaited("d", "a", stage.clock())
        claimed = stage.store.attempts.next_for("default", "w", 60)
        stage.finish(claimed, xcom=1, has_xcom=True, next_for="default")
        stage.beat(claimed.attempt_id)
        run = stage.store.runs.get("d", "r")
        stage.store.runs.apply(run.id, Decisions(), run.change_seq)
        idle_pass(stage)
        stage.store.workers.health()
        stage.store.workers.pools()
    scans = re.compile(r"SCAN (dag_run|task_instance|attempt|event|result_cache)(?! USING (COVERING )?INDEX ix_)")
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

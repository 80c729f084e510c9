"""Explanations of task instances in a real store: each state's own sentence, and what they cost."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, update
from sqlalchemy.engine import Engine

from yarrow.decide import decide
from yarrow.decision.decisions import Question, TaskDecision
from yarrow.errors import NotFound
from yarrow.explaining.explanation import Explanation
from yarrow.plans.requests import ClearRequest
from yarrow.protocol import Heartbeat
from yarrow.states import RunState, TaskState
from yarrow.store.database import Database
from yarrow.store.tables import backfill, dag_run, task_instance

NONE, SCHEDULED, SUCCESS = TaskState.NONE, TaskState.SCHEDULED, TaskState.SUCCESS


class Explainer:
    """A stage with a scheduler and a worker, and explanations of what stands on it."""

    def __init__(self, stage: Any) -> None:
        self.stage = stage
        self.store = stage.store
        self.beat()

    def beat(self, queues: tuple[str, ...] = ("default",), slots: int = 4) -> None:
        """The scheduler and the worker say that they are alive."""
        self.store.workers.register_scheduler("s", "host", 1)
        self.store.attempts.heartbeat(Heartbeat("w1", "host", 7, queues, slots, "0.1.0"), 60.0)

    def explain(self, run: Any, task_id: str = "a", map_index: int = -1, parallelism: int = 32) -> Explanation:
        found: Explanation = self.store.explanations.get(
            run.dag_id, run.run_id, task_id, map_index, parallelism=parallelism
        )
        return found

    def decide(self, run: Any) -> None:
        snapshot = self.store.runs.snapshot(run.id)
        now = self.stage.clock()
        decisions = decide(snapshot.spec, snapshot.record.view, snapshot.tasks, now, snapshot.xcoms, snapshot.past)
        assert self.store.runs.apply(run.id, decisions, snapshot.record.change_seq)


@pytest.fixture
def explainer(stage: Any) -> Explainer:
    return Explainer(stage)


def check(found: Explanation, name: str) -> Any:
    (one,) = [one for one in found.checks if one.name == name]
    return one


def outcomes(found: Explanation) -> Mapping[str, bool | None]:
    return {one.name: one.passed for one in found.checks}


# Runs


def test_a_run_waits_for_a_place_among_the_active_runs(explainer: Explainer, stage: Any) -> None:
    spec = stage.dag(max_active_runs=2)
    stage.publish(spec)
    runs = [stage.run(spec, f"r{number}") for number in range(5)]
    found = explainer.explain(runs[3])
    limit = check(found, "max_active_runs")
    assert (limit.passed, limit.facts["active"], limit.facts["limit"], limit.facts["place"]) == (False, 2, 2, 2)
    assert limit.facts["run_ids"] == ["r0", "r1"]
    assert found.summary == (
        "`a` waits for its run to start: 2 of 2 runs of the DAG are running (r0 and r1); it is 2nd in line."
    )
    stage.decide(runs[0], ("a", NONE, TaskState.SKIPPED), ("b", NONE, TaskState.SKIPPED))
    stage.end(runs[0])
    assert check(explainer.explain(runs[2]), "max_active_runs").passed
    assert not check(explainer.explain(runs[3]), "max_active_runs").passed
    assert stage.store.runs.start_due() == [runs[2].id]


def test_a_run_waits_for_its_time_and_for_its_dag(explainer: Explainer, stage: Any) -> None:
    spec = stage.dag()
    stage.publish(spec)
    at = stage.clock() + timedelta(minutes=2, seconds=5)
    interval = (stage.clock(), stage.clock(), at, at)
    run = stage.store.runs.create(
        spec, spec.version, run_id="later", run_type="scheduled", interval=interval, params={}
    )
    assert explainer.explain(run).summary == "`a` waits for its run to start, due in 02:05."
    stage.clock.advance(125)
    explainer.beat()
    assert all(one.passed for one in explainer.explain(run).checks)
    stage.store.catalog.set_paused("d", True, "test")
    assert explainer.explain(run).summary == "`a` waits for its DAG `d`, which is paused."
    assert stage.store.runs.start_due() == []


def test_without_a_scheduler_that_is_the_answer(stage: Any) -> None:
    run = stage.begin()
    found = stage.store.explanations.get("d", "r", "a", parallelism=32)
    assert found.summary == "`a` waits for a scheduler: none is running."
    assert found.run_id == run.run_id


def test_a_run_that_is_left_alone_says_until_when(explainer: Explainer, stage: Any) -> None:
    spec = stage.dag()
    stage.publish(spec)
    run = stage.run(spec)
    stage.store.runs.quarantine(run.id, "KeyError: 'x'", stage.clock() + timedelta(seconds=30))
    found = explainer.explain(run)
    assert "in 00:30" in found.summary
    assert "KeyError: 'x'" in found.summary


def test_a_task_that_has_not_started_in_a_run_that_has_ended(explainer: Explainer, stage: Any) -> None:
    spec = stage.dag()
    stage.publish(spec)
    run = stage.run(spec)
    stage.end(run, RunState.FAILED)
    assert "its run ended at 2026-01-01 00:00:00 UTC as failed" in explainer.explain(run).summary


# Dependencies


def test_the_root_of_what_a_task_waits_for_is_named(explainer: Explainer, stage: Any) -> None:
    tasks = [
        stage.task("extract", retries=2),
        stage.task("clean", upstream=("extract",)),
        stage.task("load", upstream=("clean",)),
    ]
    stage.begin(stage.dag(tasks=tasks), "extract")
    claimed = stage.claim()
    run = stage.store.runs.get("d", "r")
    assert explainer.explain(run, "clean").summary.startswith(
        "`clean` waits for its upstream task `extract`, which runs on worker `w1` on host since"
    )
    stage.finish(claimed, "failed", reason="no such file")
    wait = stage.instance(run, "extract").wait_until - stage.clock()
    stage.clock.advance(wait.total_seconds() - 12)
    explainer.beat()
    assert explainer.explain(run, "clean").summary == (
        "`clean` waits for its upstream task `extract`, which is up for retry 1 of 2, due in 00:12."
    )
    assert explainer.explain(run, "load").summary == (
        "`load` waits for `extract`, further upstream, which is up for retry 1 of 2, due in 00:12."
    )
    assert check(explainer.explain(run, "load"), "trigger_rule").facts["upstream"] == {"clean": {"none": 1}}
    own = explainer.explain(run, "extract")
    assert own.summary == "`extract` is up for retry 1 of 2, due in 00:12."
    assert "no such file" in check(own, "retry").sentence


def test_a_task_behind_one_that_waits_for_a_slot(explainer: Explainer, stage: Any) -> None:
    stage.store.workers.set_pools({"default_pool": 128, "gpu": 1})
    spec = stage.dag(tasks=[stage.task("a", pool="gpu"), stage.task("b", upstream=("a",))])
    stage.publish(spec)
    first, second = stage.run(spec, "r1"), stage.run(spec, "r2")
    stage.schedule(first, "a")
    stage.store.attempts.grant(32)
    stage.schedule(second, "a")
    assert explainer.explain(second, "b").summary == (
        "`b` waits for its upstream task `a`, which waits for a slot of the pool `gpu`: 1 of 1 are taken; "
        "it is 1st in line."
    )


def test_the_run_before(explainer: Explainer, stage: Any) -> None:
    spec = stage.dag(tasks=[stage.task("a", depends_on_past=True), stage.task("b", upstream=("a",))])
    stage.publish(spec)
    stage.run(spec, "r1")
    second = stage.run(spec, "r2", stage.clock() + timedelta(days=1))
    sentence = (
        "waits for the run before (`depends_on_past`): `a` of the run before, r1, has not succeeded: it is waiting"
    )
    assert explainer.explain(second).summary == f"`a` {sentence}."
    assert explainer.explain(second, "b").summary == f"`b` waits for its upstream task `a`, which {sentence}."


def test_mapped_tasks(explainer: Explainer, stage: Any) -> None:
    tasks = [
        stage.task("list"),
        stage.task("score", upstream=("list",), expand={"n": "{{ xcom.list }}"}, expand_xcoms=("list",)),
        stage.task("join", upstream=("score",)),
    ]
    stage.begin(stage.dag(tasks=tasks), "list")
    claimed = stage.claim()
    run = stage.store.runs.get("d", "r")
    found = explainer.explain(run, "score")
    assert outcomes(found)["expand"] is None
    assert "`list`" in check(found, "expand").sentence
    stage.finish(claimed, xcom=[1, 2, 3], has_xcom=True)
    found = explainer.explain(run, "score")
    assert (found.expands_to, check(found, "expand").facts["instances"]) == (3, 3)
    # What waits for them sees through what is about to happen.
    assert "`score[0]`" in explainer.explain(run, "join").summary
    explainer.decide(run)
    assert explainer.explain(run, "score", 2).state is SCHEDULED
    found = explainer.explain(run, "join")
    assert check(found, "trigger_rule").facts["upstream"] == {"score": {"scheduled": 3}}
    with pytest.raises(NotFound, match="is mapped and needs a map index"):
        explainer.explain(run, "score")
    with pytest.raises(NotFound, match=r"has no instance 3\. There are the instances 0 to 2"):
        explainer.explain(run, "score", 3)


def test_what_the_scheduler_has_not_decided_yet_is_told(explainer: Explainer, stage: Any) -> None:
    tasks = [stage.task("a"), stage.task("b", upstream=("a",)), stage.task("c", upstream=("b",), when="params.no")]
    stage.begin(stage.dag(tasks=tasks, params={"no": {"type": "boolean", "default": False}}), "a")
    run = stage.store.runs.get("d", "r")
    claimed = stage.claim()
    stage.finish(claimed, "failed")
    found = explainer.explain(run, "b")
    assert found.next_state is TaskState.UPSTREAM_FAILED
    assert found.summary == "`b` can't run: upstream task `a` failed."
    assert explainer.explain(run, "c").next_state is TaskState.UPSTREAM_FAILED


# Scheduled, queued, running and the rest


def test_a_pool_names_who_holds_it(explainer: Explainer, stage: Any) -> None:
    stage.store.workers.set_pools({"default_pool": 128, "gpu": 12})
    names = [f"t{number}" for number in range(15)]
    spec = stage.dag(tasks=[stage.task(name, pool="gpu") for name in names], max_active_tasks=100)
    stage.publish(spec)
    run = stage.run(spec)
    stage.schedule(run, *names)
    assert stage.store.attempts.grant(32) == 12
    waiting = [name for name in names if stage.instance(run, name).state is SCHEDULED]
    found = explainer.explain(run, waiting[2])
    assert found.summary == f"`{waiting[2]}` waits for a slot of the pool `gpu`: 12 of 12 are taken; it is 3rd in line."
    facts = check(found, "pool").facts
    assert (facts["used"], facts["limit"], facts["free"], facts["ahead"], facts["others"]) == (12, 12, 0, 2, 2)
    assert len(facts["held_by"]) == 10
    assert facts["held_by"][0] == {
        "dag_id": "d",
        "run_id": "r",
        "task_id": "t0",
        "map_index": -1,
        "state": "queued",
        "slots": 1,
    }


def test_each_limit_is_named(explainer: Explainer, stage: Any) -> None:
    fields = {"max_active_tis_per_dag": 1, "priority_weight": 5}
    spec = stage.dag(tasks=[stage.task("a", **fields), stage.task("b")], max_active_tasks=2)
    stage.publish(spec)
    runs = [stage.run(spec, f"r{number}") for number in range(3)]
    stage.schedule(runs[0], "a")
    stage.store.attempts.grant(32)
    stage.schedule(runs[1], "a", "b")
    assert "its `max_active_tis_per_dag`: 1 of 1 are taken" in explainer.explain(runs[1], "a").summary
    assert explainer.explain(runs[1], "b").summary == "`b` goes next: the scheduler is about to queue it."
    assert "`parallelism`: 1 of 1 are taken" in explainer.explain(runs[1], "b", parallelism=1).summary
    stage.store.attempts.grant(32)
    stage.schedule(runs[2], "b")
    found = explainer.explain(runs[2], "b")
    assert "`max_active_tasks` of its DAG: 2 of 2 are taken" in found.summary
    assert [holder["task_id"] for holder in check(found, "max_active_tasks").facts["held_by"]] == ["a", "b"]


def test_those_before_it_take_what_is_free(explainer: Explainer, stage: Any) -> None:
    stage.store.workers.set_pools({"default_pool": 1})
    spec = stage.dag(tasks=[stage.task("a", priority_weight=5), stage.task("b")])
    run = stage.begin(spec, "a", "b")
    found = explainer.explain(run, "b")
    assert outcomes(found)["pool"] is True
    assert check(found, "line").facts == {"ahead": 1, "place": 2, "short_of": "pool"}
    assert "those before it take what is free; it is 2nd in line" in found.summary
    assert outcomes(explainer.explain(run, "a"))["line"] is True


def test_a_higher_priority_class_goes_first(explainer: Explainer, stage: Any, database_url: str) -> None:
    spec = stage.dag(tasks=[stage.task("a", priority_weight=50), stage.task("b")])
    run = stage.begin(spec, "a", "b")
    database = Database(database_url)
    database.write(
        lambda c: c.execute(update(task_instance).where(task_instance.c.task_id == "b").values(priority_class=1))
    )
    database.close()
    assert check(explainer.explain(run, "b"), "line").facts["ahead"] == 0
    assert check(explainer.explain(run, "a", parallelism=1), "line").passed is False
    stage.store.attempts.grant(1)
    assert stage.states(run) == {"a": SCHEDULED, "b": TaskState.QUEUED}


def test_a_queue_without_a_worker_and_a_pool_that_is_not_there(explainer: Explainer, stage: Any) -> None:
    spec = stage.dag(tasks=[stage.task("a", queue="gpu"), stage.task("b", pool="nowhere"), stage.task("c")])
    run = stage.begin(spec, "a", "b", "c")
    found = explainer.explain(run, "a")
    assert found.summary == "`a` waits for a worker: none serves the queue `gpu`."
    assert check(found, "queue").facts["served"] == ["default"]
    assert outcomes(found)["queued_timeout"] is None
    assert "There is no pool 'nowhere'" in explainer.explain(run, "b").summary
    stage.store.catalog.set_paused("d", True, "test")
    assert explainer.explain(run, "c").summary == "`c` waits for its DAG `d`, which is paused."
    explainer.beat(queues=("*",))
    stage.store.catalog.set_paused("d", False, "test")
    assert explainer.explain(run, "a").summary == "`a` goes next: the scheduler is about to queue it."


def test_queued_and_running(explainer: Explainer, stage: Any) -> None:
    run = stage.begin()
    stage.store.attempts.grant(32)
    assert "no message is out for it yet" in explainer.explain(run).summary
    attempt_id, nonce = stage.dispatch()
    found = explainer.explain(run)
    assert found.summary == "`a` waits for a worker of the queue `default` to take it."
    assert check(found, "workers").facts == {"queue": "default", "workers": 1, "slots": 4, "free": 4}
    assert check(found, "dispatch").facts["dispatch_count"] == 1
    stage.clock.advance(61)
    assert "its message was lost, and is sent again" in explainer_after(explainer, run).summary
    claimed = stage.store.attempts.claim(*stage.dispatch(), "w1", 60.0)
    found = explainer.explain(run)
    assert found.summary.startswith("`a` runs on worker `w1` on host since 2026-01-01 00:01:01 UTC")
    assert all(one.passed for one in found.checks)
    stage.store.attempts.cancel("d", "r", "a", who="ada", reason="Wrong month.")
    assert explainer.explain(run).summary == "`a` is being stopped, and will be failed then: Wrong month."
    stage.store.plans.carry_out(ClearRequest(dag_id="d", run_ids=("r",), reason="Bad input."), who="ann")
    assert (
        explainer.explain(run).summary == "`a` is being stopped, and is executed again then: Cleared by ann: Bad input."
    )
    stage.clock.advance(100)
    assert check(explainer.explain(run), "lease").passed is False
    assert (attempt_id, nonce) != (claimed.attempt_id, claimed.nonce)


def explainer_after(explainer: Explainer, run: Any) -> Explanation:
    """With the scheduler and the worker still alive."""
    explainer.beat()
    return explainer.explain(run)


def test_no_worker_for_what_is_queued(explainer: Explainer, stage: Any) -> None:
    run = stage.begin()
    stage.dispatch()
    explainer.beat(queues=("other",))
    assert explainer.explain(run).summary == "`a` waits for a worker: none serves the queue `default`."


def test_a_question(explainer: Explainer, stage: Any) -> None:
    spec = stage.dag(tasks=[stage.task("a"), stage.task("b", upstream=("a",))])
    stage.publish(spec)
    run = stage.run(spec)
    due_at = stage.clock() + timedelta(hours=1)
    asked = TaskDecision("a", NONE, TaskState.AWAITING_INPUT, question=Question("Publish it?", "reject", due_at))
    stage.decide(run, asked, wait_until=due_at)
    found = explainer.explain(run)
    assert found.summary == "`a` waits for a person to answer until 2026-01-01 01:00:00 UTC: Publish it?"
    assert "without an answer it is rejected then" in check(found, "answer").sentence
    assert "which waits for a person to answer" in explainer.explain(run, "b").summary


def test_an_end_has_a_reason(explainer: Explainer, stage: Any) -> None:
    run = stage.begin()
    stage.finish(stage.claim(), "failed", reason="no such file")
    found = explainer.explain(run)
    assert found.summary == "`a` failed at 2026-01-01 00:00:00 UTC, in try 1 of 1: no such file."
    assert [one.name for one in found.checks] == ["ended"]


# What it costs, and what is not there


def test_a_wide_run_is_explained_in_few_queries(explainer: Explainer, stage: Any) -> None:
    middle = [stage.task(f"t{number}", upstream=("a",)) for number in range(1000)]
    last = stage.task("z", upstream=tuple(task.task_id for task in middle), depends_on_past=True)
    spec = stage.dag(tasks=[stage.task("a"), *middle, last], max_active_tasks=10)
    stage.publish(spec)
    stage.run(spec, "before")
    run = stage.run(spec, "r", stage.clock() + timedelta(days=1))
    stage.decide(run, ("a", NONE, SCHEDULED))
    stage.finish(stage.claim())
    explainer.decide(run)
    explainer.explain(run, "z")  # what is kept in memory has been read by now
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        started = time.perf_counter()
        found = explainer.explain(run, "z")
        taken = time.perf_counter() - started
        explainer.explain(run, "t500")
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert "waits for its upstream task `t0`" in found.summary
    assert len(statements) <= 50
    assert not any(re.match("INSERT|UPDATE|DELETE", one) or "FOR UPDATE" in one for one in statements)
    assert taken < 1.0  # it takes a tenth of that; the machine may be busy


def test_what_is_not_there(explainer: Explainer, stage: Any) -> None:
    stage.publish(stage.dag())
    get = stage.store.explanations.get
    with pytest.raises(NotFound, match="There is no DAG 'dd'"):
        get("dd", "-", "a", parallelism=1)
    with pytest.raises(NotFound, match="has no run yet"):
        get("d", "-", "a", parallelism=1)
    run = stage.run(stage.dag(), "r1")
    with pytest.raises(NotFound, match="has no run 'r'"):
        get("d", "r", "a", parallelism=1)
    with pytest.raises(NotFound, match="has no task 'aa'"):
        get("d", "-", "aa", parallelism=1)
    with pytest.raises(NotFound, match="has no instance 0"):
        get("d", "-", "a", 0, parallelism=1)
    assert get("d", "-", "a", parallelism=1).run_id == run.run_id


def test_a_run_without_task_instances(explainer: Explainer, stage: Any, database_url: str) -> None:
    """Those that a backfill makes get theirs when they start."""
    spec = stage.dag(max_active_runs=1)
    stage.publish(spec)
    stage.run(spec, "r1")
    run = stage.run(spec, "r2")
    database = Database(database_url)
    database.write(lambda c: c.execute(task_instance.delete().where(task_instance.c.dag_run_id == run.id)))
    database.close()
    found = explainer.explain(run, "b")
    assert found.state is NONE
    assert "1 of 1 runs of the DAG are running (r1)" in found.summary
    with pytest.raises(NotFound, match="has no task 'x'"):
        explainer.explain(run, "x")


def test_a_paused_backfill_holds_its_runs(explainer: Explainer, stage: Any, database_url: str) -> None:
    spec = stage.dag()
    stage.publish(spec)
    run = stage.run(spec, "r1", start=False)
    at = stage.clock()
    row = {
        "id": 7,
        "dag_id": "d",
        "plan_id": "p",
        "from_date": at,
        "to_date": at,
        "reprocess": "none",
        "params": {},
        "max_active_runs": 2,
        "run_backwards": False,
        "priority_class": -1,
        "run_count": 1,
        "is_paused": True,
        "created_at": at,
        "created_by": "ada",
    }
    database = Database(database_url)
    database.write(lambda c: c.execute(insert(backfill), row))
    database.write(lambda c: c.execute(update(dag_run).values(backfill_id=7, backfill_place=1)))
    assert explainer.explain(run).summary == "`a` waits for its run to start: the backfill 7 is paused."
    assert stage.store.runs.start_due() == []
    database.write(lambda c: c.execute(update(backfill).values(is_paused=False)))
    database.close()
    found = explainer.explain(run)
    assert check(found, "max_active_runs").facts["limit"] == 2
    assert all(one.passed for one in found.checks)
    assert stage.store.runs.start_due() == [run.id]

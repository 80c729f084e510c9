"""Clearing: in each state, while anything else happens, and what stays."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from cleared import STATES, bring, clear, expand, instances, mapped, mark, retries_of, row, rows
from yarrow.decide import decide
from yarrow.decision.decisions import Decisions, TaskDecision
from yarrow.errors import Conflict, NotFound, Refused
from yarrow.language.spec import CacheSpec
from yarrow.plans.plan import RunAction, RunChange, TaskAction, TaskChange
from yarrow.states import AttemptState, RunState, TaskState
from yarrow.store import clearing, finishing
from yarrow.store.database import Raced
from yarrow.store.tables import attempt, dag_run, dataset_event, task_instance, xcom

NONE, SCHEDULED, QUEUED, RUNNING = TaskState.NONE, TaskState.SCHEDULED, TaskState.QUEUED, TaskState.RUNNING
SUCCESS, FAILED, SKIPPED, REMOVED = TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED, TaskState.REMOVED
# What becomes of one task instance


@pytest.mark.parametrize("state", [state for state in STATES if state not in ("none", "running")])
def test_what_does_not_run_is_cleared_at_once(stage, state) -> None:
    run, claimed = bring(stage, state, **retries_of(state))
    before, tries = row(stage), 1 if state == "awaiting_input" else retries_of(state)["retries"] + 1
    attempts = rows(stage, attempt)
    clear(stage, reason="wrong month")
    after = row(stage)
    assert (after.state, after.clears, after.max_tries) == (NONE, 1, before.try_number + tries)
    assert after.try_number == before.try_number
    blank = ("attempt_id", "follow", "reason", "wait_until", "scheduled_at", "queued_at", "started_at", "ended_at")
    assert [getattr(after, name) for name in blank] == [None] * len(blank)
    assert (after.cached, after.infra_losses) == (False, 0)
    line = stage.store.runs.events("d", "r", "a")[-1]
    assert (line.kind, line.from_state, line.to_state, line.who) == ("task.state", state, "none", "ann")
    assert line.reason == "Cleared by ann: wrong month"
    assert line.attempt_id == before.attempt_id
    kept = {one.attempt_id: one for one in rows(stage, attempt)}
    assert kept.keys() == {one.attempt_id for one in attempts}
    for one in attempts:
        ended = one.state if one.state.finished else AttemptState.CANCELLED
        assert (kept[one.attempt_id].state, kept[one.attempt_id].dispatch_deadline) == (ended, None)
        assert kept[one.attempt_id].reason == (one.reason if one.state.finished else line.reason)
    assert rows(stage, xcom) == []
    with pytest.raises(NotFound):
        stage.store.attempts.xcom("d", "r", "a")
    if state == "awaiting_input":
        assert stage.store.approvals.open() == []
        with pytest.raises(Conflict, match="closed"):
            stage.store.approvals.answer("d", "r", "a", approve=True, who="bob")
    assert stage.store.runs.undecided() == [run.id]
    if claimed is None and state != "queued":
        return
    stage.schedule(run, "a")
    again = stage.claim()
    assert again.try_number == before.try_number + 1, "a new try has the next number, and so a log of its own"
    assert (again.attempt_id in kept, again.max_tries) == (False, before.try_number + tries)


def test_what_has_not_run_has_nothing_to_clear(stage) -> None:
    bring(stage, "none")
    before = row(stage)
    with pytest.raises(Exception, match="nothing to do"):
        clear(stage)
    assert row(stage) == before


def test_the_message_of_a_cleared_task_claims_nothing(stage) -> None:
    run = stage.begin()
    attempt_id, nonce = stage.dispatch()
    clear(stage)
    with pytest.raises(Refused, match="it is cancelled"):
        stage.store.attempts.claim(attempt_id, nonce, "w1", 60)
    assert stage.store.attempts.next_for("default", "w1", 60) is None
    assert stage.states(run)["a"] is NONE


@pytest.mark.parametrize("end", ["success", "failed", "skipped", "lost", "cancelled", "deferred", "lease"])
def test_what_runs_is_stopped_first_and_cleared_then_whatever_it_comes_to(stage, end) -> None:
    fields = {"retries": 1, "outlets": ("s3://out",), "on_success": ("log",), "on_failure": ("log",)}
    fields["on_retry"] = ("log",)
    run, claimed = bring(stage, "running", **fields)
    clear(stage, reason="wrong month")
    text = "Cleared by ann: wrong month"
    assert (row(stage).state, row(stage).attempt_id) == (RUNNING, claimed.attempt_id), "nothing runs twice at once"
    assert stage.beat(claimed.attempt_id, lease=10) == {claimed.attempt_id: text}
    if end == "lease":
        stage.clock.advance(11)
        assert stage.store.attempts.expire_leases() == 1
    else:
        fields = {"resume_at": stage.clock().isoformat()} if end == "deferred" else {}
        fields |= {"has_xcom": True, "xcom": 7, "cache_key": "a" * 64, "follow": ["b"]} if end == "success" else {}
        outcome = stage.finish(claimed, end, reason="told", **fields)
        assert (outcome.state, outcome.repeated) == (NONE, False)
        again = stage.finish(claimed, end, reason="told", **fields)
        assert (again.state, again.repeated) == (NONE, True)
    after = row(stage)
    assert (after.state, after.try_number, after.max_tries, after.clears) == (NONE, 1, 3, 1)
    assert (after.attempt_id, after.reason, after.started_at, after.ended_at, after.wait_until) == (None,) * 5
    (kept,) = rows(stage, attempt)
    assert kept.state == {"lease": "lost", "deferred": "cancelled"}.get(end, end)
    assert kept.ended_at is not None
    assert rows(stage, xcom) == []
    assert stage.store.notifications.list() == []
    assert rows(stage, dataset_event) == []
    assert stage.store.cache.entries() == []
    lines = [(line.kind, line.to_state, line.reason) for line in stage.store.runs.events("d", "r", "a")[-2:]]
    assert lines == [("task.cancel", None, text), ("task.state", "none", text)]
    stage.schedule(run, "a")
    assert stage.claim().try_number == 2, "no try is used up"


def test_a_cleared_task_is_executed_although_the_cache_has_its_result(stage) -> None:
    run, claimed = bring(stage, "running", cache=CacheSpec())
    stage.finish(claimed, has_xcom=True, xcom=1, cache_key="a" * 64)
    get = stage.store.cache.get
    assert get("a" * 64, "d", "a", attempt_id=claimed.attempt_id).xcom == 1
    clear(stage)
    stage.schedule(run, "a")
    again = stage.claim()
    assert get("a" * 64, "d", "a", attempt_id=again.attempt_id) is None
    assert get("a" * 64, "d", "a").xcom == 1, "other runs still get it"
    stage.finish(again, has_xcom=True, xcom=2, cache_key="a" * 64)
    assert get("a" * 64, "d", "a").xcom == 2


def test_the_last_word_of_a_person_counts(stage) -> None:
    run, claimed = bring(stage, "running")
    clear(stage)
    mark(stage, "success", who="bob")
    clear(stage, who="cy")
    assert stage.beat(claimed.attempt_id) == {claimed.attempt_id: "Cleared by cy."}
    mark(stage, "failed", who="dee", reason="give up")
    assert stage.finish(claimed, has_xcom=True, xcom=1).state is FAILED
    assert (row(stage).state, row(stage).reason) == (FAILED, "Marked by dee: give up")
    clear(stage)
    assert row(stage).state is NONE
    stage.schedule(run, "a")
    last = stage.claim()
    assert stage.store.attempts.cancel("d", "r", "a", who="eve")
    clear(stage)
    assert stage.store.attempts.cancel("d", "r", "a", who="eve")
    assert not stage.store.attempts.cancel("d", "r", "a", who="eve"), "it is being stopped already"
    assert stage.finish(last).state is FAILED


def test_a_person_overrides_the_engine_and_never_the_other_way_round(stage) -> None:
    run, claimed = bring(stage, "running")
    stage.decide(run, ("a", RUNNING, SKIPPED, "dagrun_timeout of 1s is over"))
    clear(stage)
    assert not stage.decide(run, ("a", RUNNING, SKIPPED, "dagrun_timeout of 1s is over"))
    assert stage.beat(claimed.attempt_id) == {claimed.attempt_id: "Cleared by ann."}
    assert stage.finish(claimed, "cancelled").state is NONE


# What becomes of the run


@pytest.mark.parametrize("end", [RunState.SUCCESS, RunState.FAILED])
def test_a_finished_run_waits_for_its_start_again(stage, end) -> None:
    run, _ = bring(stage, "success")
    stage.decide(run, ("b", NONE, SKIPPED), end=end)
    stage.clock.advance(60)
    clear(stage, reason="again")
    after = stage.store.runs.by_id(run.id)
    assert (after.state, after.started_at, after.ended_at, after.reason) == (RunState.QUEUED, None, None, None)
    assert after.queued_at == stage.clock()
    line = next(one for one in reversed(stage.store.runs.events("d", "r")) if one.kind == "run.state")
    assert (line.from_state, line.to_state, line.who, line.reason) == (end, "queued", "ann", "Cleared by ann: again")
    assert stage.states(run) == {"a": NONE, "b": SKIPPED}
    assert stage.store.runs.start_due() == [run.id]
    assert stage.store.runs.undecided() == [run.id]


def test_a_cleared_run_starts_within_the_limits_of_its_dag_and_not_while_that_is_paused(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a")], max_active_runs=1)
    stage.publish(spec)
    first = stage.run(spec)
    stage.decide(first, ("a", NONE, SKIPPED), end=RunState.SUCCESS)
    second = stage.run(spec, "s", stage.clock() + timedelta(days=1))
    clear(stage)
    assert stage.store.runs.start_due() == []
    stage.decide(second, ("a", NONE, SKIPPED), end=RunState.SUCCESS)
    stage.store.catalog.set_paused("d", True, "ann")
    assert stage.store.runs.start_due() == []
    stage.store.catalog.set_paused("d", False, "ann")
    assert stage.store.runs.start_due() == [first.id]


def test_what_was_decided_before_counts_no_more(stage) -> None:
    run, _ = bring(stage, "success")
    snapshot = stage.store.runs.snapshot(run.id)
    late = Decisions((TaskDecision("b", NONE, SCHEDULED),))
    clear(stage)
    assert not stage.store.runs.apply(run.id, late, snapshot.record.change_seq)
    assert stage.states(run) == {"a": NONE, "b": NONE}, "b would run before a"
    fenced = rows(stage, dag_run)[0]
    assert fenced.fenced_seq == fenced.change_seq > snapshot.record.change_seq
    fresh = stage.store.runs.snapshot(run.id)
    assert stage.store.runs.apply(run.id, Decisions((TaskDecision("a", NONE, SCHEDULED),)), fresh.record.change_seq)
    assert stage.states(run)["a"] is SCHEDULED


def test_a_task_is_cleared_while_one_after_it_runs(stage) -> None:
    run, _ = bring(stage, "success")
    stage.schedule(run, "b")
    after = stage.claim()
    clear(stage, "a")
    assert stage.states(run) == {"a": NONE, "b": RUNNING}
    assert stage.finish(after).state is SUCCESS
    assert stage.states(run) == {"a": NONE, "b": SUCCESS}
    clear(stage, "a+", only_failed=False)
    assert stage.states(run) == {"a": NONE, "b": NONE}


def test_a_change_that_does_not_fit_is_refused_and_nothing_is_done(stage) -> None:
    run, _ = bring(stage, "success")
    stage.decide(run, ("b", NONE, SKIPPED))
    before = rows(stage, task_instance), rows(stage, dag_run), rows(stage, xcom), stage.store.runs.events()
    database, specs = stage.store.runs._database, stage.store.runs._specs
    good = TaskChange("b", -1, TaskAction.CLEAR, "skipped", "none", "selected")
    for wrong, state in [
        (TaskChange("a", -1, TaskAction.CLEAR, "success", "none", "selected", attempt_id="older"), "running"),
        (TaskChange("a", -1, TaskAction.CLEAR, "failed", "none", "selected"), "running"),
        (TaskChange("c", -1, TaskAction.CLEAR, "failed", "none", "selected"), "running"),
        (good, "failed"),
    ]:
        change = RunChange("r", run.logical_date, RunAction.CLEAR, None, state, state, tasks=(good, wrong))

        def work(connection: Any, change: RunChange = change) -> None:
            with pytest.raises(Raced):
                clearing.carry_out(specs, connection, "d", [change], None, "ann", stage.clock())
            connection.rollback()

        with database._writer.connect() as connection:
            work(connection)
    assert before == (rows(stage, task_instance), rows(stage, dag_run), rows(stage, xcom), stage.store.runs.events())


def test_a_wish_between_the_look_at_a_report_and_the_move_is_not_lost(postgres_stage, monkeypatch) -> None:
    stage = postgres_stage
    _, claimed = bring(stage, "running")
    read, looks = finishing.read, []

    def and_then_clear(connection: Any, attempt_id: str) -> Any:
        found = read(connection, attempt_id)
        looks.append(found.overruled)
        if len(looks) == 1:
            thread = threading.Thread(target=clear, args=(stage,))
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
        return found

    monkeypatch.setattr(finishing, "read", and_then_clear)
    assert stage.finish(claimed, has_xcom=True, xcom=1).state is NONE
    assert looks == [False, True]
    assert (row(stage).state, rows(stage, xcom)) == (NONE, [])


def test_another_wish_between_the_look_and_the_move_is_not_lost_either(postgres_stage, monkeypatch) -> None:
    stage = postgres_stage
    _, claimed = bring(stage, "running")
    clear(stage)
    read, looks = finishing.read, []

    def and_then_mark(connection: Any, attempt_id: str) -> Any:
        found = read(connection, attempt_id)
        looks.append(found.cancel_state)
        if len(looks) == 1:
            thread = threading.Thread(target=mark, args=(stage, "skipped"))
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
        return found

    monkeypatch.setattr(finishing, "read", and_then_mark)
    assert stage.finish(claimed, "cancelled").state is SKIPPED
    assert looks == ["none", "skipped"]


def test_later_runs_that_look_back_are_decided_on_again(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a", depends_on_past=True)])
    stage.publish(spec)
    first, second = stage.run(spec), stage.run(spec, "s", stage.clock() + timedelta(days=1))
    stage.decide(first, ("a", NONE, FAILED, "no luck"), end=RunState.FAILED)
    stage.decide(second)
    assert stage.store.runs.undecided() == []
    clear(stage)
    assert stage.store.runs.undecided() == [second.id]


# Mapped tasks


def test_one_instance_of_a_mapped_task_is_cleared_alone(stage) -> None:
    mapped(stage)
    for _ in range(3):
        stage.finish(stage.claim())
    clear(stage, "m", map_index=1)
    assert instances(stage) == {0: "success", 1: "none", 2: "success"}
    assert row(stage, "m", 1).map_value == {"n": 1}


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_mapped_task_becomes_one_again_and_is_expanded_anew(stage, count) -> None:
    run = mapped(stage, more={"retries": 1})
    for _ in range(3):
        stage.finish(stage.claim(), has_xcom=True, xcom=1)
    clear(stage, "a+")
    assert instances(stage) == {-1: "none", 1: "removed", 2: "removed"}
    assert row(stage, "m").map_value is None
    assert rows(stage, xcom) == []
    views = {(view.task_id, view.map_index): view.state for view in stage.store.runs.snapshot(run.id).tasks}
    assert views == {("a", -1): NONE, ("m", -1): NONE, ("z", -1): NONE}
    (summary,) = [one for one in stage.store.runs.task_summaries([run.id])[run.id] if one.task_id == "m"]
    assert (summary.mapped, summary.states) == (False, {NONE: 1})
    stage.schedule(run, "a")
    stage.finish(stage.claim())
    expand(stage, run, count)
    found = instances(stage)
    assert found == {index: "scheduled" if index < count else "removed" for index in range(max(count, 3))}
    for index in range(count):
        one = row(stage, "m", index)
        tried = 1 if index < 3 else 0
        assert (one.map_value, one.try_number, one.max_tries, one.clears) == ({"n": index}, tried, tried + 2, 1)
    assert [one.map_index for one in stage.store.runs.task_instances(run.id)] == [-1, *range(max(count, 3)), -1]
    attempts = stage.store.attempts.attempts(row(stage, "m", 0).id)
    assert [one.try_number for one in attempts] == [1], "the attempts at an instance stay with it"
    assert stage.claim().try_number == 2


@pytest.mark.parametrize("running", [{0}, {2}, {0, 1, 2}])
def test_instances_that_run_are_stopped_before_the_task_is_expanded_anew(stage, running) -> None:
    run = mapped(stage)
    claims = {}
    for _ in range(3):
        claimed = stage.claim()
        claims[claimed.map_index] = claimed
        if claimed.map_index not in running:
            stage.finish(claimed)
    clear(stage, "a+")
    assert set(stage.beat(*[one.attempt_id for one in claims.values()])) >= {
        claims[index].attempt_id for index in running
    }
    stage.schedule(run, "a")
    stage.finish(stage.claim())
    for index in sorted(running, reverse=True):
        snapshot = stage.store.runs.snapshot(run.id)
        decisions = decide(snapshot.spec, snapshot.record.view, snapshot.tasks, stage.clock(), {("a", -1): [7, 8]})
        assert decisions.expansions == (), "an instance still runs"
        if index != 0 or len(running) > 1:
            assert stage.store.runs.snapshot(run.id) is not None
        assert stage.finish(claims[index], has_xcom=True, xcom=1).state is (REMOVED if index else NONE)
    assert instances(stage) == {-1: "none", 1: "removed", 2: "removed"}
    snapshot = stage.store.runs.snapshot(run.id)
    decisions = decide(snapshot.spec, snapshot.record.view, snapshot.tasks, stage.clock(), {("a", -1): [7, 8]})
    assert [one.task_id for one in decisions.expansions] == ["m"]
    assert stage.store.runs.apply(run.id, decisions, snapshot.record.change_seq)
    assert instances(stage) == {0: "scheduled", 1: "scheduled", 2: "removed"}
    assert row(stage, "m", 1).map_value == {"n": 8}


# Setups, and other versions


def test_a_setup_and_its_teardown_run_again_with_what_is_between(stage) -> None:
    tasks = [
        stage.task("up", setup=True),
        stage.task("a", upstream=("up",)),
        stage.task("down", upstream=("a", "up"), teardown=True),
    ]
    spec = stage.dag(tasks=tasks)
    stage.publish(spec)
    run = stage.run(spec)
    stage.decide(run, *[(one, NONE, SKIPPED) for one in ("up", "a", "down")], end=RunState.SUCCESS)
    clear(stage, "a")
    assert stage.states(run) == {"up": NONE, "a": NONE, "down": NONE}


def test_a_run_gets_the_newest_version(stage) -> None:
    old = stage.dag(
        tasks=[stage.task("a"), stage.task("gone"), stage.task("going"), stage.task("kept"), stage.task("open")]
    )
    stage.publish(old)
    run = stage.run(old)
    stage.decide(run, ("a", NONE, SKIPPED), ("gone", NONE, SKIPPED), ("kept", NONE, SCHEDULED))
    kept = stage.claim()
    stage.finish(kept, has_xcom=True, xcom=1)
    stage.schedule(run, "going")
    going = stage.claim()
    new = stage.dag(
        tasks=[
            stage.task("a", retries=4, pool="big", queue="gpu"),
            stage.task("kept", pool="big"),
            stage.task("open", retries=2, pool="big"),
            stage.task("fresh", upstream=("a",)),
        ]
    )
    stage.publish(new)
    clear(stage, "a", latest_version=True)
    assert stage.store.runs.by_id(run.id).version == new.version
    states = {"a": NONE, "gone": REMOVED, "going": RUNNING, "kept": SUCCESS, "open": NONE, "fresh": NONE}
    assert stage.states(run) == states
    assert (row(stage).pool, row(stage).queue, row(stage).max_tries) == ("big", "gpu", 5)
    assert (row(stage, "open").pool, row(stage, "open").max_tries) == ("big", 3), "it has yet to run, in that version"
    assert row(stage, "kept").pool == "default_pool"
    assert stage.store.attempts.xcom("d", "r", "kept") == 1
    assert stage.beat(going.attempt_id, lease=10)
    assert stage.store.runs.snapshot(run.id) is not None
    assert stage.finish(going, "success").state is REMOVED
    assert {view.task_id for view in stage.store.runs.snapshot(run.id).tasks} == {"a", "kept", "open", "fresh"}
    stage.publish(old)
    clear(stage, "a", latest_version=True, reason="back")
    assert stage.states(run) == {
        "a": NONE,
        "gone": NONE,
        "going": NONE,
        "kept": SUCCESS,
        "open": NONE,
        "fresh": REMOVED,
    }
    assert (row(stage, "gone").clears, row(stage, "going").max_tries) == (1, 2)


def test_years_are_cleared_with_few_statements(sqlite_stage) -> None:
    stage = sqlite_stage
    spec = stage.dag(max_active_runs=100)
    stage.publish(spec)
    runs = [stage.run(spec, f"r{n}", stage.clock() + timedelta(days=n), start=False) for n in range(60)]
    stage.store.runs.start_due()
    for run in runs:
        stage.decide(run, ("a", NONE, SKIPPED), ("b", NONE, SKIPPED), end=RunState.SUCCESS)
    statements: list[str] = []
    engine = stage.store.runs._database._reader
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    clear(stage, None, from_date=stage.clock())
    assert stage.store.runs.state_counts(["d"]) == {"d": {RunState.QUEUED: 60}}
    assert len(statements) < 40

"""What is decided about a run: case by case, then over random DAGs against an oracle that knows nothing of order."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deciding import NOW, RUN, SCHEDULED, F, K, N, S, U, dag, decided, moves, reasons, task, view, views
from yarrow.decide import Decisions, TaskDecision, TaskView, decide
from yarrow.decision.trigger_rules import TRIGGER_RULES, Counts, Verdict, judge
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.states import RUN_MOVES, TASK_MOVES, RunState, TaskState

CHAIN = dag(task("a"), task("b", "a"), task("c", "b"))


def test_the_first_tasks_are_scheduled() -> None:
    assert decided(CHAIN).tasks == (TaskDecision("a", N, SCHEDULED),)


def test_a_downstream_task_follows() -> None:
    assert moves(decided(CHAIN, a=S)) == {"b": SCHEDULED}


def test_nothing_is_decided_while_a_task_runs() -> None:
    for state in (SCHEDULED, TaskState.QUEUED, TaskState.RUNNING):
        assert decided(CHAIN, a=state) == Decisions()


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.SUCCESS, RunState.FAILED])
def test_nothing_is_decided_about_a_run_that_is_not_running(state: RunState) -> None:
    assert decide(CHAIN, replace(RUN, state=state), views(CHAIN).values(), NOW, {}) == Decisions()


def test_a_failure_runs_through_the_whole_graph_at_once_and_ends_the_run() -> None:
    decisions = decided(CHAIN, a=F)
    assert moves(decisions) == {"b": U, "c": U}
    assert reasons(decisions) == {"b": "upstream task `a` failed", "c": "upstream task `b` could not run"}
    assert decisions.run is not None
    assert (decisions.run.to_state, decisions.run.reason) == (RunState.FAILED, "task `a` failed")


def test_the_order_of_the_tasks_does_not_matter() -> None:
    backwards = dag(task("c", "b"), task("b", "a", operator="empty"), task("a", operator="empty"))
    assert moves(decided(backwards)) == {"a": S, "b": S, "c": SCHEDULED}


def test_an_empty_task_needs_no_worker() -> None:
    decisions = decided(dag(task("a", operator="empty"), task("b", "a", operator="empty")))
    assert moves(decisions) == {"a": S, "b": S}
    assert decisions.run is not None
    assert decisions.run.to_state is RunState.SUCCESS
    assert decisions.run.reason is None


def test_a_trigger_rule_is_named_in_the_reason() -> None:
    spec = dag(task("a"), task("b", "a", trigger_rule="all_failed"))
    assert reasons(decided(spec, a=S)) == {"b": "upstream task `a` succeeded (trigger rule `all_failed`)"}
    spec = dag(task("a"), task("b", "a", trigger_rule="one_failed"))
    assert reasons(decided(spec, a=S)) == {"b": "no upstream task failed (trigger rule `one_failed`)"}


def test_a_retry_waits_for_its_time() -> None:
    due = NOW + timedelta(seconds=30)
    waiting = view("a", TaskState.UP_FOR_RETRY, try_number=1, max_tries=2, wait_until=due)
    decisions = decided(CHAIN, a=waiting)
    assert decisions == Decisions(wait_until=due)
    later = decide(CHAIN, RUN, views(CHAIN, a=waiting).values(), due, {})
    assert later.tasks == (TaskDecision("a", TaskState.UP_FOR_RETRY, SCHEDULED),)
    assert later.wait_until is None


def test_the_next_moment_is_that_of_the_earliest_retry() -> None:
    spec = dag(*(task(name) for name in "abc"))
    retry = TaskState.UP_FOR_RETRY
    decisions = decided(
        spec,
        a=view("a", retry, wait_until=NOW + timedelta(seconds=9)),
        b=view("b", retry, wait_until=NOW + timedelta(seconds=3)),
        c=view("c", retry, wait_until=NOW),
    )
    assert moves(decisions) == {"c": SCHEDULED}
    assert decisions.wait_until == NOW + timedelta(seconds=3)


def test_instances_of_tasks_that_the_dag_does_not_have_are_left_alone() -> None:
    strangers = [view("gone", F, follow=()), view("lost", TaskState.RUNNING), view("waits", TaskState.UP_FOR_RETRY)]
    decisions = decide(CHAIN, RUN, [*views(CHAIN, a=S, b=S, c=S).values(), *strangers], NOW, {("gone", -1): 1})
    assert (decisions.tasks, decisions.wait_until) == ((), None)
    assert decisions.run is not None
    assert decisions.run.to_state is RunState.SUCCESS


# Branches and short circuits.


BRANCH = dag(
    task("choose", operator="branch"),
    task("x", "choose"),
    task("y", "choose"),
    task("after_y", "y"),
    task("join", "x", "y", trigger_rule="none_failed_min_one_success"),
)


def test_a_branch_skips_what_it_did_not_choose() -> None:
    decisions = decided(BRANCH, choose=view("choose", S, follow=("x",)))
    assert moves(decisions) == {"x": SCHEDULED, "y": K, "after_y": K}
    assert reasons(decisions)["y"] == "branch `choose` did not choose it"
    assert reasons(decisions)["after_y"] == "upstream task `y` was skipped"


def test_a_join_runs_after_a_branch() -> None:
    states = views(BRANCH, choose=view("choose", S, follow=("x",)), x=S, y=K, after_y=K)
    assert moves(decide(BRANCH, RUN, states.values(), NOW, {})) == {"join": SCHEDULED}


def test_a_branch_that_chooses_nothing_skips_all() -> None:
    decisions = decided(BRANCH, choose=view("choose", S, follow=()))
    assert moves(decisions) == {"x": K, "y": K, "after_y": K, "join": K}
    assert decisions.run is not None
    assert decisions.run.to_state is RunState.SUCCESS


def test_a_branch_does_not_skip_what_comes_after_the_chosen_task_too() -> None:
    spec = dag(task("choose", operator="branch"), task("x", "choose"), task("y", "choose", "x"), task("z", "choose"))
    assert moves(decided(spec, choose=view("choose", S, follow=("x",)))) == {"x": SCHEDULED, "z": K}


def test_a_failed_branch_chooses_nothing() -> None:
    assert moves(decided(BRANCH, choose=F)) == {"x": U, "y": U, "after_y": U, "join": U}


def test_a_short_circuit_skips_everything_after_it_whatever_the_trigger_rules() -> None:
    spec = dag(
        task("gate", operator="short_circuit"),
        task("a", "gate"),
        task("b", "a", trigger_rule="all_done"),
        task("c", "b", trigger_rule="none_failed"),
        task("other"),
        task("d", "c", "other", trigger_rule="one_success"),
    )
    decisions = decided(spec, gate=view("gate", S, follow=()), other=TaskState.RUNNING)
    assert moves(decisions) == dict.fromkeys("abcd", K)
    assert set(reasons(decisions).values()) == {"`gate` cut off what comes after it"}


def test_a_short_circuit_that_goes_on_changes_nothing() -> None:
    spec = dag(task("gate", operator="short_circuit"), task("a", "gate"))
    assert moves(decided(spec, gate=view("gate", S, follow=None))) == {"a": SCHEDULED}


def test_a_task_that_started_before_the_branch_ended_goes_on() -> None:
    spec = dag(task("choose", operator="branch"), task("x", "choose", trigger_rule="always"), task("y", "choose"))
    decisions = decided(spec, choose=view("choose", S, follow=()), x=TaskState.RUNNING)
    assert moves(decisions) == {"y": K}


# `when`.


def when(expression: str, xcoms: Mapping[str, Any] | None = None, **fields: Any) -> TaskDecision:
    spec = dag(task("a"), task("b", "a", when=expression, **fields))
    (decision,) = decided(spec, xcoms, a=S).tasks
    return decision


def test_when_is_evaluated_over_xcoms_params_and_dates() -> None:
    assert when("xcom.a.rows > params.limit", {"a": {"rows": 6}}).to_state is SCHEDULED
    assert when("xcom.a.rows > params.limit", {"a": {"rows": 5}}) == TaskDecision(
        "b", N, K, "`when` is false: `xcom.a.rows > params.limit`"
    )
    assert when("ds == '2026-01-01'").to_state is SCHEDULED
    assert when("xcom.a", {"a": []}).to_state is K


def test_a_when_that_makes_no_sense_fails_the_task() -> None:
    decision = when("xcom.a.rows > 1", {"a": {"columns": 1}})
    assert decision.to_state is F
    assert decision.reason is not None
    assert decision.reason.startswith("`when` can't be evaluated: ")
    assert "rows" in decision.reason


def test_when_decides_on_an_empty_task_too() -> None:
    assert when("params.limit == 5", operator="empty").to_state is S
    assert when("params.limit == 6", operator="empty").to_state is K


def test_when_is_not_looked_at_before_the_trigger_rule_says_yes() -> None:
    spec = dag(task("a"), task("b", "a", when="xcom.nothing"))
    assert decided(spec, a=TaskState.RUNNING) == Decisions()


# The end of the run.


def test_an_all_done_leaf_makes_the_run_a_success() -> None:
    spec = dag(task("a"), task("b", "a", trigger_rule="all_done"))
    decisions = decided(spec, a=F, b=S)
    assert decisions.run is not None
    assert decisions.run.to_state is RunState.SUCCESS


def test_the_failed_tasks_are_named() -> None:
    spec = dag(*(task(f"t{number}") for number in range(7)))
    decisions = decided(spec, **{f"t{number}": F for number in range(7)})
    assert decisions.run is not None
    assert decisions.run.reason == "tasks `t0`, `t1`, `t2`, `t3`, `t4` and 2 more failed"


def test_five_failed_tasks_are_all_named() -> None:
    spec = dag(*(task(f"t{number}") for number in range(5)))
    decisions = decided(spec, **{f"t{number}": F for number in range(5)})
    assert decisions.run is not None
    assert decisions.run.reason == "tasks `t0`, `t1`, `t2`, `t3` and `t4` failed"


def test_a_run_that_failed_without_a_failed_task() -> None:
    spec = dag(task("a"), task("b", "a", trigger_rule="all_done_min_one_success"))
    decisions = decided(spec, a=TaskState.REMOVED)
    assert moves(decisions) == {"b": U}
    assert decisions.run is not None
    assert decisions.run.reason == "task `b` could not run"


def test_a_deadlock_is_named() -> None:
    spec = dag(task("a"), task("b", "a"), task("c", "b"))
    decisions = decided(spec, a=TaskState.REMOVED)
    assert moves(decisions) == {"b": U, "c": U}
    assert decisions.run is not None
    assert decisions.run.to_state is RunState.FAILED
    assert decisions.run.reason == "deadlock: nothing runs, and tasks `b` and `c` can never run"


def test_a_dag_without_tasks_succeeds() -> None:
    decisions = decided(dag())
    assert decisions.run is not None
    assert decisions.run.to_state is RunState.SUCCESS


# Random DAGs.


@st.composite
def dags(draw: st.DrawFn) -> DagSpec:
    size = draw(st.integers(1, 8))
    tasks = []
    for number in range(size):
        upstream = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        tasks.append(
            task(
                f"t{number}",
                *(f"t{index}" for index in sorted(upstream)),
                operator=draw(st.sampled_from(["python", "python", "empty", "branch", "short_circuit"])),
                trigger_rule=draw(st.sampled_from(sorted(TRIGGER_RULES))),
                retries=draw(st.integers(0, 1)),
                when=draw(st.sampled_from([None, None, None, "params.limit == 5", "params.limit > 9", "xcom.nothing"])),
            )
        )
    draw(st.randoms(use_true_random=False)).shuffle(tasks)
    return dag(*tasks)


def below(spec: DagSpec, task_ids: set[str]) -> set[str]:
    """The tasks and everything downstream of them."""
    grown = task_ids | {name for name, item in spec.tasks.items() if set(item.upstream) & task_ids}
    return grown if grown == task_ids else below(spec, grown)


def unwanted(spec: DagSpec, states: Mapping[str, TaskView], task_id: str) -> bool:
    """Whether a control task has decided that this task is skipped."""
    for control, item in spec.tasks.items():
        follow = states[control].follow
        if follow is None or states[control].state is not S:
            continue
        if item.operator == "short_circuit":
            if not follow and task_id in below(spec, {control}) - {control}:
                return True
        elif control in spec.tasks[task_id].upstream and task_id not in below(spec, set(follow)):
            return True
    return False


def target(item: TaskSpec, now: Mapping[str, TaskState]) -> TaskState | None:
    """Where a task that has not started goes, by its trigger rule and `when`; None: it waits."""
    upstream = [now[name] for name in item.upstream]
    counts = Counts(len(upstream), *(upstream.count(state) for state in (S, K, F, U, TaskState.REMOVED)))
    verdict = judge(item.trigger_rule, counts).verdict
    if verdict is not Verdict.RUN:
        return {Verdict.WAIT: None, Verdict.SKIP: K, Verdict.UPSTREAM_FAILED: U}[verdict]
    by_when = {"xcom.nothing": F, "params.limit > 9": K}.get(item.when or "")
    return by_when or (S if item.operator == "empty" else SCHEDULED)


def oracle(spec: DagSpec, states: Mapping[str, TaskView]) -> dict[str, TaskState]:
    """The fixpoint by naive repetition: every task that can move moves, until none can."""
    now = {name: item.state for name, item in states.items()}
    now |= {name: K for name, state in now.items() if state is N and unwanted(spec, states, name)}
    while True:
        moved = {name: target(spec.tasks[name], now) for name, state in now.items() if state is N}
        change = {name: state for name, state in moved.items() if state is not None}
        if not change:
            return now
        now |= change


@settings(max_examples=300, deadline=None)
@given(dags(), st.randoms(use_true_random=False))
def test_a_random_dag_is_driven_to_its_end(spec: DagSpec, chance: random.Random) -> None:
    states = {task_id: one for (task_id, _), one in views(spec).items()}
    now = NOW
    for _ in range(200):
        decisions = decide(spec, RUN, states.values(), now, {})
        expected = oracle(spec, {t: replace(v, state=SCHEDULED) if due(v, now) else v for t, v in states.items()})
        for decision in decisions.tasks:
            assert (decision.from_state, decision.to_state) in TASK_MOVES
            assert states[decision.task_id].state is decision.from_state
            states[decision.task_id] = replace(states[decision.task_id], state=decision.to_state)
            assert decision.reason or decision.to_state in (SCHEDULED, S)
        assert {task_id: item.state for task_id, item in states.items()} == expected
        assert decide(spec, RUN, states.values(), now, {}).tasks == (), "one call goes to the fixpoint"
        if decisions.run is not None:
            assert (decisions.run.from_state, decisions.run.to_state) in RUN_MOVES
            leaves = [states[t].state for t in spec.tasks if not spec.downstream[t]]
            assert decisions.run.to_state is (RunState.FAILED if F in leaves or U in leaves else RunState.SUCCESS)
            assert all(item.state.finished for item in states.values())
            assert decisions.wait_until is None
            return
        scheduled = [task_id for task_id, item in states.items() if item.state is SCHEDULED]
        if scheduled:
            finish(spec, states, chance.choice(scheduled), chance, now)
        else:
            assert decisions.wait_until is not None
            now = decisions.wait_until
    pytest.fail("the run did not end")


def due(item: TaskView, now: datetime) -> bool:
    return item.state is TaskState.UP_FOR_RETRY and item.wait_until is not None and item.wait_until <= now


def finish(spec: DagSpec, states: dict[str, TaskView], task_id: str, chance: random.Random, now: datetime) -> None:
    """What a worker and the store do to a scheduled task."""
    item = replace(states[task_id], try_number=states[task_id].try_number + 1)
    outcome = chance.choice([S, S, F, K])
    follow = None
    if outcome is S and spec.tasks[task_id].operator == "branch":
        children = spec.downstream[task_id]
        follow = tuple(chance.sample(children, chance.randint(0, len(children))))
    elif outcome is S and spec.tasks[task_id].operator == "short_circuit":
        follow = chance.choice([None, ()])
    if outcome is F and item.try_number <= spec.tasks[task_id].retries:
        states[task_id] = replace(item, state=TaskState.UP_FOR_RETRY, wait_until=now + timedelta(seconds=10))
    else:
        states[task_id] = replace(item, state=outcome, follow=follow)


@pytest.mark.parametrize("shape", ["chain", "wide", "layers", "setup"])
@pytest.mark.parametrize("ended", [False, True])
def test_the_work_of_deciding_grows_with_the_tasks_and_not_faster(
    shape: str, ended: bool, calls: Callable[[Callable[[], object]], int]
) -> None:
    small, large = (large_dag(shape, size) for size in (1_000, 10_000))

    def work(spec: DagSpec) -> int:
        states = views(spec, t0=F if ended else TaskState.RUNNING)
        decisions = decide(spec, RUN, states.values(), NOW, {})
        assert len(decisions.tasks) >= (0.9 * len(spec.tasks) if ended else 0)
        return calls(lambda: decide(spec, RUN, states.values(), NOW, {}))

    assert work(large) < 12 * work(small), "ten times the tasks"


def large_dag(shape: str, size: int) -> DagSpec:
    if shape == "chain":
        tasks = [task("t0"), *(task(f"t{n}", f"t{n - 1}") for n in range(1, size))]
    elif shape == "wide":
        tasks = [task("t0"), *(task(f"t{n}", "t0") for n in range(1, size - 1))]
        tasks.append(task("last", *(f"t{n}" for n in range(1, size - 1))))
    elif shape == "setup":
        between = [task(f"t{n}", f"t{n - 1}") for n in range(1, size - 1)]
        tasks = [task("t0", setup=True), *between, task("last", "t0", f"t{size - 2}", teardown=True)]
    else:
        tasks = [task(f"t{n}", *(f"t{m}" for m in range(max(0, n // 10 * 10 - 10), n // 10 * 10))) for n in range(size)]
    spec = dag(*tasks)
    assert len(spec.downstream) == size
    return spec

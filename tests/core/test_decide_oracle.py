"""`decide`, driven by the simulator, against an oracle that knows the rules from their description alone."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run_oracle import End, Instance
from small_dags import RULES, Case, Maker, bare_dag, bare_task
from yarrow.language.spec import DagSpec, TaskSpec

ENDS = (End("success"), End("failed"), End("skipped"))


def assert_agrees(case: Case) -> None:
    """The simulator and the oracle see every task instance, and the run, end in the same state."""
    expected, found = case.expected(), case.simulated()
    assert found == expected, f"{case.describe()}\noracle {expected}\nfound  {found}"


def ends_of(spec: DagSpec) -> Iterator[dict[Instance, End]]:
    """Every combination of the outcomes of the tasks of a DAG, the choices of a branch included."""
    for ends in itertools.product(*(_outcomes(spec, task) for task in spec.tasks.values())):
        yield {(task_id, -1): end for task_id, end in zip(spec.tasks, ends, strict=True) if end is not None}


def _outcomes(spec: DagSpec, task: TaskSpec) -> Sequence[End | None]:
    children = spec.downstream[task.task_id]
    match task.operator:
        case "empty":
            return [None]
        case "approval":
            return [End("success"), End("failed")]
        case "short_circuit":
            return [*ENDS, End("success", ())]
        case "branch":
            choices = [itertools.combinations(children, count) for count in range(len(children) + 1)]
            return [End("failed"), End("skipped"), *(End("success", chosen) for some in choices for chosen in some)]
    return ENDS


def orders_of(spec: DagSpec) -> Iterator[Sequence[Instance]]:
    """The orders in which the tasks may end, over and over again."""
    orders = list(itertools.permutations((task_id, -1) for task_id in spec.tasks))
    random.Random(0).shuffle(orders)
    return itertools.cycle(orders)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_over_three_upstream_tasks(rule: str) -> None:
    """Of these each ends in every state that there is, at once or only later, and in every order."""
    kinds = ("success", "failed", "skipped", "upstream_failed", "none")
    for states in itertools.combinations_with_replacement(kinds, 3):
        tasks = [bare_task("source")]
        ends = {("source", -1): End("failed")}
        for place, state in enumerate(states):
            # One that could not run has a failed task before it; one that is `none` at first waits for the source.
            waits = state in ("upstream_failed", "none")
            how = "all_success" if state == "upstream_failed" else "all_done"
            tasks.append(bare_task(f"u{place}", *(["source"] if waits else []), trigger_rule=how))
            ends[f"u{place}", -1] = End("success" if waits else state)
        spec = bare_dag(*tasks, bare_task("end", "u0", "u1", "u2", trigger_rule=rule))
        for order in itertools.permutations(["u0", "u1", "u2"]):
            for source_is_last in (False, True):
                ending = [*order, "source"] if source_is_last else ["source", *order]
                assert_agrees(Case(spec, ends, [(task_id, -1) for task_id in ending]))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_met_by_no_upstream_tasks(rule: str) -> None:
    assert_agrees(Case(bare_dag(bare_task("a", trigger_rule=rule))))


SHAPES = {
    "a join after a branch": lambda rule, other: bare_dag(
        bare_task("a", operator="branch"),
        bare_task("b", "a", trigger_rule=other),
        bare_task("c", "a"),
        bare_task("d", "b", "c", trigger_rule=rule),
    ),
    "a branch that can choose its own join": lambda rule, other: bare_dag(
        bare_task("a", operator="branch"),
        bare_task("b", "a", trigger_rule=other),
        bare_task("c", "a", "b", trigger_rule=rule),
        bare_task("d", "c"),
    ),
    "two branches over one task": lambda rule, other: bare_dag(
        bare_task("a", operator="branch"),
        bare_task("b", operator="branch"),
        bare_task("c", "a", "b", trigger_rule=rule),
        bare_task("d", "b", trigger_rule=other),
    ),
    "a short circuit beside a task": lambda rule, other: bare_dag(
        bare_task("a", operator="short_circuit"),
        bare_task("b"),
        bare_task("c", "a", "b", trigger_rule=other),
        bare_task("d", "c", trigger_rule=rule),
    ),
    "a diamond": lambda rule, other: bare_dag(
        bare_task("a"),
        bare_task("b", "a", trigger_rule=other),
        bare_task("c", "a"),
        bare_task("d", "b", "c", trigger_rule=rule),
    ),
    "a short way and a long one": lambda rule, other: bare_dag(
        bare_task("a"),
        bare_task("b", "a", trigger_rule=other),
        bare_task("c", "a", "b", trigger_rule=rule),
        bare_task("d", "b", "c"),
    ),
    "two leaves": lambda rule, other: bare_dag(
        bare_task("a"), bare_task("b", "a", trigger_rule=rule), bare_task("c", "a", trigger_rule=other)
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_outcome_of_small_dags_under_every_rule(shape: str, rule: str) -> None:
    for other in ("all_success", "all_done"):
        spec = SHAPES[shape](rule, other)
        for ends, order in zip(ends_of(spec), orders_of(spec), strict=False):
            assert_agrees(Case(spec, ends, order))


WORK = {
    "setup, work, teardown": [
        bare_task("s", setup=True),
        bare_task("w", "s"),
        bare_task("t", "s", "w", teardown=True, trigger_rule="all_done_setup_success"),
    ],
    "two tasks within": [
        bare_task("s", setup=True),
        bare_task("v", "s", trigger_rule="all_done"),
        bare_task("w", "v", trigger_rule="all_done"),
        bare_task("t", "s", "w", teardown=True, trigger_rule="all_done_setup_success"),
    ],
    "a task after the teardown": [
        bare_task("s", setup=True),
        bare_task("w", "s"),
        bare_task("t", "s", "w", teardown=True, trigger_rule="all_done_setup_success"),
        bare_task("after", "w", "t", trigger_rule="all_done"),
    ],
    "two setups": [
        bare_task("r", setup=True),
        bare_task("s", "r", setup=True, trigger_rule="all_done"),
        bare_task("w", "s", trigger_rule="all_done"),
        bare_task("t", "r", "s", "w", teardown=True, trigger_rule="all_done_setup_success"),
    ],
    "a setup without a teardown": [
        bare_task("s", setup=True),
        bare_task("v", "s", trigger_rule="all_done"),
        bare_task("w", "v", trigger_rule="one_success"),
        bare_task("x", "w", trigger_rule="always"),
    ],
    "a short circuit within": [
        bare_task("s", setup=True),
        bare_task("c", "s", operator="short_circuit"),
        bare_task("w", "c", trigger_rule="always"),
        bare_task("t", "s", "w", teardown=True, trigger_rule="all_done_setup_success"),
    ],
    "a branch beside a teardown": [
        bare_task("s", setup=True),
        bare_task("c", "s", operator="branch"),
        bare_task("w", "c"),
        bare_task("t", "s", "c", teardown=True, trigger_rule="all_done_setup_success"),
    ],
    "teardowns alone": [
        bare_task("t", teardown=True, trigger_rule="all_done_setup_success"),
        bare_task("u", "t", teardown=True, trigger_rule="all_done_setup_success"),
    ],
}


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("run_state", ["leaves", "all_tasks"])
@pytest.mark.parametrize("fail_fast", [False, True])
def test_every_outcome_of_setups_and_teardowns(name: str, run_state: str, fail_fast: bool) -> None:
    spec = bare_dag(*WORK[name], run_state=run_state, fail_fast=fail_fast)
    for ends in ends_of(spec):
        for order in itertools.islice(orders_of(spec), 3):
            assert_agrees(Case(spec, ends, order))


@pytest.mark.parametrize("seed", range(8))
def test_every_outcome_of_dags_of_four_tasks_made_by_chance(seed: int) -> None:
    for number in range(20):
        made = Maker(random.Random(1000 * seed + number), most_tasks=4, mapped=False, groups=False).case()
        for ends, order in itertools.islice(zip(ends_of(made.spec), orders_of(made.spec), strict=False), 300):
            assert_agrees(Case(made.spec, ends, order, made.whens))


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("seed", range(3))
def test_every_outcome_of_dags_of_up_to_eight_tasks_made_by_chance(size: int, seed: int) -> None:
    made = next(case for case in _cases_of(size, seed) if _combinations(case.spec) <= 3**8)
    for ends, order in zip(ends_of(made.spec), orders_of(made.spec), strict=False):
        assert_agrees(Case(made.spec, ends, order, made.whens))


def _cases_of(size: int, seed: int) -> Iterator[Case]:
    for number in itertools.count(1000 * seed):
        case = Maker(random.Random(number), most_tasks=size, mapped=False, groups=False).case()
        if len(case.spec.tasks) == size:
            yield case


def _combinations(spec: DagSpec) -> int:
    return math.prod(len(_outcomes(spec, task)) for task in spec.tasks.values())


@pytest.mark.parametrize("size", [0, 1, 2, 3])
@pytest.mark.parametrize("rule", RULES)
def test_every_outcome_of_a_mapped_task_under_every_rule(size: int, rule: str) -> None:
    mapped = bare_task("m", "a", expand={"n": list(range(size))}, trigger_rule="none_failed")
    spec = bare_dag(bare_task("a"), mapped, bare_task("z", "m", trigger_rule=rule))
    for first, *each in itertools.product(ENDS, repeat=size + 1):
        ends = {("a", -1): first} | {("m", index): end for index, end in enumerate(each)}
        for order in itertools.permutations([("m", index) for index in range(size)]):
            assert_agrees(Case(spec, ends, order, sizes={"m": size}))


@settings(max_examples=200, deadline=None)
@given(rng=st.randoms(use_true_random=False))
def test_dags_of_eight_tasks_made_by_chance(rng: random.Random) -> None:
    assert_agrees(Maker(rng).case())


@pytest.mark.slow
def test_ten_thousand_dags_made_by_chance() -> None:
    for seed in range(10_000):
        assert_agrees(Maker(random.Random(seed)).case())

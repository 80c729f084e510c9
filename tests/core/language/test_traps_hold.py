"""The traps of random DAGs, each confirmed by simulating what it warns of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import product

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yarrow.decision.trigger_rules import TRIGGER_RULES
from yarrow.language import codes
from yarrow.language.loader import LoadResult, load_text
from yarrow.language.spec import DagSpec
from yarrow.simulate import Simulation, simulate
from yarrow.simulation.outcomes import Outcome
from yarrow.states import RunState, TaskState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOPEFUL = [rule for rule in TRIGGER_RULES if rule not in ("one_failed", "all_failed", "all_skipped")]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SLOW = settings(QUICK, max_examples=30)

rules = st.sampled_from(tuple(TRIGGER_RULES))


@st.composite
def graphs(draw: st.DrawFn, least: int = 2, most: int = 5) -> list[list[int]]:
    """For each task the places of those directly before it."""
    count = draw(st.integers(least, most))
    return [sorted(draw(st.sets(st.integers(0, place - 1), max_size=3))) if place else [] for place in range(count)]


def load(lines: list[str]) -> tuple[LoadResult, DagSpec]:
    result = load_text("params: {x: {default: true}}\ntasks:\n" + "\n".join(lines) + "\n", "random.yaml")
    assert result.spec is not None, result.faults
    return result, result.spec


def named(result: LoadResult, code: str, pattern: str) -> set[tuple[str, ...]]:
    found = [re.search(pattern, fault.message) for fault in result.faults if fault.code == code]
    return {match.groups() for match in found if match is not None}


def run(spec: DagSpec, outcomes: Mapping[str, str]) -> Simulation:
    return simulate(spec, outcomes={task_id: Outcome.parse(text) for task_id, text in outcomes.items()}, now=NOW)


@QUICK
@given(graphs(least=3, most=7), st.data())
def test_always_skipped(graph: list[list[int]], data: st.DataObject) -> None:
    """The tasks that each choice skips, without those that only follow from another one of them."""
    graph = [[0] if place == 1 else before for place, before in enumerate(graph)]  # something to choose from
    children = [f"t{place}" for place, before in enumerate(graph) if 0 in before]
    chosen = st.lists(st.sampled_from(children), unique=True)
    then, otherwise = data.draw(chosen), data.draw(chosen)
    lines = [
        f"  t0: {{operator: branch, with: {{conditions: [{{if: '{{{{ params.x }}}}', then: [{', '.join(then)}]}}], "
        f"otherwise: [{', '.join(otherwise)}]}}}}"
    ]
    for place, before in enumerate(graph[1:], start=1):
        rule = data.draw(st.sampled_from(HOPEFUL))
        upstream = ", ".join(f"t{number}" for number in before)
        lines.append(f"  t{place}: {{operator: stage, depends_on: [{upstream}], trigger_rule: {rule}}}")
    result, spec = load(lines)
    runs = [run(spec, {"t0": f"success:{','.join(follow)}"}) for follow in (then, otherwise)]
    never = {name for name in spec.tasks if all(one.tasks[name] is TaskState.SKIPPED for one in runs)}
    told = {name for (name,) in named(result, codes.ALWAYS_SKIPPED, r"`(\w+)` is (?:always )?skipped")}
    assert told <= never
    if not any(task.trigger_rule in ("one_success", "one_done") for task in spec.tasks.values()):  # they may be early
        assert told == {name for name in never if never.isdisjoint(spec.tasks[name].upstream)}


@QUICK
@given(graphs(), st.data())
def test_hidden_failures(graph: list[list[int]], data: st.DataObject) -> None:
    lines = []
    for place, before in enumerate(graph):
        upstream = ", ".join(f"t{number}" for number in before)
        lines.append(f"  t{place}: {{operator: stage, depends_on: [{upstream}], trigger_rule: {data.draw(rules)}}}")
    result, spec = load(lines)
    for _leaf, hidden in named(result, codes.HIDDEN_FAILURE, r"`(\w+)` makes .* in which `(\w+)` failed"):
        simulation = run(spec, {hidden: "failed"})
        if simulation.tasks[hidden] is TaskState.FAILED:
            assert simulation.state is RunState.SUCCESS
    # Where every task passes on what happens before it, nothing is hidden.
    if all(task.trigger_rule in ("all_success", "none_failed") for task in spec.tasks.values()):
        assert result.faults == []


@SLOW
@given(graphs(most=4), st.data())
def test_missing_xcoms(graph: list[list[int]], data: st.DataObject) -> None:
    lines = []
    may_skip = set()
    for place, before in enumerate(graph):
        keys = f"depends_on: [{', '.join(f't{number}' for number in before)}], trigger_rule: {data.draw(rules)}"
        if data.draw(st.booleans()):
            keys += ", when: params.x"
            may_skip.add(f"t{place}")
        if before and data.draw(st.booleans()):
            keys += f", with: {{input: '{{{{ xcom.t{data.draw(st.sampled_from(before))} }}}}'}}"
        lines.append(f"  t{place}: {{operator: stage, {keys}}}")
    result, spec = load(lines)
    told = named(result, codes.MAY_BE_MISSING, r"`(\w+)` names the XCom of `(\w+)`")
    possible = {name: ["success", "failed", *(["skipped"] if name in may_skip else [])] for name in spec.tasks}
    seen = set()
    at_once = set()  # with one task that does not succeed, or none
    for states in product(*possible.values()):
        outcomes = dict(zip(possible, states, strict=True))
        ends = run(spec, outcomes).tasks
        for reader, task in spec.tasks.items():
            for writer in task.xcoms:
                if ends[reader] is TaskState.SUCCESS and ends[writer] is not TaskState.SUCCESS:
                    seen.add((reader, writer))
                    if sum(state != "success" for state in states) <= 1:
                        at_once.add((reader, writer))
    # Whether all of several tasks can fail, or be skipped, at once is not looked into.
    assert {pair for pair in told if spec.tasks[pair[0]].trigger_rule not in ("all_failed", "all_skipped")} <= seen
    assert at_once <= told

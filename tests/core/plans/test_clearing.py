from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deciding import dag, task
from planning import DAY, FIRST, by_chance, carried_out, fact, facts, situation, words
from small_dags import Maker
from yarrow.errors import NotFound, UsageError
from yarrow.language.spec import DagSpec
from yarrow.plans.clearing import changes_of, changes_of_failed, plan_clear
from yarrow.plans.plan import RunAction, RunChange, TaskAction
from yarrow.plans.requests import ClearRequest
from yarrow.plans.scope import instances
from yarrow.plans.situation import RunFacts
from yarrow.states import PERSON_MOVES, RunState, TaskState

N, S, F, K, U = TaskState.NONE, TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED, TaskState.UPSTREAM_FAILED
RUNNING, QUEUED = TaskState.RUNNING, TaskState.QUEUED
CHAIN = dag(task("a"), task("b", "a"), task("c", "b"))
SETUP = dag(
    task("make", setup=True),
    task("work", "make"),
    task("more", "work"),
    task("drop", "make", "more", teardown=True),
    task("after", "more"),
)
MAPPED = dag(
    task("list"),
    task("each", "list", expand={"x": "{{ xcom.list }}"}, expand_xcoms=("list",)),
    task("sum", "each"),
)
GROUP = dag(
    task("list"),
    *(
        task(f"g.{name}", *upstream, expand={"x": "{{ xcom.list }}"}, expand_xcoms=("list",), map_group="g")
        for name, upstream in {"one": ("list",), "two": ("g.one", "list")}.items()
    ),
    task("sum", "g.two"),
)


def clear(*runs: RunFacts, newest: DagSpec | None = None, **fields: Any) -> list[RunChange]:
    if "from_date" not in fields and "to_date" not in fields:
        fields.setdefault("run_ids", tuple(run.run_id for run in runs))
    return plan_clear(ClearRequest(dag_id="d", **fields), situation(*runs, newest=newest))


def cleared(run: RunFacts, newest: DagSpec | None = None, **fields: Any) -> list[str]:
    (found,) = clear(run, newest=newest, **fields)
    return words(found.tasks)


# One task instance.


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (TaskState.NONE, []),
        (TaskState.RUNNING, ["a stop and clear"]),
        *((state, ["a clear"]) for state in TaskState if state not in (N, RUNNING, TaskState.REMOVED)),
        (TaskState.REMOVED, []),
    ],
)
def test_what_becomes_of_a_task_instance_in_each_state(state: TaskState, expected: list[str]) -> None:
    assert cleared(facts(dag(task("a")), a=state, state=RunState.RUNNING)) == expected


@pytest.mark.parametrize(
    ("stopping_to", "expected"),
    [("none", []), ("failed", ["a stop and clear"]), ("success", ["a stop and clear"]), ("removed", [])],
)
def test_what_is_being_stopped_is_listed_when_it_would_end_in_another_state(
    stopping_to: str, expected: list[str]
) -> None:
    run = facts(dag(task("a")), fact("a", RUNNING, stopping_to=stopping_to), state=RunState.RUNNING)
    assert cleared(run) == expected


def test_tells_what_is_lost_and_what_is_kept() -> None:
    run = facts(CHAIN, fact("a", S, try_number=3, attempt_id="x#3", has_xcom=True), b=F, c=U)
    (change,) = clear(run, tasks="+b")
    assert [(one.try_number, one.attempt_id, one.loses_xcom) for one in change.tasks] == [
        (3, "x#3", True),
        (1, "b-1#1", False),
    ]
    assert [(one.from_state, one.to_state) for one in change.tasks] == [("success", "none"), ("failed", "none")]


# The run.


@pytest.mark.parametrize(
    ("state", "to_state"),
    [
        (RunState.SUCCESS, "queued"),
        (RunState.FAILED, "queued"),
        (RunState.RUNNING, "running"),
        (RunState.QUEUED, "queued"),
    ],
)
def test_a_run_that_was_over_is_queued_again(state: RunState, to_state: str) -> None:
    (change,) = clear(facts(CHAIN, a=S, b=F, c=U, state=state))
    assert (change.action, change.from_state, change.to_state) == (RunAction.CLEAR, state.value, to_state)
    assert (change.version, change.task_count) == (CHAIN.version, 3)


def test_a_run_with_nothing_to_clear_is_skipped() -> None:
    running = facts(CHAIN, a=S, state=RunState.RUNNING)
    (change,) = clear(running, tasks="b+")
    assert (change.action, change.reason, change.tasks) == (RunAction.SKIP, "all that is selected is still to run", ())
    assert change.from_state == change.to_state == "running"
    (change,) = clear(running, only_failed=True)
    assert (change.action, change.reason) == (RunAction.SKIP, "nothing that is selected has failed")
    (change,) = clear(running, only_running=True)
    assert (change.action, change.reason) == (RunAction.SKIP, "nothing that is selected is running")
    (change,) = clear(replace(running, state=RunState.QUEUED, tasks=()))
    assert (change.action, change.reason) == (RunAction.SKIP, "it has not started")


def test_a_run_that_was_over_goes_on_for_what_never_ran() -> None:
    (change,) = clear(facts(CHAIN, a=S, b=F), tasks="c")
    assert (change.action, change.to_state, change.tasks, change.task_count) == (RunAction.CLEAR, "queued", (), 1)
    (change,) = clear(facts(CHAIN, a=S, b=F), tasks="b")
    assert (words(change.tasks), change.task_count) == (["b clear"], 2)
    (change,) = clear(replace(facts(CHAIN), tasks=()))  # it ended before it was started
    assert (change.action, change.to_state, change.tasks, change.task_count) == (RunAction.CLEAR, "queued", (), 3)


# Which tasks.


def test_upstream_and_downstream() -> None:
    run = facts(CHAIN, a=S, b=S, c=S, state=RunState.SUCCESS)
    assert cleared(run, tasks="b") == ["b clear"]
    assert cleared(run, tasks="b", upstream=True) == ["a clear", "b clear"]
    assert cleared(run, tasks="b", downstream=True) == ["b clear", "c clear"]
    (change,) = clear(run, tasks="b", upstream=True, downstream=True)
    assert [one.why for one in change.tasks] == ["upstream of b", "selected", "downstream of b"]


def test_a_task_between_a_setup_and_its_teardown_brings_both() -> None:
    run = facts(SETUP, make=S, work=S, more=F, drop=S, after=U)
    (change,) = clear(run, tasks="work")
    assert {one.task_id: one.why for one in change.tasks} == {
        "make": "setup of work",
        "work": "selected",
        "drop": "teardown of make",
    }
    assert cleared(run, tasks="make") == ["make clear", "drop clear"]
    assert cleared(run, tasks="drop") == ["drop clear"]
    assert cleared(run, tasks="after") == ["after clear"]


def test_a_setup_comes_along_though_only_what_failed_is_meant() -> None:
    run = facts(SETUP, make=S, work=S, more=F, drop=S, after=U)
    assert cleared(run, only_failed=True) == ["make clear", "more clear", "drop clear", "after clear"]


def test_what_has_not_run_needs_no_setup() -> None:
    run = facts(SETUP, make=S, work=RUNNING, state=RunState.RUNNING)
    (change,) = clear(run, tasks="more")
    assert change.action is RunAction.SKIP


def test_a_setup_without_a_teardown_is_needed_by_all_that_comes_after_it() -> None:
    spec = dag(task("make", setup=True), task("work", "make"), task("more", "work"))
    assert cleared(facts(spec, make=S, work=S, more=F), tasks="more") == ["make clear", "more clear"]


def test_setups_that_setups_need_come_along() -> None:
    spec = dag(
        task("outer", setup=True),
        task("inner", "outer", setup=True),
        task("work", "inner"),
        task("close_inner", "inner", "work", teardown=True),
        task("probe", "inner"),
        task("close_outer", "outer", "probe", teardown=True),
    )
    run = facts(spec, outer=S, inner=S, work=F, close_inner=S, probe=S, close_outer=S)
    (change,) = clear(run, tasks="work")
    assert {one.task_id: one.why for one in change.tasks} == {
        "outer": "setup of inner",
        "inner": "setup of work",
        "work": "selected",
        "close_inner": "teardown of inner",
        "close_outer": "teardown of outer",
    }


# Only some.


def test_only_what_failed() -> None:
    spec = dag(*(task(f"t{place}") for place in range(6)))
    states = {"t0": S, "t1": F, "t2": U, "t3": K, "t4": N, "t5": RUNNING}
    assert cleared(facts(spec, state=RunState.RUNNING, **states), only_failed=True) == ["t1 clear", "t2 clear"]
    # In a run that is over, what never came to an end has failed as well.
    (change,) = clear(facts(spec, state=RunState.FAILED, **states), only_failed=True)
    assert words(change.tasks) == ["t1 clear", "t2 clear", "t5 stop and clear"]
    assert change.task_count == 4  # with t4


def test_only_what_runs() -> None:
    run = facts(CHAIN, a=S, b=RUNNING, state=RunState.RUNNING)
    assert cleared(run, only_running=True) == ["b stop and clear"]


def test_one_instance_of_a_mapped_task() -> None:
    run = facts(MAPPED, list=S, each=[S, F, S], sum=U)
    assert cleared(run, tasks="each", map_index=1) == ["each[1] clear"]
    assert cleared(run, tasks="each", map_index=1, downstream=True) == ["each[1] clear", "sum clear"]
    (change,) = clear(run, tasks="each", map_index=3)
    assert (change.action, change.reason) == (RunAction.SKIP, "it has no task instance `each[3]`")


def test_in_a_mapped_group_a_map_index_is_that_of_all_its_tasks() -> None:
    run = facts(GROUP, list=S, g__one=[S, F], g__two=[S, U], sum=U)
    found = cleared(run, tasks="g.one", map_index=1, downstream=True)
    assert found == ["g.one[1] clear", "g.two[1] clear", "sum clear"]


# Mapped tasks.


def test_a_mapped_task_is_cleared_instance_by_instance() -> None:
    assert cleared(facts(MAPPED, list=S, each=[S, F, N], sum=U), tasks="each") == ["each[0] clear", "each[1] clear"]


def test_it_becomes_one_again_with_what_it_is_mapped_over() -> None:
    run = facts(MAPPED, list=S, each=[S, F, RUNNING], sum=U)
    (change,) = clear(run, tasks="list+")
    expected = [
        "list clear",
        "each[0] collapse",
        "each[1] collapse to removed",
        "each[2] collapse to removed",
        "sum clear",
    ]
    assert words(change.tasks) == expected
    assert change.task_count == 3
    assert cleared(run, tasks="list") == ["list clear"]


def test_it_becomes_one_again_when_what_it_is_mapped_over_is_to_run_already() -> None:
    run = facts(MAPPED, each=[S, F], state=RunState.RUNNING)
    assert cleared(run, tasks="each") == ["each[0] collapse", "each[1] collapse to removed"]


def test_it_becomes_one_again_when_nothing_of_it_has_run() -> None:
    run = facts(MAPPED, list=S, each=[N, N], state=RunState.RUNNING)
    assert cleared(run, tasks="list") == ["list clear", "each[0] collapse", "each[1] collapse to removed"]


def test_a_mapped_task_that_is_one_is_cleared_as_one() -> None:
    assert cleared(facts(MAPPED, list=F, each=U, sum=U)) == ["list clear", "each clear", "sum clear"]


def test_a_mapped_group_becomes_one_again_as_a_whole() -> None:
    run = facts(GROUP, list=S, g__one=[S, S], g__two=[S, F], sum=U)
    (change,) = clear(run, tasks="list g.two")
    assert words(change.tasks) == [
        "list clear",
        "g.one[0] collapse",
        "g.one[1] collapse to removed",
        "g.two[0] collapse",
        "g.two[1] collapse to removed",
    ]
    assert {one.task_id: one.why for one in change.tasks}["g.one"] == "in the mapped group g"


# The newest version.


def test_without_it_the_version_of_the_run_counts() -> None:
    newest = dag(task("a"), task("b", "a"), task("new", "b"))
    (change,) = clear(facts(CHAIN, a=S, b=S, c=F), newest=newest)
    assert words(change.tasks) == ["a clear", "b clear", "c clear"]
    assert change.version == CHAIN.version


def test_in_the_newest_version_tasks_come_and_go() -> None:
    newest = dag(task("a"), task("new", "a"), task("b", "new"))
    (change,) = clear(facts(CHAIN, a=S, b=F, c=U), newest=newest, tasks="b", latest_version=True)
    assert words(change.tasks) == ["new add", "b clear", "c remove"]
    assert (change.version, change.to_state, change.task_count) == (newest.version, "queued", 2)


def test_in_the_same_version_nothing_comes_or_goes() -> None:
    run = facts(CHAIN, a=S, b=F, c=U)
    assert clear(run, tasks="b", latest_version=True) == clear(run, tasks="b")


def test_what_runs_and_is_not_in_the_newest_version_is_removed() -> None:
    run = facts(CHAIN, a=S, b=S, c=RUNNING, state=RunState.RUNNING)
    (change,) = clear(run, newest=dag(task("a"), task("b", "a")), tasks="b", latest_version=True)
    assert [(one.task_id, one.action, one.from_state, one.to_state) for one in change.tasks][-1] == (
        "c",
        TaskAction.REMOVE,
        "running",
        "removed",
    )


def test_a_new_task_alone_can_be_run() -> None:
    newest = dag(task("a"), task("b", "a"), task("c", "b"), task("new", "c"))
    run = facts(CHAIN, a=S, b=S, c=S, state=RunState.SUCCESS)
    (change,) = clear(run, newest=newest, tasks="new", latest_version=True)
    assert (change.action, change.to_state, words(change.tasks)) == (RunAction.CLEAR, "queued", ["new add"])


def test_a_task_that_comes_back_is_taken_up_again() -> None:
    newest = dag(*CHAIN.tasks.values(), *MAPPED.tasks.values())
    left = [fact("list", TaskState.REMOVED), *(fact("each", TaskState.REMOVED, index) for index in range(3))]
    run = facts(CHAIN, *left, fact("sum", RUNNING, stopping_to="removed"), a=S, b=S, c=F)
    (change,) = clear(run, newest=newest, tasks="c", latest_version=True)
    assert words(change.tasks) == ["c clear", "list clear", "each[0] collapse", "sum stop and clear"]
    assert {one.why for one in change.tasks[1:]} == {"new in the newest version"}


def test_nothing_changes_in_a_run_of_which_nothing_that_is_meant_failed() -> None:
    newest = dag(task("a"), task("b", "a"), task("new", "b"))
    run = facts(CHAIN, a=S, b=S, c=S, state=RunState.SUCCESS)
    (change,) = clear(run, newest=newest, latest_version=True, only_failed=True)
    assert (change.action, change.tasks, change.version) == (RunAction.SKIP, (), CHAIN.version)


def test_a_run_that_goes_on_gets_the_newest_version_for_what_is_still_to_run() -> None:
    newest = dag(task("a"), task("b", "a"), task("new", "b"))
    run = facts(CHAIN, a=RUNNING, state=RunState.RUNNING)
    (change,) = clear(run, newest=newest, tasks="b", latest_version=True)
    assert (change.action, change.to_state, change.version) == (RunAction.CLEAR, "running", newest.version)
    assert words(change.tasks) == ["new add", "c remove"]
    queued = replace(run, state=RunState.QUEUED, tasks=())
    (change,) = clear(queued, newest=newest, latest_version=True)
    assert (change.action, change.to_state, change.version, change.tasks) == (
        RunAction.CLEAR,
        "queued",
        newest.version,
        (),
    )


def test_a_task_that_is_mapped_over_something_else_becomes_one_again() -> None:
    newest = dag(task("list"), task("each", "list", expand={"x": [1, 2, 3]}), task("sum", "each"))
    run = facts(MAPPED, list=S, each=[S, F], sum=U)
    found = cleared(run, newest, tasks="each", latest_version=True)
    assert found == ["each[0] collapse", "each[1] collapse to removed"]
    assert cleared(run, newest, tasks="sum", latest_version=True) == ["sum clear"]


def test_a_task_that_is_not_mapped_any_more_runs_again_though_it_is_not_selected() -> None:
    newest = dag(task("list"), task("each", "list"), task("sum", "each"))
    run = facts(MAPPED, list=S, each=[S, S], sum=F)
    (change,) = clear(run, newest=newest, tasks="sum", latest_version=True)
    assert words(change.tasks) == ["each[0] collapse", "each[1] collapse to removed", "sum clear"]
    assert change.tasks[0].why == "mapped in another way in the newest version"


# Which runs.

DAYS = [facts(CHAIN, a=S, b=F, c=U, day=day) for day in range(5)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"run_ids": ("r2",)}, ["r2"]),
        ({"run_ids": ("r3", "r1", "r3")}, ["r1", "r3"]),
        ({"run_ids": ("r2",), "past": True}, ["r0", "r1", "r2"]),
        ({"run_ids": ("r2",), "future": True}, ["r2", "r3", "r4"]),
        ({"run_ids": ("r3", "r1"), "past": True}, ["r0", "r1", "r3"]),
        ({"run_ids": ("r3", "r1"), "past": True, "future": True}, ["r0", "r1", "r3", "r4"]),
        ({"from_date": FIRST + DAY, "to_date": FIRST + 3 * DAY}, ["r1", "r2", "r3"]),
        ({"from_date": FIRST + 3 * DAY}, ["r3", "r4"]),
        ({"to_date": FIRST}, ["r0"]),
    ],
)
def test_the_runs_that_are_meant(fields: dict[str, Any], expected: list[str]) -> None:
    assert [change.run_id for change in clear(*reversed(DAYS), **fields)] == expected


def test_a_run_whose_version_has_not_the_task_is_skipped() -> None:
    old = facts(dag(task("a"), task("b", "a")), a=S, b=S, day=0)
    changes = clear(old, facts(CHAIN, a=S, b=S, c=F, day=1), tasks="c")
    assert [(one.run_id, one.action, one.reason) for one in changes] == [
        ("r0", RunAction.SKIP, "its version has no task `c`"),
        ("r1", RunAction.CLEAR, None),
    ]


def test_a_task_that_no_version_has_is_looked_for_in_the_newest_of_them() -> None:
    other = dag(task("alpha"))
    with pytest.raises(UsageError, match=r"The DAG `d` has no task `alpa`. Did you mean `alpha`\?"):
        clear(facts(other, day=0), facts(CHAIN, day=1), facts(other, day=2), tasks="alpa")
    with pytest.raises(UsageError) as caught:
        clear(facts(other, day=0), facts(CHAIN, day=1), tasks="alpa")
    assert caught.value.hint is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"run_ids": ()}, "It is not said which runs are meant"),
        ({"run_ids": ("r1",), "from_date": FIRST}, "either named or given as a span"),
        ({"from_date": FIRST + DAY, "to_date": FIRST}, "The span ends before it begins"),
        ({"from_date": FIRST + 100 * DAY}, "no runs in that span"),
        ({"from_date": FIRST, "past": True}, "counted from named runs"),
        ({"run_ids": (), "future": True}, "It is not said which runs are meant"),
        ({"only_failed": True, "only_running": True}, "choose one of the two"),
        ({"tasks": "d"}, "The DAG `d` has no task `d`"),
        ({"tasks": ""}, "The selector is empty"),
        ({"tasks": "tag:x"}, "no task that `tag:x` selects"),
        ({"map_index": 0}, "A map index is that of one mapped task"),
        ({"map_index": -1, "tasks": "a"}, "A map index is 0 or more"),
        ({"map_index": 0, "tasks": "a"}, "no mapped task that `a` alone selects. A map index is that of one"),
        ({"map_index": 0, "tasks": "a,b"}, "no mapped task that `a,b` alone selects"),
    ],
)
def test_refuses_what_makes_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        clear(*DAYS, **fields)


def test_names_a_run_that_is_like_the_one_that_is_not_there() -> None:
    with pytest.raises(NotFound, match=r"The DAG `d` has no run `rr2`. Did you mean `r2`\?"):
        clear(*DAYS, run_ids=("r1", "rr2"))


def test_there_is_no_newest_version_of_a_dag_whose_file_is_gone() -> None:
    request = ClearRequest(dag_id="d", run_ids=("r1",), latest_version=True)
    with pytest.raises(UsageError, match="The file of the DAG `d` is gone"):
        plan_clear(request, situation(*DAYS, is_active=False))
    assert plan_clear(replace(request, latest_version=False), situation(*DAYS, is_active=False))


# What failed, and what comes after it.


def test_what_failed_and_all_after_it() -> None:
    spec = dag(task("a"), task("b", "a"), task("c", "b"), task("x", "a"), task("y", "x"))
    run = facts(spec, a=S, b=F, c=S, x=S, y=K)
    assert words(changes_of_failed(run)) == ["b clear", "c clear"]
    assert words(changes_of_failed(run, ["c", "x"])) == ["c clear"]


def test_of_a_mapped_task_only_the_instances_that_failed_run_again() -> None:
    assert words(changes_of_failed(facts(MAPPED, list=S, each=[S, F, S], sum=U))) == ["each[1] clear", "sum clear"]
    run = facts(GROUP, list=S, g__one=[S, F], g__two=[F, U], sum=U)
    assert words(changes_of_failed(run)) == ["g.one[1] clear", "g.two[0] clear", "g.two[1] clear", "sum clear"]
    run = facts(GROUP, list=S, g__one=F, g__two=[S, S], sum=S)
    assert words(changes_of_failed(run)) == ["g.one clear", "g.two[0] clear", "g.two[1] clear", "sum clear"]
    run = facts(GROUP, list=S, g__one=[S, F], g__two=[S, S], sum=S)
    assert words(changes_of_failed(run)) == ["g.one[1] clear", "g.two[1] clear", "sum clear"]


# Any DAG, any states.

SEEDS = st.integers(0, 2**32)
FLAGS = st.fixed_dictionaries(
    {
        "upstream": st.booleans(),
        "downstream": st.booleans(),
        "only": st.sampled_from([None, None, "only_failed", "only_running"]),
    }
)


def request_by_chance(spec: DagSpec, rng: random.Random, flags: dict[str, Any]) -> ClearRequest:
    fields = {name: value for name, value in flags.items() if name != "only"}
    if flags["only"]:
        fields[flags["only"]] = True
    tasks = None if rng.random() < 0.3 else ",".join(rng.sample(list(spec.tasks), rng.randint(1, len(spec.tasks))))
    return ClearRequest(dag_id="d", run_ids=("r0",), tasks=tasks, **fields)


def case_by_chance(seed: int, flags: dict[str, Any]) -> tuple[RunFacts, ClearRequest]:
    rng = random.Random(seed)
    spec = Maker(rng).case().spec
    return by_chance(spec, rng), request_by_chance(spec, rng, flags)


def check_legal(run: RunFacts, change: RunChange) -> None:
    states = {(one.task_id, one.map_index): one.state for one in run.tasks}
    for one in change.tasks:
        if one.action is TaskAction.ADD:
            assert (one.from_state, one.to_state, one.map_index) == ("none", "none", -1)
            assert one.task_id not in instances(run)
            continue
        from_state = states[one.task_id, one.map_index]
        assert one.from_state == from_state.value
        if one.action is TaskAction.COLLAPSE:
            assert one.map_index >= 0
            assert from_state == one.to_state or (from_state, TaskState(one.to_state)) in PERSON_MOVES
            continue
        assert (from_state, TaskState(one.to_state)) in PERSON_MOVES
        if one.action is not TaskAction.REMOVE:
            assert (from_state is RUNNING) == one.action.startswith("stop")


def check_order(spec: DagSpec, old: DagSpec, change: RunChange) -> None:
    order = [*spec.tasks, *(task_id for task_id in old.tasks if task_id not in spec.tasks)]
    places = [(order.index(one.task_id), one.map_index) for one in change.tasks]
    assert places == sorted(set(places))


@given(SEEDS, FLAGS)
def test_a_plan_is_legal_and_the_same_each_time(seed: int, flags: dict[str, Any]) -> None:
    run, request = case_by_chance(seed, flags)
    (change,) = plan_clear(request, situation(run))
    check_legal(run, change)
    check_order(run.spec, run.spec, change)
    shuffled = replace(run, tasks=tuple(reversed(run.tasks)))
    assert plan_clear(request, situation(shuffled)) == [change]


@given(SEEDS, FLAGS)
def test_all_that_is_meant_is_cleared_and_its_setups_are(seed: int, flags: dict[str, Any]) -> None:
    run, request = case_by_chance(seed, {**flags, "only": None})
    (change,) = plan_clear(request, situation(run))
    after = instances(carried_out(run, change))
    selected = set(run.spec.tasks if request.tasks is None else request.tasks.split(","))
    neighbours: dict[str, Callable[[str], tuple[str, ...]]] = {
        "upstream": lambda task_id: run.spec.tasks[task_id].upstream,
        "downstream": lambda task_id: run.spec.downstream[task_id],
    }
    wanted = set(selected)
    for name in ("upstream", "downstream"):
        reach = set(selected)
        while getattr(request, name) and (more := {two for one in reach for two in neighbours[name](one)} - reach):
            reach |= more
        wanted |= reach
    for task_id in wanted:
        for one in after[task_id]:
            assert one.state is N or one.stopping_to == N
    changed = {one.task_id for one in change.tasks}
    for setup in (task_id for task_id in changed if run.spec.tasks[task_id].setup):
        for child in run.spec.downstream[setup]:
            if run.spec.tasks[child].teardown:
                assert all(one.state is N or one.stopping_to == N for one in after[child])
    for task_id in changed:
        for setup in run.spec.required_setups.get(task_id, ()):
            assert all(one.state is N or one.stopping_to == N for one in after[setup])
        if any(source in changed for source in run.spec.tasks[task_id].expand_xcoms):
            assert [one.map_index for one in after[task_id]] == [-1]


@given(SEEDS, FLAGS)
def test_clearing_twice_clears_nothing_new(seed: int, flags: dict[str, Any]) -> None:
    run, request = case_by_chance(seed, flags)
    (change,) = plan_clear(request, situation(run))
    after = carried_out(run, change)
    (again,) = plan_clear(request, situation(after))
    assert again.action is RunAction.SKIP, (words(change.tasks), words(again.tasks))


@given(SEEDS, SEEDS, FLAGS)
def test_a_run_in_the_newest_version_has_the_tasks_of_it(seed: int, other_seed: int, flags: dict[str, Any]) -> None:
    rng = random.Random(other_seed)
    run, _ = case_by_chance(seed, flags)
    old = run.spec
    for newest in (Maker(rng).case().spec, old):  # there and back again
        request = replace(request_by_chance(newest, rng, flags), latest_version=True)
        (change,) = plan_clear(request, situation(run, newest=newest))
        if change.action is RunAction.SKIP:
            return
        check_legal(run, change)
        check_order(newest, run.spec, change)
        run = carried_out(run, change, newest)
        rows = instances(run)
        assert set(rows) == set(newest.tasks)
        for task_id, one in newest.tasks.items():
            assert one.mapped or [row.map_index for row in rows[task_id]] == [-1]
        (again,) = plan_clear(request, situation(run, newest=newest))
        assert again.action is RunAction.SKIP


def failed_and_after(run: RunFacts) -> set[str]:
    found = {task_id for task_id, rows in instances(run).items() if any(one.state not in (S, K) for one in rows)}
    for task_id, one in run.spec.tasks.items():
        if not found.isdisjoint(one.upstream):
            found.add(task_id)
    return found


@given(SEEDS, FLAGS)
def test_nothing_that_failed_or_comes_after_it_stands(seed: int, flags: dict[str, Any]) -> None:
    run, _ = case_by_chance(seed, flags)
    changes = changes_of_failed(run)
    assert {one.task_id for one in changes_of(run, failed_and_after(run))} >= {one.task_id for one in changes}
    after = instances(carried_out(run, RunChange("r0", FIRST, RunAction.CLEAR, to_state="queued", tasks=changes)))
    for rows in after.values():
        assert all(one.state in (S, K, N) or one.stopping_to == N for one in rows)
    again = failed_and_after(run)
    for task_id, one in run.spec.tasks.items():
        if one.map_group is None and not again.isdisjoint(one.upstream):
            assert all(row.state is N or row.stopping_to == N for row in after[task_id])
        elif task_id not in again and not (one.setup or one.teardown or one.mapped):
            assert not any(change.task_id == task_id for change in changes)

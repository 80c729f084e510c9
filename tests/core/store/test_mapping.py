from datetime import timedelta
from typing import Any

import pytest

from together import together
from yarrow.decision.decisions import Decisions, Expansion, TaskDecision
from yarrow.errors import NotFound
from yarrow.language.spec import TaskSpec
from yarrow.retries import retry_delay
from yarrow.states import TaskState
from yarrow.store import Store

NONE, SCHEDULED, SKIPPED = TaskState.NONE, TaskState.SCHEDULED, TaskState.SKIPPED


def mapped_dag(stage: Any, **fields: Any) -> Any:
    """a -> score (mapped over a's result) -> b."""
    score = stage.task(
        "score",
        upstream=("a",),
        expand={"n": "{{ xcom.a }}"},
        expand_xcoms=("a",),
        retries=1,
        queue="gpu",
        pool_slots=2,
        priority_weight=5,
        max_active_tis_per_dag=3,
        max_active_tis_per_dagrun=2,
    )
    return stage.dag(tasks=[stage.task("a"), score, stage.task("b", upstream=("score",))], **fields)


@pytest.fixture
def expanded(stage: Any) -> Any:
    run = stage.begin(mapped_dag(stage), "a")
    assert stage.decide(run, expand={"score": 3})
    return run


def test_an_expansion_makes_one_instance_of_each_value(stage: Any, expanded: Any) -> None:
    found = stage.store.runs.task_instances(expanded.id)
    assert [(one.task_id, one.map_index) for one in found] == [
        ("a", -1),
        ("score", 0),
        ("score", 1),
        ("score", 2),
        ("b", -1),
    ]
    scores = found[1:4]
    assert [one.map_value for one in scores] == [{"n": 0}, {"n": 1}, {"n": 2}]
    alike = {(one.state, one.max_tries, one.queue, one.pool_slots, one.priority_weight) for one in scores}
    assert alike == {(NONE, 2, "gpu", 2, 6)}  # the weight of `b` counts too
    views = stage.store.runs.snapshot(expanded.id).tasks
    assert [(view.task_id, view.map_index) for view in views[1:4]] == [("score", index) for index in range(3)]
    (line,) = [line for line in stage.store.runs.events("d", "r") if line.kind == "task.expanded"]
    assert (line.task_id, line.reason) == ("score", "`expand` makes 3 task instances of it.")


def test_a_task_is_expanded_once(stage: Any, expanded: Any) -> None:
    assert not stage.decide(expanded, expand={"score": 2})
    assert stage.instance(expanded, "score", 2).map_value == {"n": 2}
    assert len(stage.store.runs.task_instances(expanded.id)) == 5


def test_a_task_that_has_ended_is_not_expanded(stage: Any) -> None:
    run = stage.begin(mapped_dag(stage), "a")
    assert stage.decide(run, ("score", NONE, SKIPPED, "`expand` is empty"))
    assert not stage.decide(run, expand={"score": 2})
    assert stage.instance(run, "score").state is SKIPPED


def test_instances_are_decided_on_together_with_their_expansion(stage: Any) -> None:
    run = stage.begin(mapped_dag(stage), "a")
    moves = [TaskDecision("score", NONE, SCHEDULED, map_index=index) for index in (0, 2)]
    moves.append(TaskDecision("score", NONE, SKIPPED, "`when` is false", map_index=1))
    assert stage.decide(run, *moves, expand={"score": 3})
    states = [stage.instance(run, "score", index).state for index in range(3)]
    assert states == [SCHEDULED, SKIPPED, SCHEDULED]
    assert not stage.decide(run, TaskDecision("score", NONE, SCHEDULED))  # there is no instance -1 any more


def test_an_instance_is_tried_again_by_itself(stage: Any) -> None:
    score = stage.task("score", expand={"n": [0, 1]}, retries=1, retry_delay=60.0, retry_exponential_backoff=2.0)
    spec = stage.dag(tasks=[score])
    stage.publish(spec)
    run = stage.run(spec)
    moves = [TaskDecision("score", NONE, SCHEDULED, map_index=index) for index in range(2)]
    assert stage.decide(run, *moves, expand={"score": 2})
    first, second = stage.claim(), stage.claim()
    stage.finish(first, "failed", reason="no luck")
    stage.finish(second, xcom=1, has_xcom=True)
    failed, fine = stage.instance(run, "score", 0), stage.instance(run, "score", 1)
    assert (failed.state, fine.state, fine.try_number) == (TaskState.UP_FOR_RETRY, TaskState.SUCCESS, 1)
    own, others = (timedelta(seconds=retry_delay(score, "d", run.logical_date, 1, index)) for index in range(2))
    assert failed.wait_until == stage.clock() + own != stage.clock() + others, "with a jitter of its own"
    assert stage.decide(run, TaskDecision("score", TaskState.UP_FOR_RETRY, SCHEDULED, map_index=0))
    again = stage.claim()
    assert (again.map_index, again.try_number) == (0, 2)
    stage.finish(again, "failed")
    assert [stage.instance(run, "score", index).state for index in range(2)] == [TaskState.FAILED, TaskState.SUCCESS]


def test_an_instance_is_found_by_its_index(stage: Any, expanded: Any) -> None:
    assert stage.store.runs.task_instance("d", "r", "score", 2).map_value == {"n": 2}
    with pytest.raises(NotFound, match=r"is mapped and needs a map index\. There are the instances 0 to 2"):
        stage.store.runs.task_instance("d", "r", "score")
    with pytest.raises(NotFound, match=r"is mapped and has no instance 7\. There are the instances 0 to 2"):
        stage.store.runs.task_instance("d", "r", "score", 7)
    with pytest.raises(NotFound, match=r"has no instance 0\. It is not mapped"):
        stage.store.runs.task_instance("d", "r", "b", 0)


def test_a_snapshot_shows_what_expand_and_when_and_questions_name_once_it_matters(stage: Any) -> None:
    ask = TaskSpec("ask", "approval", {"message": "{{ xcom.score }}"}, upstream=("score",), xcoms=("score",))
    score = stage.task("score", upstream=("a",), expand={"n": "{{ xcom.a }}"}, expand_xcoms=("a",))
    late = stage.task("late", upstream=("score",), when="xcom.score", when_xcoms=("score",), trigger_rule="one_done")
    run = stage.begin(stage.dag(tasks=[stage.task("a"), score, ask, late]), "a")
    claimed = stage.claim()
    assert stage.store.runs.snapshot(run.id).xcoms == {}
    stage.finish(claimed, xcom=[7, 8], has_xcom=True)
    assert stage.store.runs.snapshot(run.id).xcoms == {("a", -1): [7, 8]}
    moves = [TaskDecision("score", NONE, SCHEDULED, map_index=index) for index in range(2)]
    assert stage.decide(run, *moves, expand={"score": 2})
    first, second = stage.claim(), stage.claim()
    assert (first.map_index, second.map_index) == (0, 1)
    stage.finish(first, xcom="x", has_xcom=True)
    # `ask` has to wait for the one that still runs, but `late` may go on.
    assert stage.store.runs.snapshot(run.id).xcoms == {("score", 0): "x"}
    stage.decide(run, ("late", NONE, SKIPPED))
    assert stage.store.runs.snapshot(run.id).xcoms == {}
    stage.finish(second, xcom="y", has_xcom=True)
    assert stage.store.runs.snapshot(run.id).xcoms == {("score", 0): "x", ("score", 1): "y"}


def test_within_a_mapped_group_another_index_is_not_waited_for(stage: Any) -> None:
    def member(task_id: str, **fields: Any) -> Any:
        return stage.task(task_id, map_group="g", expand={"n": [0, 1]}, **fields)

    second = member("g.two", upstream=("g.one",), when="xcom.g.one", when_xcoms=("g.one",))
    spec = stage.dag(tasks=[member("g.one"), second])
    stage.publish(spec)
    run = stage.run(spec)
    moves = [TaskDecision("g.one", NONE, SCHEDULED, map_index=index) for index in range(2)]
    assert stage.decide(run, *moves, expand={"g.one": 2, "g.two": 2})
    first, _ = stage.claim(), stage.claim()
    assert stage.store.runs.snapshot(run.id).xcoms == {}
    stage.finish(first, xcom=5, has_xcom=True)
    assert stage.store.runs.snapshot(run.id).xcoms == {("g.one", 0): 5}


def test_two_schedulers_expand_once(postgres_stage: Any, postgres_url: str) -> None:
    stage = postgres_stage
    run = stage.begin(mapped_dag(stage), "a")
    seen = stage.store.runs.snapshot(run.id).record.change_seq
    decisions = Decisions(
        tuple(TaskDecision("score", NONE, SCHEDULED, map_index=index) for index in range(4)),
        expansions=(Expansion("score", tuple({"n": index} for index in range(4))),),
    )
    stores = [Store.open(postgres_url, clock=stage.clock) for _ in range(3)]
    answers: list[bool] = []

    def apply(store: Store) -> None:
        answers.append(store.runs.apply(run.id, decisions, seen))

    assert together(*[lambda store=store: apply(store) for store in stores]) == []
    assert sorted(answers) == [False, False, True]
    scores = [one for one in stage.store.runs.task_instances(run.id) if one.task_id == "score"]
    assert [(one.map_index, one.state) for one in scores] == [(index, SCHEDULED) for index in range(4)]
    kinds = [line.kind for line in stage.store.runs.events("d", "r", "score")]
    assert (kinds.count("task.expanded"), kinds.count("task.state")) == (1, 4)
    for store in stores:
        store.close()


def test_values_are_read_only_to_decide_by_them(stage: Any) -> None:
    """They may be large and many, and a run is decided on whenever one of its tasks ends."""
    tasks = [
        stage.task("plain", expand={"n": []}, when="{{ params.go }}"),
        stage.task("choosy", expand={"n": []}, when="{{ map.n > 0 }}"),
        TaskSpec("asks", "approval", {"message": "{{ map.n }}?"}, expand={"n": []}, map_group="g"),
    ]
    spec = stage.dag(tasks=tasks)
    stage.publish(spec)
    run = stage.run(spec)
    expand = dict.fromkeys(spec.tasks, 2)
    assert stage.decide(run, TaskDecision("choosy", NONE, SKIPPED, map_index=0), expand=expand)
    views = stage.store.runs.snapshot(run.id).tasks
    assert {(view.task_id, view.map_index): view.map_value for view in views} == {
        ("plain", 0): None,
        ("plain", 1): None,
        ("choosy", 0): None,  # has ended
        ("choosy", 1): {"n": 1},
        ("asks", 0): {"n": 0},
        ("asks", 1): {"n": 1},
    }

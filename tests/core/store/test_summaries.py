"""Tasks of runs as a whole, and the instances of a mapped one by pages."""

from typing import Any

from yarrow.decision.decisions import TaskDecision
from yarrow.states import TaskState

S = TaskState


def mapped_run(stage: Any, count: int = 3) -> Any:
    """a -> score (mapped) -> b, with the first instance failed and the second skipped."""
    score = stage.task("score", upstream=("a",), expand={"n": "{{ xcom.a }}"}, expand_xcoms=("a",))
    run = stage.begin(stage.dag(tasks=[stage.task("a"), score, stage.task("b", upstream=("score",))]), "a")
    stage.finish(stage.claim(), xcom=list(range(count)), has_xcom=True)
    moves = [TaskDecision("score", S.NONE, S.SCHEDULED, map_index=0)]
    moves.append(TaskDecision("score", S.NONE, S.SKIPPED, map_index=1))
    assert stage.decide(run, *moves, expand={"score": count})
    stage.clock.advance(5)
    claimed = stage.claim()
    stage.clock.advance(5)
    stage.finish(claimed, "failed", retryable=False)
    return run


def test_a_mapped_task_is_one_summary(stage: Any) -> None:
    run = mapped_run(stage)
    a, score, b = stage.store.runs.task_summaries([run.id])[run.id]
    assert [(task.task_id, task.mapped) for task in (a, score, b)] == [("a", False), ("score", True), ("b", False)]
    assert (a.states, a.state) == ({S.SUCCESS: 1}, S.SUCCESS)
    assert (score.states, score.state) == ({S.FAILED: 1, S.SKIPPED: 1, S.NONE: 1}, S.FAILED)
    assert score.started_at == stage.instance(run, "score", 0).started_at is not None
    assert score.ended_at is None, "one has not ended"
    assert stage.decide(run, TaskDecision("score", S.NONE, S.SKIPPED, map_index=2))
    [_, score, _] = stage.store.runs.task_summaries([run.id])[run.id]
    assert score.ended_at is not None
    assert (b.states, b.started_at) == ({S.NONE: 1}, None)


def test_a_task_that_is_not_expanded_yet_is_not_mapped(stage: Any) -> None:
    score = stage.task("score", expand={"n": [1]})
    stage.publish(stage.dag(tasks=[score]))
    run = stage.run(stage.dag(tasks=[score]))
    [before] = stage.store.runs.task_summaries([run.id, 12345])[run.id]
    assert not before.mapped
    assert stage.decide(run, expand={"score": 1})
    [after] = stage.store.runs.task_summaries([run.id])[run.id]
    assert after.mapped, "even when it has one instance only"
    assert stage.store.runs.task_summaries([12345]) == {12345: []}


def test_the_instances_of_a_mapped_task_come_by_pages(stage: Any) -> None:
    run = mapped_run(stage, 12)

    def indexes(*arguments: Any, **more: Any) -> list[int]:
        return [one.map_index for one in stage.store.runs.mapped_instances(run.id, "score", *arguments, **more)]

    assert indexes() == list(range(12))
    assert indexes(limit=5, offset=10) == [10, 11]
    assert indexes(S.FAILED) == [0]
    assert indexes("skipped") == [1]
    assert stage.store.runs.mapped_instances(run.id, "a") == []
    assert [one.task_id for one in stage.store.runs.task_instances(run.id, mapped=False)] == ["a", "b"]

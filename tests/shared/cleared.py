"""What the tests of clearing and marking share: task instances in every state, and the hands of people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from yarrow.decision.decisions import Question, TaskDecision
from yarrow.language.spec import TaskSpec
from yarrow.plans.requests import ClearRequest, MarkRequest
from yarrow.states import TaskState
from yarrow.store.tables import task_instance

NONE, SCHEDULED = TaskState.NONE, TaskState.SCHEDULED
STATES = [
    "none",
    "scheduled",
    "queued",
    "running",
    "up_for_retry",
    "up_for_reschedule",
    "awaiting_input",
    "success",
    "failed",
    "skipped",
    "upstream_failed",
]


def bring(stage: Any, state: str, **fields: Any) -> tuple[Any, Any]:
    """A run whose first task `a` is in a state, and what was claimed of it."""
    a = TaskSpec("a", "approval", {"message": "Go on?"}) if state == "awaiting_input" else stage.task("a", **fields)
    spec = stage.dag(tasks=[a, stage.task("b", upstream=("a",))])
    stage.publish(spec)
    run = stage.run(spec)
    claimed = None
    if state in ("skipped", "upstream_failed"):
        stage.decide(run, ("a", NONE, TaskState(state), "because"))
    elif state == "awaiting_input":
        stage.decide(run, TaskDecision("a", NONE, TaskState.AWAITING_INPUT, question=Question("Go on?")))
    elif state != "none":
        stage.schedule(run, "a")
    if state == "queued":
        stage.dispatch()
    if state in ("running", "up_for_retry", "up_for_reschedule", "success", "failed"):
        claimed = stage.claim()
    if state in ("up_for_retry", "failed"):
        stage.finish(claimed, "failed", reason="no luck")
    if state == "up_for_reschedule":
        stage.finish(claimed, "deferred", resume_at=(stage.clock() + timedelta(hours=1)).isoformat())
    if state == "success":
        stage.finish(claimed, has_xcom=True, xcom=7, follow=["b"])
    assert stage.states(run)["a"] == state
    return run, claimed


def retries_of(state: str) -> dict[str, int]:
    return {"retries": 0 if state == "failed" else 2}


def clear(stage: Any, tasks: str | None = "a", who: str = "ann", **fields: Any) -> Any:
    names = {"run_ids": () if "from_date" in fields else ("r",)} | fields
    return stage.store.plans.carry_out(ClearRequest(dag_id="d", tasks=tasks, **names), who=who)


def mark(stage: Any, state: str, tasks: str | None = "a", who: str = "ann", **fields: Any) -> Any:
    return stage.store.plans.carry_out(
        MarkRequest(dag_id="d", run_ids=("r",), state=state, tasks=tasks, **fields), who=who
    )


def rows(stage: Any, table: Any, *conditions: Any) -> list[Any]:
    query = select(table).where(*conditions)
    return stage.store.runs._database.read(lambda connection: connection.execute(query).all())


def row(stage: Any, task_id: str = "a", map_index: int = -1) -> Any:
    (found,) = rows(stage, task_instance, task_instance.c.task_id == task_id, task_instance.c.map_index == map_index)
    return found


def mapped(stage: Any, count: int = 3, *, more: dict[str, Any] | None = None) -> Any:
    """A run in which `m`, mapped over the XCom of `a`, is expanded and scheduled, and `a` has succeeded."""
    a = stage.task("a")
    m = stage.task("m", upstream=("a",), expand={"n": "{{ xcom.a }}"}, expand_xcoms=("a",), **(more or {}))
    spec = stage.dag(tasks=[a, m, stage.task("z", upstream=("m",))])
    stage.publish(spec)
    run = stage.run(spec)
    stage.schedule(run, "a")
    stage.finish(stage.claim(), has_xcom=True, xcom=list(range(count)))
    expand(stage, run, count)
    return run


def expand(stage: Any, run: Any, count: int) -> None:
    moves = [TaskDecision("m", NONE, SCHEDULED, map_index=index) for index in range(count)]
    assert stage.decide(run, *moves, expand={"m": count})


def instances(stage: Any, task_id: str = "m") -> dict[int, str]:
    found = rows(stage, task_instance, task_instance.c.task_id == task_id)
    return {one.map_index: str(one.state) for one in sorted(found, key=lambda one: one.map_index)}

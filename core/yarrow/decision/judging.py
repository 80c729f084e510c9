"""Says of a task instance that has not started what its setups and its trigger rule make of it, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from yarrow.decision.run_end import label
from yarrow.decision.standing import Standing
from yarrow.decision.trigger_rules import TEARDOWN_RULE, WAIT, Judgement, Verdict, judge
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.states import TaskState

_WAIT = (Verdict.WAIT, None)
_RUN = (Verdict.RUN, None)

WITHOUT_RUNNING: Mapping[Verdict, TaskState] = {
    Verdict.SKIP: TaskState.SKIPPED,
    Verdict.UPSTREAM_FAILED: TaskState.UPSTREAM_FAILED,
}
"""The verdicts by which an instance ends, and the state in which it does."""

_ENDED: Mapping[TaskState, str] = {
    TaskState.SUCCESS: "succeeded",
    TaskState.SKIPPED: "was skipped",
    TaskState.FAILED: "failed",
    TaskState.UPSTREAM_FAILED: "could not run",
}


def verdict(spec: DagSpec, standing: Standing, task: TaskSpec, map_index: int) -> tuple[Verdict, str | None]:
    """Returns what is to become of an instance, and a sentence about why if it ends without running."""
    if may_always_run(task):
        return _RUN
    ready = True
    required = spec.required_setups
    if required and (setups := required.get(task.task_id)):
        judgement = of_setups(standing, task, map_index, setups)
        if judgement.verdict in WITHOUT_RUNNING:
            return judgement.verdict, setups_reason(standing, task, map_index, judgement, setups)
        ready = judgement.verdict is Verdict.RUN
    judgement = of_rule(standing, task, map_index)
    if judgement.verdict is Verdict.WAIT:
        return _WAIT
    if judgement.verdict is Verdict.RUN:
        return _RUN if ready else _WAIT
    return judgement.verdict, rule_reason(standing, task, map_index, judgement)


def may_always_run(task: TaskSpec) -> bool:
    """Whether a task waits for no other one at all."""
    return not task.upstream or task.trigger_rule == "always"


def of_setups(standing: Standing, task: TaskSpec, map_index: int, setups: Iterable[str]) -> Judgement:
    """What the setups that an instance needs make of it: `DagSpec.required_setups` has them."""
    return judge("all_success", standing.counts_among(setups, task, map_index))


def of_rule(standing: Standing, task: TaskSpec, map_index: int) -> Judgement:
    """What the trigger rule of an instance makes of it."""
    counts = standing.counts(task, map_index)
    return WAIT if counts is None else judge(task.trigger_rule, counts)


def setups_reason(
    standing: Standing, task: TaskSpec, map_index: int, judgement: Judgement, setups: Iterable[str]
) -> str:
    """Why an instance ends by its setups."""
    return because(standing, task, map_index, judgement, setups, "setup")


def rule_reason(standing: Standing, task: TaskSpec, map_index: int, judgement: Judgement) -> str:
    """Why an instance ends by its trigger rule."""
    reason = because(standing, task, map_index, judgement, task.upstream, "upstream task")
    plain = task.trigger_rule in ("all_success", TEARDOWN_RULE)
    return reason if plain else f"{reason} (trigger rule `{task.trigger_rule}`)"


def group_verdict(standing: Standing, task: TaskSpec) -> tuple[Verdict, str | None]:
    """What is to become of the tasks of a mapped group before it is expanded, and why if they end by that.

    Args:
        task: Any of its tasks.
    """
    counts = standing.counts_among(task.expand_xcoms, task, -1)
    if not counts.all_done:
        return _WAIT
    judgement = judge("none_failed" if counts.broken else "none_skipped", counts)
    if judgement.verdict in WITHOUT_RUNNING:
        return judgement.verdict, because(standing, task, -1, judgement, task.expand_xcoms, "`expand`: task")
    return _RUN


def because(
    standing: Standing, task: TaskSpec, map_index: int, judgement: Judgement, task_ids: Iterable[str], what: str
) -> str:
    """Why an instance ends by a judgement on some tasks, naming the first of their instances that was enough for it."""
    for task_id in task_ids if judgement.because else ():
        state = standing.single[task_id]
        if state is not None:
            if state in judgement.because:
                return f"{what} `{task_id}` {_ENDED[state]}"
        elif found := standing.first_seen(task_id, task, map_index, judgement.because):
            return f"{what} {label(found)} {_ENDED[standing.state(*found)]}"
    return judgement.reason

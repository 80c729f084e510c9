"""Explains why a task instance does not run, from one state of the store and without any side effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from yarrow.decide import decide
from yarrow.decision.decisions import Decisions
from yarrow.decision.run_end import DEADLOCK, label
from yarrow.decision.standing import Standing
from yarrow.explaining.dependencies import Dependencies, dependencies, waiting_clause
from yarrow.explaining.explanation import Explanation, Finding, first_clause, found
from yarrow.explaining.facts import Circumstances, InstanceFacts
from yarrow.explaining.pending import complete, decision_on, standing_at
from yarrow.explaining.progress import progress
from yarrow.explaining.run_checks import run_findings
from yarrow.explaining.upstream import blocker
from yarrow.explaining.words import at, ended
from yarrow.mapping import Instance
from yarrow.states import TaskState


def root_of(given: Circumstances) -> Instance | None:
    """The task instance that everything waits for in the end that this one waits for; None: it is not `none`, or
    waits for no other."""
    if given.instance.state is not TaskState.NONE:
        return None
    instance, _, standing = _as_decided(given)
    return blocker(given.spec, standing, instance)


def explain(given: Circumstances) -> Explanation:
    """Every check in the order in which things happen, and one sentence about the first that has not passed."""
    before = run_findings(given)
    if given.instance.state is TaskState.NONE:
        return _of_waiting(given, before)
    findings, does = progress(given.instance, given.now)
    if given.instance.state.finished:
        return _explanation(given, findings, does, None)
    decision = decision_on(_decisions(given), (given.instance.task_id, given.instance.map_index))
    next_state = decision.to_state if decision is not None else None
    every = [*before, *_met(given.instance), *findings]
    return _explanation(given, every, first_clause(every) or does, next_state)


def _of_waiting(given: Circumstances, before: Sequence[Finding]) -> Explanation:
    judged = judge_waiting(given)
    every = [*before, *judged.findings]
    goes_on = all(finding.check.passed or finding.check.name == "scheduler" for finding in before)
    return _explanation(
        given,
        every,
        first_clause(every) or judged.clause,
        judged.next_state if goes_on else None,
        judged.expands_to if goes_on else None,
    )


def judge_waiting(given: Circumstances) -> Dependencies:
    """What a task instance in the state `none` depends on, whatever its run does."""
    instance, decisions, standing = _as_decided(given)
    own = decision_on(decisions, instance)
    root = None
    if given.root is not None:
        place = (given.root.task_id, given.root.map_index)
        root = waiting_clause(given.spec.tasks[instance[0]], place, _what_the_root_does(given, given.root))
    return dependencies(given, standing, deadlock=own is not None and own.reason == DEADLOCK, root=root)


def _what_the_root_does(given: Circumstances, root: InstanceFacts) -> str:
    if root.state is not TaskState.NONE:
        return progress(root, given.now)[1]
    return judge_waiting(replace(given, instance=root, root=None)).clause


def _decisions(given: Circumstances) -> Decisions:
    views = complete(given.spec, given.views)
    return decide(given.spec, given.run, views, given.now, given.xcoms, given.past)


def _as_decided(given: Circumstances) -> tuple[Instance, Decisions, Standing]:
    instance = (given.instance.task_id, given.instance.map_index)
    decisions = _decisions(given)
    return instance, decisions, standing_at(given.spec, complete(given.spec, given.views), decisions, instance)


def _met(instance: InstanceFacts) -> Sequence[Finding]:
    """The dependencies of an instance that has been scheduled."""
    when = f" at {at(instance.scheduled_at)}" if instance.scheduled_at else ""
    moment = instance.scheduled_at.isoformat() if instance.scheduled_at else None
    return [found("dependencies", True, f"All that it depends on was met{when}.", scheduled_at=moment)]


def _explanation(
    given: Circumstances,
    findings: Sequence[Finding],
    clause: str,
    next_state: TaskState | None,
    expands_to: int | None = None,
) -> Explanation:
    instance = given.instance
    return Explanation(
        dag_id=given.run.dag_id,
        run_id=given.run.run_id,
        task_id=instance.task_id,
        map_index=instance.map_index,
        state=instance.state,
        at=given.now,
        summary=ended(f"{label((instance.task_id, instance.map_index))} {clause}"),
        checks=[finding.check for finding in findings],
        next_state=next_state,
        expands_to=expands_to,
    )

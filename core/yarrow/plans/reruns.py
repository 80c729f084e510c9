"""Works out how a run that has ended runs again within a backfill."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from yarrow.decision.decisions import TaskView
from yarrow.decision.judging import group_verdict, verdict
from yarrow.decision.standing import Standing
from yarrow.decision.trigger_rules import Verdict
from yarrow.language.spec import DagSpec
from yarrow.plans.clearing import changes_of, changes_of_failed, runs_again
from yarrow.plans.needs import missing, needs_of
from yarrow.plans.plan import Need, RunAction, TaskChange
from yarrow.plans.requests import BackfillRequest
from yarrow.plans.scope import instances
from yarrow.plans.selector import parse
from yarrow.plans.situation import RunFacts, TaskFacts
from yarrow.states import TaskState

_STOPS = (Verdict.SKIP, Verdict.UPSTREAM_FAILED)


@dataclass(frozen=True, slots=True)
class Rerun:
    """What of a run runs again."""

    action: RunAction
    task_ids: frozenset[str]
    tasks: tuple[TaskChange, ...] = ()
    task_count: int = 0
    needs: tuple[Need, ...] = ()


def rerun_of(run: RunFacts, request: BackfillRequest) -> Rerun | str:
    """How a run that has ended runs again, or a reason why it can't."""
    failed_only = request.reprocess == "failed" and not request.whole_runs
    action = RunAction.RERUN_FAILED if failed_only else RunAction.RERUN_ALL
    selected: Mapping[str, str] | None = None
    if request.tasks is not None:
        selector = parse(request.tasks)
        if lacking := selector.lacking(run.spec):
            return f"its version has no {lacking}"
        selected = selector.whys(run.spec)
    if not run.tasks:  # it ended before it was started
        return Rerun(action, frozenset(run.spec.tasks), task_count=len(run.spec.tasks))
    if failed_only:
        tasks = changes_of_failed(run, selected)
    else:
        tasks = changes_of(run, dict.fromkeys(run.spec.tasks, "the whole run") if selected is None else selected)
    facts = instances(run)
    left = [task_id for task_id in facts if any(one.state is TaskState.NONE for one in facts[task_id])]
    task_ids = frozenset({task.task_id for task in tasks}.union(left))
    if not task_ids or (selected is not None and task_ids.isdisjoint(selected)):
        what = "tasks" if request.tasks is None else "selected tasks"
        return f"exists: it is {run.state}, but none of its {what} {'failed' if failed_only else 'has run'}"
    needs = needs_of(run.spec, task_ids, facts)
    if reason := missing(needs) or _stopped(run.spec, task_ids, facts):
        return reason
    count = runs_again(tasks) + sum(one.state is TaskState.NONE for task_id in left for one in facts[task_id])
    return Rerun(action, task_ids, tuple(tasks), count, needs)


def _stopped(spec: DagSpec, task_ids: Collection[str], facts: Mapping[str, Sequence[TaskFacts]]) -> str | None:
    """Why none of the first of these tasks would run again, by what decides on runs; None: some would."""
    standing = Standing(spec, _views(spec, task_ids, facts))
    reason = None
    for task_id, task in spec.tasks.items():
        if task_id not in task_ids or any(upstream in task_ids for upstream in task.upstream):
            continue
        found, why = verdict(spec, standing, task, -1) if task.map_group is None else group_verdict(standing, task)
        if found not in _STOPS:
            return None
        reason = reason or f"`{task_id}` would not run again: {why}"
    return reason


def _views(spec: DagSpec, task_ids: Collection[str], facts: Mapping[str, Sequence[TaskFacts]]) -> list[TaskView]:
    """The task instances as they will be; each task that runs again stands there as one that is not expanded yet."""
    views: list[TaskView] = []
    for task_id in spec.tasks:
        rows = () if task_id in task_ids else facts.get(task_id, ())
        views += [TaskView(task_id, one.state, map_index=one.map_index) for one in rows]
        if not rows:
            views.append(TaskView(task_id, TaskState.NONE))
    return views

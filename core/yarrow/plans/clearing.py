"""Works out what clearing does to runs and their task instances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from yarrow.errors import UsageError
from yarrow.language.spec import DagSpec
from yarrow.mapping import Instance
from yarrow.plans.cleared import changes_of
from yarrow.plans.closure import reached
from yarrow.plans.plan import RunAction, RunChange, TaskAction, TaskChange
from yarrow.plans.requests import ClearRequest
from yarrow.plans.scope import (
    Selection,
    check,
    each_version,
    instances,
    instances_meant,
    nothing_meant,
    runs_of,
    selections,
    untouched,
)
from yarrow.plans.situation import RunFacts, Situation, TaskFacts
from yarrow.states import RunState, TaskState

__all__ = ["changes_of", "changes_of_failed", "plan_clear", "runs_again"]


def plan_clear(request: ClearRequest, situation: Situation) -> list[RunChange]:
    """What becomes of each run that the request is about, the earliest first.

    Raises:
        NotFound: A run that it names is not there.
        UsageError: It contradicts itself, or there is nothing that it could be about.
    """
    check(request)
    if request.latest_version and not situation.is_active:
        hint = "Without the newest version each run is cleared in its own."
        raise UsageError(f"The file of the DAG `{request.dag_id}` is gone: it has no newest version.", hint=hint)
    runs = runs_of(request, situation)
    latest = situation.newest if request.latest_version else None
    specs = each_version(runs) if latest is None else {latest.version: latest}
    found = selections(request, specs)
    return [_run_change(request, run, found[run.version if latest is None else latest.version], latest) for run in runs]


def _run_change(request: ClearRequest, run: RunFacts, selection: Selection, latest: DagSpec | None) -> RunChange:
    if reason := nothing_meant(request, run, selection):
        return untouched(run, reason)
    meant = instances_meant(request, run, latest or run.spec, selection)
    moves = latest is not None and latest.version != run.version
    tasks = changes_of(run, selection.whys, only=meant, latest=latest)
    filtered = request.only_failed or request.only_running
    facts = {(one.task_id, one.map_index): one for one in run.tasks}
    asked = [change for change in tasks if change.task_id in selection.whys]
    asked = [one for one in asked if (not filtered if one.action is TaskAction.ADD else meant(facts[_key(one)]))]
    left = _left(run, selection, meant) if run.state.finished else moves and not filtered
    if not asked and not left:
        return untouched(run, _nothing_to_clear(request, run))
    return RunChange(
        run_id=run.run_id,
        logical_date=run.logical_date,
        action=RunAction.CLEAR,
        from_state=run.state.value,
        to_state=(RunState.QUEUED if run.state.finished else run.state).value,
        version=latest.version if latest is not None else run.version,
        tasks=tuple(tasks),
        task_count=_task_count(run, latest or run.spec, tasks),
    )


def _left(run: RunFacts, selection: Selection, meant: Callable[[TaskFacts], bool]) -> bool:
    """Whether something that is selected has never run, though its run is over: the run has to go on for it."""
    rows = instances(run)
    if not rows:
        return all(meant(TaskFacts(0, task_id, -1, TaskState.NONE)) for task_id in selection.whys)
    left = (one for task_id in selection.whys for one in rows.get(task_id, ()) if one.state is TaskState.NONE)
    return any(meant(one) for one in left)


def _task_count(run: RunFacts, spec: DagSpec, tasks: Collection[TaskChange]) -> int:
    """How many task instances will run, of a run that was over also those that never did."""
    if not run.tasks:
        return len(spec.tasks)
    count = runs_again(tasks)
    if run.state.finished:
        changed = {_key(change) for change in tasks}
        rows = (one for task_id, ones in instances(run).items() if task_id in spec.tasks for one in ones)
        count += sum(one.state is TaskState.NONE and (one.task_id, one.map_index) not in changed for one in rows)
    return count


def _key(change: TaskChange) -> Instance:
    return change.task_id, change.map_index


def _nothing_to_clear(request: ClearRequest, run: RunFacts) -> str:
    if not run.tasks:
        return "it has not started"
    if request.only_running:
        return "nothing that is selected is running"
    if request.only_failed:
        return "nothing that is selected has failed"
    return "all that is selected is still to run"


def runs_again(tasks: Collection[TaskChange]) -> int:
    """How many task instances run because of some changes; those that become one again count as one."""
    return sum(change.to_state == TaskState.NONE for change in tasks)


def changes_of_failed(run: RunFacts, among: Collection[str] | None = None) -> list[TaskChange]:
    """What clearing does to the instances of a run that have not succeeded or been skipped, and to all after them.

    Of a mapped task only the instances that failed run again, and within a mapped group what comes after one of them
    does in that instance alone.

    Args:
        among: Task ids; only these are cleared, and what goes along with them. None: all tasks.
    """
    failed = {
        task_id: {one.map_index for one in rows if one.state not in (TaskState.SUCCESS, TaskState.SKIPPED)}
        for task_id, rows in instances(run).items()
    }
    again = _failed_and_after(run.spec, failed)
    after = reached(run.spec, [task_id for task_id in again if failed.get(task_id)], downstream=True)
    whys = {task_id: after.get(task_id, "not ended well") for task_id in again if among is None or task_id in among}

    def meant(one: TaskFacts) -> bool:
        indexes = again[one.task_id]
        return indexes is None or one.map_index in indexes

    return changes_of(run, whys, only=meant)


def _failed_and_after(spec: DagSpec, failed: Mapping[str, Collection[int]]) -> dict[str, set[int] | None]:
    """The map indexes of what failed, and of what comes after it, of each task of which there are any; None: all."""
    again: dict[str, set[int] | None] = {}
    for task_id, task in spec.tasks.items():
        own = set(failed.get(task_id, ()))
        for upstream in [upstream for upstream in task.upstream if upstream in again]:
            indexes = again[upstream]
            beside = task.map_group is not None and task.map_group == spec.tasks[upstream].map_group
            if not beside or indexes is None or -1 in indexes:
                again[task_id] = None
                break
            own |= indexes
        else:
            if own:
                again[task_id] = own
    return again

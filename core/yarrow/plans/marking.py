"""Works out what marking does to each task instance and its run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from yarrow.decide import RunView, TaskView, decide
from yarrow.errors import UsageError
from yarrow.plans.cleared import change_of, changes_of
from yarrow.plans.clearing import runs_again
from yarrow.plans.closure import reached
from yarrow.plans.plan import RunAction, RunChange, TaskAction, TaskChange
from yarrow.plans.requests import MARKS, MarkRequest
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
from yarrow.states import FAILED_TASK_STATES, RunState, TaskState

_LETS_OTHERS_GO_ON = (TaskState.SUCCESS, TaskState.SKIPPED)


def plan_mark(request: MarkRequest, situation: Situation) -> list[RunChange]:
    """What becomes of each run that the request is about, the earliest first.

    Raises:
        NotFound: A run that it names is not there.
        UsageError: It contradicts itself, or there is nothing that it could be about.
    """
    check(request)
    _check(request)
    runs = runs_of(request, situation)
    if request.runs:
        return [_marked_run(run, RunState(request.state)) for run in runs]
    found = selections(request, each_version(runs))
    return [_marked_tasks(request, run, found[run.version], situation) for run in runs]


def _check(request: MarkRequest) -> None:
    if request.state not in MARKS:
        raise UsageError(f"Nothing can be marked {request.state!r:.80}: choose one of {', '.join(MARKS)}.")
    if not request.runs:
        return
    if request.state == TaskState.SKIPPED:
        raise UsageError("A run is marked success or failed; only tasks can be marked skipped.")
    of_tasks = (request.upstream, request.downstream, request.only_failed, request.only_running)
    if request.tasks is not None or request.map_index is not None or any(of_tasks):
        raise UsageError("A run is marked as a whole: leave out what chooses tasks, or mark the tasks themselves.")


# Whole runs.


def _marked_run(run: RunFacts, state: RunState) -> RunChange:
    others_to = TaskState.SUCCESS if state is RunState.SUCCESS else TaskState.SKIPPED
    tasks = []
    for one in _in_order(run):
        if not one.state.finished:
            to_state = TaskState(state.value) if one.state is TaskState.RUNNING else others_to
            tasks += _mark(one, to_state, f"its run is marked {state.value}")
    if not tasks and run.state is state:
        return untouched(run, f"it is {state.value} already")
    return _change(run, tasks, state)


# Tasks.


def _marked_tasks(request: MarkRequest, run: RunFacts, selection: Selection, situation: Situation) -> RunChange:
    if reason := nothing_meant(request, run, selection):
        return untouched(run, reason)
    if not run.tasks:
        return untouched(run, "it has no task instances yet")
    state = TaskState(request.state)
    meant = instances_meant(request, run, run.spec, selection)
    chosen = [one for one in _in_order(run) if one.task_id in selection.whys and meant(one)]
    marks = [change for one in chosen for change in _mark(one, state, selection.whys[one.task_id])]
    if not marks:
        return untouched(run, _nothing_to_mark(request, chosen))
    tasks = marks
    if state in _LETS_OTHERS_GO_ON:
        tasks = _sorted(run, [*marks, *_freed(run, marks, chosen)])
    return _change(run, tasks, _state_after(run, tasks, situation))


def _nothing_to_mark(request: MarkRequest, chosen: Collection[TaskFacts]) -> str:
    if not chosen and request.only_failed:
        return "nothing that is selected has failed"
    if not chosen and request.only_running:
        return "nothing that is selected is running"
    return f"all that is selected is {request.state} already"


def _freed(run: RunFacts, marks: Sequence[TaskChange], chosen: Sequence[TaskFacts]) -> list[TaskChange]:
    """What failed or could not run after the marked tasks, and gets another chance."""
    after = reached(run.spec, {change.task_id for change in marks}, downstream=True)
    cleared = changes_of(run, after, only=lambda one: one.state in FAILED_TASK_STATES)
    own = {(one.task_id, one.map_index) for one in chosen}
    return [change for change in cleared if (change.task_id, change.map_index) not in own]


def _state_after(run: RunFacts, tasks: Sequence[TaskChange], situation: Situation) -> RunState:
    """The state of a run when some of its task instances have changed: of one that was over, its end by these."""
    if not run.state.finished:
        return run.state
    view = RunView(
        dag_id=situation.dag_id,
        run_id=run.run_id,
        state=RunState.RUNNING,
        logical_date=run.logical_date,
        data_interval_start=run.data_interval_start,
        data_interval_end=run.data_interval_end,
        params=run.params,
    )
    decisions = decide(run.spec, view, list(_views(run, tasks)), situation.now, {})
    if decisions.run is None or decisions.tasks or decisions.expansions:
        return RunState.QUEUED
    return decisions.run.to_state


def _views(run: RunFacts, tasks: Sequence[TaskChange]) -> Iterator[TaskView]:
    """The task instances of a run as they will be. What is being stopped counts as stopped."""
    changed = {(change.task_id, change.map_index): TaskState(change.to_state) for change in tasks}
    rows = instances(run)
    for task_id in run.spec.tasks:
        if task_id not in rows:
            yield TaskView(task_id, TaskState.REMOVED)
        for one in rows.get(task_id, ()):
            as_it_is = one.state if one.stopping_to is None else TaskState(one.stopping_to)
            state = changed.get((task_id, one.map_index), as_it_is)
            yield TaskView(
                task_id,
                state,
                one.try_number,
                one.max_tries,
                follow=one.follow,
                map_index=one.map_index,
                map_value=one.map_value,
            )


# Both.


def _in_order(run: RunFacts) -> list[TaskFacts]:
    rows = instances(run)
    return [one for task_id in run.spec.tasks for one in rows.get(task_id, ())]


def _sorted(run: RunFacts, tasks: Sequence[TaskChange]) -> list[TaskChange]:
    places = {task_id: place for place, task_id in enumerate(run.spec.tasks)}
    return sorted(tasks, key=lambda change: (places[change.task_id], change.map_index))


def _mark(one: TaskFacts, state: TaskState, why: str) -> list[TaskChange]:
    """The mark of a task instance; none when it is in that state or on its way there."""
    if state in (one.state, one.stopping_to):
        return []
    action = TaskAction.STOP_AND_MARK if one.state is TaskState.RUNNING else TaskAction.MARK
    return [change_of(one, action, state, why)]


def _change(run: RunFacts, tasks: Sequence[TaskChange], to_state: RunState) -> RunChange:
    return RunChange(
        run_id=run.run_id,
        logical_date=run.logical_date,
        action=RunAction.MARK,
        from_state=run.state.value,
        to_state=to_state.value,
        version=run.version,
        tasks=tuple(tasks),
        task_count=runs_again(tasks),
    )

"""Decides, from the states of a run and the time alone, which task instances may run and how the run ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from yarrow.errors import TemplateError
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.language.template import compile_expression, run_names, shorten
from yarrow.mapping import Instance
from yarrow.states import FAILED_TASK_STATES, RunState, TaskState
from yarrow.trigger_rules import Counts, Judgement, Verdict, judge


@dataclass(frozen=True, slots=True)
class TaskView:
    """What is known of one task instance.

    A mapped task has one instance with the index -1 until its `expand` is known, and then one for each value, from 0.
    """

    task_id: str
    state: TaskState
    try_number: int = 0
    max_tries: int = 1
    wait_until: datetime | None = None  # of a state that waits: when it is over
    follow: tuple[str, ...] | None = None  # what a control operator chose
    map_index: int = -1
    map_value: Mapping[str, Json] | None = None  # what `map.name` stands for
    stopping: bool = False  # running, and its worker has been told to stop it


@dataclass(frozen=True, slots=True)
class RunView:
    """What is known of one run. Instants are aware UTC."""

    dag_id: str
    run_id: str
    state: RunState
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    params: Mapping[str, Json]
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PastView:
    """The run before, as tasks with `depends_on_past` or `wait_for_downstream` have to know it."""

    run_id: str
    tasks: Mapping[str, Sequence[TaskState]]  # task id -> the states of its instances; a task it has not is absent


@dataclass(frozen=True, slots=True)
class Question:
    """What a task asks a person."""

    message: str
    default: str | None = None  # approve or reject: the answer when nobody gives one; None: it fails then
    due_at: datetime | None = None  # None: it waits for ever


@dataclass(frozen=True, slots=True)
class Expansion:
    """A mapped task becomes so many instances: its instance -1 gets the index 0, and the others are new.

    They are in the state `none` then. Later decisions name them by their index.
    """

    task_id: str
    values: tuple[Mapping[str, Json], ...]  # at least one


@dataclass(frozen=True, slots=True)
class TaskDecision:
    """One move of one task instance.

    From `running` it is a wish: its worker is told to stop it, and it ends in `to_state` when that has happened. From
    `queued` its attempt is taken back.
    """

    task_id: str
    from_state: TaskState
    to_state: TaskState
    reason: str | None = None
    map_index: int = -1
    question: Question | None = None  # to `awaiting_input`: what is asked
    answer: str | None = None  # from `awaiting_input`: approve or reject, by default
    follow: tuple[str, ...] | None = None  # from `awaiting_input`: () cuts off what comes after it


@dataclass(frozen=True, slots=True)
class RunDecision:
    """The end of a run."""

    from_state: RunState
    to_state: RunState
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Decisions:
    """All that is to be done about a run now; empty when nothing is. Expansions come first."""

    tasks: tuple[TaskDecision, ...] = ()
    run: RunDecision | None = None
    wait_until: datetime | None = None  # the next moment at which time alone changes something
    expansions: tuple[Expansion, ...] = ()


def decide(
    spec: DagSpec,
    run: RunView,
    tasks: Iterable[TaskView],
    now: datetime,
    xcoms: Mapping[Instance, Json],
    past: PastView | None = None,
) -> Decisions:
    """Returns everything that follows from the states, to the last consequence.

    Args:
        spec: The DAG, in the version of the run.
        run: The run; nothing is decided about one that is not running.
        tasks: Every task instance of the run.
        now: What is due.
        xcoms: The values of the XComs that the `when` and `expand` and the questions of the tasks name, of each
            instance that has one.
        past: The run before; None: there is none, or no task of the DAG cares.
    """
    if run.state is not RunState.RUNNING:
        return Decisions()
    deciding = _Deciding(spec, run, {view.task_id: view for view in tasks}, {name: v for (name, _), v in xcoms.items()})
    wait_until = deciding.retry(now)
    deciding.skip_what_was_not_chosen()
    deciding.start()
    end = deciding.end()
    return Decisions(tuple(deciding.decisions), end, None if end else wait_until)


class _Deciding:
    """The states of the tasks as they become, decision by decision."""

    def __init__(self, spec: DagSpec, run: RunView, tasks: Mapping[str, TaskView], xcoms: Mapping[str, Json]) -> None:
        self._spec = spec
        self._run = run
        self._tasks = tasks
        self._xcoms = xcoms
        self._states = {task_id: tasks[task_id].state for task_id in spec.tasks}
        self._waiting = [task_id for task_id, state in self._states.items() if state is TaskState.NONE]
        self._names: Mapping[str, object] | None = None
        self.decisions: list[TaskDecision] = []

    def _move(self, task_id: str, to_state: TaskState, reason: str | None = None) -> None:
        self.decisions.append(TaskDecision(task_id, self._states[task_id], to_state, reason))
        self._states[task_id] = to_state

    def retry(self, now: datetime) -> datetime | None:
        """Schedules the retries that are due. Returns when the next of the others is."""
        next_due: datetime | None = None
        for task_id, state in self._states.items():
            if state is not TaskState.UP_FOR_RETRY:
                continue
            due = self._tasks[task_id].wait_until
            if due is None or due <= now:
                self._move(task_id, TaskState.SCHEDULED)
            elif next_due is None or due < next_due:
                next_due = due
        return next_due

    def skip_what_was_not_chosen(self) -> None:
        """Skips the waiting tasks that a branch did not choose or that a short circuit cut off."""
        if not self._waiting:
            return
        for task_id, view in self._tasks.items():
            follow = view.follow
            if follow is None or view.state is not TaskState.SUCCESS or task_id not in self._states:
                continue
            if self._spec.tasks[task_id].operator == "short_circuit":
                unwanted, reason = self._cut_off(task_id, follow), f"`{task_id}` cut off what comes after it"
            else:
                unwanted, reason = self._not_chosen(task_id, follow), f"branch `{task_id}` did not choose it"
            for child in unwanted:
                if self._states[child] is TaskState.NONE:
                    self._move(child, TaskState.SKIPPED, reason)

    def _cut_off(self, task_id: str, follow: Sequence[str]) -> Iterable[str]:
        return () if follow else self._descendants(self._spec.downstream[task_id])

    def _not_chosen(self, task_id: str, follow: Sequence[str]) -> Iterable[str]:
        """The direct downstream tasks that are neither chosen nor somewhere downstream of a chosen one."""
        children = self._spec.downstream[task_id]
        unwanted = [child for child in children if child not in follow and self._states[child] is TaskState.NONE]
        if not unwanted:
            return ()
        reached = self._descendants(child for child in children if child in follow)
        return [child for child in unwanted if child not in reached]

    def _descendants(self, task_ids: Iterable[str]) -> Mapping[str, None]:
        """The tasks and all that is downstream of them, in the order in which they are reached."""
        found = dict.fromkeys(task_ids)
        waiting = list(found)
        while waiting:
            for child in self._spec.downstream[waiting.pop()]:
                if child not in found:
                    found[child] = None
                    waiting.append(child)
        return found

    def start(self) -> None:
        """Applies the trigger rules of the tasks that have not started.

        Tasks stand in a topological order, so one pass sees every consequence; another makes sure of it.
        """
        settled = True
        while self._waiting and settled:
            settled = False
            waiting, self._waiting = self._waiting, []
            for task_id in waiting:
                if self._states[task_id] is TaskState.NONE:
                    settled = self._start(self._spec.tasks[task_id]) or settled
                if self._states[task_id] is TaskState.NONE:
                    self._waiting.append(task_id)

    def _start(self, task: TaskSpec) -> bool:
        """Returns whether the task is finished by it, which others may have waited for."""
        judgement = self._judge(task)
        if judgement is None or judgement.verdict is Verdict.WAIT:
            return False
        if judgement.verdict is not Verdict.RUN:
            skipped = judgement.verdict is Verdict.SKIP
            state = TaskState.SKIPPED if skipped else TaskState.UPSTREAM_FAILED
            self._move(task.task_id, state, self._explain(task, judgement))
            return True
        if task.when is not None and not self._holds(task.task_id, task.when):
            return True
        if task.operator == "empty":  # there is nothing to execute
            self._move(task.task_id, TaskState.SUCCESS)
            return True
        self._move(task.task_id, TaskState.SCHEDULED)
        return False

    def _judge(self, task: TaskSpec) -> Judgement | None:
        """What the trigger rule says; None without asking it when no upstream task has ended."""
        success = skipped = failed = upstream_failed = removed = 0
        states = self._states
        for upstream in task.upstream:
            state = states[upstream]
            if state is TaskState.SUCCESS:
                success += 1
            elif state is TaskState.NONE:
                continue
            elif state is TaskState.SKIPPED:
                skipped += 1
            elif state is TaskState.FAILED:
                failed += 1
            elif state is TaskState.UPSTREAM_FAILED:
                upstream_failed += 1
            elif state is TaskState.REMOVED:
                removed += 1
        ended = success or skipped or failed or upstream_failed or removed
        if task.upstream and not ended and task.trigger_rule != "always":
            return None
        counts = Counts(len(task.upstream), success, skipped, failed, upstream_failed, removed)
        return judge(task.trigger_rule, counts)

    def _explain(self, task: TaskSpec, judgement: Judgement) -> str:
        """Why the trigger rule ended a task, naming the upstream task that brought it about."""
        reason = judgement.reason
        for upstream in task.upstream:
            if self._states[upstream] in judgement.because:
                reason = f"upstream task `{upstream}` {_ENDED[self._states[upstream]]}"
                break
        return reason if task.trigger_rule == "all_success" else f"{reason} (trigger rule `{task.trigger_rule}`)"

    def _holds(self, task_id: str, when: str) -> bool:
        """Whether the `when` of a task is true. If it is not, or makes no sense, the task ends here."""
        try:
            if compile_expression(when).render(self._context()):
                return True
        except TemplateError as error:
            self._move(task_id, TaskState.FAILED, f"`when` can't be evaluated: {error}")
            return False
        self._move(task_id, TaskState.SKIPPED, f"`when` is false: `{shorten(when)}`")
        return False

    def _context(self) -> Mapping[str, object]:
        if self._names is None:
            run = self._run
            names = run_names(
                dag_id=run.dag_id,
                run_id=run.run_id,
                logical_date=run.logical_date,
                data_interval_start=run.data_interval_start,
                data_interval_end=run.data_interval_end,
                timezone=self._spec.timezone,
            )
            self._names = {**names, "params": run.params, "xcom": self._xcoms}
        return self._names

    def end(self) -> RunDecision | None:
        """Ends the run when every task has ended, or when none of those left can ever run."""
        if any(state in _UNDER_WAY for state in self._states.values()):
            return None
        if self._waiting:
            return self._deadlock(self._waiting)
        states, downstream = self._states, self._spec.downstream
        broken = [task_id for task_id in states if not downstream[task_id] and states[task_id] in FAILED_TASK_STATES]
        if not broken:
            return RunDecision(RunState.RUNNING, RunState.SUCCESS)
        failed = [task_id for task_id, state in states.items() if state is TaskState.FAILED]
        return RunDecision(
            RunState.RUNNING,
            RunState.FAILED,
            _sentence(failed, "failed") if failed else _sentence(broken, "could not run"),
        )

    def _deadlock(self, left: Sequence[str]) -> RunDecision:
        for task_id in left:
            self._move(task_id, TaskState.UPSTREAM_FAILED, "deadlock: its trigger rule can never be met")
        reason = f"deadlock: nothing runs, and {_sentence(left, 'can never run')}"
        return RunDecision(RunState.RUNNING, RunState.FAILED, reason)


_UNDER_WAY = (TaskState.RUNNING, TaskState.QUEUED, TaskState.SCHEDULED, TaskState.UP_FOR_RETRY)

_ENDED: Mapping[TaskState, str] = {
    TaskState.SUCCESS: "succeeded",
    TaskState.SKIPPED: "was skipped",
    TaskState.FAILED: "failed",
    TaskState.UPSTREAM_FAILED: "could not run",
}

_NAMED = 5
"""How many tasks a sentence names."""


def _sentence(task_ids: Sequence[str], verb: str) -> str:
    """A sentence about one or several tasks: "tasks `a`, `b` and 3 more failed"."""
    named = [f"`{task_id}`" for task_id in task_ids[:_NAMED]]
    if len(task_ids) > _NAMED:
        named.append(f"{len(task_ids) - _NAMED} more")
    *others, last = named
    return f"tasks {', '.join(others)} and {last} {verb}" if others else f"task {last} {verb}"

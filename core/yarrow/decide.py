"""Decides, from the states of a run and the time alone, which task instances may run and how the run ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from yarrow import approvals
from yarrow.decision.choices import unwanted_instances
from yarrow.decision.decisions import (
    Decisions,
    Expansion,
    PastView,
    Question,
    RunDecision,
    RunView,
    TaskDecision,
    TaskView,
)
from yarrow.decision.judging import WITHOUT_RUNNING, group_verdict, verdict
from yarrow.decision.names import Names, holds
from yarrow.decision.past import unmet
from yarrow.decision.run_end import (
    DEADLOCK,
    end_of_run,
    fail_fast_reason,
    failed_run,
    failures,
    overdue,
    sentence,
    timeout_due,
)
from yarrow.decision.standing import Standing
from yarrow.decision.trigger_rules import Verdict
from yarrow.errors import TemplateError
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.language.template import shorten
from yarrow.mapping import Instance, expand, names_map
from yarrow.states import FINISHED_TASK_STATES, RunState, TaskState

__all__ = [
    "Decisions",
    "Expansion",
    "PastView",
    "Question",
    "RunDecision",
    "RunView",
    "TaskDecision",
    "TaskView",
    "decide",
]


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
    deciding = _Deciding(spec, run, tasks, now, xcoms, past)
    end = deciding.everything()
    wait_until = None if end else deciding.wait_until
    return Decisions(tuple(deciding.decisions), end, wait_until, tuple(deciding.expansions))


class _Deciding:
    """The states of the task instances as they become, decision by decision."""

    def __init__(
        self,
        spec: DagSpec,
        run: RunView,
        tasks: Iterable[TaskView],
        now: datetime,
        xcoms: Mapping[Instance, Json],
        past: PastView | None,
    ) -> None:
        self._spec = spec
        self._run = run
        self._now = now
        self._past = past
        self._standing = Standing(spec, tasks)
        self._names = Names(spec, run, xcoms)
        self._held: set[str] = set()  # the mapped tasks whose `when` was true for all their instances
        self._answered: list[tuple[str, int, tuple[str, ...]]] = []  # what approvals let follow, decided on just now
        self._open = self._standing.waiting_tasks()
        self._waits_for_past = False
        self._stopped = False
        self.decisions: list[TaskDecision] = []
        self.expansions: list[Expansion] = []
        self.wait_until: datetime | None = None

    def everything(self) -> RunDecision | None:
        """Decides on all there is to decide on. Returns the end of the run when it has come."""
        if (reason := overdue(self._spec, self._run, self._now)) is not None:
            self._stop(reason, TaskState.SKIPPED, teardowns_too=True)
            return None if self._under_way() else failed_run(reason)
        if (due := timeout_due(self._spec, self._run)) is not None:
            self._wait(due)
        self._fail_fast()
        self._wake()
        self._skip_what_was_not_chosen()
        self._start()
        return self._end()

    def _move(self, task_id: str, map_index: int, to_state: TaskState, reason: str | None = None) -> None:
        from_state = self._standing.move(task_id, map_index, to_state)
        self._note(TaskDecision(task_id, from_state, to_state, reason, map_index))

    def _note(self, decision: TaskDecision) -> None:
        self.decisions.append(decision)
        if decision.to_state is TaskState.FAILED:
            self._fail_fast()

    def _fail(self, task: TaskSpec, map_index: int, reason: str) -> None:
        if task.soft_fail:
            self._move(task.task_id, map_index, TaskState.SKIPPED, f"{reason} (soft_fail)")
        else:
            self._move(task.task_id, map_index, TaskState.FAILED, reason)

    def _wait(self, moment: datetime) -> None:
        if self.wait_until is None or moment < self.wait_until:
            self.wait_until = moment

    # Stopping a run.

    def _fail_fast(self) -> None:
        """Stops all but the teardowns when a task has failed and the DAG is to end at that."""
        if self._spec.fail_fast and not self._stopped and (failed := failures(self._spec, self._standing)):
            self._stop(fail_fast_reason(failed), TaskState.FAILED, teardowns_too=False)

    def _stop(self, reason: str, running_to: TaskState, *, teardowns_too: bool) -> None:
        """Stops the tasks that run, which end in `running_to` some time later, and skips all others that are left."""
        self._stopped = True
        made, self.decisions = self.decisions, []
        for decision in made:
            if decision.to_state.finished or self._spec.tasks[decision.task_id].teardown:
                self.decisions.append(decision)
            else:  # nothing has come of it yet
                self._standing.move(decision.task_id, decision.map_index, decision.from_state)
        for task_id, map_index in self._standing.those(_UNFINISHED):
            if self._spec.tasks[task_id].teardown and not teardowns_too:
                continue
            if self._standing.state(task_id, map_index) is not TaskState.RUNNING:
                self._move(task_id, map_index, TaskState.SKIPPED, reason)
            elif not self._told_to_stop(task_id, map_index):
                self.decisions.append(TaskDecision(task_id, TaskState.RUNNING, running_to, reason, map_index))

    def _told_to_stop(self, task_id: str, map_index: int) -> bool:
        view = self._standing.view(task_id, map_index)
        return view is not None and view.stopping

    # What time brings about.

    def _wake(self) -> None:
        """Ends the waits that are over, and notes when the next of the others is."""
        waiting = _WAITING & self._standing.present()
        if not waiting:
            return
        for task_id, map_index in self._standing.those(waiting):
            state, view = self._standing.state(task_id, map_index), self._standing.view(task_id, map_index)
            due = None if view is None else view.wait_until
            if state not in waiting:
                continue  # a question that nobody answered has failed, and with it the run
            if due is not None and due > self._now:
                self._wait(due)
            elif state is not TaskState.AWAITING_INPUT:
                self._move(task_id, map_index, TaskState.SCHEDULED)
            elif due is not None:
                self._answer_by_default(self._spec.tasks[task_id], map_index)

    def _answer_by_default(self, task: TaskSpec, map_index: int) -> None:
        answer, reason = approvals.default_answer(task), approvals.lateness(task)
        state, follow = approvals.outcome(task, answer)
        if state is TaskState.SKIPPED:
            reason = f"{reason} (soft_fail)"
        if follow is not None:
            self._answered.append((task.task_id, map_index, follow))
        from_state = self._standing.move(task.task_id, map_index, state)
        self._note(TaskDecision(task.task_id, from_state, state, reason, map_index, answer=answer, follow=follow))

    # What others chose.

    def _skip_what_was_not_chosen(self) -> None:
        """Skips the waiting tasks that a branch did not choose, or that a short circuit or an approval cut off."""
        if not self._open:
            return
        for task_id, map_index, follow in (*self._standing.chosen(), *self._answered):
            others, reason = unwanted_instances(self._spec, self._standing, task_id, map_index, follow)
            for other in others:
                self._move(*other, TaskState.SKIPPED, reason)

    # Starting what may run.

    def _start(self) -> None:
        """Applies the trigger rules of the tasks that have not started.

        Tasks stand in a topological order, so one pass sees every consequence; another makes sure of it.
        """
        settled = True
        single, tasks = self._standing.single, self._spec.tasks
        while self._open and settled:
            settled = False
            opened, self._open = self._open, []
            for task_id in opened:
                if single[task_id] is TaskState.NONE:
                    settled = self._start_single(tasks[task_id]) or settled
                if (state := single[task_id]) is None:
                    settled = self._start_several(tasks[task_id]) or settled
                    if self._standing.waits(task_id):
                        self._open.append(task_id)
                elif state is TaskState.NONE:
                    self._open.append(task_id)

    def _start_single(self, task: TaskSpec) -> bool:
        if task.map_group is not None:
            return self._expand_group(task)
        found, reason = verdict(self._spec, self._standing, task, -1)
        return found is not Verdict.WAIT and self._apply(task, -1, found, reason)

    def _start_several(self, task: TaskSpec) -> bool:
        alike = verdict(self._spec, self._standing, task, 0) if task.map_group is None else None
        settled = False
        for task_id, index in self._standing.those((TaskState.NONE,), (task.task_id,)):
            if self._standing.state(task_id, index) is TaskState.NONE:  # and not stopped meanwhile
                found, reason = alike or verdict(self._spec, self._standing, task, index)
                settled = self._apply(task, index, found, reason) or settled
        return settled

    def _apply(self, task: TaskSpec, map_index: int, found: Verdict, reason: str | None) -> bool:
        """Returns whether something has come of it that other tasks may have waited for."""
        if found is Verdict.WAIT:
            return False
        if found is not Verdict.RUN:
            self._move(task.task_id, map_index, WITHOUT_RUNNING[found], reason)
            return True
        if self._past is not None and unmet(task, self._spec.downstream[task.task_id], self._past) is not None:
            self._waits_for_past = True
            return False
        if task.expand is not None and map_index < 0:
            return self._expand(task)
        if task.when is not None and task.task_id not in self._held and not self._holds(task, map_index, task.when):
            return True
        if task.operator == "empty":  # there is nothing to execute
            self._move(task.task_id, map_index, TaskState.SUCCESS)
            return True
        if task.operator == approvals.OPERATOR:
            return self._ask(task, map_index)
        self._move(task.task_id, map_index, TaskState.SCHEDULED)
        return False

    def _holds(self, task: TaskSpec, map_index: int, when: str) -> bool:
        """Whether the `when` of an instance is true. If it is not, or makes no sense, the instance ends here."""
        try:
            if holds(when, self._context(task, map_index)):
                return True
        except TemplateError as error:
            self._fail(task, map_index, f"`when` can't be evaluated: {error}")
            return False
        self._move(task.task_id, map_index, TaskState.SKIPPED, f"`when` is false: `{shorten(when)}`")
        return False

    def _ask(self, task: TaskSpec, map_index: int) -> bool:
        try:
            question = approvals.question(task, self._context(task, map_index), self._now)
        except TemplateError as error:
            self._fail(task, map_index, str(error))
            return True
        from_state = self._standing.move(task.task_id, map_index, TaskState.AWAITING_INPUT)
        self._note(TaskDecision(task.task_id, from_state, TaskState.AWAITING_INPUT, None, map_index, question))
        if question.due_at is not None:
            self._wait(question.due_at)
        return False

    def _context(self, task: TaskSpec, map_index: int) -> Mapping[str, object]:
        return self._names.of(task, map_index, self._standing.map_value(task.task_id, map_index))

    # Mapped tasks.

    def _expand(self, task: TaskSpec) -> bool:
        """Makes a mapped task that may run its instances."""
        if task.when is not None and not names_map(task.when):
            if not self._holds(task, -1, task.when):
                return True
            self._held.add(task.task_id)
        self._become(task, (task.task_id,))
        return True

    def _expand_group(self, task: TaskSpec) -> bool:
        """Makes all tasks of a mapped group their instances, when all have ended over whose XComs it is mapped."""
        assert task.map_group is not None
        single = self._standing.single
        members = [name for name in self._spec.map_groups[task.map_group] if single[name] is TaskState.NONE]
        found, reason = group_verdict(self._standing, task)
        if found is Verdict.WAIT:
            return False
        if found in WITHOUT_RUNNING:
            for name in members:
                self._move(name, -1, WITHOUT_RUNNING[found], reason)
        else:
            self._become(task, members)
        return True

    def _become(self, task: TaskSpec, members: Iterable[str]) -> None:
        """Makes tasks that are mapped over the same values their instances; without any values they are skipped."""
        try:
            values = tuple(expand(task, self._context(task, -1)))
        except TemplateError as error:
            for name in members:
                if self._standing.single[name] is TaskState.NONE:
                    self._fail(self._spec.tasks[name], -1, str(error))
            return
        for name in members:
            if values:
                self.expansions.append(Expansion(name, values))
                self._standing.expand(name, values)
            else:
                self._move(name, -1, TaskState.SKIPPED, "`expand` is empty")

    # The end.

    def _under_way(self) -> bool:
        return not self._standing.present().isdisjoint(_UNDER_WAY)

    def _end(self) -> RunDecision | None:
        """Ends the run when every task has ended, or when none of those left can ever run."""
        if self._under_way():
            return None
        if not self._open:
            return end_of_run(self._spec, self._standing)
        if self._waits_for_past:
            return None
        left = self._standing.those((TaskState.NONE,))
        for task_id, map_index in left:
            self._move(task_id, map_index, TaskState.UPSTREAM_FAILED, DEADLOCK)
        return failed_run(f"deadlock: nothing runs, and {sentence(left, 'can never run')}")


_WAITING = frozenset({TaskState.UP_FOR_RETRY, TaskState.UP_FOR_RESCHEDULE, TaskState.AWAITING_INPUT})
_UNDER_WAY = _WAITING | {TaskState.RUNNING, TaskState.QUEUED, TaskState.SCHEDULED}
_UNFINISHED = frozenset(TaskState) - FINISHED_TASK_STATES

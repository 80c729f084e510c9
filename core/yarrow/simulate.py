"""Simulates a run under given outcomes of its tasks: the decisions of a scheduler, on a clock that costs no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from yarrow import approvals
from yarrow.clock import utc_now
from yarrow.decide import Decisions, Expansion, PastView, Question, RunView, TaskDecision, TaskView, decide
from yarrow.decision.trigger_rules import TEARDOWN_RULE
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.language.template import template_names
from yarrow.mapping import Instance, visible_xcoms
from yarrow.params import run_params
from yarrow.protocol import Report
from yarrow.simulation.choosing import CHOOSERS, choose
from yarrow.simulation.outcomes import (
    NOBODY,
    Outcome,
    answer_of,
    checked_answers,
    checked_outcomes,
    checked_xcoms,
    instance_name,
)
from yarrow.simulation.unknowns import Assumed, assume, decisive_xcoms, given_xcoms, unknown_map, xcoms_of
from yarrow.states import AttemptState, RunState, TaskState, summary_of
from yarrow.timetable import trial_run
from yarrow.verdict import verdict

__all__ = ["Outcome", "SimulatedTask", "Simulation", "instance_name", "simulate"]

_GIVEN = "as given"
_PATIENT_RULES = frozenset(
    {
        "all_success",
        "all_done",
        "all_done_min_one_success",
        "none_failed",
        "none_failed_min_one_success",
        "none_skipped",
        TEARDOWN_RULE,
    }
)
"""Trigger rules that a success tells nothing as long as another upstream task has not ended."""


@dataclass(frozen=True, slots=True)
class SimulatedTask:
    """How one task instance ends."""

    task_id: str
    map_index: int  # -1: the task is not mapped, or never got so far
    state: TaskState
    reason: str | None = None
    tries: int = 0
    follow: tuple[str, ...] | None = None  # what it chose, if it is one that chooses; (): nothing
    map_value: Mapping[str, Json] | None = None  # what `map.name` stands for


@dataclass(frozen=True, slots=True)
class Simulation:
    """How a run would go."""

    view: RunView  # its dates and params
    state: RunState  # running: it waits for the run before, or for an answer
    reason: str | None
    instances: tuple[SimulatedTask, ...]  # in the order of the DAG and of their indexes
    order: tuple[Instance, ...]  # the task instances that start, in this order
    notes: tuple[str, ...]  # what had to be assumed, as sentences
    xcoms: Mapping[Instance, Json]  # the XComs that are known

    @property
    def tasks(self) -> dict[str, TaskState]:
        """The state of each task; of a mapped one the state that counts most of those of its instances."""
        found: dict[str, list[TaskState]] = {}
        for one in self.instances:
            found.setdefault(one.task_id, []).append(one.state)
        return {task_id: summary_of(states) for task_id, states in found.items()}


def simulate(
    spec: DagSpec,
    *,
    outcomes: Mapping[str, Outcome] | None = None,
    xcoms: Mapping[str, Json] | None = None,
    params: Mapping[str, Json] | None = None,
    logical_date: datetime | None = None,
    answers: Mapping[str, str] | None = None,
    order: Sequence[Instance] = (),
    past: PastView | None = None,
    now: datetime | None = None,
) -> Simulation:
    """Returns how a run would go. Nothing is executed but `branch` and `short_circuit`; nothing is read or written.

    Every task that may run does so at once, and they end one after the other without taking time; only retries and
    deadlines move the clock. `decide` is asked after each end, as the scheduler asks it.

    Args:
        spec: The DAG.
        outcomes: Task id, or `task[2]` for one instance of a mapped task -> how it ends when it runs; success by
            default. `failed` fails all its tries. An approval is approved by success and rejected by failed.
            A `branch` or `short_circuit` without a choice is executed, if all that it names is known.
        xcoms: Task id -> its XCom; of a mapped task the list of those of its instances. They count for tasks that
            succeed.
        params: Those that are not to be at their default.
        logical_date: Aware. By default that of the newest data interval that is complete, else `now`.
        answers: Task id of an approval -> approve, reject or nobody: then its deadline passes.
        order: Of the task instances that run, the one that stands first here ends next; the others end in the order
            in which they started.
        past: The run before, for `depends_on_past`; None: there is none.
        now: Aware. When the run starts; by default at this moment.

    Raises:
        UsageError: An outcome, answer or XCom does not fit the DAG.
        InvalidParams: The params do not fit.
    """
    checked = checked_outcomes(spec, outcomes or {})
    told = checked_answers(spec, checked, answers or {})
    checked_xcoms(spec, xcoms or {})
    started_at = (now or utc_now()).astimezone(UTC)
    interval = trial_run(spec, logical_date, started_at)
    view = RunView(
        dag_id=spec.dag_id,
        run_id=f"simulated__{interval.logical_date.isoformat()}",
        state=RunState.RUNNING,
        logical_date=interval.logical_date,
        data_interval_start=interval.data_interval_start,
        data_interval_end=interval.data_interval_end,
        params=run_params(spec, params or {}),
        started_at=started_at,
    )
    return _Run(_with_work(spec, checked), view, checked, told, xcoms or {}, order, past).to_the_end()


def _with_work(spec: DagSpec, outcomes: Mapping[Instance, Outcome]) -> DagSpec:
    """The DAG in which an `empty` task that is to fail has something to execute."""
    unlike = {
        task_id: replace(spec.tasks[task_id], operator="simulated")
        for (task_id, _), outcome in outcomes.items()
        if spec.tasks[task_id].operator == "empty" and outcome.state is not TaskState.SUCCESS
    }
    return replace(spec, tasks={**spec.tasks, **unlike}) if unlike else spec


class _Run:
    """One run: the states of its task instances in memory, moved on by decisions and outcomes."""

    def __init__(
        self,
        spec: DagSpec,
        view: RunView,
        outcomes: Mapping[Instance, Outcome],
        answers: Mapping[str, str],
        xcoms: Mapping[str, Json],
        order: Sequence[Instance],
        past: PastView | None,
    ) -> None:
        self._spec = spec
        self._view = view
        self._outcomes = outcomes
        self._answers = answers
        self._given = xcoms
        self._ranks = {instance: rank for rank, instance in enumerate(order)}
        self._past = past
        self._places = {task_id: place for place, task_id in enumerate(spec.tasks)}
        assert view.started_at is not None
        self._now = view.started_at
        self._tasks = {
            (task_id, -1): TaskView(task_id, TaskState.NONE, max_tries=task.retries + 1)
            for task_id, task in spec.tasks.items()
        }
        self._reasons: dict[Instance, str | None] = {}
        self._running: list[Instance] = []  # in the order in which they started
        self._order: dict[Instance, None] = {}
        self._xcoms: dict[Instance, Json] = {}
        self._unknown: set[str] = set()  # tasks that succeeded with an XCom that nobody knows
        self._decisive = decisive_xcoms(spec)
        self._assumed = Assumed(spec)
        self._notes: dict[str, None] = {}

    def to_the_end(self) -> Simulation:
        while True:
            decisions = decide(self._assumed.spec, self._view, self._tasks.values(), self._now, self._xcoms, self._past)
            self._apply(decisions)
            if decisions.run is not None:
                return self._result(decisions.run.to_state, decisions.run.reason)
            self._start()
            if any(move.from_state is TaskState.RUNNING for move in decisions.tasks):
                continue  # they were stopped, and something may follow from that
            if self._running:
                while self._is_one_of_many(self._end_next()):
                    pass
            elif decisions.wait_until is not None:
                self._now = max(decisions.wait_until, self._now + timedelta(microseconds=1))
            elif not (decisions.tasks or decisions.expansions):
                return self._result(RunState.RUNNING, "it waits for the run before, or for an answer")

    def _apply(self, decisions: Decisions) -> None:
        for expansion in decisions.expansions:
            self._expand(expansion)
        for decision in decisions.tasks:
            self._move(decision)

    def _expand(self, expansion: Expansion) -> None:
        before = self._tasks.pop((expansion.task_id, -1))
        for index, value in enumerate(expansion.values):
            self._tasks[expansion.task_id, index] = replace(before, map_index=index, map_value=value)
        self._note(self._assumed.lists.get(expansion.task_id))

    def _move(self, decision: TaskDecision) -> None:
        instance = (decision.task_id, decision.map_index)
        view = replace(self._tasks[instance], state=decision.to_state, wait_until=None)
        if decision.follow is not None:
            view = replace(view, follow=decision.follow)
        self._tasks[instance] = view
        self._reasons[instance] = decision.reason
        if instance in self._running:
            self._running.remove(instance)
        began = decision.to_state in (TaskState.SCHEDULED, TaskState.SUCCESS, TaskState.AWAITING_INPUT)
        if decision.from_state is TaskState.NONE and began:
            self._note(self._assumed.whens.get(decision.task_id))
        if decision.to_state is TaskState.SUCCESS and decision.from_state is TaskState.NONE:
            self._order.setdefault(instance)
            self._xcoms.update(given_xcoms(self._given, [instance]))
        if decision.to_state is TaskState.AWAITING_INPUT:
            assert decision.question is not None
            self._ask(instance, decision.question)
        elif decision.answer is not None and decision.to_state is TaskState.SUCCESS:
            self._keep_answer(instance, decision.answer, "default")

    def _ask(self, instance: Instance, question: Question) -> None:
        self._order.setdefault(instance)
        self._tasks[instance] = replace(self._tasks[instance], wait_until=question.due_at)
        if self._answer(instance) != NOBODY:
            self._running.append(instance)

    def _answer(self, instance: Instance) -> str:
        """What is answered to a question: as one instance is told, else as its task is."""
        own = self._outcomes.get(instance) if instance[1] >= 0 else None
        return self._answers[instance[0]] if own is None else answer_of(own)

    def _start(self) -> None:
        """Starts what is scheduled, by priority as slots would be given."""
        ready = [instance for instance, view in self._tasks.items() if view.state is TaskState.SCHEDULED]
        weights = self._spec.weights if len(ready) > 1 else {}
        for instance in sorted(ready, key=lambda one: (-weights.get(one[0], 0), self._places[one[0]], one[1])):
            view = self._tasks[instance]
            self._tasks[instance] = replace(view, state=TaskState.RUNNING, try_number=view.try_number + 1)
            self._running.append(instance)
            self._order.setdefault(instance)

    def _end_next(self) -> Instance:
        """Ends the one of those that run whose turn it is."""
        instance = self._running[0]
        if self._ranks:
            instance = min(self._running, key=lambda other: self._ranks.get(other, len(self._ranks)))
        self._end(instance)
        return instance

    def _is_one_of_many(self, instance: Instance) -> bool:
        """Whether nothing follows from what an instance came to: it succeeded, and all after it wait for others of it.

        A scheduler would be asked all the same; of thousands of instances that takes too long.
        """
        task, view = self._spec.tasks[instance[0]], self._tasks[instance]
        return (
            instance[1] >= 0
            and task.map_group is None
            and view.state is TaskState.SUCCESS
            and any(other[0] == instance[0] for other in self._running)
            and all(
                self._spec.tasks[child].trigger_rule in _PATIENT_RULES for child in self._spec.downstream[instance[0]]
            )
        )

    def _end(self, instance: Instance) -> None:
        """Ends a try, or gives the answer to a question."""
        self._running.remove(instance)
        view = self._tasks[instance]
        task = self._spec.tasks[instance[0]]
        if view.state is TaskState.AWAITING_INPUT:
            self._reply(task, instance)
            return
        report = self._report(task, instance)
        judged = verdict(
            task,
            report,
            dag_id=self._spec.dag_id,
            logical_date=self._view.logical_date,
            try_number=view.try_number,
            max_tries=view.max_tries,
            at=self._now,
            map_index=instance[1],
        )
        follow = None if judged.follow is None else tuple(judged.follow)
        self._tasks[instance] = replace(view, state=judged.state, wait_until=judged.wait_until, follow=follow)
        self._reasons[instance] = judged.reason
        if judged.state is TaskState.SUCCESS:
            self._succeed(instance, report)

    def _succeed(self, instance: Instance, report: Report) -> None:
        given = given_xcoms(self._given, [instance])
        if given:
            self._xcoms.update(given)
        elif report.has_xcom:
            self._xcoms[instance] = report.xcom
        elif instance[0] not in self._unknown:
            self._unknown.add(instance[0])
            if instance[0] in self._decisive:
                self._assumed = assume(self._spec, self._unknown)

    def _reply(self, task: TaskSpec, instance: Instance) -> None:
        """Approves or rejects."""
        answer = self._answer(instance)
        state, follow = approvals.outcome(task, answer)
        self._tasks[instance] = replace(self._tasks[instance], state=state, follow=follow, wait_until=None)
        done = "approved" if answer == approvals.APPROVE else "rejected"
        self._reasons[instance] = f"{done} {_GIVEN}" if self._outcome(instance) else done
        if state is TaskState.SUCCESS:
            self._keep_answer(instance, answer, "simulation")

    def _keep_answer(self, instance: Instance, answer: str, by: str) -> None:
        value: Json = {"approved": answer == approvals.APPROVE, "by": by, "comment": None, "at": self._now.isoformat()}
        self._xcoms[instance] = given_xcoms(self._given, [instance]).get(instance, value)

    def _outcome(self, instance: Instance) -> Outcome | None:
        return self._outcomes.get(instance) or self._outcomes.get((instance[0], -1))

    def _report(self, task: TaskSpec, instance: Instance) -> Report:
        """How a try ends: as given, or as the choice of a control operator comes out."""
        outcome = self._outcome(instance)
        name = instance_name(instance)
        if outcome is not None and outcome.state is not TaskState.SUCCESS:
            # An error of a kind for which there are retries.
            return Report(name, outcome.state.value, reason=_GIVEN, kinds=task.retry_on)
        if outcome is not None and outcome.follow is not None:
            xcom: Json = {"follow": list(outcome.follow)}
            return Report(name, AttemptState.SUCCESS, xcom=xcom, has_xcom=True, follow=outcome.follow)
        if task.operator not in CHOOSERS:
            return Report(name, AttemptState.SUCCESS)
        unknown = self._why_unknown(task, instance)
        if unknown is None:
            view = self._tasks[instance]
            visible = visible_xcoms(self._spec, instance, task.xcoms, self._xcoms)
            return choose(self._spec, self._view, view, visible, self._now)
        self._note(
            f"`{name}` goes on to everything that comes after it: it names {unknown}. "
            f"Say what it chooses with `{task.task_id}=success:...`."
        )
        return Report(name, AttemptState.SUCCESS)

    def _why_unknown(self, task: TaskSpec, instance: Instance) -> str | None:
        """What a control operator would have to know; None: nothing is missing."""
        missing = self._unknown.intersection(task.xcoms)
        if missing:
            return xcoms_of(missing)
        if task.variables or task.connections:
            return "a variable or a connection, which a simulation does not look up"
        return unknown_map(template_names(task.arguments), self._assumed.unknown_maps.get(task.task_id, ()))

    def _note(self, sentence: str | None) -> None:
        if sentence is not None:
            self._notes.setdefault(sentence)

    def _result(self, state: RunState, reason: str | None) -> Simulation:
        instances = sorted(self._tasks, key=lambda one: (self._places[one[0]], one[1]))
        for task_id, index in self._outcomes:
            if index >= 0 and (task_id, index) not in self._tasks:
                self._note(f"The outcome of `{task_id}[{index}]` is not used: there is no such task instance.")
        return Simulation(
            view=replace(self._view, state=state),
            state=state,
            reason=reason,
            instances=tuple(self._simulated(instance) for instance in instances),
            order=tuple(self._order),
            notes=tuple(self._notes),
            xcoms=self._xcoms,
        )

    def _simulated(self, instance: Instance) -> SimulatedTask:
        view = self._tasks[instance]
        return SimulatedTask(
            task_id=instance[0],
            map_index=instance[1],
            state=view.state,
            reason=self._reasons.get(instance),
            tries=view.try_number,
            follow=view.follow,
            map_value=view.map_value,
        )

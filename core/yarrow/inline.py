"""Runs a DAG, or one task of it, in this one process: the same decisions and attempts, and no service at all."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from yarrow import attempt
from yarrow.approvals import APPROVE, outcome
from yarrow.captured import captured
from yarrow.clock import Clock, utc_now
from yarrow.config import Config
from yarrow.connections import resolve_connections, resolve_variables
from yarrow.context import CachedResult, Services, Surroundings
from yarrow.dag_result import DagResult, Event, Moved, Printed, Progressed, TaskResult, Triggered
from yarrow.decide import Decisions, Expansion, Question, RunView, TaskDecision, TaskView, decide
from yarrow.errors import NotFound, UsageError, YarrowError
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.mapping import Instance, visible_xcoms
from yarrow.operator import Operator, OtherState
from yarrow.params import run_params
from yarrow.protocol import Assignment, Report
from yarrow.secrets import masker_for
from yarrow.simulation.outcomes import instance_name
from yarrow.states import AttemptState, RunState, TaskState, summary_of
from yarrow.timetable import trial_run
from yarrow.verdict import verdict

_INTERRUPTIONS = 3
"""How often a task may say that it was interrupted; here nobody does interrupt it."""

_LOOKS = 100
"""How often a try may be put off: time is skipped here, and what a sensor waits for will hardly come meanwhile."""


Instead = Callable[[TaskSpec, int], Operator | None]
"""Gives the operator to execute in place of a task's own, for a try; None: its own."""

Answer = Callable[[TaskSpec, Question], str | None]
"""Answers the question of an approval: approve or reject; None: nobody does, and its deadline passes."""


def agreeable(_task: TaskSpec, question: Question) -> str:
    """The default answer of an approval; where it has none, it is approved."""
    return question.default or APPROVE


@dataclass(frozen=True, kw_only=True)
class Inline:
    """Runs DAGs in the calling thread, so that a debugger stops in the code of a task.

    The tasks run one after the other, by priority and in the order of the file. Retry delays are not waited for.
    `execution_timeout`, pools and queues do not count here.

    Args:
        config: Where variables and connections are looked up, after the environment, and its `worker_python_path`.
        env: The environment.
        work: The folder for work folders, data sets and large XComs.
        clock: Tells the time.
        dags_folder: Where relative paths of input files begin.
        echo: Whether what tasks print is shown as well.
        notify: Called with each event as it happens.
        instead: Gives operators to execute in place of tasks' own; nothing is rendered or looked up for them.
        answer: Answers approvals.
    """

    work: Path
    config: Config = field(default_factory=Config)
    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = utc_now
    dags_folder: Path = Path("dags")
    echo: bool = True
    notify: Callable[[Event], None] = lambda event: None
    instead: Instead = lambda task, try_number: None
    answer: Answer = agreeable

    def run(
        self, spec: DagSpec, *, logical_date: datetime | None = None, params: Mapping[str, Json] | None = None
    ) -> DagResult:
        """Runs a DAG to its end.

        Args:
            spec: The DAG.
            logical_date: Aware. By default that of the newest data interval that is complete, else this moment.
            params: Those that are not to be at their default.

        Raises:
            InvalidParams: The params do not fit.
            KeyboardInterrupt: The user asked for it; nothing of the run is left.
        """
        with _importable(self.config.worker_python_path):
            return _Run(self, spec, logical_date, params or {}).to_the_end()

    def run_task(
        self,
        spec: DagSpec,
        task_id: str,
        *,
        logical_date: datetime | None = None,
        params: Mapping[str, Json] | None = None,
        xcoms: Mapping[str, Json] | None = None,
    ) -> DagResult:
        """Runs one task once, whatever its trigger rule, `when` and retries say.

        Args:
            spec, logical_date, params: As for `run`.
            task_id: The task.
            xcoms: The XComs of the upstream tasks that its templates name.

        Raises:
            NotFound: There is no such task.
            UsageError: An XCom is missing.
        """
        task = spec.tasks.get(task_id)
        if task is None:
            listed = ", ".join(f"`{name}`" for name in spec.tasks)
            raise NotFound(f"The DAG `{spec.dag_id}` has no task `{task_id}`.", hint=f"It has {listed}.")
        missing = [f"`{name}`" for name in task.xcoms if name not in (xcoms or {})]
        if missing:
            raise UsageError(
                f"The task `{task_id}` needs the XCom of {', '.join(missing)}, which is not there.",
                hint="Give it, or run the whole DAG.",
            )
        if task.mapped:
            raise UsageError(
                f"The task `{task_id}` is mapped: only a run of the whole DAG expands it.",
                hint="Run the whole DAG.",
            )
        alone = replace(spec, tasks={task_id: replace(task, upstream=(), when=None, retries=0)})
        following = spec.downstream[task_id]
        with _importable(self.config.worker_python_path):
            return _Run(self, alone, logical_date, params or {}, xcoms or {}, {task_id: following}).to_the_end()


@contextlib.contextmanager
def _importable(folders: Sequence[str]) -> Iterator[None]:
    """Lets modules be found in these folders first, as a worker does."""
    before = list(sys.path)
    sys.path[:0] = [folder for folder in folders if folder not in before]
    try:
        yield
    finally:
        sys.path[:] = before


class _Run:
    """One run: the states of its task instances in memory, moved on by decisions and attempts."""

    def __init__(
        self,
        inline: Inline,
        spec: DagSpec,
        logical_date: datetime | None,
        params: Mapping[str, Json],
        xcoms: Mapping[str, Json] | None = None,
        downstream: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._inline = inline
        self._spec = spec
        self._downstream = downstream or spec.downstream
        self._given = dict(xcoms or {})
        self._skipped_time = timedelta(0)
        interval = trial_run(spec, logical_date, self._now())
        self._view = RunView(
            dag_id=spec.dag_id,
            run_id=f"inline__{interval.logical_date.isoformat()}",
            state=RunState.RUNNING,
            logical_date=interval.logical_date,
            data_interval_start=interval.data_interval_start,
            data_interval_end=interval.data_interval_end,
            params=run_params(spec, params),
            started_at=self._now(),
        )
        self._views: dict[Instance, TaskView] = {
            (task_id, -1): TaskView(task_id, TaskState.NONE, max_tries=task.retries + 1)
            for task_id, task in spec.tasks.items()
        }
        self._results = {instance: TaskResult(instance[0], TaskState.NONE) for instance in self._views}
        self._xcoms: dict[Instance, Json] = {}
        self._interruptions: Counter[Instance] = Counter()
        self._first_started: dict[tuple[Instance, int], datetime] = {}  # of each try
        self._looks: Counter[tuple[Instance, int]] = Counter()
        self._triggered: list[Triggered] = []

    def to_the_end(self) -> DagResult:
        while True:
            decisions = decide(self._spec, self._view, self._views.values(), self._now(), self._xcoms)
            self._apply(decisions)
            if decisions.run is not None:
                return self._result(decisions.run.to_state, decisions.run.reason)
            if decisions.expansions:
                continue
            instance = self._next()
            if instance is not None:
                self._attempt(instance)
            elif not any(decision.question for decision in decisions.tasks):
                assert decisions.wait_until is not None, "a run that has not ended waits for something"
                self._skipped_time += max(decisions.wait_until - self._now(), timedelta(0))

    def _now(self) -> datetime:
        return self._inline.clock() + self._skipped_time

    # Decisions

    def _apply(self, decisions: Decisions) -> None:
        for expansion in decisions.expansions:
            self._expand(expansion)
        for decision in decisions.tasks:
            instance = (decision.task_id, decision.map_index)
            if decision.follow is not None:
                self._views[instance] = replace(self._views[instance], follow=decision.follow)
            self._move(instance, decision.to_state, decision.reason)
            if decision.question is not None:
                self._ask(instance, decision.question)
            elif decision.answer is not None:
                self._note_answer(instance, decision)

    def _expand(self, expansion: Expansion) -> None:
        before = self._views.pop((expansion.task_id, -1))
        del self._results[expansion.task_id, -1]
        for index, value in enumerate(expansion.values):
            instance = (expansion.task_id, index)
            self._views[instance] = replace(before, map_index=index, map_value=value)
            self._results[instance] = TaskResult(expansion.task_id, TaskState.NONE, map_index=index)

    def _ask(self, instance: Instance, question: Question) -> None:
        """Has an approval answered, or lets its deadline pass."""
        task = self._spec.tasks[instance[0]]
        self._inline.notify(Printed(instance_name(instance), question.message))
        answer = self._inline.answer(task, question)
        if answer is None:
            self._views[instance] = replace(self._views[instance], wait_until=question.due_at)
            if question.due_at is None:
                raise UsageError(f"The approval `{task.task_id}` has no `timeout`, and nobody answers it.")
            return
        state, follow = outcome(task, answer)
        self._views[instance] = replace(self._views[instance], follow=follow)
        self._note_answer(instance, TaskDecision(task.task_id, TaskState.AWAITING_INPUT, state, answer=answer))
        self._move(instance, state, f"answered in a test run: {answer}")

    def _note_answer(self, instance: Instance, decision: TaskDecision) -> None:
        approved = decision.answer == APPROVE
        answer: Json = {"approved": approved, "by": "test", "comment": None, "at": self._now().isoformat()}
        self._xcoms[instance] = answer
        self._results[instance] = replace(self._results[instance], xcom=answer)

    # Attempts

    def _next(self) -> Instance | None:
        ready = [instance for instance, view in self._views.items() if view.state is TaskState.SCHEDULED]
        return max(ready, key=lambda instance: self._spec.weights[instance[0]], default=None)

    def _attempt(self, instance: Instance) -> None:
        """Executes one try and draws its consequences."""
        task = self._spec.tasks[instance[0]]
        try_number = self._views[instance].try_number + 1
        self._views[instance] = replace(self._views[instance], try_number=try_number)
        self._move(instance, TaskState.RUNNING, None)
        lines: list[str] = []
        assignment, report = self._execute(task, instance, try_number, lines)
        before = self._results[instance]
        self._results[instance] = replace(before, log=(*before.log, *lines), metrics=report.metrics)
        self._finish(task, instance, try_number, report)
        attempt.discard_work(assignment, report, self._surroundings().work_root)

    def _execute(
        self, task: TaskSpec, instance: Instance, try_number: int, lines: list[str]
    ) -> tuple[Assignment, Report]:
        assignment = self._assignment(task, instance, try_number)
        instead = self._inline.instead(task, try_number)
        if instead is None:
            try:
                assignment = self._with_secrets(assignment, task)
            except YarrowError as error:
                reason = str(error)
                return assignment, Report(assignment.attempt_id, AttemptState.FAILED, reason=reason, retryable=False)
        name = instance_name(instance)

        def take(line: str) -> None:
            lines.append(line)
            self._inline.notify(Printed(name, line))

        masker = masker_for(assignment.connections, assignment.variables)
        with captured(take, masker, echo=self._inline.echo) as log:
            report = attempt.execute(
                assignment,
                config=self._surroundings(),
                services=_InlineServices(name, self._inline.notify, self._triggered),
                log=log,
                clock=self._now,
                operator=instead,
            )
        return assignment, report

    def _finish(self, task: TaskSpec, instance: Instance, try_number: int, report: Report) -> None:
        """Draws the consequences of a report, as the store does."""
        view = self._views[instance]
        if report.state == AttemptState.CANCELLED:
            self._interruptions[instance] += 1
            if self._interruptions[instance] > _INTERRUPTIONS:
                report = replace(report, state=AttemptState.FAILED)
        if report.state == AttemptState.DEFERRED:
            self._looks[instance, try_number] += 1
            if self._looks[instance, try_number] > _LOOKS:
                reason = f"{report.reason} It has looked {_LOOKS} times, and a test run does not wait any longer."
                report = replace(report, state=AttemptState.FAILED, reason=reason, retryable=False)
        judged = verdict(
            task,
            report,
            dag_id=self._spec.dag_id,
            logical_date=self._view.logical_date,
            try_number=try_number,
            max_tries=view.max_tries,
            map_index=view.map_index,
            at=self._now(),
        )
        # What is put off goes on as the same try.
        tries = judged.try_number - (judged.state is TaskState.UP_FOR_RESCHEDULE)
        follow = None if judged.follow is None else tuple(judged.follow)
        self._views[instance] = replace(view, try_number=tries, wait_until=judged.wait_until, follow=follow)
        if judged.state is TaskState.SUCCESS and report.has_xcom:
            self._xcoms[instance] = report.xcom
            self._results[instance] = replace(self._results[instance], xcom=report.xcom)
        self._move(instance, judged.state, judged.reason)

    def _move(self, instance: Instance, state: TaskState, reason: str | None) -> None:
        view = self._views[instance] = replace(self._views[instance], state=state)
        self._results[instance] = replace(self._results[instance], state=state, tries=view.try_number, reason=reason)
        self._inline.notify(Moved(instance_name(instance), state, view.try_number, reason))

    def _assignment(self, task: TaskSpec, instance: Instance, try_number: int) -> Assignment:
        view = self._views[instance]
        names = (self._spec.dag_id, self._view.run_id, task.task_id, str(view.map_index))
        known = [name for name in task.xcoms if name in self._spec.tasks]
        visible = {**self._given, **visible_xcoms(self._spec, instance, known, self._xcoms)}
        return Assignment(
            attempt_id=uuid.uuid5(uuid.NAMESPACE_OID, "\0".join((*names, str(try_number)))).hex,
            token="",
            dag_id=self._spec.dag_id,
            run_id=self._view.run_id,
            task_id=task.task_id,
            map_index=view.map_index,
            try_number=try_number,
            max_tries=task.retries + 1,
            identity=sha256("\0".join(names).encode()).hexdigest()[:32],
            operator=task.operator,
            arguments=task.arguments,
            queue=task.queue,
            execution_timeout=task.execution_timeout,
            logical_date=self._view.logical_date.isoformat(),
            data_interval_start=self._view.data_interval_start.isoformat(),
            data_interval_end=self._view.data_interval_end.isoformat(),
            timezone=self._spec.timezone,
            params=self._view.params,
            xcoms={name: visible[name] for name in task.xcoms if name in visible},
            variables={},
            connections={},
            lease=0.0,
            dag_tasks=self._downstream[task.task_id],
            map_value=view.map_value,
            first_started_at=self._first_started.setdefault((instance, try_number), self._now()).isoformat(),
        )

    def _with_secrets(self, assignment: Assignment, task: TaskSpec) -> Assignment:
        config, env = self._inline.config, self._inline.env
        return replace(
            assignment,
            variables=resolve_variables(config, env, task.variables),
            connections=resolve_connections(config, env, task.connections),
        )

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            work_root=self._inline.work.absolute() / "work",
            objects_url=(self._inline.work / "objects").absolute().as_uri(),
            xcom_inline_limit=sys.maxsize,  # nothing is sent anywhere
            cpus=os.cpu_count() or 1,
            dags_folder=self._inline.dags_folder,
        )

    def _result(self, state: RunState, reason: str | None) -> DagResult:
        return DagResult(
            dag_id=self._spec.dag_id,
            run_id=self._view.run_id,
            state=state,
            reason=reason,
            logical_date=self._view.logical_date,
            data_interval_start=self._view.data_interval_start,
            data_interval_end=self._view.data_interval_end,
            params=self._view.params,
            tasks={task_id: self._task_result(task_id) for task_id in self._spec.tasks},
            triggered=tuple(self._triggered),
        )

    def _task_result(self, task_id: str) -> TaskResult:
        """The result of a task; of a mapped one that of all its instances together."""
        if (task_id, -1) in self._results:
            return self._results[task_id, -1]
        instances = [result for (name, _), result in self._results.items() if name == task_id]
        state = summary_of(result.state for result in instances)
        return TaskResult(
            task_id,
            state,
            tries=max(result.tries for result in instances),
            xcom=[self._xcoms[task_id, one.map_index] for one in instances if (task_id, one.map_index) in self._xcoms],
            reason=next(result.reason for result in instances if result.state is state),
            log=tuple(line for result in instances for line in result.log),
            instances=tuple(instances),
        )


@dataclass(frozen=True, slots=True)
class _InlineServices(Services):
    """What an attempt may ask for, answered in the same process."""

    task_id: str
    notify: Callable[[Event], None]
    triggered: list[Triggered]

    def progress(self, done: float, total: float | None, unit: str) -> None:
        self.notify(Progressed(self.task_id, done, total, unit))

    def metric(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        pass  # the report carries it

    def trigger_dag(self, dag_id: str, params: Mapping[str, Json], logical_date: datetime | None) -> str:
        self.triggered.append(Triggered(dag_id, params, logical_date))
        return f"inline__{dag_id}__{len(self.triggered)}"

    def task_state(self, dag_id: str, task_id: str | None, logical_date: datetime) -> OtherState | None:
        what = f"task {task_id} of the DAG {dag_id}" if task_id else f"DAG {dag_id}"
        self.notify(Printed(self.task_id, f"In a test run the {what} is taken to have succeeded."))
        return OtherState(f"inline__{dag_id}", TaskState.SUCCESS)

    def cached_result(self, key: str) -> CachedResult | None:
        return None  # there is nothing to share one with

    def interrupted(self) -> bool:
        return False

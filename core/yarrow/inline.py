"""Runs a DAG, or one task of it, in this one process: the same decisions and attempts, and no service at all."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from yarrow import attempt
from yarrow.captured import captured
from yarrow.clock import Clock, utc_now
from yarrow.config import Config
from yarrow.connections import resolve_connections, resolve_variables
from yarrow.context import Services, Surroundings
from yarrow.dag_result import DagResult, Event, Moved, Printed, Progressed, TaskResult, Triggered
from yarrow.decide import RunView, TaskView, decide
from yarrow.errors import NotFound, UsageError, YarrowError
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.operator import Operator
from yarrow.params import run_params
from yarrow.protocol import Assignment, Report
from yarrow.retries import retry_delay
from yarrow.secrets import masker_for
from yarrow.states import AttemptState, RunState, TaskState
from yarrow.timetable import Interval, Timetable, run_by_hand

_INTERRUPTIONS = 3
"""How often a task may say that it was interrupted; here nobody does interrupt it."""


Instead = Callable[[TaskSpec, int], Operator | None]
"""Gives the operator to execute in place of a task's own, for a try; None: its own."""


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
    """

    work: Path
    config: Config = field(default_factory=Config)
    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = utc_now
    dags_folder: Path = Path("dags")
    echo: bool = True
    notify: Callable[[Event], None] = lambda event: None
    instead: Instead = lambda task, try_number: None

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
    """One run: the states of its tasks in memory, moved on by decisions and attempts."""

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
        self._skipped_time = timedelta(0)
        interval = _interval(spec, logical_date, self._now())
        self._view = RunView(
            dag_id=spec.dag_id,
            run_id=f"inline__{interval.logical_date.isoformat()}",
            state=RunState.RUNNING,
            logical_date=interval.logical_date,
            data_interval_start=interval.data_interval_start,
            data_interval_end=interval.data_interval_end,
            params=run_params(spec, params),
        )
        self._views = {
            task_id: TaskView(task_id, TaskState.NONE, max_tries=task.retries + 1)
            for task_id, task in spec.tasks.items()
        }
        self._results = {task_id: TaskResult(task_id, TaskState.NONE) for task_id in spec.tasks}
        self._xcoms = dict(xcoms or {})
        self._interruptions = dict.fromkeys(spec.tasks, 0)
        self._triggered: list[Triggered] = []

    def to_the_end(self) -> DagResult:
        while True:
            decisions = decide(
                self._spec, self._view, self._views.values(), self._now(), {(i, -1): v for i, v in self._xcoms.items()}
            )
            for decision in decisions.tasks:
                self._move(decision.task_id, decision.to_state, decision.reason)
            if decisions.run is not None:
                return self._result(decisions.run.to_state, decisions.run.reason)
            task = self._next_task()
            if task is not None:
                self._attempt(task)
            else:
                assert decisions.wait_until is not None, "a run that has not ended waits for something"
                self._skipped_time += max(decisions.wait_until - self._now(), timedelta(0))

    def _now(self) -> datetime:
        return self._inline.clock() + self._skipped_time

    def _next_task(self) -> TaskSpec | None:
        ready = [self._spec.tasks[i] for i, view in self._views.items() if view.state is TaskState.SCHEDULED]
        return max(ready, key=lambda task: task.priority_weight, default=None)

    def _attempt(self, task: TaskSpec) -> None:
        """Executes one try and draws its consequences."""
        try_number = self._views[task.task_id].try_number + 1
        self._views[task.task_id] = replace(self._views[task.task_id], try_number=try_number)
        self._move(task.task_id, TaskState.RUNNING, None)
        lines: list[str] = []
        assignment, report = self._execute(task, try_number, lines)
        before = self._results[task.task_id]
        self._results[task.task_id] = replace(before, log=(*before.log, *lines), metrics=report.metrics)
        self._finish(task, try_number, report)
        attempt.discard_work(assignment, report, self._surroundings().work_root)

    def _execute(self, task: TaskSpec, try_number: int, lines: list[str]) -> tuple[Assignment, Report]:
        assignment = self._assignment(task, try_number)
        instead = self._inline.instead(task, try_number)
        if instead is None:
            try:
                assignment = self._with_secrets(assignment, task)
            except YarrowError as error:
                reason = str(error)
                return assignment, Report(assignment.attempt_id, AttemptState.FAILED, reason=reason, retryable=False)

        def take(line: str) -> None:
            lines.append(line)
            self._inline.notify(Printed(task.task_id, line))

        masker = masker_for(assignment.connections, assignment.variables)
        with captured(take, masker, echo=self._inline.echo) as log:
            report = attempt.execute(
                assignment,
                config=self._surroundings(),
                services=_InlineServices(task.task_id, self._inline.notify, self._triggered),
                log=log,
                clock=self._now,
                operator=instead,
            )
        return assignment, report

    def _finish(self, task: TaskSpec, try_number: int, report: Report) -> None:
        """The same verdict as the store's on a report."""
        if report.state == AttemptState.SUCCESS:
            self._succeed(task, report)
        elif report.state == AttemptState.SKIPPED:
            self._move(task.task_id, TaskState.SKIPPED, report.reason)
        elif report.state == AttemptState.CANCELLED and self._interruptions[task.task_id] < _INTERRUPTIONS:
            self._interruptions[task.task_id] += 1
            self._views[task.task_id] = replace(self._views[task.task_id], try_number=try_number - 1)
            self._move(task.task_id, TaskState.SCHEDULED, report.reason)
        elif report.retryable and try_number < self._views[task.task_id].max_tries:
            delay = retry_delay(task, self._spec.dag_id, self._view.logical_date, try_number)
            due = self._now() + timedelta(seconds=delay)
            self._views[task.task_id] = replace(self._views[task.task_id], wait_until=due)
            self._move(task.task_id, TaskState.UP_FOR_RETRY, report.reason)
        else:
            self._move(task.task_id, TaskState.FAILED, report.reason)

    def _succeed(self, task: TaskSpec, report: Report) -> None:
        if report.has_xcom:
            self._xcoms[task.task_id] = report.xcom
            self._results[task.task_id] = replace(self._results[task.task_id], xcom=report.xcom)
        follow = None if report.follow is None else tuple(report.follow)
        self._views[task.task_id] = replace(self._views[task.task_id], follow=follow)
        self._move(task.task_id, TaskState.SUCCESS, report.reason)

    def _move(self, task_id: str, state: TaskState, reason: str | None) -> None:
        view = self._views[task_id] = replace(self._views[task_id], state=state)
        self._results[task_id] = replace(self._results[task_id], state=state, tries=view.try_number, reason=reason)
        self._inline.notify(Moved(task_id, state, view.try_number, reason))

    def _assignment(self, task: TaskSpec, try_number: int) -> Assignment:
        names = (self._spec.dag_id, self._view.run_id, task.task_id, "-1")
        return Assignment(
            attempt_id=uuid.uuid5(uuid.NAMESPACE_OID, "\0".join((*names, str(try_number)))).hex,
            token="",
            dag_id=self._spec.dag_id,
            run_id=self._view.run_id,
            task_id=task.task_id,
            map_index=-1,
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
            xcoms={name: self._xcoms[name] for name in task.xcoms if name in self._xcoms},
            variables={},
            connections={},
            lease=0.0,
            dag_tasks=self._downstream[task.task_id],
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
            tasks=self._results,
            triggered=tuple(self._triggered),
        )


def _interval(spec: DagSpec, logical_date: datetime | None, now: datetime) -> Interval:
    """The data interval of a logical date, as a run started by hand would have it; else the newest complete one."""
    if logical_date is not None:
        return run_by_hand(spec.schedule, spec.start_date, spec.end_date, logical_date)
    if spec.schedule is None or spec.start_date is None:
        return Interval.exact(now)
    return Timetable.of(spec.schedule, spec.start_date, spec.end_date).latest_due(now, None) or Interval.exact(now)


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

    def interrupted(self) -> bool:
        return False

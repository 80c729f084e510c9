"""The pages: DAGs, a DAG's grid and code, a run, a mapped task, a task with its log. Rendered here, read only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Blueprint, render_template, request
from werkzeug.wrappers import Response

from yarrow.clock import Clock
from yarrow.config import Config
from yarrow.errors import NotFound
from yarrow.explaining.explanation import Explanation
from yarrow.jsontypes import Json
from yarrow.logs import LogStore
from yarrow.states import TaskState
from yarrow.store import Store
from yarrow.store.records import (
    ApprovalRecord,
    BackfillRecord,
    DagRecord,
    EventRecord,
    RunRecord,
    TaskInstanceRecord,
    TaskSummary,
)
from yarrow_webserver.explain import explain

DAGS_PER_PAGE = 25
BARS = 16
"""Runs that stand behind a DAG on the home page."""
RUNS_PER_PAGE = 25
INSTANCES_PER_PAGE = 100
LOG_LINES = 500
HISTORY = 200
ERRORS_SHOWN = 20
DEEDS_SHOWN = 20
_MAX_OFFSET = 2**62

Page = str | Response


def create_blueprint(config: Config, store: Store, log_store: LogStore, clock: Clock) -> Blueprint:
    """The pages as a blueprint. Every page makes a bounded number of queries, however much there is."""
    pages = _Pages(config, store, log_store, clock)
    blueprint = Blueprint("pages", __name__)
    for rule, name, view in (
        ("/", "home", pages.home),
        ("/dags/<dag_id>", "dag", pages.dag),
        ("/dags/<dag_id>/code", "code", pages.code),
        ("/runs/<int:id>", "run", pages.run),
        ("/runs/<int:id>/tasks/<task_id>", "task", pages.task),
    ):
        blueprint.add_url_rule(rule, name, view)
    return blueprint


@dataclass(frozen=True, slots=True)
class Bar:
    """One run in a row of bars."""

    run: RunRecord
    seconds: float | None
    height: int  # 1 to 100, by duration


@dataclass(frozen=True, slots=True)
class Deed:
    """What somebody did to a run at one moment."""

    at: datetime
    who: str
    text: str
    task_ids: Sequence[str]  # each once; none: it was done to the run alone


class _Pages:
    """The views."""

    def __init__(self, config: Config, store: Store, log_store: LogStore, clock: Clock) -> None:
        self._config = config
        self._store = store
        self._log_store = log_store
        self._clock = clock

    def home(self) -> Page:
        """The DAGs with their last runs, and the files that could not be read."""
        words = request.args.get("q", "").strip()[:200]
        dags = [dag for dag in self._store.catalog.dags() if _matches(dag, words)]
        number = _number("page", 1, highest=10_000)
        shown = dags[(number - 1) * DAGS_PER_PAGE : number * DAGS_PER_PAGE]
        now = self._clock()
        runs = {dag.dag_id: self._store.runs.list(dag.dag_id, limit=BARS) for dag in shown}
        broken = self._store.catalog.import_errors()
        return render_template(
            "home.html",
            now=now,
            words=words,
            total=len(dags),
            number=number,
            pages=-(-len(dags) // DAGS_PER_PAGE),
            rows=[(dag, _bars(runs[dag.dag_id], now)) for dag in shown],
            broken=broken[:ERRORS_SHOWN],
            broken_count=len(broken),
            problems=self._store.workers.health(lease=self._config.lease).problems,
            questions=self._store.approvals.open(),
        )

    def dag(self, dag_id: str) -> Page:
        """A DAG: its runs by its tasks."""
        dag = self._store.catalog.dag(dag_id)
        spec = self._store.catalog.spec(dag_id)
        runs = self._store.runs.list(dag_id, limit=RUNS_PER_PAGE + 1, before=_number("before", None))
        older = runs[RUNS_PER_PAGE - 1].id if len(runs) > RUNS_PER_PAGE else None
        runs = runs[:RUNS_PER_PAGE]
        summaries = self._store.runs.task_summaries([run.id for run in runs])
        cells = {run.id: {task.task_id: task for task in summaries[run.id]} for run in runs}
        # A task of an older version has its row too, below those of today.
        task_ids = dict.fromkeys([*spec.tasks, *(task_id for found in cells.values() for task_id in found)])
        now = self._clock()
        return render_template(
            "dag.html",
            now=now,
            dag=dag,
            spec=spec,
            tab="grid",
            bars=_bars(runs, now),
            task_ids=list(task_ids),
            cells=cells,
            states=list(TaskState),
            counts_of=_counts,
            older=older,
            paged="before" in request.args,
            active=any(not run.state.finished for run in runs),
        )

    def code(self, dag_id: str) -> Page:
        """The YAML that a version of a DAG was made from."""
        dag = self._store.catalog.dag(dag_id)
        versions = self._store.catalog.versions(dag_id)
        wanted = _number("version", None)
        chosen = next((version for version in versions if wanted in (None, version.number)), None)
        if chosen is None:
            raise NotFound(f"The DAG {dag_id!r} has no version {wanted}.")
        return render_template(
            "code.html",
            now=self._clock(),
            dag=dag,
            tab="code",
            versions=versions[:50],
            chosen=chosen,
            source=self._store.catalog.source(dag_id, chosen.version),
        )

    def run(self, id: int) -> Page:
        """A run: its tasks, a mapped one in one line, and its history."""
        run = self._store.runs.by_id(id)
        tasks = self._store.runs.task_summaries([id])[id]
        instances = self._store.runs.task_instances(id, mapped=False)
        counts = _counts(*tasks)
        now = self._clock()
        return render_template(
            "run.html",
            now=now,
            run=run,
            dag=self._store.catalog.dag(run.dag_id),
            tasks=tasks,
            instances={instance.task_id: instance for instance in instances},
            spans=_spans(run, tasks, now),
            counts=counts,
            counts_of=_counts,
            events=self._store.runs.events(run.dag_id, run.run_id, limit=HISTORY),
            history=HISTORY,
            deeds=_deeds(self._store.runs.changes_by_hand(run.dag_id, run.run_id)),
            backfill=self._backfill(run),
            active=not run.state.finished or any(state == TaskState.RUNNING for state, _ in counts),  # being stopped
        )

    def _backfill(self, run: RunRecord) -> BackfillRecord | None:
        """The backfill that the run belongs to, if that is still there."""
        try:
            return None if run.backfill_id is None else self._store.backfills.get(run.backfill_id)
        except NotFound:
            return None

    def task(self, id: int, task_id: str) -> Page:
        """A task instance with its tries, figures, XCom and log; or the instances of a mapped task."""
        run = self._store.runs.by_id(id)
        map_index = _number("map_index", None, lowest=0)
        if map_index is None:
            summary = next(
                (task for task in self._store.runs.task_summaries([id])[id] if task.task_id == task_id), None
            )
            if summary is not None and summary.mapped:
                return self._mapped_task(run, summary)
            map_index = -1
        return self._task_instance(run, self._store.runs.task_instance(run.dag_id, run.run_id, task_id, map_index))

    def _mapped_task(self, run: RunRecord, task: TaskSummary) -> Page:
        state = next((state for state in task.states if state == request.args.get("state")), None)
        total = sum(task.states.values()) if state is None else task.states[state]
        number = _number("page", 1, highest=10_000)
        instances = self._store.runs.mapped_instances(
            run.id, task.task_id, state, limit=INSTANCES_PER_PAGE + 1, offset=(number - 1) * INSTANCES_PER_PAGE
        )
        pages = -(-total // INSTANCES_PER_PAGE)
        if len(instances) > INSTANCES_PER_PAGE:  # those that are removed do not count, but are shown
            pages = max(pages, number + 1)
        instances = instances[:INSTANCES_PER_PAGE]
        now = self._clock()
        return render_template(
            "mapped.html",
            now=now,
            run=run,
            task=task,
            state=state,
            instances=instances,
            spans=_spans(run, instances, now),
            counts=_counts(task),
            number=number,
            pages=max(pages, number) if instances else pages,
            active=not task.state.finished,
        )

    def _task_instance(self, run: RunRecord, instance: TaskInstanceRecord) -> Page:
        attempts = self._store.attempts.attempts(instance.id)
        tries = sorted({attempt.try_number for attempt in attempts})
        shown = _number("try", None) or instance.try_number or (tries[-1] if tries else 1)
        offset = _number("offset", 0, highest=_MAX_OFFSET)
        place = (run.dag_id, run.run_id, instance.task_id, instance.map_index, shown)
        lines, following = self._log_store.read(*place, offset=offset, limit=LOG_LINES)
        more = bool(self._log_store.read(*place, offset=following, limit=1)[0])
        return render_template(
            "task.html",
            now=self._clock(),
            run=run,
            task=instance,
            question=None if any(attempt.worker_id for attempt in attempts) else self._question(instance),
            attempts=attempts,
            tries=tries,
            shown=shown,
            xcom=self._xcom(instance),
            lines=lines,
            offset=offset,
            following=following if more else None,
            active=not instance.state.finished,
            why=self._why(instance),
        )

    def _why(self, instance: TaskInstanceRecord) -> Explanation | None:
        """What keeps a task instance that has not ended from running."""
        if instance.state.finished:
            return None
        try:
            return explain(
                self._config, self._store, instance.dag_id, instance.run_id, instance.task_id, instance.map_index
            )
        except NotFound:  # it has become several since it was read
            return None

    def _question(self, instance: TaskInstanceRecord) -> ApprovalRecord | None:
        """What the task instance, which no worker had, asks people, or asked."""
        if instance.started_at is None:
            return None
        try:
            return self._store.approvals.get(instance.dag_id, instance.run_id, instance.task_id, instance.map_index)
        except NotFound:
            return None

    def _xcom(self, instance: TaskInstanceRecord) -> tuple[Json] | None:
        """The XCom in a tuple, since it may be null itself; None when there is none."""
        if instance.state != TaskState.SUCCESS:
            return None
        try:
            value = self._store.attempts.xcom(instance.dag_id, instance.run_id, instance.task_id, instance.map_index)
        except NotFound:
            return None
        return (value,)


def _number(name: str, default: Any, *, lowest: int = 1, highest: int = 2**53) -> Any:
    """A whole number of the query string; the default when it is anything else, or too low."""
    digits = request.args.get(name, "")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20) or int(digits) < lowest:
        return default
    return min(int(digits), highest)


def _matches(dag: DagRecord, words: str) -> bool:
    """Whether every word is found in the DAG's id, tags, owner or description."""
    text = " ".join([dag.dag_id, dag.owner or "", dag.description or "", *dag.tags]).lower()
    return all(word in text for word in words.lower().split())


def _deeds(events: Sequence[EventRecord]) -> list[Deed]:
    """Changes that people made, all those of one moment as one, the newest first."""
    together: dict[tuple[datetime, str], list[EventRecord]] = {}
    for event in events:
        together.setdefault((event.at, event.who), []).append(event)
    deeds = []
    for (at, who), changes in together.items():
        reasons = [event.reason for event in changes if event.reason and event.kind != "task.added"]
        task_ids = sorted({event.task_id for event in changes if event.task_id is not None})
        # The shortest one tells of what was chosen; others add why a task belongs to it: "(downstream of load)".
        deeds.append(Deed(at, who, min(reasons, key=len, default=""), task_ids))
    return deeds[:DEEDS_SHOWN]


def _bars(runs: Sequence[RunRecord], now: datetime) -> list[Bar]:
    """Runs as bars, oldest first."""
    seconds = [((run.ended_at or now) - run.started_at).total_seconds() if run.started_at else None for run in runs]
    longest = max((value for value in seconds if value is not None), default=0.0) or 1.0
    bars = [
        Bar(run, value, 8 if value is None else max(8, round(100 * max(value, 0.0) / longest)))
        for run, value in zip(runs, seconds, strict=True)
    ]
    return bars[::-1]


_WORST = (
    TaskState.FAILED,
    TaskState.UP_FOR_RETRY,
    TaskState.AWAITING_INPUT,
    TaskState.RUNNING,
    TaskState.QUEUED,
    TaskState.SCHEDULED,
    TaskState.UP_FOR_RESCHEDULE,
    TaskState.UPSTREAM_FAILED,
    TaskState.NONE,
    TaskState.SKIPPED,
    TaskState.SUCCESS,
    TaskState.REMOVED,
)


def _counts(*tasks: TaskSummary) -> list[tuple[str, int]]:
    """How many task instances are in each state, the worst state first; none of them 0."""
    counts = [(state.value, sum(task.states.get(state, 0) for task in tasks)) for state in _WORST]
    return [(state, count) for state, count in counts if count]


def _spans(
    run: RunRecord, tasks: Sequence[TaskSummary] | Sequence[TaskInstanceRecord], now: datetime
) -> dict[tuple[str, int], tuple[float, float]]:
    """When each task or task instance was at work within its run, or waited for something outside.

    What ended before the run started, as it is when only some tasks of it were cleared, is left out.

    Returns:
        By task id and map index, -1 for a task as a whole: (start, width) in per cent of the run's time.
    """
    starts = [task.started_at for task in tasks if task.started_at]
    if run.started_at is None and not starts:
        return {}
    begin = run.started_at or min(starts)
    whole = max(((run.ended_at or now) - begin).total_seconds(), 0.001)
    spans = {}
    for task in tasks:
        if task.started_at is not None:
            states = task.states.keys() if isinstance(task, TaskSummary) else {task.state}
            end = task.ended_at or (task.started_at if _AT_WORK.isdisjoint(states) else now)
            if end < begin:
                continue
            start = max(task.started_at, begin)
            left = min((start - begin).total_seconds() / whole * 100, 100 - _NARROWEST)
            width = (end - start).total_seconds() / whole * 100
            place = (task.task_id, getattr(task, "map_index", -1))
            spans[place] = (round(left, 2), round(max(min(width, 100 - left), _NARROWEST), 2))
    return spans


_NARROWEST = 0.6  # per cent
_AT_WORK = frozenset({TaskState.RUNNING, TaskState.AWAITING_INPUT, TaskState.UP_FOR_RESCHEDULE})
"""States in which the time of a task instance goes on."""

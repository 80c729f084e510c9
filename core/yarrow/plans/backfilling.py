"""Works out what a backfill does for each data interval of its span."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from yarrow.errors import InvalidParams, NotFound, UsageError
from yarrow.language.spec import DagSpec
from yarrow.params import run_params
from yarrow.plans.closure import closed
from yarrow.plans.needs import missing, needs_of
from yarrow.plans.outlook import Outlook
from yarrow.plans.partial import cut_out
from yarrow.plans.plan import Need, RunAction, RunChange
from yarrow.plans.requests import REPROCESS, BackfillRequest
from yarrow.plans.reruns import Rerun, rerun_of
from yarrow.plans.selector import parse
from yarrow.plans.situation import RunFacts, Situation
from yarrow.plans.span import MOST_RUNS, Slot, slots_of
from yarrow.states import RunState, TaskState

HIGHEST_CLASS = 100
"""Of priority; the lowest is as far below zero."""


def backfill_run_id(logical_date: datetime) -> str:
    """The run_id of the run that a backfill makes for a logical date."""
    return f"backfill__{logical_date.isoformat()}"


def selected_tasks(request: BackfillRequest, spec: DagSpec) -> tuple[str, ...]:
    """The tasks of runs that a backfill makes, with the setups and teardowns that these need. Raises UsageError."""
    return tuple(spec.tasks if request.tasks is None else closed(spec, parse(request.tasks).whys(spec)))


def plan_backfill(request: BackfillRequest, situation: Situation) -> list[RunChange]:
    """What becomes of each data interval, in the order in which the runs go.

    Raises:
        UsageError: It asks for what can't be had.
        NotFound: The file of the DAG is gone.
        InvalidParams: The params don't fit what the DAG declares.
    """
    _check(request, situation)
    planner = _Planner(request, situation)
    changes = [planner.change(slot) for slot in slots_of(request, situation)]
    return changes[::-1] if request.run_backwards else changes


def _check(request: BackfillRequest, situation: Situation) -> None:
    if not situation.is_active:
        raise NotFound(f"The DAG {request.dag_id!r} is gone: its file is not in the DAG folder any more.")
    if request.reprocess not in REPROCESS:
        raise UsageError(f"`reprocess` is one of {', '.join(REPROCESS)}, not {request.reprocess!r}.")
    if request.whole_runs and request.reprocess != "failed":
        raise UsageError("Whole runs can be asked for only when failed ones are reprocessed.")
    if not 1 <= request.max_active_runs <= MOST_RUNS:
        raise UsageError(f"`max_active_runs` is a number from 1 to {MOST_RUNS:,}, not {request.max_active_runs}.")
    if abs(request.priority_class) > HIGHEST_CLASS:
        raise UsageError(
            f"`priority_class` is between -{HIGHEST_CLASS} and {HIGHEST_CLASS}, not {request.priority_class}."
        )
    run_params(situation.newest, request.params)
    looking = _looking_back(situation.newest, selected_tasks(request, situation.newest))
    if request.run_backwards and looking is not None:
        raise UsageError(
            f"The task `{looking}` looks at the run before its own, so the runs can't go backwards.",
            hint="Leave `run_backwards` out.",
        )


def _looking_back(spec: DagSpec, task_ids: Collection[str]) -> str | None:
    """The first of some tasks that waits for the run before; None: none of them does."""
    tasks = (task for task_id, task in spec.tasks.items() if task_id in task_ids)
    return next((task.task_id for task in tasks if task.depends_on_past or task.wait_for_downstream), None)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a run that is made consists of: the same for each of them."""

    spec: DagSpec
    needs: tuple[Need, ...]
    reason: str | None  # why no such run can be made

    @classmethod
    def of(cls, request: BackfillRequest, newest: DagSpec) -> _Part:
        task_ids = selected_tasks(request, newest)
        needs = needs_of(newest, task_ids, {})
        reason = missing(needs)
        return cls(newest if reason else cut_out(newest, task_ids), needs, reason)


class _Planner:
    """Goes through the data intervals by their logical dates, past all runs that there are."""

    def __init__(self, request: BackfillRequest, situation: Situation) -> None:
        self._request = request
        self._part = _Part.of(request, situation.newest)
        self._outlook = Outlook(situation.newest, situation.before)
        self._runs = deque(situation.runs)

    def change(self, slot: Slot) -> RunChange:
        """What becomes of the next data interval."""
        run = self._run_at(slot.interval.logical_date)
        if run is None:
            return self._create(slot)
        rerun = slot.skip or self._rerun(run)
        if isinstance(rerun, str):
            self._outlook.passes(run)
            return _skip(slot, rerun, run)
        self._outlook.passes(run, rerun.task_ids)
        return RunChange(
            run_id=run.run_id,
            logical_date=run.logical_date,
            action=rerun.action,
            from_state=run.state.value,
            to_state=RunState.QUEUED.value,
            version=run.version,
            tasks=rerun.tasks,
            task_count=rerun.task_count,
            needs=rerun.needs,
        )

    def _run_at(self, logical_date: datetime) -> RunFacts | None:
        """The newest run of a logical date; all before it are passed by."""
        found = None
        while self._runs and self._runs[0].logical_date <= logical_date:
            if found is not None:
                self._outlook.passes(found)
            found = self._runs.popleft()
        if found is not None and found.logical_date < logical_date:
            self._outlook.passes(found)
            return None
        return found

    def _create(self, slot: Slot) -> RunChange:
        part, interval = self._part, slot.interval
        reason = slot.skip or part.reason
        if reason is None and (past := self._outlook.blocks(part.spec, part.spec.tasks)):
            reason = f"blocked by depends_on_past: {past}"
        if reason is not None:
            return _skip(slot, reason, None, part.needs if reason == part.reason else ())
        run_id = backfill_run_id(interval.logical_date)
        self._outlook.makes(run_id)
        return RunChange(
            run_id=run_id,
            logical_date=interval.logical_date,
            action=RunAction.CREATE,
            to_state=RunState.QUEUED.value,
            data_interval_start=interval.data_interval_start,
            data_interval_end=interval.data_interval_end,
            version=part.spec.version,
            task_count=len(part.spec.tasks),
            needs=part.needs,
        )

    def _rerun(self, run: RunFacts) -> Rerun | str:
        """How a run that there is runs again, or why it does not."""
        if not run.state.finished:
            return f"in flight: it is {run.state}"
        if any(task.state is TaskState.RUNNING for task in run.tasks):
            return "in flight: a task of it is still being stopped"
        if self._request.reprocess == "none":
            return f"exists: it is {run.state}"
        if self._request.reprocess == "failed" and run.state is not RunState.FAILED:
            return f"exists: it is {run.state}, and only failed runs are reprocessed"
        if self._request.params:
            try:
                run_params(run.spec, self._request.params)
            except InvalidParams as error:
                return f"its version of the DAG takes other params: {error.message}"
        rerun = rerun_of(run, self._request)
        if isinstance(rerun, str):
            return rerun
        if self._request.run_backwards and (looking := _looking_back(run.spec, rerun.task_ids)):
            return f"blocked by depends_on_past: in its version `{looking}` looks back, and the runs go backwards"
        past = self._outlook.blocks(run.spec, rerun.task_ids)
        return f"blocked by depends_on_past: {past}" if past else rerun


def _skip(slot: Slot, reason: str, run: RunFacts | None, needs: tuple[Need, ...] = ()) -> RunChange:
    date = slot.interval.logical_date
    return RunChange(
        run_id=run.run_id if run else backfill_run_id(date),
        logical_date=date,
        action=RunAction.SKIP,
        reason=reason,
        from_state=run.state.value if run else None,
        to_state=run.state.value if run else None,
        version=run.version if run else None,
        needs=needs,
    )

"""How a plan is printed: what it does run by run, what that takes, and what people should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from yarrow.cli.output import duration_text, instance_name, text_of
from yarrow.plans.plan import Estimate, Plan, RunAction, RunChange, TaskAction, TaskChange
from yarrow.plans.requests import BackfillRequest, ClearRequest, MarkRequest
from yarrow.plans.words import request_text

if TYPE_CHECKING:
    from yarrow.store.records import BackfillRecord

WIDTH = 100
"""Columns within which reasons stay in their line."""

_FIRST, _LAST = 20, 5
"""How many rows are shown of a long list, of its beginning and of its end."""

_MOST_REASONS = 4
"""How many reasons the sum of a plan names."""

T = TypeVar("T")


def plan_lines(plan: Plan, zone: tzinfo, *, everything: bool = False) -> Iterator[str]:
    """A plan for people.

    Args:
        zone: Of the DAG; logical dates are shown as local times of it.
        everything: All rows, however many there are.
    """
    yield f"Plan {plan.id} of {plan.request.dag_id}: {text_of(request_text(plan.request))}"
    if plan.applied_at is not None:
        backfill = f" as the backfill {backfill_of(plan)}" if "backfill_id" in plan.result else ""
        yield f"Applied at {text_of(plan.applied_at)} UTC by {plan.applied_by}{backfill}."
    yield ""
    if isinstance(plan.request, BackfillRequest):
        yield from _table_of_runs(plan, zone, everything)
    else:
        yield from _runs_with_tasks(plan, zone, everything)
    yield ""
    yield from _sums(plan)
    if plan.estimate is not None and plan.estimate.task_instances:
        yield from _estimate_lines(plan.estimate)
    for note in plan.notes:
        yield f"Note: {text_of(note)}"


def local_text(moment: datetime, zone: tzinfo) -> str:
    """`2026-01-01 00:00 (05:00 UTC)`: local time, and UTC where it differs."""
    local, utc = moment.astimezone(zone), moment.astimezone(UTC)
    if local.replace(tzinfo=None) == utc.replace(tzinfo=None):
        return _clock(utc, "%Y-%m-%d ")
    return f"{_clock(local, '%Y-%m-%d ')} ({_clock(utc, '' if local.date() == utc.date() else '%m-%d ')} UTC)"


def _clock(moment: datetime, date: str) -> str:
    return moment.strftime(f"{date}%H:%M:%S" if moment.second else f"{date}%H:%M")


# A backfill: a row for each run.


def _table_of_runs(plan: Plan, zone: tzinfo, everything: bool) -> Iterator[str]:
    head, left_out, tail = _ends(plan.runs, everything)
    shown = (*head, *tail)
    heading = ("LOGICAL DATE" + (" (UTC)" if _is_utc(zone, shown) else ""), "RUN")
    lines = _aligned([heading, *((local_text(run.logical_date, zone), text_of(run.run_id)) for run in shown)])
    yield f"{lines[0]}  ACTION"
    for place, (line, run) in enumerate(zip(lines[1:], shown, strict=True)):
        if left_out and place == len(head):
            yield f"... {left_out:,} more; --json or `yarrow plans show {plan.id} --all` lists all"
        yield from _with_action(line, run)


def _with_action(line: str, run: RunChange) -> Iterator[str]:
    """The row of a run, with its reason in a line of its own when it would be too long."""
    tasks = "" if run.action is RunAction.SKIP else f" {_count(run.task_count, 'task')}"
    line = f"{line}  {run.action}{tasks}"
    if not run.reason:
        yield line
        return
    reason = text_of(run.reason)
    if len(line) + 2 + len(reason) <= WIDTH:
        yield f"{line}: {reason}"
    else:
        yield line
        yield f"    {reason}"


def _is_utc(zone: tzinfo, runs: Sequence[RunChange]) -> bool:
    return not any(run.logical_date.astimezone(zone).utcoffset() for run in runs)


# Clearing and marking: the task instances of each run.


def _runs_with_tasks(plan: Plan, zone: tzinfo, everything: bool) -> Iterator[str]:
    head, left_out, tail = _ends(plan.runs, everything)
    for place, run in enumerate((*head, *tail)):
        if left_out and place == len(head):
            yield f"... {left_out:,} more runs; --json or `yarrow plans show {plan.id} --all` lists all"
        yield _run_line(run, zone)
        rows = _alike(run.tasks)
        first, more, last = _ends(rows, everything)
        lines = _aligned([_task_cells(*row) for row in (*first, *last)])
        yield from (f"  {line.rstrip()}" for line in lines[: len(first)])
        if more:
            yield f"  ... {more:,} more"
        yield from (f"  {line.rstrip()}" for line in lines[len(first) :])


def _run_line(run: RunChange, zone: tzinfo) -> str:
    name = f"{text_of(run.run_id)} of {local_text(run.logical_date, zone)}{'' if _offset(run, zone) else ' UTC'}"
    if run.action is RunAction.SKIP:
        return f"{name}: skip, {text_of(run.reason)}"
    if run.to_state in (None, run.from_state):
        return f"{name}: stays {run.from_state}"
    return f"{name}: {run.from_state} -> {run.to_state}"


def _offset(run: RunChange, zone: tzinfo) -> bool:
    return bool(run.logical_date.astimezone(zone).utcoffset())


def _alike(tasks: Sequence[TaskChange]) -> list[tuple[TaskChange, TaskChange]]:
    """Changes, the first and the last of those that follow one another and differ by their map index alone."""

    def kind(task: TaskChange) -> tuple[object, ...]:
        mapped = task.map_index >= 0
        states = (task.from_state, task.to_state, task.try_number, task.loses_xcom)
        return (task.task_id, mapped, task.action, task.why, *states)

    rows = []
    for _, group in groupby(tasks, kind):
        members = list(group)
        rows.append((members[0], members[-1]))
    return rows


def _task_cells(first: TaskChange, last: TaskChange) -> tuple[str, ...]:
    name = instance_name(first.task_id, first.map_index)
    if last is not first:
        name = f"{first.task_id}[{first.map_index} to {last.map_index}]"
    tries = f"try {first.try_number} is kept" if first.attempt_id is not None and first.try_number else ""
    return (
        text_of(name),
        f"{first.from_state} -> {first.to_state}",
        str(first.action),
        text_of(first.why),
        tries,
        "its XCom is lost" if first.loses_xcom else "",
    )


# What it comes to.


def _sums(plan: Plan) -> Iterator[str]:
    actions = Counter(run.action for run in plan.runs)
    skipped = actions.pop(RunAction.SKIP, 0)
    if isinstance(plan.request, BackfillRequest):
        parts = [f"{count:,} to {action}" for action, count in actions.items()]
    else:
        parts = [f"{actions.total():,} to {plan.request.kind}"] if actions else []
    if skipped:
        parts.append(f"{skipped:,} to skip")
    if parts:
        yield from _with_reasons(f"{_count(len(plan.runs), 'run')}: {'; '.join(parts)}", plan)
    else:
        yield "No run is concerned."
    changes = Counter(task.action for _, task in plan.task_changes)
    if changes and not isinstance(plan.request, BackfillRequest):
        listed = ", ".join(f"{count:,} to {action}" for action, count in changes.items())
        yield f"{_count(changes.total(), 'task instance')}: {listed}."


def _with_reasons(line: str, plan: Plan) -> Iterator[str]:
    """A sentence about runs and why some are skipped, in lines of their own when it would be too long."""
    reasons = Counter(text_of(run.reason) for run in plan.runs if run.action is RunAction.SKIP)
    whys = [f"{count:,}: {reason}" for reason, count in reasons.most_common(_MOST_REASONS)]
    if len(reasons) > _MOST_REASONS:
        whys.append("and others")
    whole = f"{line} ({', '.join(whys)})." if whys else f"{line}."
    if len(whole) <= WIDTH:
        yield whole
    else:
        yield f"{line}:"
        yield from (f"    {why}" for why in whys)


def _estimate_lines(estimate: Estimate) -> Iterator[str]:
    takes = "; how long that takes is not known"
    if estimate.seconds is not None:
        takes = f", in at least {duration_text(estimate.seconds)}"
        if estimate.known_tasks < estimate.tasks:
            takes += f" by the past durations of {estimate.known_tasks} of {estimate.tasks} tasks"
    yield f"{_count(estimate.task_instances, 'task instance')} will run{takes}."
    if estimate.order:
        yield f"Order: {estimate.order}."
    for pool in estimate.pools:
        if not pool.slots:
            yield f"Pool {pool.pool}: there is none, so {_count(pool.task_instances, 'task instance')} would wait."
            continue
        busy = f", {duration_text(pool.busy_seconds)} of slots" if pool.busy_seconds is not None else ""
        wants = f"{_count(pool.task_instances, 'task instance')}{busy}"
        yield f"Pool {pool.pool}: {wants}; {pool.used:,} of {pool.slots:,} slots are in use now."


def outcome_lines(plan: Plan, *, is_paused: bool) -> Iterator[str]:
    """What applying a plan did, and what happens next.

    Args:
        is_paused: Whether its DAG is.
    """
    request = plan.request
    if isinstance(request, BackfillRequest):
        number = backfill_of(plan)
        yield f"The backfill {number} of {request.dag_id} has begun: {_count(len(plan.effective), 'run')}."
        if not is_paused:
            yield f"`yarrow backfill watch {number}` shows how it goes."
    else:
        yield from _done_lines(request, plan)
    if is_paused and any(run.to_state not in ("success", "failed") for run in plan.effective):
        yield f"{request.dag_id} is paused: runs wait until `yarrow dags unpause {request.dag_id}`."


def backfill_of(plan: Plan) -> int:
    """The id of the backfill that an applied plan has begun."""
    number = plan.result["backfill_id"]
    assert isinstance(number, int)
    return number


def progress_text(record: BackfillRecord) -> str:
    """How far a backfill is, in a line."""
    parts = [f"{over_text(record)} {'run' if record.run_count == 1 else 'runs'} over"]
    parts += [f"{record.counts[state]:,} {state}" for state in ("failed", "running") if record.counts.get(state)]
    if record.eta is not None:
        parts.append(f"about {duration_text(record.eta)} to go")
    return f"{record.state}, {', '.join(parts)}"


def over_text(record: BackfillRecord) -> str:
    """`120 of 3,640`: how many runs of a backfill have ended; those that were deleted when it was cancelled did not."""
    over = record.run_count - record.left
    if record.cancelled_at is not None:
        over = sum(record.counts.get(state, 0) for state in ("success", "failed"))
    return f"{over:,} of {record.run_count:,}"


def _done_lines(request: ClearRequest | MarkRequest, plan: Plan) -> Iterator[str]:
    changes = [task for _, task in plan.task_changes]
    runs = f"{_count(len(plan.effective), 'run')} of {request.dag_id}"
    if isinstance(request, ClearRequest) and not changes:
        yield f"What never ran in {runs} runs now."
    elif isinstance(request, ClearRequest):
        yield f"Cleared {_count(len(changes), 'task instance')} in {runs}."
    elif request.runs:
        yield f"Marked {runs} as {request.state}."
    else:
        marked = sum(task.action in (TaskAction.MARK, TaskAction.STOP_AND_MARK) for task in changes)
        also = f", and cleared {len(changes) - marked:,} downstream" if len(changes) > marked else ""
        yield f"Marked {_count(marked, 'task instance')} in {runs} as {request.state}{also}."
    stopped = sum(task.action in (TaskAction.STOP_AND_CLEAR, TaskAction.STOP_AND_MARK) for task in changes)
    if stopped:
        words = "is still running: its worker is" if stopped == 1 else "are still running: their workers are"
        yield f"{stopped:,} of these {words} told to stop."


# Helpers.


def _ends(rows: Sequence[T], everything: bool) -> tuple[Sequence[T], int, Sequence[T]]:
    """The beginning, how many are left out, and the end of a list."""
    if everything or len(rows) <= _FIRST + _LAST + 1:
        return rows, 0, ()
    return rows[:_FIRST], len(rows) - _FIRST - _LAST, rows[-_LAST:]


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns stand below one another."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"

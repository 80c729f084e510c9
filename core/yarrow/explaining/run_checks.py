"""What a task instance needs of its run, of its DAG and of the deployment: that somebody decides, and on this run."""

from __future__ import annotations

from collections.abc import Sequence

from yarrow.explaining.explanation import Finding, found
from yarrow.explaining.facts import Circumstances, Start
from yarrow.explaining.words import at, countdown, due, ended, listed, ordinal
from yarrow.jsontypes import Json
from yarrow.states import RunState, TaskState

_NEEDS_NO_SCHEDULER = frozenset({TaskState.RUNNING, TaskState.AWAITING_INPUT})


def run_findings(given: Circumstances) -> Sequence[Finding]:
    """The checks that come before those of the task instance itself."""
    findings = [] if given.instance.state in _NEEDS_NO_SCHEDULER else [_scheduler(given)]
    if given.start is not None:
        return [*findings, *_start(given, given.start)]
    return [*findings, _run(given), *_dag(given)]


def _scheduler(given: Circumstances) -> Finding:
    if given.schedulers:
        return found("scheduler", True, "A scheduler is running.", schedulers=given.schedulers)
    clause = "waits for a scheduler: none is running"
    return found("scheduler", False, "No scheduler is running: nothing is started.", clause, schedulers=0)


def _run(given: Circumstances) -> Finding:
    run, facts = given.run, {"run_id": given.run.run_id, "state": given.run.state.value}
    if run.state is not RunState.RUNNING:
        when = f" at {at(given.run_ended_at)}" if given.run_ended_at else ""
        why = f": {given.run_reason.rstrip('.')}" if given.run_reason else ""
        clause = f"is not decided on any more: its run ended{when} as {run.state}{why}"
        return found("run", False, f"The run ended{when} as {run.state}{why}.", clause, **facts)
    if given.quarantine_until is not None and given.quarantine_until > given.now:
        left = countdown((given.quarantine_until - given.now).total_seconds())
        why = given.run_reason or "unknown"
        clause = f"waits for its run to be decided on again, in {left}: that went wrong ({why.rstrip('.')})"
        sentence = f"The run can't be decided on; it is tried again in {left}. The error: {ended(why)}"
        return found("run", False, sentence, clause, until=given.quarantine_until.isoformat(), **facts)
    started = f" since {at(run.started_at)}" if run.started_at else ""
    return found("run", True, f"The run is running{started}.", **facts)


def _dag(given: Circumstances) -> Sequence[Finding]:
    """A paused DAG holds up only what is not queued yet."""
    if given.instance.state is not TaskState.SCHEDULED:
        return []
    return [_not_paused(given)]


def _not_paused(given: Circumstances) -> Finding:
    name = f"`{given.run.dag_id}`"
    if not given.is_paused:
        return found("dag_not_paused", True, f"The DAG {name} is not paused.")
    clause = f"waits for its DAG {name}, which is paused"
    hint = f"`yarrow dags unpause {given.run.dag_id}` lets it go on"
    return found("dag_not_paused", False, f"The DAG {name} is paused: nothing of it is queued. {hint}.", clause)


def _start(given: Circumstances, start: Start) -> Sequence[Finding]:
    """The checks of a queued run. All of them have passed exactly when it starts as soon as a scheduler looks."""
    moment = start.run_after
    early = moment > given.now
    findings = [
        found(
            "run_after",
            not early,
            f"The run may start from {at(moment)}{f', {due(moment, given.now)}' if early else ''}.",
            f"waits for its run to start, {due(moment, given.now)}",
            run_after=moment.isoformat(),
        ),
        _not_paused(given),
    ]
    if start.backfill_id is not None:
        paused = start.backfill_is_paused
        sentence = f"The backfill {start.backfill_id} is {'paused' if paused else 'not paused'}."
        clause = f"waits for its run to start: the backfill {start.backfill_id} is paused"
        findings.append(found("backfill_not_paused", not paused, sentence, clause, backfill_id=start.backfill_id))
    alone = all(finding.check.passed for finding in findings)  # nothing else holds it up
    free = start.max_active_runs - start.active
    return [*findings, _active_runs(start, start.starts if alone else start.place <= free)]


def _active_runs(start: Start, passed: bool) -> Finding:
    owner = "the DAG" if start.backfill_id is None else f"the backfill {start.backfill_id}"
    full = start.active >= start.max_active_runs
    holders = f" ({listed(start.holders, start.active - len(start.holders))})" if start.holders else ""
    line = f"; it is {ordinal(start.place)} in line"
    taken = f"{start.active:,} of {start.max_active_runs:,} runs of {owner} are running"
    facts: dict[str, Json] = {
        "limit": start.max_active_runs,
        "active": start.active,
        "run_ids": list(start.holders),
        "place": start.place,
        "backfill_id": start.backfill_id,
    }
    before = f"{taken}, and those before it take what is left" if not full else taken
    clause = f"waits for its run to start: {before}{holders}{line}"
    return found("max_active_runs", passed, f"{taken}{holders}{line}.", clause, **facts)

"""What the report on an attempt does to its task instance, told from values alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from yarrow.language.spec import TaskSpec
from yarrow.protocol import Report
from yarrow.retries import retry_delay, ruled_out_by
from yarrow.states import AttemptState, TaskState

SHORTEST_DEFERRAL = timedelta(seconds=1)
LONGEST_DEFERRAL = timedelta(days=30)
"""How far ahead an attempt may be put off at once. What waits for longer looks in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a task instance and its attempt stand after a report."""

    state: TaskState
    attempt_state: AttemptState
    try_number: int  # of the newest try that counts: one less where this one does not
    infra_losses: int
    reason: str | None = None
    wait_until: datetime | None = None  # how long it waits, in a state that waits
    follow: Sequence[str] | None = None  # of a success: what a control operator chose


def verdict(
    task: TaskSpec | None,
    report: Report,
    *,
    dag_id: str,
    logical_date: datetime,
    try_number: int,
    max_tries: int,
    at: datetime,
    map_index: int = -1,
    cancel_reason: str | None = None,
    cancel_state: TaskState | None = None,
    overruled: bool = False,
    infra_losses: int = 0,
    infra_budget: int = 3,
    queued_timeout: float = 3600.0,
) -> Verdict:
    """Returns what a report on a running attempt means.

    An attempt that was to be stopped ends as was wished, unless it came to success or skipped before that. When it has
    been overruled, its task instance ends as was wished in any case; the attempt itself keeps what it came to.

    Args:
        task: The task, in the version of the run; None: that version has it no more, which takes overruling.
        report: How the attempt ended, or that it is put off.
        dag_id, logical_date, map_index: Whose it is; the retry delay depends on them.
        try_number, max_tries: Which try it is, and how many there may be.
        at: The moment of the report.
        cancel_reason: Why the attempt was to be stopped; None: nobody wanted that.
        cancel_state: What its task instance ends as then; None: failed.
        overruled: A person has cleared or marked the task instance: `none` is one of these ends too.
        infra_losses, infra_budget: How often the infrastructure lost it before, and how often it may.
        queued_timeout: For how many seconds it waits to be taken when it is scheduled again.

    Raises:
        ValueError: It is put off until no moment at all, or there is no such task.
    """
    state = AttemptState(report.state)
    plain = Verdict(
        state=TaskState.FAILED,
        attempt_state=state,
        try_number=try_number,
        infra_losses=infra_losses,
        reason=report.reason,
    )
    stopped = AttemptState.CANCELLED if state is AttemptState.DEFERRED else state
    if overruled:
        return replace(plain, state=cancel_state or TaskState.FAILED, attempt_state=stopped, reason=cancel_reason)
    if task is None:
        raise ValueError("the version of the run does not have this task")
    if state is AttemptState.SUCCESS:
        return replace(plain, state=TaskState.SUCCESS, follow=report.follow)
    if state is AttemptState.SKIPPED:
        return replace(plain, state=TaskState.SKIPPED)
    if cancel_reason is not None:
        return replace(plain, state=cancel_state or TaskState.FAILED, attempt_state=stopped, reason=cancel_reason)
    if state is AttemptState.DEFERRED:
        return replace(plain, state=TaskState.UP_FOR_RESCHEDULE, wait_until=resume_moment(report, at))
    if state is AttemptState.FAILED:
        if (final := _for_good(task, report, plain, max_tries)) is not None:
            return final
        delay = retry_delay(task, dag_id, logical_date, try_number, map_index)
        return replace(plain, state=TaskState.UP_FOR_RETRY, wait_until=at + timedelta(seconds=delay))
    losses = infra_losses + (state is AttemptState.LOST)
    if losses > infra_budget:
        reason = f"The infrastructure lost it {losses} times, the last time because: {report.reason or 'unknown'}"
        return _final(task, replace(plain, infra_losses=losses), reason)
    # It was no fault of the task: it is scheduled again, and this try does not count.
    wait_until = at + timedelta(seconds=queued_timeout)
    return replace(
        plain, state=TaskState.SCHEDULED, try_number=try_number - 1, infra_losses=losses, wait_until=wait_until
    )


def resume_moment(report: Report, at: datetime) -> datetime:
    """When an attempt that is put off goes on, within bounds. Raises ValueError for what is no moment."""
    moment = datetime.fromisoformat(str(report.resume_at))
    if moment.tzinfo is None:
        raise ValueError(f"{report.resume_at} has no offset from UTC")
    return min(max(moment, at + SHORTEST_DEFERRAL), at + LONGEST_DEFERRAL)


def _for_good(task: TaskSpec, report: Report, plain: Verdict, max_tries: int) -> Verdict | None:
    """The verdict on a failure after which there is no other try; None: there is one."""
    if not report.retryable or plain.try_number >= max_tries:
        return _final(task, plain, report.reason)
    rule = ruled_out_by(task, report.kinds)
    if rule is None:
        return None
    return _final(task, plain, f"{report.reason or 'It failed.'} (`{rule}` rules out another try)")


def _final(task: TaskSpec, plain: Verdict, reason: str | None) -> Verdict:
    """It has failed for good, or is skipped instead where the task asks for that."""
    if task.soft_fail:
        return replace(plain, state=TaskState.SKIPPED, reason=f"{reason or 'It failed.'} (soft_fail)")
    return replace(plain, state=TaskState.FAILED, reason=reason)

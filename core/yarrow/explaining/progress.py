"""What a task instance that has started waits for, or how it ended, by its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from yarrow.explaining.explanation import Finding, first_clause, found
from yarrow.explaining.facts import InstanceFacts
from yarrow.explaining.slots import slot_findings
from yarrow.explaining.words import at, countdown, due, ended, since, state_words
from yarrow.jsontypes import Json
from yarrow.states import TaskState

Found = tuple[Sequence[Finding], str]
"""The checks, and what the task instance does when all of them have passed."""


def progress(instance: InstanceFacts, now: datetime) -> tuple[Sequence[Finding], str]:
    """The checks of an instance that is not `none`, and what it does, for a summary with it as the subject."""
    findings, otherwise = _BY_STATE.get(instance.state, _ended)(instance, now)
    return findings, first_clause(findings) or otherwise


def _scheduled(instance: InstanceFacts, now: datetime) -> Found:
    if instance.slots is None:
        return (), "waits for a slot"
    findings = slot_findings(instance.slots)
    hopeless = instance.slots.pool_fault is not None or not instance.slots.queue_is_served
    if instance.wait_until is not None and hopeless:
        findings = [*findings, _gives_up(instance.wait_until, now)]
    return findings, "goes next: the scheduler is about to queue it"


def _gives_up(moment: datetime, now: datetime) -> Finding:
    sentence = f"If nothing can take it until {at(moment)} it fails (in {countdown((moment - now).total_seconds())})."
    return found("queued_timeout", None, sentence, until=moment.isoformat())


def _queued(instance: InstanceFacts, now: datetime) -> Found:
    attempt, serving = instance.attempt, instance.serving
    findings: list[Finding] = []
    if attempt is not None:
        facts: dict[str, Json] = {"attempt_id": attempt.attempt_id, "try_number": attempt.try_number}
        if attempt.published_at is None:
            sentence = f"Try {attempt.try_number} is queued{since(instance.queued_at, now)}; no message is out for it."
            clause = f"waits for a free worker of the queue `{instance.queue}`: no message is out for it yet"
            findings.append(found("dispatch", False, sentence, clause, **facts))
        else:
            deadline = attempt.dispatch_deadline
            late = deadline is not None and deadline <= now
            again = "" if deadline is None else f"; unless a worker takes it, it is sent again, {due(deadline, now)}"
            sentence = f"A message is out for try {attempt.try_number}{since(attempt.published_at, now)}{again}."
            clause = f"waits for a worker of the queue `{instance.queue}`: its message was lost, and is sent again"
            facts |= {
                "published_at": attempt.published_at.isoformat(),
                "dispatch_deadline": deadline.isoformat() if deadline else None,
                "dispatch_count": attempt.dispatch_count,
            }
            findings.append(found("dispatch", not late, sentence, clause, **facts))
    if serving is not None:
        findings.insert(0, _workers(instance.queue, serving.workers, serving.slots, serving.free))
    return findings, f"waits for a worker of the queue `{instance.queue}` to take it"


def _workers(queue: str, workers: int, slots: int, free: int) -> Finding:
    facts: dict[str, Json] = {"queue": queue, "workers": workers, "slots": slots, "free": free}
    if not workers:
        sentence = f"No worker serves the queue `{queue}`."
        return found("workers", False, sentence, f"waits for a worker: none serves the queue `{queue}`", **facts)
    sentence = f"Workers of the queue `{queue}`: {workers}, with {slots - free} of {slots} slots taken."
    clause = f"waits for a free worker of the queue `{queue}`: {slots - free} of {slots} slots are taken"
    return found("workers", free > 0, sentence, clause, **facts)


def _running(instance: InstanceFacts, now: datetime) -> Found:
    attempt = instance.attempt
    if attempt is None:
        return (), f"runs{since(instance.started_at, now)}"
    worker = f"worker `{attempt.worker_id}`{f' on {attempt.hostname}' if attempt.hostname else ''}"
    done = _progress_words(attempt.progress)
    findings = [
        found(
            "worker",
            True,
            f"Try {attempt.try_number} runs on {worker}{since(instance.started_at, now)}{done}.",
            worker_id=attempt.worker_id,
            hostname=attempt.hostname,
            progress=attempt.progress,
        )
    ]
    if attempt.lease_until is not None:
        left = (attempt.lease_until - now).total_seconds()
        words = f"another {countdown(left)}" if left > 0 else "over: it counts as lost, and goes back to the line"
        findings.append(
            found(
                "lease",
                left > 0,
                f"The lease of {worker} runs until {at(attempt.lease_until)} ({words}).",
                f"ran on {worker}, of which nothing has been heard: it counts as lost as soon as a scheduler looks",
                lease_until=attempt.lease_until.isoformat(),
            )
        )
    if attempt.cancel_reason is not None:
        then = _then(TaskState(attempt.cancel_state) if attempt.cancel_state else TaskState.FAILED)
        findings.append(
            found(
                "not_stopped",
                False,
                f"Its worker has been told to stop it, and it {then}: {ended(attempt.cancel_reason)}",
                f"is being stopped, and {then}: {attempt.cancel_reason}",
                reason=attempt.cancel_reason,
                to_state=attempt.cancel_state,
            )
        )
    return findings, f"runs on {worker}{since(instance.started_at, now)}{done}"


def _then(state: TaskState) -> str:
    """What becomes of a task instance that is being stopped."""
    return "is executed again then" if state is TaskState.NONE else f"will be {state_words(state)} then"


def _progress_words(progress: Mapping[str, Json] | None) -> str:
    if not progress or progress.get("done") is None:
        return ""
    total = f" of {progress['total']:,}" if isinstance(progress.get("total"), int | float) else ""
    done = progress["done"]
    figure = f"{done:,}" if isinstance(done, int | float) else str(done)
    return f", {figure}{total} {progress.get('unit') or ''}".rstrip() + " done"


def _up_for_retry(instance: InstanceFacts, now: datetime) -> Found:
    retry, retries = instance.try_number, instance.max_tries - 1
    moment = instance.wait_until or now
    why = f" Try {retry} failed: {ended(instance.reason)}" if instance.reason else ""
    clause = f"is up for retry {retry} of {retries}, {due(moment, now)}"
    sentence = f"Retry {retry} of {retries} is {due(moment, now)}, at {at(moment)}.{why}"
    facts: dict[str, Json] = {"retry": retry, "retries": retries, "due": moment.isoformat(), "reason": instance.reason}
    return [found("retry", moment <= now, sentence, clause, **facts)], clause


def _up_for_reschedule(instance: InstanceFacts, now: datetime) -> Found:
    moment = instance.wait_until or now
    clause = f"waits between two looks: the next one is {due(moment, now)}"
    why = f" ({instance.reason})" if instance.reason else ""
    sentence = f"Its next look is {due(moment, now)}, at {at(moment)}{why}."
    return [found("next_look", moment <= now, sentence, clause, due=moment.isoformat())], clause


def _awaiting_input(instance: InstanceFacts, now: datetime) -> Found:
    question = instance.question
    if question is None:
        return [], "waits for a person to answer"
    until = f" until {at(question.due_at)}" if question.due_at is not None else ""
    instead = {"approve": "it is approved", "reject": "it is rejected"}.get(question.default_answer or "", "it fails")
    otherwise = f"; without an answer {instead} then" if question.due_at is not None else ""
    clause = f"waits for a person to answer{until}: {question.message}"
    return [
        found(
            "answer",
            False,
            f"It asks{until}: “{question.message}”{otherwise}.",
            clause,
            message=question.message,
            due=question.due_at.isoformat() if question.due_at else None,
            default=question.default_answer,
        )
    ], clause


def _ended(instance: InstanceFacts, now: datetime) -> Found:
    verb = {
        TaskState.SUCCESS: "succeeded",
        TaskState.FAILED: "failed",
        TaskState.SKIPPED: "was skipped",
        TaskState.UPSTREAM_FAILED: "could not run",
        TaskState.REMOVED: "is no part of its run any more",
    }[instance.state]
    when = f" at {at(instance.ended_at)}" if instance.ended_at is not None else ""
    tries = f", in try {instance.try_number} of {instance.max_tries}" if instance.try_number else ""
    if instance.state is TaskState.REMOVED:
        when = tries = ""  # they are of its last attempt, and not of its removal
    why = f": {instance.reason.rstrip('.')}" if instance.reason else ""
    good = instance.state is TaskState.SUCCESS
    clause = f"{verb}{when}{tries}{why}"
    facts: dict[str, Json] = {
        "ended_at": instance.ended_at.isoformat() if instance.ended_at else None,
        "reason": instance.reason,
        "try_number": instance.try_number,
    }
    return [found("ended", good, f"It {clause}.", clause, **facts)], clause


_BY_STATE: Mapping[TaskState, Callable[[InstanceFacts, datetime], Found]] = {
    TaskState.SCHEDULED: _scheduled,
    TaskState.QUEUED: _queued,
    TaskState.RUNNING: _running,
    TaskState.UP_FOR_RETRY: _up_for_retry,
    TaskState.UP_FOR_RESCHEDULE: _up_for_reschedule,
    TaskState.AWAITING_INPUT: _awaiting_input,
}

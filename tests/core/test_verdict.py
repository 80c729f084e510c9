"""What a report does to its task instance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from yarrow.language.spec import TaskSpec
from yarrow.protocol import Report
from yarrow.retries import retry_delay
from yarrow.states import AttemptState, TaskState
from yarrow.verdict import LONGEST_DEFERRAL, SHORTEST_DEFERRAL, Verdict, verdict

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
DATE = datetime(2026, 3, 1, tzinfo=UTC)
PERSON: dict[str, Any] = {"cancel_reason": "Stopped by ann."}
RUN: dict[str, Any] = {"cancel_reason": "the run is over", "cancel_state": TaskState.SKIPPED}


def judge(
    state: str, *, task: dict[str, Any] | None = None, report: dict[str, Any] | None = None, **facts: Any
) -> Verdict:
    spec = TaskSpec("t", "bash", {}, **{"retries": 1, "retry_delay": 60.0, **(task or {})})
    told = Report("a", state, **{"reason": "because", **(report or {})})
    given = {"dag_id": "d", "logical_date": DATE, "try_number": 1, "max_tries": spec.retries + 1, "at": AT, **facts}
    return verdict(spec, told, **given)


@pytest.mark.parametrize("state", ["success", "skipped"])
@pytest.mark.parametrize("wish", [{}, PERSON, RUN])
def test_what_came_to_its_end_by_itself_stands(state: str, wish: dict[str, Any]) -> None:
    found = judge(state, report={"follow": ["x"]}, task={"soft_fail": True}, **wish)
    assert (found.state, found.attempt_state, found.reason) == (state, state, "because")
    assert found.follow == (["x"] if state == "success" else None)


@pytest.mark.parametrize("state", ["failed", "lost", "cancelled", "deferred"])
def test_what_was_to_be_stopped_ends_as_wished(state: str) -> None:
    resume = {"resume_at": (AT + timedelta(hours=1)).isoformat()}
    ended = AttemptState.CANCELLED if state == "deferred" else state
    stopped = judge(state, report=resume, **PERSON)
    assert (stopped.state, stopped.attempt_state, stopped.reason) == (TaskState.FAILED, ended, "Stopped by ann.")
    skipped = judge(state, report=resume, **RUN)
    assert (skipped.state, skipped.attempt_state, skipped.reason) == (TaskState.SKIPPED, ended, "the run is over")
    assert stopped.wait_until is None
    soft = judge(state, report=resume, task={"soft_fail": True}, **PERSON)
    assert (soft.state, soft.reason) == (TaskState.FAILED, "Stopped by ann."), "a person's word is not softened"


@pytest.mark.parametrize("wish", ["none", "success", "failed", "skipped", "removed"])
@pytest.mark.parametrize("state", ["success", "skipped", "failed", "lost", "cancelled", "deferred"])
def test_what_a_person_has_overruled_ends_as_wished_whatever_it_came_to(state: str, wish: str) -> None:
    facts = {"cancel_reason": "Cleared by ann.", "cancel_state": TaskState(wish), "overruled": True}
    report = {"resume_at": (AT + timedelta(hours=1)).isoformat(), "follow": ["x"]}
    found = judge(state, report=report, task={"soft_fail": True}, infra_losses=3, try_number=2, **facts)
    ended = AttemptState.CANCELLED if state == "deferred" else state
    assert (found.state, found.attempt_state, found.reason) == (wish, ended, "Cleared by ann.")
    assert (found.try_number, found.infra_losses) == (2, 3), "its next try is the third"
    assert (found.wait_until, found.follow) == (None, None)


def test_a_task_that_the_version_has_no_more_is_judged_only_when_overruled() -> None:
    facts = {"dag_id": "d", "logical_date": DATE, "try_number": 1, "max_tries": 1, "at": AT}
    told = Report("a", "success")
    wish = {"cancel_reason": "Cleared by ann.", "cancel_state": TaskState.REMOVED, "overruled": True}
    assert verdict(None, told, **facts, **wish).state is TaskState.REMOVED
    with pytest.raises(ValueError, match="does not have this task"):
        verdict(None, told, **facts)


def test_a_failure_is_tried_again_while_tries_are_left() -> None:
    found = judge("failed")
    assert (found.state, found.reason, found.try_number) == (TaskState.UP_FOR_RETRY, "because", 1)
    assert found.wait_until == AT + timedelta(seconds=60)
    assert judge("failed", try_number=2).state is TaskState.FAILED
    assert judge("failed", report={"retryable": False}).state is TaskState.FAILED


def test_each_instance_of_a_mapped_task_waits_for_a_time_of_its_own() -> None:
    task = {"retry_exponential_backoff": 2.0, "retry_delay": 600.0}
    spec = TaskSpec("t", "bash", {}, retries=1, **task)
    waits = {judge("failed", task=task, map_index=index).wait_until for index in range(-1, 20)}
    assert len(waits) > 15
    assert AT + timedelta(seconds=retry_delay(spec, "d", DATE, 1)) in waits
    assert AT + timedelta(seconds=retry_delay(spec, "d", DATE, 1, 7)) in waits


@pytest.mark.parametrize(
    ("task", "kinds", "again"),
    [
        ({}, [], True),
        ({"retry_on": ("TimeoutError",)}, ["TimeoutError", "OSError", "Exception"], True),
        ({"retry_on": ("OSError",)}, ["TimeoutError", "OSError", "Exception"], True),
        ({"retry_on": ("requests.exceptions.ConnectionError",)}, ["ConnectionError"], False),
        ({"retry_on": ("HttpStatus.503", "Timeout")}, ["HttpStatus", "HttpStatus.503"], True),
        ({"retry_on": ("HttpStatus.503", "Timeout")}, ["HttpStatus", "HttpStatus.404"], False),
        ({"retry_on": ("Timeout",)}, [], False),
        ({"no_retry_on": ("ValueError",)}, ["UnicodeError", "ValueError", "Exception"], False),
        ({"no_retry_on": ("ValueError",)}, ["KeyError", "LookupError", "Exception"], True),
        (
            {"retry_on": ("Exception",), "no_retry_on": ("ExitCode.99",)},
            ["ExitCode", "ExitCode.99", "Exception"],
            False,
        ),
        ({"retry_on": ("ExitCode",), "no_retry_on": ("ExitCode.99",)}, ["ExitCode", "ExitCode.1"], True),
    ],
)
def test_errors_of_some_kinds_are_not_worth_another_try(task: dict[str, Any], kinds: list[str], again: bool) -> None:
    found = judge("failed", task=task, report={"kinds": kinds})
    assert found.state is (TaskState.UP_FOR_RETRY if again else TaskState.FAILED)
    if not again:
        assert "rules out another try" in (found.reason or "")
    assert judge("failed", task=task, report={"kinds": kinds}, try_number=2).reason == "because", (
        "no try is left anyway"
    )
    assert judge("failed", task=task, report={"kinds": kinds, "retryable": False}).state is TaskState.FAILED


def test_soft_fail_softens_the_last_failure_alone() -> None:
    soft = {"soft_fail": True}
    assert judge("failed", task=soft).state is TaskState.UP_FOR_RETRY
    last = judge("failed", task=soft, try_number=2)
    assert (last.state, last.attempt_state, last.reason) == (
        TaskState.SKIPPED,
        AttemptState.FAILED,
        "because (soft_fail)",
    )
    assert judge("failed", task=soft, report={"retryable": False, "reason": None}).reason == "It failed. (soft_fail)"
    lost = judge("lost", task=soft, infra_losses=3)
    assert (lost.state, lost.attempt_state, lost.infra_losses) == (TaskState.SKIPPED, AttemptState.LOST, 4)
    kind = judge("failed", task={**soft, "no_retry_on": ("X",)}, report={"kinds": ["X"]})
    assert kind.reason == "because (`no_retry_on` rules out another try) (soft_fail)"


def test_the_infrastructure_has_a_budget_of_its_own() -> None:
    found = judge("lost", infra_losses=2, queued_timeout=90.0)
    assert (found.state, found.try_number, found.infra_losses) == (TaskState.SCHEDULED, 0, 3)
    assert found.wait_until == AT + timedelta(seconds=90)
    over = judge("lost", infra_losses=3)
    assert (over.state, over.infra_losses) == (TaskState.FAILED, 4)
    assert over.reason == "The infrastructure lost it 4 times, the last time because: because"
    interrupted = judge("cancelled", infra_losses=3)
    assert (interrupted.state, interrupted.try_number, interrupted.infra_losses) == (TaskState.SCHEDULED, 0, 3)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (timedelta(minutes=5), timedelta(minutes=5)),
        (timedelta(), SHORTEST_DEFERRAL),
        (-timedelta(days=400), SHORTEST_DEFERRAL),
        (timedelta(days=400), LONGEST_DEFERRAL),
    ],
)
def test_it_is_put_off_within_bounds(wanted: timedelta, given: timedelta) -> None:
    found = judge("deferred", report={"resume_at": (AT + wanted).isoformat()})
    assert (found.state, found.attempt_state, found.try_number) == (
        TaskState.UP_FOR_RESCHEDULE,
        AttemptState.DEFERRED,
        1,
    )
    assert found.wait_until == AT + given


@pytest.mark.parametrize("resume_at", [None, "", "soon", "2026-03-01T13:00:00", 7])
def test_what_is_no_moment_is_an_error(resume_at: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        judge("deferred", report={"resume_at": resume_at})

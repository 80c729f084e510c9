"""What an approval asks, and what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from yarrow.approvals import default_answer, lateness, outcome, question
from yarrow.decide import Question
from yarrow.errors import TemplateError
from yarrow.language.spec import TaskSpec
from yarrow.states import TaskState

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SUCCESS, FAILED, SKIPPED = TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED


def approval(soft_fail: bool = False, **arguments: Any) -> TaskSpec:
    return TaskSpec("q", "approval", {"message": "Go on?", **arguments}, soft_fail=soft_fail)


def test_the_question_is_rendered_once_and_its_deadline_counts_from_then() -> None:
    task = approval(message="{{ xcom.a.rows }} rows?", timeout="90m", default="reject")
    found = question(task, {"xcom": {"a": {"rows": "{{ ds }}"}}}, NOW)
    assert found == Question("{{ ds }} rows?", "reject", NOW + timedelta(minutes=90))


def test_a_message_that_is_no_text_is_shown_as_one() -> None:
    assert question(approval(message="{{ xcom.a }}"), {"xcom": {"a": [1, "b"]}}, NOW).message == '[1, "b"]'


def test_without_a_timeout_and_a_default() -> None:
    assert question(approval(timeout=None, default=None), {}, NOW) == Question("Go on?")
    assert default_answer(approval()) is None


def test_a_timeout_may_be_a_template() -> None:
    task = approval(timeout="{{ params.wait }}")
    assert question(task, {"params": {"wait": "2h"}}, NOW).due_at == NOW + timedelta(hours=2)
    with pytest.raises(TemplateError, match="`timeout` can't be told: `soon` is not a duration"):
        question(task, {"params": {"wait": "soon"}}, NOW)
    with pytest.raises(TemplateError, match=r"`timeout` can't be told: `params\.wait` does not exist"):
        question(task, {"params": {}}, NOW)


def test_a_message_sees_neither_variables_nor_connections() -> None:
    with pytest.raises(TemplateError, match="`message` can't be rendered: `var` does not exist"):
        question(approval(message="{{ var.secret }}"), {"params": {}}, NOW)


@pytest.mark.parametrize(
    ("task", "answer", "expected"),
    [
        (approval(), "approve", (SUCCESS, None)),
        (approval(), "reject", (SUCCESS, ())),
        (approval(on_reject="skip"), "reject", (SUCCESS, ())),
        (approval(on_reject="fail"), "approve", (SUCCESS, None)),
        (approval(on_reject="fail"), "reject", (FAILED, None)),
        (approval(soft_fail=True, on_reject="fail"), "reject", (SKIPPED, None)),
        (approval(), None, (FAILED, None)),
        (approval(soft_fail=True), None, (SKIPPED, None)),
    ],
)
def test_what_an_answer_does(task: TaskSpec, answer: str | None, expected: tuple[TaskState, Any]) -> None:
    assert outcome(task, answer) == expected


def test_what_is_said_when_nobody_answered() -> None:
    assert lateness(approval(timeout="1d")) == "nobody answered within 1d"
    assert lateness(approval(timeout="1d", default="approve")) == "nobody answered within 1d: approved by default"
    assert lateness(approval(timeout="60m", default="reject")) == "nobody answered within 1h: rejected by default"
    assert lateness(approval(timeout="{{ params.wait }}")) == "nobody answered in time"

"""Approvals: tasks that ask a person, what they ask, and what becomes of them when there is an answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from yarrow.decision.decisions import Question
from yarrow.errors import TemplateError
from yarrow.jsontypes import Json
from yarrow.language.durations import format_duration, parse_duration
from yarrow.language.spec import TaskSpec
from yarrow.language.template import render_value
from yarrow.language.values import to_text
from yarrow.states import TaskState

OPERATOR: Final = "approval"
"""The operator of these tasks. They are never executed: they wait for a person without a worker."""

APPROVE: Final = "approve"
REJECT: Final = "reject"


def question(task: TaskSpec, names: Mapping[str, object], now: datetime) -> Question:
    """Returns what a task asks from now on.

    Args:
        task: A task of the operator `approval`.
        names: What its message may name.
        now: The moment from which its `timeout` counts.

    Raises:
        TemplateError: Its message can't be rendered, or its timeout is no duration.
    """
    try:
        message = to_text(render_value(task.arguments.get("message", ""), names))
    except TemplateError as error:
        raise TemplateError(f"`message` can't be rendered: {error}") from None
    timeout = task.arguments.get("timeout")
    due_at = None if timeout is None else now + timedelta(seconds=_seconds(timeout, names))
    return Question(message, default_answer(task), due_at)


def _seconds(timeout: Json, names: Mapping[str, object]) -> float:
    try:
        return parse_duration(str(render_value(timeout, names)))
    except (TemplateError, ValueError) as error:
        raise TemplateError(f"`timeout` can't be told: {error}") from None


def default_answer(task: TaskSpec) -> str | None:
    """The answer when nobody gives one in time: approve or reject; None: the task fails then."""
    default = task.arguments.get("default")
    return None if default is None else str(default)


def outcome(task: TaskSpec, answer: str | None) -> tuple[TaskState, tuple[str, ...] | None]:
    """Returns the state that an answer leads to, and what the task lets follow: () cuts off all that comes after it.

    Args:
        task: A task of the operator `approval`.
        answer: approve or reject; None: nobody answered in time, and there is no default.
    """
    if answer == APPROVE:
        return TaskState.SUCCESS, None
    if answer == REJECT and task.arguments.get("on_reject", "skip") == "skip":
        return TaskState.SUCCESS, ()
    return (TaskState.SKIPPED if task.soft_fail else TaskState.FAILED), None


def lateness(task: TaskSpec) -> str:
    """A sentence about that nobody answered in time."""
    timeout = task.arguments.get("timeout")
    try:
        within = f"within {format_duration(parse_duration(str(timeout)))}"
    except ValueError:  # a template
        within = "in time"
    answer = default_answer(task)
    if answer is None:
        return f"nobody answered {within}"
    return f"nobody answered {within}: {'approved' if answer == APPROVE else 'rejected'} by default"

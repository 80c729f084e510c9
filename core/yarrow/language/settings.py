"""Checks which settings of a DAG and of its tasks fit together."""

from __future__ import annotations

from yarrow import approvals
from yarrow.decision.trigger_rules import TEARDOWN_RULE
from yarrow.language import codes
from yarrow.language.drafts import DagDraft, TaskDraft
from yarrow.language.faults import Fault
from yarrow.language.nodes import Node
from yarrow.sensor import Sensor


def check_settings(draft: DagDraft, faults: list[Fault]) -> None:
    """Adds a fault for each setting that another one makes impossible, and a warning where it makes it pointless."""
    for task in draft.tasks.values():
        _check_ends(task, faults)
        _check_retries(task, faults)
        _check_cache(task, faults)
        if "on_deadline" in task.values and "deadline" not in task.values and "on_deadline" in task.node.entries:
            faults.append(_without_deadline(task.place("on_deadline"), f"the task `{task.task_id}` has no `deadline`"))
        if draft.values.get("fail_fast"):
            _check_fail_fast(task, faults)
    deadlines = ["deadline" in part for part in (draft.node.entries, *(task.values for task in draft.tasks.values()))]
    if "on_deadline" in draft.values and not any(deadlines):
        words = "neither the DAG nor any of its tasks has a `deadline`"
        faults.append(_without_deadline(draft.node.entries["on_deadline"], words))


def _without_deadline(node: Node, why: str) -> Fault:
    message = f"`on_deadline` has no effect: {why}."
    return node.fault(codes.USELESS, message, "Add `deadline: 2h`, or another time.", "warning")


def _check_ends(task: TaskDraft, faults: list[Fault]) -> None:
    """Setups and teardowns."""
    teardown = task.values.get("teardown", False)
    if teardown and task.values.get("setup"):
        message = f"The task `{task.task_id}` can't be a setup and a teardown at once."
        faults.append(task.fault("teardown", codes.CONTRADICTION, message, "Make two tasks of it."))
    if teardown:
        return
    if task.values.get("on_failure_fail_dagrun"):
        message = f"`on_failure_fail_dagrun` is for teardowns: the failure of `{task.task_id}` counts in any case."
        faults.append(task.fault("on_failure_fail_dagrun", codes.CONTRADICTION, message, "Remove it."))
    if task.values.get("trigger_rule") == TEARDOWN_RULE:
        message = f"The trigger rule `{TEARDOWN_RULE}` is for teardowns, and `{task.task_id}` is none."
        hint = "Add `teardown: true`, or write `all_done`."
        faults.append(task.fault("trigger_rule", codes.CONTRADICTION, message, hint))


def _check_retries(task: TaskDraft, faults: list[Fault]) -> None:
    """Only what the task says itself: a default of all tasks need not mean each of them."""
    if task.values.get("retries", 0) > 0 or ("retries" in task.node.entries and "retries" not in task.values):
        return
    for key in ("retry_on", "no_retry_on"):
        if key in task.node.entries and key in task.values:
            message = f"`{key}` has no effect: the task `{task.task_id}` has no `retries`."
            faults.append(task.fault(key, codes.USELESS, message, "Add `retries: 2`.", warning=True))


def _check_cache(task: TaskDraft, faults: list[Fault]) -> None:
    if not task.values.get("cache"):
        return
    what = None
    if task.control:
        what = "steers the run"
    elif task.operator_name == approvals.OPERATOR:
        what = "asks a person, each time"
    elif task.operator is not None and issubclass(task.operator, Sensor):
        what = "waits for something outside"
    if what is not None:
        message = f"The result of `{task.task_id}` can't be cached: the operator `{task.operator_name}` {what}."
        faults.append(task.fault("cache", codes.CONTRADICTION, message, "Remove `cache`."))


def _check_fail_fast(task: TaskDraft, faults: list[Fault]) -> None:
    rule = task.values.get("trigger_rule", "all_success")
    if rule == "all_success" or task.values.get("teardown"):
        return
    message = f"`fail_fast` needs the trigger rule `all_success`, and that of `{task.task_id}` is `{rule}`."
    hint = "Remove one of the two, or make the task a teardown."
    faults.append(task.fault("trigger_rule", codes.CONTRADICTION, message, hint))

"""The outcomes that a simulation is told, checked against the DAG: everything that does not fit is a clear sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from yarrow import approvals
from yarrow.errors import BrokenOperator, NotFound, UsageError
from yarrow.jsontypes import Json
from yarrow.language.shape import did_you_mean
from yarrow.language.spec import DagSpec
from yarrow.mapping import Instance
from yarrow.registry import operator_class
from yarrow.states import TaskState

OUTCOME_STATES = (TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED)
NOBODY = "nobody"
ANSWERS = (approvals.APPROVE, approvals.REJECT, NOBODY)

_INSTANCE = re.compile(r"(?P<task_id>[^\[\]]+)(?:\[(?P<index>\d+)\])?")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ends when it runs."""

    state: TaskState = TaskState.SUCCESS  # or failed, in each of its tries, or skipped
    follow: tuple[str, ...] | None = None  # what a control operator chooses: () is nothing; None: not told

    @classmethod
    def parse(cls, text: str) -> Outcome:
        """Reads `failed`, `skipped`, `success`, `success:a,b` or `success:`. Raises UsageError."""
        state, colon, chosen = text.partition(":")
        if state not in OUTCOME_STATES:
            known = [str(one) for one in OUTCOME_STATES]
            raise UsageError(
                f"`{state}` is no outcome of a task: it is success, failed or skipped.", hint=did_you_mean(state, known)
            )
        follow = tuple(name.strip() for name in chosen.split(",") if name.strip()) if colon else None
        return cls(TaskState(state), follow)


def instance_name(instance: Instance) -> str:
    """`task`, or `task[2]` of a mapped one."""
    task_id, index = instance
    return task_id if index < 0 else f"{task_id}[{index}]"


def checked_outcomes(spec: DagSpec, outcomes: Mapping[str, Outcome]) -> dict[Instance, Outcome]:
    """The outcomes by task instance; those of all instances of a task stand under the index -1. Raises UsageError."""
    found: dict[Instance, Outcome] = {}
    for name, outcome in outcomes.items():
        match = _INSTANCE.fullmatch(name)
        task_id = match["task_id"] if match else name
        _check_task(spec, task_id, "an outcome")
        index = int(match["index"]) if match and match["index"] else -1
        if index >= 0 and not spec.tasks[task_id].mapped:
            raise UsageError(f"`{name}` has an outcome, but the task `{task_id}` is not mapped: it has no instances.")
        _check_state(spec, task_id, outcome)
        if outcome.follow is not None:
            _check_choice(spec, task_id, outcome)
        found[task_id, index] = replace(outcome, state=TaskState(outcome.state))  # it may be plain text
    return found


def checked_answers(spec: DagSpec, outcomes: Mapping[Instance, Outcome], answers: Mapping[str, str]) -> dict[str, str]:
    """What each approval is answered: as given, else as its outcome says, else approve. Raises UsageError."""
    for task_id, answer in answers.items():
        _check_task(spec, task_id, "an answer")
        if spec.tasks[task_id].operator != approvals.OPERATOR:
            raise UsageError(f"The task `{task_id}` asks nothing: only a task with the operator `approval` does.")
        if answer not in ANSWERS:
            raise UsageError(
                f"`{answer}` is no answer: it is approve, reject or nobody.", hint=did_you_mean(answer, ANSWERS)
            )
    found = {}
    for task_id, task in spec.tasks.items():
        if task.operator == approvals.OPERATOR:
            found[task_id] = answer_of(outcomes.get((task_id, -1), Outcome()))
    return found | dict(answers)


def answer_of(outcome: Outcome) -> str:
    """What an outcome says to a question."""
    return approvals.REJECT if outcome.state is TaskState.FAILED else approvals.APPROVE


def checked_xcoms(spec: DagSpec, xcoms: Mapping[str, Json]) -> None:
    """Raises UsageError when there is an XCom of a task that the DAG has not, or of a mapped task that is no list."""
    for task_id, value in xcoms.items():
        _check_task(spec, task_id, "an XCom")
        if spec.tasks[task_id].mapped and not isinstance(value, list | tuple):
            raise UsageError(
                f"The XCom of `{task_id}` must be a list: the task is mapped, and each instance has one entry."
            )


def _check_task(spec: DagSpec, task_id: str, what: str) -> None:
    if task_id not in spec.tasks:
        hint = did_you_mean(task_id, spec.tasks) or f"It has {_listed(spec.tasks)}."
        raise UsageError(f"There is {what} for `{task_id}`, but the DAG `{spec.dag_id}` has no such task.", hint=hint)


def _check_state(spec: DagSpec, task_id: str, outcome: Outcome) -> None:
    if outcome.state not in OUTCOME_STATES:
        raise UsageError(f"The outcome of `{task_id}` is success, failed or skipped, not {outcome.state}.")
    if outcome.state is TaskState.SKIPPED and spec.tasks[task_id].operator == approvals.OPERATOR:
        raise UsageError(
            f"The approval `{task_id}` can't be skipped.", hint="It is approved by `success` and rejected by `failed`."
        )


def _check_choice(spec: DagSpec, task_id: str, outcome: Outcome) -> None:
    task, chosen = spec.tasks[task_id], outcome.follow or ()
    if outcome.state is not TaskState.SUCCESS:
        raise UsageError(f"`{task_id}` can only choose when it succeeds, not when it is {outcome.state}.")
    if not _is_control(task.operator):
        raise UsageError(f"`{task_id}` can't choose what comes after it: its operator is `{task.operator}`.")
    if task.operator == "short_circuit" and chosen:
        raise UsageError(
            f"`{task_id}` is a short circuit: it goes on to everything or to nothing.",
            hint=f"`{task_id}=success:` cuts off what comes after it.",
        )
    downstream = spec.downstream[task_id]
    for name in chosen:
        if name not in downstream:
            hint = did_you_mean(name, downstream) or f"Directly downstream: {_listed(downstream) or 'nothing'}."
            raise UsageError(f"`{task_id}` can't choose `{name}`: it is not directly downstream.", hint=hint)


def _is_control(operator: str) -> bool:
    try:
        return operator_class(operator).control
    except (NotFound, BrokenOperator):
        return False


def _listed(names: Iterable[str], most: int = 12) -> str:
    known: Sequence[str] = [f"`{name}`" for name in names]
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")

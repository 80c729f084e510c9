"""Which other tasks go along with some tasks that are run again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from yarrow.language.spec import DagSpec

SELECTED = "selected"
"""Why a task is among some when it is neither upstream nor downstream, nor a setup or teardown, of another."""


def reached(
    spec: DagSpec, task_ids: Collection[str], *, upstream: bool = False, downstream: bool = False
) -> dict[str, str]:
    """All tasks upstream or downstream of some, without these, each with why: "upstream of x", "downstream of x"."""
    found: dict[str, str] = {}
    starts = [task_id for task_id in spec.tasks if task_id in task_ids]
    if upstream:
        parents = {task_id: task.upstream for task_id, task in spec.tasks.items()}
        found |= _walk(starts, parents, "upstream")
    if downstream:
        found = {**_walk(starts, spec.downstream, "downstream"), **found}
    return {task_id: why for task_id, why in found.items() if task_id not in task_ids}


def _walk(starts: Iterable[str], neighbours: Mapping[str, Sequence[str]], word: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in starts:
        waiting = [start]
        while waiting:
            for other in neighbours[waiting.pop()]:
                if other not in found:
                    found[other] = f"{word} of {start}"
                    waiting.append(other)
    return found


@dataclass(frozen=True, slots=True)
class SetupScope:
    """A setup, and what it is made for."""

    setup: str
    teardowns: tuple[str, ...]  # that take down what it sets up
    tasks: frozenset[str]  # that come between it and these; without a teardown all that comes after it


def setup_scopes(spec: DagSpec) -> list[SetupScope]:
    """The scopes of all setups of a DAG, in the order of the tasks."""
    parents = {task_id: task.upstream for task_id, task in spec.tasks.items()}
    found = []
    for setup in [task_id for task_id, task in spec.tasks.items() if task.setup]:
        teardowns = tuple(child for child in spec.downstream[setup] if spec.tasks[child].teardown)
        inside = set(_walk([setup], spec.downstream, "downstream"))
        if teardowns:
            inside &= set(_walk(teardowns, parents, "upstream"))
        found.append(SetupScope(setup, teardowns, frozenset(inside)))
    return found


def setups_and_teardowns(scopes: Iterable[SetupScope], task_ids: Collection[str]) -> dict[str, str]:
    """The setups and teardowns that some tasks need when they run again, each with why: "setup of x", "teardown of x".

    A task between a setup and its teardown needs both, for what the teardown took down is not there any more. A setup
    needs its teardown. What these need in turn is not in the answer.
    """
    found: dict[str, str] = {}
    for scope in scopes:
        needing = next((task_id for task_id in task_ids if task_id in scope.tasks), None)
        if needing is not None:
            found.setdefault(scope.setup, f"setup of {needing}")
        if needing is not None or scope.setup in task_ids:
            for teardown in scope.teardowns:
                found.setdefault(teardown, f"teardown of {scope.setup}")
    return found


def closed(spec: DagSpec, task_ids: Collection[str]) -> dict[str, str]:
    """Some tasks with all setups and teardowns that they need, and those that these need, each with why.

    Args:
        task_ids: A mapping of them tells why each is selected.
    """
    found = dict(task_ids) if isinstance(task_ids, Mapping) else dict.fromkeys(task_ids, SELECTED)
    scopes = setup_scopes(spec)
    while more := {k: why for k, why in setups_and_teardowns(scopes, found).items() if k not in found}:
        found |= more
    return {task_id: found[task_id] for task_id in spec.tasks if task_id in found}

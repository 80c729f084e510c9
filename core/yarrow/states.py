"""The states of runs, task instances and attempts, and the moves between them that are legal.

The words are Airflow's. The tables below are the single source: the store refuses any other move,
and the diagram in the documentation is generated from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class RunState(StrEnum):
    """The state of one run of a DAG."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        return self in FINISHED_RUN_STATES


class TaskState(StrEnum):
    """The state of one task instance."""

    NONE = "none"  # its dependencies are not met yet
    SCHEDULED = "scheduled"  # may run; waits for a slot within the limits
    QUEUED = "queued"  # has an attempt that no worker has claimed yet
    RUNNING = "running"  # a worker holds the lease of its attempt
    UP_FOR_RETRY = "up_for_retry"  # failed, and will be scheduled again at `wait_until`
    UP_FOR_RESCHEDULE = "up_for_reschedule"  # a sensor between two looks; its attempt goes on at `wait_until`
    AWAITING_INPUT = "awaiting_input"  # asks a person, until `wait_until`
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    REMOVED = "removed"  # the task is no longer in the DAG version of its run

    @property
    def finished(self) -> bool:
        return self in FINISHED_TASK_STATES


class AttemptState(StrEnum):
    """The state of one try at a task instance. A finished attempt never changes again."""

    QUEUED = "queued"
    RUNNING = "running"
    DEFERRED = "deferred"  # waits without a worker, and is queued again later: a sensor between two looks
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    LOST = "lost"  # the infrastructure lost it: charged to the infra budget, never to the task's retries
    CANCELLED = "cancelled"  # a person or a newer state of the task instance took it back

    @property
    def finished(self) -> bool:
        return self not in (AttemptState.QUEUED, AttemptState.RUNNING, AttemptState.DEFERRED)


FINISHED_RUN_STATES = frozenset({RunState.SUCCESS, RunState.FAILED})
FINISHED_TASK_STATES = frozenset(
    {TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED, TaskState.UPSTREAM_FAILED, TaskState.REMOVED}
)
FAILED_TASK_STATES = frozenset({TaskState.FAILED, TaskState.UPSTREAM_FAILED})
SLOT_TASK_STATES = frozenset({TaskState.QUEUED, TaskState.RUNNING})
"""The states that occupy a slot of a pool, of the DAG and of the deployment."""

_COUNTS_MOST = (
    TaskState.FAILED,
    TaskState.UPSTREAM_FAILED,
    TaskState.RUNNING,
    TaskState.QUEUED,
    TaskState.SCHEDULED,
    TaskState.AWAITING_INPUT,
    TaskState.UP_FOR_RESCHEDULE,
    TaskState.UP_FOR_RETRY,
    TaskState.NONE,
    TaskState.SUCCESS,
    TaskState.SKIPPED,
    TaskState.REMOVED,
)


def summary_of(states: Iterable[TaskState]) -> TaskState:
    """The state of a mapped task as a whole: of those of its instances, at least one, the one that counts most."""
    return min(states, key=_COUNTS_MOST.index)


TASK_MOVES: frozenset[tuple[TaskState, TaskState]] = frozenset(
    {
        (TaskState.NONE, TaskState.SCHEDULED),
        (TaskState.NONE, TaskState.SUCCESS),  # an operator with nothing to execute (`empty`)
        (TaskState.NONE, TaskState.SKIPPED),
        (TaskState.NONE, TaskState.UPSTREAM_FAILED),
        (TaskState.NONE, TaskState.FAILED),  # its `when` or `expand` can't be evaluated, or its run is stopped
        (TaskState.NONE, TaskState.AWAITING_INPUT),
        (TaskState.SCHEDULED, TaskState.QUEUED),
        (TaskState.SCHEDULED, TaskState.FAILED),  # nothing could take it within `queued_timeout`
        (TaskState.SCHEDULED, TaskState.SKIPPED),
        (TaskState.QUEUED, TaskState.RUNNING),
        (TaskState.QUEUED, TaskState.FAILED),
        (TaskState.QUEUED, TaskState.SKIPPED),
        (TaskState.QUEUED, TaskState.SCHEDULED),  # taken back before anybody claimed it
        (TaskState.RUNNING, TaskState.SUCCESS),
        (TaskState.RUNNING, TaskState.FAILED),
        (TaskState.RUNNING, TaskState.SKIPPED),
        (TaskState.RUNNING, TaskState.UP_FOR_RETRY),
        (TaskState.RUNNING, TaskState.SCHEDULED),  # its worker was lost; the infra budget pays
        (TaskState.RUNNING, TaskState.UP_FOR_RESCHEDULE),
        (TaskState.UP_FOR_RETRY, TaskState.SCHEDULED),
        (TaskState.UP_FOR_RETRY, TaskState.FAILED),
        (TaskState.UP_FOR_RETRY, TaskState.SKIPPED),
        (TaskState.UP_FOR_RESCHEDULE, TaskState.SCHEDULED),
        (TaskState.UP_FOR_RESCHEDULE, TaskState.FAILED),
        (TaskState.UP_FOR_RESCHEDULE, TaskState.SKIPPED),
        (TaskState.AWAITING_INPUT, TaskState.SUCCESS),
        (TaskState.AWAITING_INPUT, TaskState.FAILED),
        (TaskState.AWAITING_INPUT, TaskState.SKIPPED),
    }
)
"""What the engine may do to a task instance."""

PERSON_MOVES: frozenset[tuple[TaskState, TaskState]] = frozenset(
    (from_state, to_state)
    for from_state in TaskState
    for to_state in (TaskState.NONE, TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED, TaskState.REMOVED)
    if from_state is not to_state
)
"""What a person may do to a task instance: clear it, mark it, or leave it behind with the DAG version that had it."""

PERSON_RUN_MOVES: frozenset[tuple[RunState, RunState]] = frozenset(
    (from_state, to_state)
    for from_state in RunState
    for to_state in (RunState.QUEUED, RunState.SUCCESS, RunState.FAILED)
    if from_state is not to_state and (from_state, to_state) != (RunState.RUNNING, RunState.QUEUED)
)
"""What a person may do to a run: have it run again by clearing, or mark it."""

RUN_MOVES: frozenset[tuple[RunState, RunState]] = frozenset(
    {
        (RunState.QUEUED, RunState.RUNNING),
        (RunState.QUEUED, RunState.FAILED),
        (RunState.RUNNING, RunState.SUCCESS),
        (RunState.RUNNING, RunState.FAILED),
    }
)

"""What is known of a run when it is decided on, and what can be decided about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from yarrow.jsontypes import Json
from yarrow.states import RunState, TaskState


@dataclass(frozen=True, slots=True)
class TaskView:
    """What is known of one task instance.

    A mapped task has one instance with the index -1 until its `expand` is known, and then one for each value, from 0.
    """

    task_id: str
    state: TaskState
    try_number: int = 0
    max_tries: int = 1
    wait_until: datetime | None = None  # of a state that waits: when it is over
    follow: tuple[str, ...] | None = None  # what a control operator chose
    map_index: int = -1
    map_value: Mapping[str, Json] | None = None  # what `map.name` stands for
    stopping: bool = False  # its worker has been told to stop it; it may have ended since


@dataclass(frozen=True, slots=True)
class RunView:
    """What is known of one run. Instants are aware UTC."""

    dag_id: str
    run_id: str
    state: RunState
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    params: Mapping[str, Json]
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PastView:
    """The run before, as tasks with `depends_on_past` or `wait_for_downstream` have to know it."""

    run_id: str
    tasks: Mapping[str, Sequence[TaskState]]  # task id -> the states of its instances; a task it has not is absent


@dataclass(frozen=True, slots=True)
class Question:
    """What a task asks a person."""

    message: str
    default: str | None = None  # approve or reject: the answer when nobody gives one; None: it fails then
    due_at: datetime | None = None  # None: it waits for ever


@dataclass(frozen=True, slots=True)
class Expansion:
    """A mapped task becomes so many instances: its instance -1 gets the index 0, and the others are new.

    They are in the state `none` then. Later decisions name them by their index.
    """

    task_id: str
    values: tuple[Mapping[str, Json], ...]  # at least one


@dataclass(frozen=True, slots=True)
class TaskDecision:
    """One move of one task instance.

    From `running` it is a wish: its worker is told to stop it, and it ends in `to_state` when that has happened. From
    `queued` its attempt is taken back.
    """

    task_id: str
    from_state: TaskState
    to_state: TaskState
    reason: str | None = None
    map_index: int = -1
    question: Question | None = None  # to `awaiting_input`: what is asked
    answer: str | None = None  # from `awaiting_input`: approve or reject, by default
    follow: tuple[str, ...] | None = None  # from `awaiting_input`: () cuts off what comes after it


@dataclass(frozen=True, slots=True)
class RunDecision:
    """The end of a run."""

    from_state: RunState
    to_state: RunState
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Decisions:
    """All that is to be done about a run now; empty when nothing is. Expansions come first."""

    tasks: tuple[TaskDecision, ...] = ()
    run: RunDecision | None = None
    wait_until: datetime | None = None  # the next moment at which time alone changes something
    expansions: tuple[Expansion, ...] = ()

"""The rules that hold in the tables whatever people clear, mark, stop and backfill while tasks run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from run_oracle import RUNS, Seen
from yarrow.language.spec import DagSpec
from yarrow.states import AttemptState, RunState, TaskState
from yarrow.store.specs import Specs
from yarrow.store.tables import approval, attempt, backfill, dag, dag_run, event, pool, task_instance, xcom

Key = tuple[str, str, int]
"""run_id, task_id and map index: the rules are about the runs of one DAG."""

TIMED = (TaskState.SCHEDULED, TaskState.QUEUED, TaskState.UP_FOR_RETRY, TaskState.UP_FOR_RESCHEDULE)
LIVE = {TaskState.QUEUED: AttemptState.QUEUED, TaskState.RUNNING: AttemptState.RUNNING}
LEFT_OR_NONE = "removed, or mapped anew"
PUT_OFF = (TaskState.UP_FOR_RESCHEDULE, TaskState.SCHEDULED)


def broken_rules(connection: Connection) -> list[str]:
    """What in the tables, or in the history, breaks a rule."""
    runs = {row.id: row for row in connection.execute(select(dag_run))}
    tasks = connection.execute(select(task_instance).order_by(task_instance.c.id)).all()
    own: dict[int, list[Any]] = {row.id: [] for row in tasks}
    for row in connection.execute(select(attempt).order_by(attempt.c.created_at)):
        own[row.task_instance_id].append(row)
    xcoms = set(connection.execute(select(xcom.c.attempt_id)).scalars())
    cancelled = set(connection.execute(select(backfill.c.id).where(backfill.c.cancelled_at.is_not(None))).scalars())
    questions = {row.task_instance_id: row for row in connection.execute(select(approval))}
    faults: list[str] = []
    for row in tasks:
        run = runs[row.dag_run_id]
        found = [
            *_waits(row, own[row.id], questions.get(row.id)),
            *_attempts(row, own[row.id]),
            *_results(row, own[row.id], xcoms),
            *_in_finished_run(row, own[row.id], run, cancelled),
        ]
        faults += [f"{run.run_id} {row.task_id}[{row.map_index}] is {row.state}: {why}" for why in found]
    faults += _limits(connection, list(runs.values()), tasks)
    return faults + _history(connection, runs, tasks)


def _waits(row: Any, own: Sequence[Any], question: Any) -> list[str]:
    """Nothing waits without a deadline or without somebody who sees to it."""
    faults = []
    if row.state in TIMED and row.wait_until is None:
        faults.append("it waits without end")
    if row.state not in (*TIMED, TaskState.AWAITING_INPUT) and row.wait_until is not None:
        faults.append("it waits for nothing")
    if any(one.state is AttemptState.RUNNING and one.lease_until is None for one in own):
        faults.append("its attempt runs without a lease")
    is_open = question is not None and question.answer is None
    if is_open != (row.state is TaskState.AWAITING_INPUT):
        faults.append(f"its question is {'open' if is_open else 'not open'}")
    return faults


def _attempts(row: Any, own: Sequence[Any]) -> list[str]:
    """At most one attempt is open, it is the newest one, and the state of the task instance tells so."""
    faults = []
    newest = next((one for one in own if one.attempt_id == row.attempt_id), None)
    live = [one for one in own if one.state in (AttemptState.QUEUED, AttemptState.RUNNING)]
    wanted = LIVE.get(row.state)
    if [one.state for one in live] != ([wanted] if wanted else []) or (live and live != [newest]):
        faults.append(f"its open attempts are {[str(one.state) for one in live]}")
    put_off = [one for one in own if one.state is AttemptState.DEFERRED]
    if put_off and (row.state not in PUT_OFF or put_off != [newest]):
        faults.append("an attempt was put off and will never go on")
    if row.state is TaskState.UP_FOR_RESCHEDULE and not put_off:
        faults.append("no attempt was put off")
    if any(one.state.finished != (one.ended_at is not None) for one in own):
        faults.append("an attempt has ended without a moment, or has one and goes on")
    if row.try_number > row.max_tries:
        faults.append(f"{row.try_number} tries of {row.max_tries}")
    if any(one.overruled and one.cancel_reason is None for one in own):
        faults.append("an attempt was overruled and nobody told it to stop")
    return faults


def _results(row: Any, own: Sequence[Any], xcoms: set[str]) -> list[str]:
    """Only the attempt that gave a success its state has an XCom that others see."""
    faults = []
    for one in own:
        if one.attempt_id not in xcoms:
            continue
        if one.state is not AttemptState.SUCCESS or one.overruled:
            faults.append(f"an XCom of an attempt that is {one.state}, overruled: {one.overruled}")
        if row.state is not TaskState.REMOVED and (
            row.state is not TaskState.SUCCESS or one.attempt_id != row.attempt_id
        ):
            faults.append("an XCom of an attempt that does not count any more")
    return faults


def _in_finished_run(row: Any, own: Sequence[Any], run: Any, cancelled: set[int]) -> list[str]:
    """In a run that has ended nothing is left to do, but for what is just being stopped."""
    if not run.state.finished or row.state.finished or run.backfill_id in cancelled:
        return []
    told = [one for one in own if one.state is AttemptState.RUNNING and one.cancel_reason is not None]
    return [] if row.state is TaskState.RUNNING and told else ["its run has ended"]


def _limits(connection: Connection, runs: Sequence[Any], tasks: Sequence[Any]) -> list[str]:
    """The DAG's limits hold for the runs that no backfill has, each backfill's for its own, and the pools' for all."""
    faults = []
    running = [row for row in runs if row.state is RunState.RUNNING]
    for row in connection.execute(select(dag)):
        count = sum(one.dag_id == row.dag_id and one.backfill_id is None for one in running)
        if count > row.max_active_runs:
            faults.append(f"{count} runs of {row.dag_id} are running, of {row.max_active_runs}")
        in_slot = sum(one.dag_id == row.dag_id and one.state in LIVE for one in tasks)
        if in_slot > row.max_active_tasks:
            faults.append(f"{in_slot} tasks of {row.dag_id} are in a slot, of {row.max_active_tasks}")
    for row in connection.execute(select(backfill).where(backfill.c.cancelled_at.is_(None))):
        count = sum(one.backfill_id == row.id and one.backfill_place is not None for one in running)
        if count > row.max_active_runs:
            faults.append(f"{count} runs of the backfill {row.id} are running, of {row.max_active_runs}")
    for row in connection.execute(select(pool)):
        used = sum(one.pool_slots for one in tasks if one.pool == row.name and one.state in LIVE)
        if used > row.slots:
            faults.append(f"{used} slots of the pool {row.name} are used, of {row.slots}")
    return faults


def _history(connection: Connection, runs: Mapping[int, Any], tasks: Sequence[Any]) -> list[str]:
    """The history, played from the start, has no gap, ends as the tables say, and starts no task too early."""
    lines = connection.execute(select(event).order_by(event.c.id)).all()
    specs = {row.run_id: Specs().get(connection, row.dag_id, row.version) for row in runs.values()}
    states: dict[Key, str] = {}
    run_states: dict[str, str | None] = {}
    begun: list[Key] = []  # by a scheduler, in the lines of that run just before
    faults: list[str] = []
    for line in lines:
        if line.kind == "run.state":
            if run_states.get(line.run_id) != line.from_state:
                faults.append(f"{line.run_id} moved from {line.from_state}, was {run_states.get(line.run_id)}")
            run_states[line.run_id] = line.to_state
        elif line.kind == "run.deleted":
            run_states.pop(line.run_id)
        elif line.kind == "task.expanded":
            _expanded(states, line.run_id, line.task_id)
        elif line.kind == "task.state":
            if begun and (line.who != "scheduler" or line.run_id != begun[0][0]):
                faults += _begun_too_early(specs, states, begun)
                begun = []
            key = (line.run_id, line.task_id, line.map_index)
            _become_one(states, key, line.from_state)
            if states.get(key, "none") != line.from_state:
                faults.append(f"{key} moved from {line.from_state}, was {states.get(key)}")
            states[key] = line.to_state
            if (line.from_state, line.to_state) == ("none", "scheduled"):
                begun.append(key)
    faults += _begun_too_early(specs, states, begun)
    faults += [
        f"the history of {run.run_id} ends in {run_states.get(run.run_id)}, the table says {run.state}"
        for run in runs.values()
        if run_states.get(run.run_id) != run.state
    ]
    now = {(runs[row.dag_run_id].run_id, row.task_id, row.map_index): row.state for row in tasks}
    return faults + [
        f"the history of {key} ends in {states.get(key)}, the table says {state}"
        for key, state in now.items()
        if _ends(states, key, state) not in (state, LEFT_OR_NONE)
    ]


def _ends(states: Mapping[Key, str], key: Key, state: str) -> str:
    """The last state in the history: of one that has become one while it runs, that of the first of several."""
    if key[2] == -1 and state == "running" and key not in states:
        return states.get((key[0], key[1], 0), "none")
    return states.get(key, "none")


def _expanded(states: dict[Key, str], run_id: str, task_id: str) -> None:
    """The instances of a task that is mapped anew begin afresh; those that are not needed any more stay removed."""
    for key in [key for key in states if key[:2] == (run_id, task_id)]:
        if states[key] == "removed":
            states[key] = LEFT_OR_NONE
        else:
            del states[key]


def _become_one(states: dict[Key, str], key: Key, from_state: str) -> None:
    """Sorts out what one line tells of instances that have become one, or several, since the line before."""
    if states.get(key) == LEFT_OR_NONE:
        states[key] = from_state
    first = (key[0], key[1], 0)
    if key[2] == -1 and from_state == "running" == states.get(first):
        states[key] = states.pop(first)  # it was cleared while it ran


def _begun_too_early(specs: Mapping[str, DagSpec], states: Mapping[Key, str], begun: Sequence[Key]) -> list[str]:
    """The trigger rules of what a scheduler began, told a second time and as plainly as they are written down."""
    faults = []
    for run_id, task_id, map_index in begun:
        spec = specs.get(run_id)
        if spec is None or task_id not in spec.tasks:
            continue  # the run was deleted, or has another version now
        task = spec.tasks[task_id]
        if any(spec.tasks[name].mapped for name in (task_id, *task.upstream)):
            continue
        seen = Seen(tuple(states.get((run_id, name, -1), "none") for name in task.upstream))
        if not RUNS[task.trigger_rule](seen):
            faults.append(f"{run_id} {task_id}[{map_index}] began by {task.trigger_rule} with {seen.states}")
    return faults

"""What is read of runs before they are decided on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, case, literal_column, null, or_, select

from yarrow.decision.decisions import PastView, TaskView
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.mapping import Instance, decided_by_value
from yarrow.states import RunState, TaskState
from yarrow.store.instances import in_task_order
from yarrow.store.records import RunRecord, RunSnapshot
from yarrow.store.rows import AnyRow, columns_of
from yarrow.store.specs import Specs
from yarrow.store.tables import attempt, dag_run, task_instance
from yarrow.store.xcoms import read_xcoms

# Partial indexes want this condition with the word itself, not with a parameter.
_RUNNING = dag_run.c.state == literal_column("'running'")

_DIRTY = select(dag_run.c.id).where(
    _RUNNING,
    dag_run.c.change_seq > dag_run.c.decided_seq,
    or_(dag_run.c.quarantine_until.is_(None), dag_run.c.quarantine_until <= bindparam("now")),
)
_WOKEN = select(dag_run.c.id).where(dag_run.c.wait_until <= bindparam("now"), _RUNNING)
_UNDECIDED = _DIRTY.union(_WOKEN).limit(bindparam("limit"))  # ordered here, it would go by the id, past every run
_NEXT_WAIT = (
    select(dag_run.c.wait_until)
    .where(dag_run.c.wait_until.is_not(None), _RUNNING)
    .order_by(dag_run.c.wait_until)
    .limit(1)
)
_RUN = select(*columns_of(RunRecord, dag_run)).where(dag_run.c.id == bindparam("id"))
_STOPPED = select(attempt.c.cancel_reason).where(attempt.c.attempt_id == task_instance.c.attempt_id).scalar_subquery()
_MAY_BE_STOPPED = task_instance.c.state.in_([literal_column("'running'"), literal_column("'failed'")])
_THERE = task_instance.c.state != literal_column("'removed'")  # others are history
_VIEWS = (
    select(
        task_instance.c.task_id,
        task_instance.c.state,
        task_instance.c.try_number,
        task_instance.c.max_tries,
        task_instance.c.wait_until,
        task_instance.c.follow,
        task_instance.c.map_index,
        case((_MAY_BE_STOPPED, _STOPPED)).label("stopped"),
    )
    .where(task_instance.c.dag_run_id == bindparam("id"), _THERE)
    .order_by(task_instance.c.id)
)
# The values may be large and many: they are read for what is decided by them, and not again once it has begun.
_BY_VALUE = and_(
    task_instance.c.state == literal_column("'none'"),
    task_instance.c.task_id.in_(bindparam("task_ids", expanding=True)),
)
_VIEWS_WITHOUT_VALUES = _VIEWS.add_columns(null())
_VIEWS_WITH_VALUES = _VIEWS.add_columns(case((_BY_VALUE, task_instance.c.map_value)).label("map_value"))
_PREVIOUS = (
    select(dag_run.c.id, dag_run.c.run_id)
    .where(
        dag_run.c.dag_id == bindparam("dag_id"),
        # One that has come since, for an earlier date, must not wait for a place that this run holds, and hold it up.
        dag_run.c.state != RunState.QUEUED,
        dag_run.c.logical_date <= bindparam("date"),  # which the index knows
        or_(
            dag_run.c.logical_date < bindparam("date"),
            and_(dag_run.c.logical_date == bindparam("date"), dag_run.c.id < bindparam("id")),
        ),
    )
    .order_by(dag_run.c.logical_date.desc(), dag_run.c.id.desc())
    .limit(1)
)
_PREVIOUS_SCHEDULED = _PREVIOUS.where(dag_run.c.run_type.in_(["scheduled", "backfill"]))
_STATES = (
    select(task_instance.c.task_id, task_instance.c.state)
    .where(
        task_instance.c.dag_run_id == bindparam("id"),
        task_instance.c.task_id.in_(bindparam("task_ids", expanding=True)),
        _THERE,
    )
    .order_by(task_instance.c.id)
)
_HASTY_RULES = frozenset({"one_failed", "one_success", "one_done", "always"})
"""The trigger rules that may be met while an upstream task runs."""

_ANY = -2  # in place of a map index: of whichever instance
_NO_GROUP = ""


def undecided(connection: Connection, now: datetime, limit: int) -> list[int]:
    """Ids of running runs to which something happened, or whose wait is over."""
    return sorted(connection.execute(_UNDECIDED, {"now": now, "limit": limit}).scalars())


def next_wait(connection: Connection) -> datetime | None:
    """The earliest end of a wait of a running run."""
    return connection.execute(_NEXT_WAIT).scalar()


def snapshot(connection: Connection, specs: Specs, id: int) -> RunSnapshot | None:
    """What there is to decide on. None: the run is not running."""
    # The run comes first: what happens between the looks counts as not yet seen.
    row = connection.execute(_RUN, {"id": id}).one_or_none()
    if row is None or row.state != RunState.RUNNING:
        return None
    return snapshot_of(connection, specs, RunRecord(*row))


def snapshot_of(connection: Connection, specs: Specs, record: RunRecord) -> RunSnapshot:
    """What there would be to decide on if a run were running, which it need not. It may have no task instances yet."""
    id = record.id
    spec = specs.get(connection, record.dag_id, record.version)
    by_value = [task_id for task_id in spec.mapped_tasks if decided_by_value(spec.tasks[task_id])]
    if by_value:
        rows = connection.execute(_VIEWS_WITH_VALUES, {"id": id, "task_ids": by_value})
    else:
        rows = connection.execute(_VIEWS_WITHOUT_VALUES, {"id": id})
    tasks = [_view(row) for row in in_task_order(rows)]
    waiting = [view for view in tasks if view.state is TaskState.NONE]
    names = _named_xcoms(spec, tasks, waiting)
    xcoms: dict[Instance, Json] = read_xcoms(connection, id, names) if names else {}
    return RunSnapshot(record, spec, tasks, xcoms, _past(connection, record, spec, waiting))


def _view(row: AnyRow) -> TaskView:
    task_id, state, try_number, max_tries, wait_until, follow, map_index, stopped, map_value = row
    chosen = None if follow is None else tuple(follow)
    return TaskView(
        task_id, state, try_number, max_tries, wait_until, chosen, map_index, map_value, stopped is not None
    )


def _named_xcoms(spec: DagSpec, tasks: Iterable[TaskView], waiting: Iterable[TaskView]) -> set[str]:
    """The tasks whose XCom may be asked for in this decision.

    A task that certainly has to wait for a running one asks for nothing yet: a wide mapped task would else be read
    anew at the end of each of its instances.
    """
    running = {(view.task_id, view.map_index) for view in tasks if view.state is TaskState.RUNNING}
    running |= {(task_id, _ANY) for task_id, _ in running}
    names: set[str] = set()
    for view in waiting:
        task = spec.tasks[view.task_id]
        unexpanded = task.mapped and view.map_index < 0
        named = (
            *task.when_xcoms,
            *(task.xcoms if task.operator == "approval" else ()),
            *(task.expand_xcoms if unexpanded else ()),
        )
        if named and running.isdisjoint(_awaited(spec, task, view.map_index, unexpanded)):
            names.update(named)
    return names


def _awaited(spec: DagSpec, task: TaskSpec, map_index: int, unexpanded: bool) -> Iterable[Instance]:
    """What can't be running when something is decided on this task instance."""
    if unexpanded and task.map_group is not None:  # the group is expanded whatever else its tasks wait for
        return [(task_id, _ANY) for task_id in task.expand_xcoms]
    if task.trigger_rule in _HASTY_RULES:
        return ()
    group = task.map_group or _NO_GROUP
    return [(task_id, map_index if spec.tasks[task_id].map_group == group else _ANY) for task_id in task.upstream]


def _past(connection: Connection, record: RunRecord, spec: DagSpec, waiting: Sequence[TaskView]) -> PastView | None:
    """The run before, if a task has yet to be compared with it and there is one."""
    if not spec.looks_back:
        return None
    task_ids: set[str] = set()
    for task in (spec.tasks[view.task_id] for view in waiting):
        if task.depends_on_past or task.wait_for_downstream:
            task_ids.add(task.task_id)
        if task.wait_for_downstream:
            task_ids.update(spec.downstream[task.task_id])
    if not task_ids:
        return None
    query = _PREVIOUS_SCHEDULED if spec.catchup else _PREVIOUS
    place = {"dag_id": record.dag_id, "date": record.logical_date, "id": record.id}
    previous = connection.execute(query, place).one_or_none()
    if previous is None:
        return None
    states: dict[str, list[TaskState]] = {}
    for task_id, state in connection.execute(_STATES, {"id": previous.id, "task_ids": sorted(task_ids)}):
        states.setdefault(task_id, []).append(state)
    return PastView(previous.run_id, states)

"""Runs: how they come to be, are decided on, and are looked at."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, func, or_, select, update

from yarrow.decision.decisions import Decisions
from yarrow.errors import Conflict, NotFound, UsageError
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec
from yarrow.params import run_params
from yarrow.schedules.fires import FIRST, LAST
from yarrow.states import RunState
from yarrow.store import deadlines, deciding, snapshots, starting
from yarrow.store.catalog import did_you_mean, read_dag
from yarrow.store.database import Database, insert_new
from yarrow.store.instances import Placed, add_all, in_task_order
from yarrow.store.records import EventRecord, RunRecord, RunSnapshot, TaskInstanceRecord, TaskSummary
from yarrow.store.rows import columns_of
from yarrow.store.specs import Specs
from yarrow.store.summaries import task_summaries
from yarrow.store.tables import attempt, dag, dag_run, event, task_instance
from yarrow.store.transitions import CHUNK, SCHEDULER, append, chunks, run_event
from yarrow.timetable import run_by_hand

_RUN = select(*columns_of(RunRecord, dag_run))
_TASK_INSTANCE = select(*columns_of(TaskInstanceRecord, task_instance, dag_run, attempt)).select_from(
    task_instance.join(dag_run).outerjoin(attempt, attempt.c.attempt_id == task_instance.c.attempt_id)
)
_EVENT = select(*columns_of(EventRecord, event))

Interval = tuple[datetime, datetime, datetime, datetime]
"""Logical date, start and end of the data interval, and the moment from which the run may start."""


class Runs:
    """Runs of DAGs and their task instances. Every method is one transaction."""

    def __init__(self, database: Database, specs: Specs) -> None:
        self._database = database
        self._specs = specs

    # How they come to be

    def create(
        self,
        spec: DagSpec,
        version: str,
        *,
        run_id: str,
        run_type: str,
        interval: Interval,
        params: Mapping[str, Json],
        triggered_by: str | None = None,
        advance: tuple[datetime | None, datetime | None] | None = None,
        now: datetime | None = None,
    ) -> RunRecord | None:
        """Creates a queued run with its task instances.

        Args:
            interval: logical date, start and end of the data interval, and the moment from which it may start.
            advance: (next logical date, next run_after) of the DAG, moved in the same transaction together with
                `scheduled_through`, which becomes this run's logical date. The pointer never moves backwards.

        Returns:
            None when the run exists already, or a backfill has a run for the logical date of a scheduled one; the
            pointer is moved all the same. None, too, when the DAG has moved on: it got another version, or is scheduled
            past this run.
        """
        at = self._database.now(now)
        row = _run_row(spec, version, run_id, run_type, interval, params, triggered_by, at)

        def work(connection: Connection) -> RunRecord | None:
            if advance is not None and not _advance(connection, spec.dag_id, version, interval[0], advance):
                return None
            taken = run_type == "scheduled" and _is_backfilled(connection, spec.dag_id, interval[0])
            record = None if taken else self._insert(connection, spec, row)
            if advance is not None and deadlines.known_beforehand(spec):
                deadlines.expect(self._database, connection, [spec.dag_id])
            return record

        return self._database.write(work)

    def trigger(
        self,
        dag_id: str,
        *,
        params: Mapping[str, Json] | None = None,
        logical_date: datetime | None = None,
        run_id: str | None = None,
        who: str,
        run_type: str = "manual",
        exist_ok: bool = False,
        now: datetime | None = None,
    ) -> RunRecord:
        """Creates a run of the DAG's newest version by hand: defaults filled in, params checked.

        A run for a logical date of the DAG's schedule gets that data interval, any other the latest complete one.

        Raises:
            UsageError: The logical date is beyond the calendar.
            NotFound: No such active DAG.
            InvalidParams: They don't fit what the DAG declares.
            Conflict: There is such a run already, unless `exist_ok`, which answers with it.
        """
        at = self._database.now(now)
        date = logical_date or at
        if not FIRST <= date < LAST:  # what is counted from it, such as a deadline, must be a moment too
            raise UsageError(f"The logical date must be of the years {FIRST.year} to {LAST.year - 1}, not {date.year}.")
        name = run_id or f"{run_type}__{date.isoformat()}"

        def newest(connection: Connection) -> DagSpec:
            record = read_dag(connection, dag_id)
            if not record.is_active:
                raise NotFound(f"The DAG {dag_id!r} is gone: its file {record.path} is not in the DAG folder any more.")
            return self._specs.get(connection, dag_id, record.version)

        spec = self._database.read(newest)
        interval = run_by_hand(spec.schedule, spec.start_date, spec.end_date, date)
        row = _run_row(
            spec,
            spec.version,
            name,
            run_type,
            (date, interval.data_interval_start, interval.data_interval_end, at),
            run_params(spec, params or {}),
            who,
            at,
        )

        def work(connection: Connection) -> RunRecord:
            record = self._insert(connection, spec, row)
            if record is not None:
                return record
            if exist_ok:
                return one_run(connection, dag_id, name)
            raise Conflict(f"The DAG {dag_id!r} has a run {name!r} already.", hint="Give another run_id.")

        return self._database.write(work)

    def insert(
        self,
        connection: Connection,
        spec: DagSpec,
        *,
        run_id: str,
        run_type: str,
        interval: Interval,
        params: Mapping[str, Json],
        at: datetime,
    ) -> RunRecord | None:
        """Creates a queued run of this version within a transaction; None when there is one of that run_id already."""
        return self._insert(
            connection, spec, _run_row(spec, spec.version, run_id, run_type, interval, params, None, at)
        )

    def _insert(self, connection: Connection, spec: DagSpec, row: Mapping[str, Any]) -> RunRecord | None:
        statement = insert_new(self._database, dag_run).returning(*_RUN.selected_columns)
        found = connection.execute(statement, row).one_or_none()
        if found is None:
            return None
        record = RunRecord(*found)
        add_all(connection, record, spec)
        who = record.triggered_by or SCHEDULER
        append(
            connection,
            [run_event((record.dag_id, record.run_id), None, RunState.QUEUED, record.queued_at, who, None)],
        )
        deadlines.add(self._database, connection, spec, record)
        return record

    def active_count(self, dag_id: str) -> int:
        """How many runs of the DAG are queued or running, without those of its backfills."""
        active = dag_run.c.state.in_([RunState.QUEUED, RunState.RUNNING])
        query = select(func.count()).select_from(dag_run).where(dag_run.c.dag_id == dag_id, active, starting.OWN)
        return self._database.read(lambda connection: connection.execute(query).scalar_one())

    # How they go on

    def start_due(self, now: datetime | None = None) -> builtins.list[int]:
        """Starts queued runs within their DAG's `max_active_runs`, oldest logical date first; not of paused DAGs.

        Those of a backfill start in its order, within its own limit instead, unless it is paused.

        Returns:
            The ids of the runs that are running now.
        """
        at = self._database.now(now)
        if not self._database.read(lambda connection: starting.startable(connection, at)):
            return []
        return self._database.write(lambda connection: starting.start(connection, self._specs, at))

    def undecided(self, now: datetime | None = None, limit: int = 1000) -> builtins.list[int]:
        """Ids of running runs to which something happened, or whose wait is over."""
        at = self._database.now(now)
        return self._database.read(lambda connection: snapshots.undecided(connection, at, limit))

    def next_wait(self) -> datetime | None:
        """The earliest `wait_until` of a running run: how long a scheduler may sleep."""
        return self._database.read(snapshots.next_wait)

    def snapshot(self, id: int) -> RunSnapshot | None:
        """What there is to decide on. None: the run is not running."""
        return self._database.read(lambda connection: snapshots.snapshot(connection, self._specs, id))

    def apply(
        self,
        id: int,
        decisions: Decisions,
        seen_seq: int,
        *,
        queued_timeout: float = 3600.0,
        who: str = SCHEDULER,
        now: datetime | None = None,
    ) -> bool:
        """Carries out what was decided on a snapshot with this `change_seq`.

        Each move is compare-and-set; one whose task instance has moved since is left out, and the run stays undecided.
        The run's own move needs that nothing at all has happened since.

        Returns:
            Whether everything was carried out.
        """
        at = self._database.now(now)
        return self._database.write(
            lambda connection: deciding.apply(
                self._database, self._specs, connection, id, decisions, seen_seq, queued_timeout, who, at
            )
        )

    def quarantine(self, id: int, error: str, until: datetime) -> int:
        """Leaves a run alone until then because deciding on it went wrong; the error is shown as its reason.

        Returns:
            How often in a row that has happened, this time included.
        """
        return self._database.write(lambda connection: deciding.quarantine(connection, id, error, until))

    # How they are looked at

    def get(self, dag_id: str, run_id: str) -> RunRecord:
        """The run. Raises NotFound."""
        return self._database.read(lambda connection: one_run(connection, dag_id, run_id))

    def by_id(self, id: int) -> RunRecord:
        """The run with that row id. Raises NotFound."""
        found = self._runs(_RUN.where(dag_run.c.id == id))
        if not found:
            raise NotFound(f"There is no run with id {id}.")
        return found[0]

    def list(
        self,
        dag_id: str | None = None,
        state: RunState | str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> builtins.list[RunRecord]:
        """Runs, newest first. `before` is the row id of the last run of the page before."""
        query = _RUN.order_by(dag_run.c.id.desc()).limit(limit)
        if dag_id is not None:
            query = query.where(dag_run.c.dag_id == dag_id)
        if state is not None:
            query = query.where(dag_run.c.state == state)
        if before is not None:
            query = query.where(dag_run.c.id < before)
        return self._runs(query)

    def latest(self, dag_ids: Collection[str] | None = None) -> dict[str, RunRecord]:
        """The run with the newest logical date of each DAG that has one; of active DAGs by default."""
        other = dag_run.alias()
        newest = (
            select(other.c.id)
            .where(other.c.dag_id == dag.c.dag_id)
            .order_by(other.c.logical_date.desc(), other.c.id.desc())
            .limit(1)
            .scalar_subquery()
        )
        query = _RUN.select_from(dag.join(dag_run, dag_run.c.id == newest))
        query = query.where(dag.c.is_active if dag_ids is None else dag.c.dag_id.in_(sorted(dag_ids)))
        return {run.dag_id: run for run in self._runs(query)}

    def state_counts(self, dag_ids: Collection[str] | None = None) -> dict[str, dict[str, int]]:
        """For each DAG, how many of its runs are in each state."""
        query = select(dag_run.c.dag_id, dag_run.c.state, func.count()).group_by(dag_run.c.dag_id, dag_run.c.state)
        if dag_ids is not None:
            query = query.where(dag_run.c.dag_id.in_(sorted(dag_ids)))
        return self._database.read(lambda connection: _nested_counts(connection, query))

    def task_state_counts(self, ids: Collection[int]) -> dict[int, dict[str, int]]:
        """For each run id, how many of its task instances are in each state: progress bars."""
        columns = (task_instance.c.dag_run_id, task_instance.c.state)
        query = select(*columns, func.count()).group_by(*columns)

        def work(connection: Connection) -> dict[int, dict[str, int]]:
            counts: dict[int, dict[str, int]] = {id: {} for id in ids}
            for chunk in chunks(sorted(ids), CHUNK):
                counts |= _nested_counts(connection, query.where(task_instance.c.dag_run_id.in_(chunk)))
            return counts

        return self._database.read(work)

    def task_instances(self, id: int, *, mapped: bool = True) -> builtins.list[TaskInstanceRecord]:
        """The task instances of a run in the topological order of its DAG version, those of a task by map index.

        Without `mapped` those of mapped tasks are left out, of which there may be very many.
        """
        query = _TASK_INSTANCE.where(task_instance.c.dag_run_id == id)
        return self._task_instances(query if mapped else query.where(task_instance.c.map_index < 0))

    def task_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> TaskInstanceRecord:
        """One task instance. Raises NotFound with the nearest name, or with the map indexes that there are."""
        run = self.get(dag_id, run_id)
        of_task = _TASK_INSTANCE.where(task_instance.c.dag_run_id == run.id, task_instance.c.task_id == task_id)
        found = self._task_instances(of_task.where(task_instance.c.map_index == map_index))
        if not found:
            raise no_such_instance(run, self.task_instances(run.id), task_id, map_index)
        return found[0]

    def mapped_instances(
        self, id: int, task_id: str, state: str | None = None, *, limit: int = 100, offset: int = 0
    ) -> builtins.list[TaskInstanceRecord]:
        """A page of the instances of a mapped task, by map index; of one state or of all."""
        query = _TASK_INSTANCE.where(
            task_instance.c.dag_run_id == id, task_instance.c.task_id == task_id, task_instance.c.map_index >= 0
        )
        if state is not None:
            query = query.where(task_instance.c.state == state)
        page = query.order_by(task_instance.c.map_index).limit(limit).offset(offset)
        return self._database.read(lambda connection: [TaskInstanceRecord(*row) for row in connection.execute(page)])

    def task_summaries(self, ids: Collection[int]) -> dict[int, builtins.list[TaskSummary]]:
        """For each run id its tasks, mapped ones as a whole, in the topological order of its DAG version."""
        return self._database.read(lambda connection: task_summaries(connection, ids))

    def events(
        self,
        dag_id: str | None = None,
        run_id: str | None = None,
        task_id: str | None = None,
        *,
        after: int = 0,
        limit: int = 1000,
    ) -> builtins.list[EventRecord]:
        """The history in the order it happened, from behind event id `after`."""
        query = _EVENT.where(event.c.id > after).order_by(event.c.id).limit(limit)
        for column, value in ((event.c.dag_id, dag_id), (event.c.run_id, run_id), (event.c.task_id, task_id)):
            if value is not None:
                query = query.where(column == value)
        return self._database.read(lambda connection: [EventRecord(*row) for row in connection.execute(query)])

    def changes_by_hand(self, dag_id: str, run_id: str, *, limit: int = 1000) -> builtins.list[EventRecord]:
        """What people did to a run and its task instances, such as clear, mark or answer; the newest first."""
        query = (
            _EVENT.where(event.c.dag_id == dag_id, event.c.run_id == run_id, event.c.who != SCHEDULER)
            .where(~event.c.who.startswith("worker "), ~event.c.who.startswith("task "))
            .where(or_(event.c.from_state.is_not(None), event.c.kind.in_(["task.cancel", "task.added"])))
            .order_by(event.c.id.desc())
            .limit(limit)
        )
        return self._database.read(lambda connection: [EventRecord(*row) for row in connection.execute(query)])

    def _runs(self, query: Select[Any]) -> builtins.list[RunRecord]:
        return self._database.read(lambda connection: [RunRecord(*row) for row in connection.execute(query)])

    def _task_instances(self, query: Select[Any]) -> builtins.list[TaskInstanceRecord]:
        ordered = query.order_by(task_instance.c.id)
        return self._database.read(
            lambda connection: in_task_order(TaskInstanceRecord(*row) for row in connection.execute(ordered))
        )


def _run_row(
    spec: DagSpec,
    version: str,
    run_id: str,
    run_type: str,
    interval: Interval,
    params: Mapping[str, Json],
    triggered_by: str | None,
    at: datetime,
) -> dict[str, Any]:
    logical_date, start, end, run_after = interval
    return {
        "dag_id": spec.dag_id,
        "run_id": run_id,
        "run_type": run_type,
        "version": version,
        "state": RunState.QUEUED,
        "logical_date": logical_date,
        "data_interval_start": start,
        "data_interval_end": end,
        "run_after": run_after,
        "params": dict(params),
        "triggered_by": triggered_by,
        "queued_at": at,
    }


def _advance(
    connection: Connection,
    dag_id: str,
    version: str,
    through: datetime,
    following: tuple[datetime | None, datetime | None],
) -> bool:
    """Moves the pointer of a DAG on. Returns False, and changes nothing, when the DAG has moved on by itself."""
    behind = or_(dag.c.scheduled_through.is_(None), dag.c.scheduled_through < through)
    next_logical_date, next_run_after = following
    statement = (
        update(dag)
        .where(and_(dag.c.dag_id == dag_id, dag.c.version == version, behind))
        .values(scheduled_through=through, next_logical_date=next_logical_date, next_run_after=next_run_after)
    )
    return connection.execute(statement).rowcount == 1


def _is_backfilled(connection: Connection, dag_id: str, logical_date: datetime) -> bool:
    """Whether a backfill has a run for the logical date, whatever has become of it."""
    query = select(dag_run.c.id).where(
        dag_run.c.dag_id == dag_id, dag_run.c.logical_date == logical_date, dag_run.c.run_type == "backfill"
    )
    return connection.execute(query.limit(1)).first() is not None


def one_run(connection: Connection, dag_id: str, run_id: str) -> RunRecord:
    """The run. Raises NotFound with the nearest name."""
    row = connection.execute(_RUN.where(dag_run.c.dag_id == dag_id, dag_run.c.run_id == run_id)).one_or_none()
    if row is not None:
        return RunRecord(*row)
    read_dag(connection, dag_id)
    query = select(dag_run.c.run_id).where(dag_run.c.dag_id == dag_id).order_by(dag_run.c.id.desc()).limit(200)
    hint = did_you_mean(run_id, connection.execute(query).scalars().all())
    raise NotFound(f"The DAG {dag_id!r} has no run {run_id!r}.", hint=hint)


def no_such_instance(run: RunRecord, instances: Sequence[Placed], task_id: str, map_index: int) -> NotFound:
    """Names the nearest task, or the map indexes that there are of these instances of the run."""
    where = f"the run {run.run_id!r} of the DAG {run.dag_id!r}"
    indexes = [instance.map_index for instance in instances if instance.task_id == task_id]
    if not indexes:
        if not instances and run.state is RunState.QUEUED:
            return NotFound(f"{where[0].upper()}{where[1:]} has not started: its tasks are made when it does.")
        hint = did_you_mean(task_id, [instance.task_id for instance in instances])
        return NotFound(f"{where[0].upper()}{where[1:]} has no task {task_id!r}.", hint=hint)
    if indexes == [-1]:
        return NotFound(
            f"The task {task_id!r} of {where} has no instance {map_index}.",
            hint="It is not mapped, or not expanded yet: leave the map index out.",
        )
    there = "only the instance 0" if len(indexes) == 1 else f"the instances 0 to {indexes[-1]}"
    missing = "needs a map index" if map_index < 0 else f"has no instance {map_index}"
    return NotFound(f"The task {task_id!r} of {where} is mapped and {missing}.", hint=f"There are {there}.")


def _nested_counts(connection: Connection, query: Select[Any]) -> dict[Any, dict[str, int]]:
    counts: dict[Any, dict[str, int]] = {}
    for key, state, count in connection.execute(query):
        counts.setdefault(key, {})[state] = count
    return counts

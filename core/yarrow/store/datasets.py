"""Data sets: what was published, which DAGs wait for it, and the runs that it brings about.

What changes the pending events of a DAG first locks the DAG's row, so that none is lost or consumed twice.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from yarrow.errors import UsageError
from yarrow.language.spec import DagSpec
from yarrow.params import run_params
from yarrow.states import RunState
from yarrow.store.database import Database
from yarrow.store.records import Record, RunRecord
from yarrow.store.tables import Key, dag, dag_dataset, dag_run, dag_run_dataset, dataset_event, dataset_pending
from yarrow.store.transitions import CHUNK, chunks

if TYPE_CHECKING:
    from yarrow.store.runs import Runs  # which imports the catalog, which imports this

RUN_TYPE = "dataset"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,249}", re.ASCII)


@dataclass(frozen=True, slots=True)
class WaitingDag(Record):
    """A DAG whose schedule names a data set."""

    dag_id: str
    mode: str  # all or any
    pending: int  # how often the data set was published since the run before


@dataclass(frozen=True, slots=True)
class DatasetRecord(Record):
    """A data set: when it was published last, and which DAGs wait for it."""

    dataset: str
    published_at: datetime | None  # None: never
    published_by: str | None  # "dag_id run_id task_id" of the task, or the name of a person or a program
    waiting: Sequence[WaitingDag] = ()


@dataclass(frozen=True, slots=True)
class PendingRecord(Record):
    """A publication that a DAG has no run for yet."""

    event_id: int
    dataset: str
    at: datetime
    who: str


_WAITING = (
    select(dag_dataset.c.dag_id, dag_dataset.c.dataset)
    .join(dag, dag.c.dag_id == dag_dataset.c.dag_id)
    .where(dag_dataset.c.dataset.in_(bindparam("datasets", expanding=True)))
    .order_by(dag_dataset.c.dag_id, dag_dataset.c.dataset)
    .with_for_update(of=dag)
)
_ADD_EVENT = insert(dataset_event).returning(dataset_event.c.id)
_LOOK_AT = update(dag).where(dag.c.dag_id.in_(bindparam("dag_ids", expanding=True)), ~dag.c.is_paused)
_LOCKED = (
    select(dag.c.version, dag.c.is_active, dag.c.is_paused)
    .where(dag.c.dag_id == bindparam("of_dag_id"))
    .with_for_update()
)
_SET_NEXT = update(dag).where(dag.c.dag_id == bindparam("of_dag_id"))
_ACTIVE = (
    select(func.count())
    .select_from(dag_run)
    .where(dag_run.c.dag_id == bindparam("of_dag_id"), dag_run.c.state.in_([RunState.QUEUED, RunState.RUNNING]))
    .where(dag_run.c.backfill_place.is_(None))  # those of a backfill have a limit of their own
)
_PUBLISHED = (
    select(func.count(dataset_pending.c.dataset.distinct()))
    .where(dataset_pending.c.dag_id == bindparam("of_dag_id"))
    .where(dataset_pending.c.dataset.in_(bindparam("datasets", expanding=True)))
)
_SPAN = (
    select(
        func.min(func.coalesce(dag_run.c.data_interval_start, dataset_event.c.at)),
        func.max(func.coalesce(dag_run.c.data_interval_end, dataset_event.c.at)),
        func.max(dataset_event.c.at),
        func.max(dataset_event.c.id),
    )
    .select_from(
        dataset_pending.join(dataset_event).outerjoin(
            dag_run, and_(dag_run.c.dag_id == dataset_event.c.dag_id, dag_run.c.run_id == dataset_event.c.run_id)
        )
    )
    .where(dataset_pending.c.dag_id == bindparam("of_dag_id"))
)
_PENDING = dataset_pending.c.dag_id == bindparam("of_dag_id")
_KEEP = insert(dag_run_dataset).from_select(
    ["dag_run_id", "event_id"], select(bindparam("of_run", type_=Key), dataset_pending.c.event_id).where(_PENDING)
)
_CONSUME = delete(dataset_pending).where(_PENDING)


def published(
    database: Database,
    connection: Connection,
    datasets: Collection[str],
    *,
    dag_id: str | None,
    run_id: str | None,
    task_id: str | None,
    map_index: int | None,
    who: str,
    at: datetime,
) -> None:
    """Records that data sets were published, for each DAG that waits for them, a paused one too.

    A transaction that locks other rows as well calls this last.

    Args:
        database: Where `connection` leads to.
        dag_id: With the next three, the task instance that did it; None: a person or a program.
    """
    names = sorted(set(datasets))
    if not names:
        return
    waiting = connection.execute(_WAITING, {"datasets": names}).all()
    source = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index, "who": who, "at": at}
    events = {name: connection.execute(_ADD_EVENT, {"dataset": name, **source}).scalar_one() for name in names}
    if not waiting:
        return
    rows = [{"dag_id": row.dag_id, "event_id": events[row.dataset], "dataset": row.dataset} for row in waiting]
    connection.execute(insert(dataset_pending), rows)
    for chunk in chunks(sorted({row.dag_id for row in waiting}), CHUNK):
        connection.execute(_LOOK_AT.values(unscheduled_since=at), {"dag_ids": chunk})


def wait_for(connection: Connection, known: Collection[str], specs: Iterable[DagSpec]) -> None:
    """Has DAGs wait for what the schedules of these specs name, and for nothing else any more.

    Args:
        known: The DAGs among them that were there before.
    """
    forget(connection, known)
    rows = [
        {"dag_id": spec.dag_id, "dataset": name, "mode": spec.schedule.mode}
        for spec in specs
        if spec.schedule is not None
        for name in spec.schedule.datasets
    ]
    if rows:
        connection.execute(insert(dag_dataset), rows)
    still = (dag_dataset.c.dag_id == dataset_pending.c.dag_id) & (dag_dataset.c.dataset == dataset_pending.c.dataset)
    for chunk in chunks(sorted(known), CHUNK):
        stale = delete(dataset_pending).where(dataset_pending.c.dag_id.in_(chunk))
        connection.execute(stale.where(~select(dag_dataset.c.dag_id).where(still).exists()))


def forget(connection: Connection, dag_ids: Collection[str]) -> None:
    """Has DAGs wait for nothing more. What is pending stays, should they come back."""
    for chunk in chunks(sorted(dag_ids), CHUNK):
        connection.execute(delete(dag_dataset).where(dag_dataset.c.dag_id.in_(chunk)))


class Datasets:
    """Data sets and the runs that they bring about. Every method is one transaction."""

    def __init__(self, database: Database, runs: Runs) -> None:
        self._database = database
        self._runs = runs

    def publish(self, dataset: str, who: str) -> builtins.list[str]:
        """Records that somebody published a data set. Returns the DAGs that wait for it. Raises UsageError."""
        if _NAME.fullmatch(dataset) is None:
            raise UsageError(
                f"{dataset[:300]!r} is not the name of a data set.",
                hint="A name has up to 250 letters, digits, `_`, `-`, `.`, `/` and `:`, and begins with a letter, a "
                "digit or `_`.",
            )
        at = self._database.now()
        source = {"dag_id": None, "run_id": None, "task_id": None, "map_index": None}

        def work(connection: Connection) -> builtins.list[str]:
            published(self._database, connection, [dataset], **source, who=who, at=at)
            query = select(dag_dataset.c.dag_id).where(dag_dataset.c.dataset == dataset)
            return list(connection.execute(query.order_by(dag_dataset.c.dag_id)).scalars())

        return self._database.write(work)

    def ready(self, dag_id: str) -> builtins.list[PendingRecord]:
        """What was published for a DAG since its run before, in that order."""
        query = (
            select(dataset_event.c.id, dataset_event.c.dataset, dataset_event.c.at, dataset_event.c.who)
            .join(dataset_pending, dataset_pending.c.event_id == dataset_event.c.id)
            .where(dataset_pending.c.dag_id == dag_id)
            .order_by(dataset_event.c.id)
        )
        return self._database.read(lambda connection: [PendingRecord(*row) for row in connection.execute(query)])

    def make_run(self, spec: DagSpec, version: str, now: datetime) -> tuple[RunRecord | None, bool]:
        """Makes a run for all that is pending, when that is enough and the DAG may have another run.

        The DAG leaves `unscheduled`. One that has to wait for another run's end is due at once.

        Returns:
            The run, or None, and whether there would be one if fewer were active.
        """

        def work(connection: Connection) -> tuple[RunRecord | None, bool]:
            names = {"of_dag_id": spec.dag_id}
            state = connection.execute(_LOCKED, names).one_or_none()
            if state is None or state.version != version:
                return None, False  # the newer version is looked at by itself
            record, blocked = None, False
            if state.is_active and not state.is_paused and _enough(connection, spec):
                blocked = connection.execute(_ACTIVE, names).scalar_one() >= spec.max_active_runs
                record = None if blocked else self._make(connection, spec, now)
            values = {"unscheduled_since": None, "next_logical_date": None, "next_run_after": now if blocked else None}
            connection.execute(_SET_NEXT, {**names, **values})
            return record, blocked

        return self._database.write(work)

    def list(self) -> builtins.list[DatasetRecord]:
        """Every data set that was published or is waited for, by name."""
        return self._database.read(_records)

    def _make(self, connection: Connection, spec: DagSpec, now: datetime) -> RunRecord | None:
        start, end, newest, event_id = connection.execute(_SPAN, {"of_dag_id": spec.dag_id}).one()
        name = f"{RUN_TYPE}__{newest.isoformat()}"
        record = None
        for run_id in (name, f"{name}__{event_id}"):  # another run may have been made for an event of the same instant
            record = record or self._runs.insert(
                connection,
                spec,
                run_id=run_id,
                run_type=RUN_TYPE,
                interval=(newest, start, end, now),
                params=run_params(spec, {}),
                at=now,
            )
        if record is not None:
            connection.execute(_KEEP, {"of_dag_id": spec.dag_id, "of_run": record.id})
            connection.execute(_CONSUME, {"of_dag_id": spec.dag_id})
        return record


def _enough(connection: Connection, spec: DagSpec) -> bool:
    assert spec.schedule is not None
    names = list(spec.schedule.datasets)
    count: int = connection.execute(_PUBLISHED, {"of_dag_id": spec.dag_id, "datasets": names}).scalar_one()
    return count >= (1 if spec.schedule.mode == "any" else len(names))


def _records(connection: Connection) -> list[DatasetRecord]:
    newest = select(func.max(dataset_event.c.id)).group_by(dataset_event.c.dataset)
    events = {
        row.dataset: row for row in connection.execute(select(dataset_event).where(dataset_event.c.id.in_(newest)))
    }
    pending = (
        select(func.count())
        .where(dataset_pending.c.dag_id == dag_dataset.c.dag_id, dataset_pending.c.dataset == dag_dataset.c.dataset)
        .scalar_subquery()
    )
    waiting: dict[str, list[WaitingDag]] = {}
    query = select(dag_dataset.c.dataset, dag_dataset.c.dag_id, dag_dataset.c.mode, pending)
    for dataset, *fields in connection.execute(query.order_by(dag_dataset.c.dataset, dag_dataset.c.dag_id)):
        waiting.setdefault(dataset, []).append(WaitingDag(*fields))
    found = []
    for name in sorted({*events, *waiting}):
        event = events.get(name)
        if event is None:
            by = None
        else:
            by = event.who if event.dag_id is None else f"{event.dag_id} {event.run_id} {event.task_id}"
        found.append(DatasetRecord(name, event.at if event else None, by, tuple(waiting.get(name, ()))))
    return found

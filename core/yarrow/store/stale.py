"""What is too old besides runs: the history, what was delivered or missed, data sets, plans, versions nobody uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Delete,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
)

from yarrow.store.database import Database
from yarrow.store.rows import AnyRow
from yarrow.store.tables import (
    backfill,
    dag,
    dag_run,
    dag_run_dataset,
    dag_version,
    dataset_event,
    dataset_pending,
    deadline,
    event,
    notification,
    plan,
    result_cache,
)
from yarrow.store.transitions import CHUNK, chunks
from yarrow.timetable import scheduled_run_id

ROWS_A_RUN = 10
"""How many rows of a long table a step goes through for each run that a step may delete."""

_SETTLED = timedelta(hours=1)
"""A DAG that has changed since may have a run about to be made of the version before."""


@dataclass(slots=True)
class Gone:
    """Runs that are counted as if they were deleted."""

    ids: set[int] = field(default_factory=set)
    names: set[tuple[str, str]] = field(default_factory=set)
    versions: Counter[tuple[str, str]] = field(default_factory=Counter)
    backfills: Counter[int] = field(default_factory=Counter)

    def add(self, dag_id: str, rows: Sequence[AnyRow]) -> None:
        """Counts these, which have an `id`, a `run_id`, a `version` and a `backfill_id`."""
        self.ids.update(row.id for row in rows)
        self.names.update((dag_id, row.run_id) for row in rows)
        self.versions.update((dag_id, row.version) for row in rows)
        self.backfills.update(row.backfill_id for row in rows if row.backfill_id is not None)


_BEFORE: BindParameter[datetime] = bindparam("before")
_NO_RUN = ~exists().where(dag_run.c.dag_id == event.c.dag_id, dag_run.c.run_id == event.c.run_id)
_unpaused = event.alias("unpaused")
# From the newest on, failures in a row are counted.
_IS_NEWEST_UNPAUSE = and_(
    event.c.kind == "dag.unpaused",
    ~exists().where(
        _unpaused.c.dag_id == event.c.dag_id,
        _unpaused.c.run_id.is_(None),
        _unpaused.c.id > event.c.id,
        _unpaused.c.kind == "dag.unpaused",
    ),
)
_OLD_LINE = and_(event.c.at < _BEFORE, ~_IS_NEWEST_UNPAUSE)
_SENT = and_(notification.c.created_at < _BEFORE, notification.c.next_try_at.is_(None))
_newer = dataset_event.alias("newer")
_OLD_PUBLICATION = and_(
    dataset_event.c.at < _BEFORE,
    ~exists().where(dataset_pending.c.event_id == dataset_event.c.id),
    exists().where(_newer.c.dataset == dataset_event.c.dataset, _newer.c.id > dataset_event.c.id),
)
_OF_NO_RUN = ~exists().where(dag_run_dataset.c.event_id == dataset_event.c.id)
_LONG: Sequence[tuple[str, Table, Column[Any], ColumnElement[bool]]] = (
    ("history_lines", event, event.c.at, and_(_OLD_LINE, or_(event.c.run_id.is_(None), _NO_RUN))),
    ("notifications", notification, notification.c.created_at, _SENT),
    ("dataset_events", dataset_event, dataset_event.c.at, and_(_OLD_PUBLICATION, _OF_NO_RUN)),
)
"""What, the table, the column of its time, and what may go. Its rows are as good as in the order of their time."""

_MISSED = select(deadline.c.dag_id, deadline.c.run_id, deadline.c.task_id).where(
    deadline.c.missed_at < _BEFORE,
    ~exists().where(dag_run.c.dag_id == deadline.c.dag_id, dag_run.c.run_id == deadline.c.run_id),
)
_NEXT = select(dag.c.dag_id, dag.c.next_logical_date).where(dag.c.next_logical_date.is_not(None))
_EXPIRED = result_cache.c.expires_at <= bindparam("now")
_RUNS_OF_BACKFILL = select(func.count()).where(dag_run.c.backfill_id == backfill.c.id).scalar_subquery()
_BACKFILLS = select(backfill.c.id, backfill.c.plan_id, backfill.c.created_at, _RUNS_OF_BACKFILL.label("runs"))
_PLANS = select(plan.c.id).where(plan.c.planned_at < _BEFORE).order_by(plan.c.id)
_CHANGED = (
    select(dag_version.c.dag_id)
    .join(dag, dag.c.dag_id == dag_version.c.dag_id)
    .where(
        dag_version.c.created_at < _BEFORE,
        dag_version.c.version != dag.c.version,
        dag.c.updated_at < bindparam("settled"),
    )
    .distinct()
    .order_by(dag_version.c.dag_id)
)
_CURRENT = select(dag.c.version).where(dag.c.dag_id == bindparam("of_dag_id"), dag.c.updated_at < bindparam("settled"))
_VERSIONS = select(dag_version.c.version, dag_version.c.number, dag_version.c.cut_from, dag_version.c.created_at).where(
    dag_version.c.dag_id == bindparam("of_dag_id")
)
_RUNS_OF_VERSIONS = (
    select(dag_run.c.version, func.count())
    .where(dag_run.c.dag_id == bindparam("of_dag_id"))
    .group_by(dag_run.c.version)
)


def steps(database: Database, before: datetime, at: datetime, size: int) -> Iterator[Mapping[str, int]]:
    """Deletes what is older than `before` and belongs to no run. Each `next` is a short transaction.

    Returns:
        How many rows a step has deleted, by what they were.
    """
    for what, table, time, condition in _LONG:
        for window in _windows(database.read, table, time, before, size * ROWS_A_RUN):
            statement = delete(table).where(_within(table, window), condition)
            yield {what: database.write(partial(_rowcount, statement=statement, parameters={"before": before}))}
    for what, table, keys in database.read(lambda connection: _short(connection, before, at, Gone())):
        for chunk in chunks(keys, min(size, CHUNK)):
            statement = delete(table).where(_keyed(table, chunk))
            yield {what: database.write(partial(_rowcount, statement=statement, parameters={}))}
    for dag_id in database.read(lambda connection: _changed(connection, before, at)):
        looked = database.read(partial(_versions_of, dag_id=dag_id, before=before, at=at, gone=Gone()))
        delete_them = partial(_delete_versions, dag_id=dag_id, before=before, at=at)
        yield {"versions": database.write(delete_them) if looked else 0}


def count(connection: Connection, before: datetime, at: datetime, gone: Gone) -> Counter[str]:
    """How many rows `steps` would delete once the runs in `gone` are deleted."""
    counts: Counter[str] = Counter()
    for what, table, time, condition in _LONG:
        for window in _windows(lambda work: work(connection), table, time, before, CHUNK * ROWS_A_RUN):
            query = select(func.count()).select_from(table).where(_within(table, window), condition)
            counts[what] += connection.execute(query, {"before": before}).scalar_one()
            counts[what] += _freed(connection, table, window, before, gone)
    for what, _, keys in _short(connection, before, at, gone):
        counts[what] += len(keys)
    for dag_id in _changed(connection, before, at):
        counts["versions"] += len(_versions_of(connection, dag_id, before, at, gone))
    return counts


Window = tuple[int, int]
"""Row ids: behind the first, up to and with the second."""


def _windows(
    ask: Callable[[Callable[[Connection], AnyRow]], AnyRow],
    table: Table,
    time: Column[Any],
    before: datetime,
    size: int,
) -> Iterator[Window]:
    """Goes through a table from its oldest row, as far as its rows are too old."""
    last = 0
    while True:
        some = select(table.c.id, time.label("at")).where(table.c.id > last).order_by(table.c.id).limit(size).subquery()
        query = select(func.max(some.c.id), func.min(some.c.at))
        newest, oldest_at = ask(partial(_one, query=query))
        if newest is None or oldest_at >= before:
            return
        yield last, newest
        last = newest


def _one(connection: Connection, query: Select[Any]) -> AnyRow:
    return connection.execute(query).one()


def _within(table: Table, window: Window) -> ColumnElement[bool]:
    return and_(table.c.id > window[0], table.c.id <= window[1])


def _freed(connection: Connection, table: Table, window: Window, before: datetime, gone: Gone) -> int:
    """How many more rows of a window may go when these runs are gone."""
    if not gone.ids:
        return 0
    parameters = {"before": before}
    if table is event:
        lines = (
            select(event.c.dag_id, event.c.run_id, func.count())
            .where(_within(event, window), _OLD_LINE, event.c.run_id.is_not(None), ~_NO_RUN)
            .group_by(event.c.dag_id, event.c.run_id)
        )
        return sum(row[2] for row in connection.execute(lines, parameters) if (row[0], row[1]) in gone.names)
    if table is dataset_event:
        links = (
            select(dataset_event.c.id, dag_run_dataset.c.dag_run_id)
            .join(dag_run_dataset, dag_run_dataset.c.event_id == dataset_event.c.id)
            .where(_within(dataset_event, window), _OLD_PUBLICATION)
        )
        used: dict[int, bool] = {}
        for id, dag_run_id in connection.execute(links, parameters):
            used[id] = used.get(id, False) or dag_run_id not in gone.ids
        return sum(not still for still in used.values())
    return 0


def _short(
    connection: Connection, before: datetime, at: datetime, gone: Gone
) -> Sequence[tuple[str, Table, Sequence[Any]]]:
    """What may go of short tables: what, the table, and the keys of its rows."""
    # Were the one forgotten that is waited for, it would be set, and missed, once more.
    awaited = {(row.dag_id, scheduled_run_id(row.next_logical_date)) for row in connection.execute(_NEXT)}
    missed = connection.execute(_MISSED, {"before": before})
    expired = connection.execute(select(result_cache.c.key).where(_EXPIRED), {"now": at})
    kept_plans: set[str] = set()
    backfills = []
    for row in connection.execute(_BACKFILLS):
        if row.created_at < before and row.runs <= gone.backfills[row.id]:
            backfills.append(row.id)
        else:
            kept_plans.add(row.plan_id)
    plans = connection.execute(_PLANS, {"before": before}).scalars()
    return (
        ("deadlines", deadline, [tuple(row) for row in missed if (row.dag_id, row.run_id) not in awaited]),
        ("results", result_cache, expired.scalars().all()),
        ("backfills", backfill, backfills),
        ("plans", plan, [id for id in plans if id not in kept_plans]),
    )


def _keyed(table: Table, keys: Collection[Any]) -> ColumnElement[bool]:
    columns = list(table.primary_key)
    return (tuple_(*columns) if len(columns) > 1 else columns[0]).in_(keys)


def _changed(connection: Connection, before: datetime, at: datetime) -> Sequence[str]:
    """The DAGs that have old versions."""
    return connection.execute(_CHANGED, {"before": before, "settled": at - _SETTLED}).scalars().all()


def _versions_of(
    connection: Connection, dag_id: str, before: datetime, at: datetime, gone: Gone, *, lock: bool = False
) -> Sequence[str]:
    """The versions of a DAG that may go. When `lock`, no run is made of them until the end of the transaction."""
    query = _CURRENT.with_for_update() if lock else _CURRENT
    current = connection.execute(query, {"of_dag_id": dag_id, "settled": at - _SETTLED}).scalar_one_or_none()
    if current is None:
        return []
    rows = connection.execute(_VERSIONS, {"of_dag_id": dag_id}).all()
    used = {
        version
        for version, count in connection.execute(_RUNS_OF_VERSIONS, {"of_dag_id": dag_id})
        if count > gone.versions[dag_id, version]
    }
    newest = max(row.number for row in rows)  # numbers go on from it, and are never given twice
    used |= {row.version for row in rows if row.number == newest or row.version == current or row.created_at >= before}
    used |= {row.cut_from for row in rows if row.version in used and row.cut_from is not None}
    return [row.version for row in rows if row.version not in used]


def _delete_versions(connection: Connection, dag_id: str, before: datetime, at: datetime) -> int:
    versions = _versions_of(connection, dag_id, before, at, Gone(), lock=True)
    statement = delete(dag_version).where(dag_version.c.dag_id == dag_id, dag_version.c.version.in_(versions))
    return connection.execute(statement).rowcount


def _rowcount(connection: Connection, statement: Delete, parameters: Mapping[str, Any]) -> int:
    return connection.execute(statement, parameters).rowcount

"""Deleting runs and DAGs, with everything that hangs on them in the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    select,
)

from yarrow.errors import Conflict, NotFound, UsageError
from yarrow.states import RunState
from yarrow.store.catalog import did_you_mean, read_dag
from yarrow.store.database import Database
from yarrow.store.erasing import Deleted, cached_references, count_runs, erase_runs, unnamed
from yarrow.store.rows import AnyRow
from yarrow.store.tables import (
    backfill,
    dag,
    dag_dataset,
    dag_file,
    dag_run,
    dag_version,
    dataset_pending,
    deadline,
    event,
    notification,
    plan,
    result_cache,
    task_instance,
)
from yarrow.store.transitions import CHUNK, append, chunks, history_line, touch_all_later_runs

RUNS_AT_ONCE = 200
"""How many runs are deleted in one transaction, where it need not be all of them."""

LINES_AT_ONCE = 2000
"""How many lines of the history are."""


_IDS: BindParameter[int] = bindparam("ids", expanding=True)
_NAMES: BindParameter[str] = bindparam("names", expanding=True)
_OF_DAG: BindParameter[str] = bindparam("of_dag_id")
_OUTBOX = and_(notification.c.dag_id == _OF_DAG, notification.c.run_id.in_(_NAMES))
_OF_A_DAG: Sequence[tuple[str, Table, ColumnElement[bool]]] = (
    ("history_lines", event, and_(event.c.dag_id == _OF_DAG, event.c.kind != "dag.deleted")),
    ("notifications", notification, notification.c.dag_id == _OF_DAG),
    ("deadlines", deadline, deadline.c.dag_id == _OF_DAG),
    ("results", result_cache, result_cache.c.dag_id == _OF_DAG),
    ("plans", plan, plan.c.dag_id == _OF_DAG),
    ("backfills", backfill, backfill.c.dag_id == _OF_DAG),
    ("versions", dag_version, dag_version.c.dag_id == _OF_DAG),
    ("datasets", dag_dataset, dag_dataset.c.dag_id == _OF_DAG),
    ("pending_datasets", dataset_pending, dataset_pending.c.dag_id == _OF_DAG),
    # The path may be another DAG's by now.
    (
        "files",
        dag_file,
        and_(
            dag_file.c.dag_id == _OF_DAG,
            dag_file.c.path.in_(select(dag.c.path).where(dag.c.dag_id == _OF_DAG)),
        ),
    ),
    ("dags", dag, dag.c.dag_id == _OF_DAG),
)
_LINES = (
    select(event.c.id)
    .where(event.c.dag_id == _OF_DAG, event.c.kind != "dag.deleted")
    .limit(LINES_AT_ONCE)
    .scalar_subquery()
)
_BUSY = (
    select(dag_run.c.run_id, dag_run.c.state)
    .where(dag_run.c.dag_id == _OF_DAG)
    .order_by(dag_run.c.logical_date, dag_run.c.id)
)
_UNFINISHED = dag_run.c.state.in_([literal_column("'queued'"), literal_column("'running'")])
STILL_RUNS = exists().where(
    task_instance.c.dag_run_id == dag_run.c.id, task_instance.c.state == literal_column("'running'")
)
"""Whether a task instance of the run still runs, although the run itself may have been marked."""

_FIND = select(dag_run.c.id, dag_run.c.run_id, dag_run.c.logical_date).where(
    dag_run.c.dag_id == _OF_DAG, dag_run.c.run_id.in_(_NAMES)
)
_IN_ORDER = (
    select(dag_run.c.id, dag_run.c.run_id)
    .where(dag_run.c.id.in_(_IDS))
    .order_by(dag_run.c.logical_date, dag_run.c.id)
    .with_for_update()
)
_NEXT_OF_DAG = (
    select(dag_run.c.id, dag_run.c.run_id)
    .where(dag_run.c.dag_id == _OF_DAG)
    .order_by(dag_run.c.logical_date, dag_run.c.id)
    .limit(RUNS_AT_ONCE)
    .with_for_update()
)
_LOCK_DAG = select(dag.c.is_active).where(dag.c.dag_id == _OF_DAG).with_for_update()


class Deletions:
    """Deleting at the wish of a person. Every method is one transaction, except for a DAG with many runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(self, dag_id: str, run_ids: Collection[str], *, who: str, now: datetime | None = None) -> Deleted:
        """Deletes runs with all that belongs to them, all of these or none; their lines of the history stay.

        The schedule does not bring them back: it goes on behind the newest run that it has made.

        Raises:
            NotFound: There is no such DAG or run.
            Conflict: One of them has not ended, or one of its tasks still runs.
        """
        at = self._database.now(now)

        def work(connection: Connection) -> Deleted:
            ids = sorted(_find(connection, dag_id, run_ids), key=lambda row: (row.logical_date, row.id))
            rows = [
                row
                for chunk in chunks([row.id for row in ids], CHUNK)
                for row in connection.execute(_IN_ORDER, {"ids": chunk})
            ]
            if len(rows) < len(ids):  # somebody has deleted one meanwhile
                _find(connection, dag_id, run_ids)
            _check_idle(connection, dag_id, [row.id for row in rows])
            counts, references = erase_runs(connection, dag_id, rows)
            counts["notifications"] += _erase_outbox(connection, dag_id, [row.run_id for row in rows])
            if ids:  # what waits for one of these waits for the one before it now, or for none
                touch_all_later_runs(connection, dag_id, ids[0].id, ids[0].logical_date)
            lines = [history_line("run.deleted", at=at, who=who, dag_id=dag_id, run_id=row.run_id) for row in rows]
            append(connection, lines)
            return Deleted([(dag_id, row.run_id) for row in rows], +counts, unnamed(connection, dag_id, references))

        return self._database.write(work)

    def count_runs(self, dag_id: str, run_ids: Collection[str]) -> Deleted:
        """What `runs` would delete. Changes nothing. Raises as it does."""

        def work(connection: Connection) -> Deleted:
            rows = _find(connection, dag_id, run_ids)
            _check_idle(connection, dag_id, [row.id for row in rows])
            counts = count_runs(connection, dag_id, rows)
            for chunk in chunks([row.run_id for row in rows], CHUNK):
                query = select(func.count()).select_from(notification).where(_OUTBOX)
                counts["notifications"] += connection.execute(query, {"of_dag_id": dag_id, "names": chunk}).scalar_one()
            return Deleted([(dag_id, row.run_id) for row in rows], +counts)

        return self._database.read(work)

    def dag(self, dag_id: str, *, who: str, now: datetime | None = None) -> Iterator[Deleted]:
        """Deletes a DAG whose file is gone: its runs, versions, history and all else; one line of the history stays.

        It is done in steps, each a transaction, and can be taken up again where it was broken off.

        Raises:
            NotFound: There is no such DAG.
            UsageError: Its file is there.
            Conflict: A run has not ended, or a task still runs.
        """
        at = self._database.now(now)
        self._database.read(lambda connection: _check_dag(connection, dag_id))
        while (step := self._database.write(lambda connection: _delete_next_runs(connection, dag_id))).runs:
            yield step
        lines = delete(event).where(event.c.id.in_(_LINES))
        names = {"of_dag_id": dag_id}
        while count := self._database.write(lambda connection: connection.execute(lines, names).rowcount):
            yield Deleted(counts={"history_lines": count})
        yield self._database.write(lambda connection: _delete_dag(connection, dag_id, who, at))

    def count_dag(self, dag_id: str) -> Deleted:
        """What `dag` would delete. Changes nothing. Raises as it does."""

        def work(connection: Connection) -> Deleted:
            _check_dag(connection, dag_id)
            query = select(dag_run.c.id, dag_run.c.run_id).where(dag_run.c.dag_id == dag_id)
            rows = connection.execute(query).all()
            counts = count_runs(connection, dag_id, rows)
            counts.pop("deadlines", None)  # they are counted below, with those of no run
            for what, table, condition in _OF_A_DAG:
                count = select(func.count()).select_from(table).where(condition)
                counts[what] += connection.execute(count, {"of_dag_id": dag_id}).scalar_one()
            return Deleted([(dag_id, row.run_id) for row in rows], +counts)

        return self._database.read(work)


def _erase_outbox(connection: Connection, dag_id: str, run_ids: Sequence[str]) -> int:
    statement = delete(notification).where(_OUTBOX)
    names = [{"of_dag_id": dag_id, "names": chunk} for chunk in chunks(run_ids, CHUNK)]
    return sum(connection.execute(statement, one).rowcount for one in names)


def _find(connection: Connection, dag_id: str, run_ids: Collection[str]) -> list[AnyRow]:
    """The runs of these names. Raises NotFound."""
    wanted = list(dict.fromkeys(run_ids))
    rows = [
        row
        for chunk in chunks(wanted, CHUNK)
        for row in connection.execute(_FIND, {"of_dag_id": dag_id, "names": chunk})
    ]
    if missing := [name for name in wanted if name not in {row.run_id for row in rows}]:
        read_dag(connection, dag_id)
        query = select(dag_run.c.run_id).where(dag_run.c.dag_id == dag_id).order_by(dag_run.c.id.desc()).limit(200)
        hint = did_you_mean(missing[0], connection.execute(query).scalars().all())
        raise NotFound(f"The DAG {dag_id!r} has no run {missing[0]!r}.", hint=hint)
    return rows


def _check_idle(connection: Connection, dag_id: str, ids: Collection[int] | None = None) -> None:
    """Raises Conflict when one of these runs, or of all of the DAG, is not over."""
    for chunk in [None] if ids is None else chunks(ids, CHUNK):
        query = _BUSY if chunk is None else _BUSY.where(dag_run.c.id.in_(chunk))
        if (found := connection.execute(query.where(_UNFINISHED).limit(1), {"of_dag_id": dag_id}).first()) is not None:
            state = RunState(found.state).value
            raise Conflict(
                f"The run {found.run_id!r} of the DAG {dag_id!r} is {state}, so nothing was deleted.",
                hint=f"Mark it failed first: `yarrow runs mark failed {dag_id} {found.run_id}`.",
            )
        if (found := connection.execute(query.where(STILL_RUNS).limit(1), {"of_dag_id": dag_id}).first()) is not None:
            raise Conflict(
                f"A task of the run {found.run_id!r} of the DAG {dag_id!r} still runs, so nothing was deleted.",
                hint="Its worker has been told to stop it; try again in a moment.",
            )


def _check_dag(connection: Connection, dag_id: str) -> None:
    """Raises what `Deletions.dag` does."""
    _check_file(connection, dag_id)
    _check_idle(connection, dag_id)


def _check_file(connection: Connection, dag_id: str) -> None:
    record = read_dag(connection, dag_id)
    if record.is_active:
        raise UsageError(
            f"The DAG {dag_id!r} has its file {record.path} in the DAG folder: it would come back at once.",
            hint="Remove the file first.",
        )


def _delete_next_runs(connection: Connection, dag_id: str) -> Deleted:
    rows = connection.execute(_NEXT_OF_DAG, {"of_dag_id": dag_id}).all()
    _check_file(connection, dag_id)
    _check_idle(connection, dag_id, [row.id for row in rows])
    counts, references = erase_runs(connection, dag_id, rows)
    return Deleted([(dag_id, row.run_id) for row in rows], counts, unnamed(connection, dag_id, references))


def _delete_dag(connection: Connection, dag_id: str, who: str, at: datetime) -> Deleted:
    connection.execute(_LOCK_DAG, {"of_dag_id": dag_id})
    _check_dag(connection, dag_id)
    names = {"of_dag_id": dag_id}
    if connection.execute(_BUSY.limit(1), names).first() is not None:
        raise Conflict(f"The DAG {dag_id!r} got a run meanwhile.", hint="Delete it again.")
    references = cached_references(connection, dag_id)  # which no run names any more
    counts: Counter[str] = Counter()
    for what, table, condition in _OF_A_DAG:
        counts[what] += connection.execute(delete(table).where(condition), names).rowcount
    append(connection, [history_line("dag.deleted", at=at, who=who, dag_id=dag_id)])
    return Deleted(counts=+counts, references=references)

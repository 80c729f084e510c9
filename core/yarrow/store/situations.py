"""What is read of a DAG and its runs before a plan is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    exists,
    literal_column,
    or_,
    select,
)

from yarrow.errors import NotFound, UsageError
from yarrow.language.spec import DagSpec
from yarrow.plans.requests import BackfillRequest, Request, Scope
from yarrow.plans.situation import RunFacts, Situation, TaskFacts
from yarrow.store.catalog import did_you_mean, read_dag
from yarrow.store.history import mean_durations
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.tables import attempt, dag, dag_run, dag_version, task_instance, xcom
from yarrow.store.transitions import CHUNK, chunks
from yarrow.store.workers import read_pools

_NEAR = 200  # so many of the newest run ids are looked at for one that is like a wrong one

_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_FOUND = select(dag_run.c.id, dag_run.c.run_id, dag_run.c.logical_date).order_by(dag_run.c.logical_date, dag_run.c.id)
_NEWEST_RUN_IDS = (
    select(dag_run.c.run_id)
    .where(dag_run.c.dag_id == bindparam("dag_id"))
    .order_by(dag_run.c.id.desc())
    .limit(bindparam("limit"))
)
_LOCK_RUNS = (
    select(dag_run.c.id).where(dag_run.c.id.in_(_IDS)).order_by(dag_run.c.logical_date, dag_run.c.id).with_for_update()
)
_LATER_RUNNING = select(dag_run.c.id, dag_run.c.run_id, dag_run.c.logical_date).where(
    dag_run.c.dag_id == bindparam("dag_id"),
    dag_run.c.state == literal_column("'running'"),
    dag_run.c.logical_date >= bindparam("date"),
)
_TASK_IDS = select(task_instance.c.id).where(task_instance.c.dag_run_id.in_(_IDS))
_LOCK_TASKS = (
    select(task_instance.c.id)
    .where(task_instance.c.id.in_(_IDS))
    .order_by(task_instance.c.id)
    .with_for_update(key_share=True)
)
_LOCK_DAG = select(dag.c.dag_id).where(dag.c.dag_id == bindparam("dag_id")).with_for_update()
_RUNS = select(
    dag_run.c.id,
    dag_run.c.run_id,
    dag_run.c.run_type,
    dag_run.c.state,
    dag_run.c.logical_date,
    dag_run.c.data_interval_start,
    dag_run.c.data_interval_end,
    dag_run.c.version,
    dag_run.c.params,
    dag_run.c.started_at,
    dag_run.c.backfill_id,
).where(dag_run.c.id.in_(_IDS))
_RUNNING = task_instance.c.state == literal_column("'running'")
_TASKS = (
    select(
        task_instance.c.dag_run_id,
        task_instance.c.id,
        task_instance.c.task_id,
        task_instance.c.map_index,
        task_instance.c.state,
        task_instance.c.try_number,
        task_instance.c.max_tries,
        task_instance.c.attempt_id,
        case(
            (
                task_instance.c.state == literal_column("'success'"),
                exists().where(xcom.c.attempt_id == task_instance.c.attempt_id),
            ),
            else_=False,
        ).label("has_xcom"),
        # What the engine, or whoever stops it, wishes is not certain: a success stands. What overrules it is.
        case((attempt.c.overruled, attempt.c.cancel_state)).label("stopping_to"),
        task_instance.c.follow,
        task_instance.c.map_value,
    )
    .select_from(task_instance.outerjoin(attempt, and_(_RUNNING, attempt.c.attempt_id == task_instance.c.attempt_id)))
    .where(task_instance.c.dag_run_id.in_(_IDS))
)
_NUMBERS = select(dag_version.c.version, dag_version.c.number).where(
    dag_version.c.dag_id == bindparam("dag_id"), dag_version.c.version.in_(bindparam("versions", expanding=True))
)


def load(connection: Connection, specs: Specs, request: Request, now: datetime, *, locked: bool) -> Situation:
    """What a request is about, as it stands.

    Args:
        locked: Runs and task instances stay as they are until the transaction ends, and so does, for a backfill, the
            DAG: no scheduled run of it is made meanwhile.

    Raises:
        NotFound: There is no such DAG or run.
        UsageError: The request names no runs at all.
    """
    record = read_dag(connection, request.dag_id)
    newest = specs.get(connection, request.dag_id, record.version)
    ids: Sequence[int] = [row.id for row in _find(connection, request)]
    if locked and connection.dialect.name != "sqlite":  # there, who writes is alone
        ids = _lock(connection, request, ids)
    runs = _read_runs(connection, specs, request.dag_id, ids)
    before = _before(connection, specs, request, newest, runs)
    if _wants_tasks(request, newest, runs):
        runs = _with_tasks(connection, runs)
        before = None if before is None else _with_tasks(connection, [before])[0]
    versions = sorted({record.version, *(run.version for run in runs)})
    numbers = connection.execute(_NUMBERS, {"dag_id": request.dag_id, "versions": versions}).all()
    return Situation(
        now=now,
        dag_id=request.dag_id,
        is_paused=record.is_paused,
        is_active=record.is_active,
        created_at=record.created_at,
        newest=newest,
        runs=runs,
        before=before,
        numbers={row.version: row.number for row in numbers},
        durations=mean_durations(connection, request.dag_id),
        pools={pool.name: (pool.slots, pool.used) for pool in read_pools(connection)},
    )


# Which runs


def _find(connection: Connection, request: Request) -> Sequence[AnyRow]:
    """The runs that the request may be about: their row ids, run ids and logical dates, in the order of locking."""
    if isinstance(request, BackfillRequest):
        return _of_span(connection, request.dag_id, request.from_date, request.to_date)
    if request.run_ids and (request.from_date or request.to_date):
        raise UsageError("Name runs, or a span of logical dates, not both.")
    if request.run_ids:
        rows = _named(connection, request.dag_id, request.run_ids)
    elif request.from_date or request.to_date:
        rows = _of_span(connection, request.dag_id, request.from_date, request.to_date)
    else:
        raise UsageError("Name the runs, or a span of logical dates.")
    return _with_others(connection, request, rows)


def _of_span(
    connection: Connection, dag_id: str, from_date: datetime | None, to_date: datetime | None
) -> Sequence[AnyRow]:
    query = _FOUND.where(dag_run.c.dag_id == dag_id)
    if from_date is not None:
        query = query.where(dag_run.c.logical_date >= from_date)
    if to_date is not None:
        query = query.where(dag_run.c.logical_date <= to_date)
    return connection.execute(query).all()


def _named(connection: Connection, dag_id: str, run_ids: Iterable[str]) -> Sequence[AnyRow]:
    """The runs with these ids. Raises NotFound with the nearest name of the first that there is not."""
    wanted = dict.fromkeys(run_ids)
    rows: list[AnyRow] = []
    for chunk in chunks(wanted, CHUNK):
        rows += connection.execute(_FOUND.where(dag_run.c.dag_id == dag_id, dag_run.c.run_id.in_(chunk)))
    found = {row.run_id for row in rows}
    missing = [run_id for run_id in wanted if run_id not in found]
    if missing:
        near = connection.execute(_NEWEST_RUN_IDS, {"dag_id": dag_id, "limit": _NEAR}).scalars().all()
        more = len(missing) - 1
        others = f", nor {more:,} {'other that was' if more == 1 else 'others that were'} named" if more else ""
        raise NotFound(f"The DAG {dag_id!r} has no run {missing[0]!r}{others}.", hint=did_you_mean(missing[0], near))
    return sorted(rows, key=_place)


def _with_others(connection: Connection, request: Scope, rows: Sequence[AnyRow]) -> Sequence[AnyRow]:
    """These runs, and all with an earlier or a later logical date where the request wants them."""
    if not rows or not (request.past or request.future):
        return rows
    dates = [row.logical_date for row in rows]
    sides: list[ColumnElement[bool]] = []
    if request.past:
        sides.append(dag_run.c.logical_date < max(dates))
    if request.future:
        sides.append(dag_run.c.logical_date > min(dates))
    others = connection.execute(_FOUND.where(dag_run.c.dag_id == request.dag_id, or_(*sides)))
    return sorted({row.id: row for row in (*rows, *others)}.values(), key=_place)


def _place(row: AnyRow) -> tuple[datetime, int]:
    return row.logical_date, row.id


def _before(
    connection: Connection, specs: Specs, request: Request, newest: DagSpec, runs: Sequence[RunFacts]
) -> RunFacts | None:
    """The last run before the span of a backfill that its first run may have to look back at."""
    if not isinstance(request, BackfillRequest) or not _looks_back(newest, runs):
        return None
    query = select(dag_run.c.id).where(dag_run.c.dag_id == request.dag_id, dag_run.c.logical_date < request.from_date)
    if newest.catchup:
        query = query.where(dag_run.c.run_type.in_(["scheduled", "backfill"]))
    id = connection.execute(query.order_by(dag_run.c.logical_date.desc(), dag_run.c.id.desc()).limit(1)).scalar()
    return None if id is None else _read_runs(connection, specs, request.dag_id, [id])[0]


def _looks_back(newest: DagSpec, runs: Iterable[RunFacts]) -> bool:
    return newest.looks_back or any(run.spec.looks_back for run in runs)


# Locks


def _lock(connection: Connection, request: Request, ids: Sequence[int]) -> Sequence[int]:
    """Locks these runs and their task instances. Returns their ids; for a backfill also those that came since.

    For a backfill the row of the DAG comes after them, so that none is made any more. Should others have come until
    then, all locks are given back and taken anew in their order: one that waits out of order waits in a circle.
    """
    while True:
        before = connection.begin_nested()
        _lock_runs(connection, request.dag_id, ids)
        _lock_tasks(connection, ids)
        if not isinstance(request, BackfillRequest):
            return ids
        connection.execute(_LOCK_DAG, {"dag_id": request.dag_id})
        found = [row.id for row in _find(connection, request)]
        if set(found) <= set(ids):
            return found
        before.rollback()
        ids = found


def _lock_tasks(connection: Connection, ids: Sequence[int]) -> None:
    rows: list[int] = []
    for chunk in chunks(ids, CHUNK):
        rows += connection.execute(_TASK_IDS, {"ids": chunk}).scalars()
    for chunk in chunks(sorted(rows), CHUNK):
        connection.execute(_LOCK_TASKS, {"ids": chunk})


def _lock_runs(connection: Connection, dag_id: str, ids: Sequence[int]) -> None:
    """Locks runs by date, those among them that are only to be decided on again: the running ones that come later."""
    places: dict[int, tuple[datetime, int]] = {}
    for chunk in chunks(ids, CHUNK):
        for row in connection.execute(_FOUND.where(dag_run.c.id.in_(chunk))):
            places[row.id] = _place(row)
    if places:
        date = min(places.values())[0]
        for row in connection.execute(_LATER_RUNNING, {"dag_id": dag_id, "date": date}):
            places[row.id] = _place(row)
    for chunk in chunks(sorted(places, key=places.__getitem__), CHUNK):
        connection.execute(_LOCK_RUNS, {"ids": chunk})


# What they are


def _read_runs(connection: Connection, specs: Specs, dag_id: str, ids: Sequence[int]) -> list[RunFacts]:
    """The runs with these row ids, without their task instances, by logical date and id."""
    found: list[RunFacts] = []
    for chunk in chunks(ids, CHUNK):
        found += [
            RunFacts(
                id=row.id,
                run_id=row.run_id,
                run_type=row.run_type,
                state=row.state,
                logical_date=row.logical_date,
                data_interval_start=row.data_interval_start,
                data_interval_end=row.data_interval_end,
                spec=specs.get(connection, dag_id, row.version),
                version=row.version,
                params=row.params,
                started_at=row.started_at,
                backfill_id=row.backfill_id,
            )
            for row in connection.execute(_RUNS, {"ids": chunk}).all()
        ]
    return sorted(found, key=lambda run: (run.logical_date, run.id))


def _wants_tasks(request: Request, newest: DagSpec, runs: Sequence[RunFacts]) -> bool:
    """Whether it matters how the task instances of the runs stand: 3,650 runs have very many of them."""
    if not isinstance(request, BackfillRequest):
        return True
    return request.reprocess != "none" or _looks_back(newest, runs)


def _with_tasks(connection: Connection, runs: Sequence[RunFacts]) -> list[RunFacts]:
    by_run: dict[int, list[TaskFacts]] = {run.id: [] for run in runs}
    for chunk in chunks(by_run, CHUNK):
        for row in connection.execute(_TASKS, {"ids": chunk}):
            # Columns by their place: there are tens of thousands of rows.
            run, id, task, index, state, tries, most, newest, has_xcom, stopping_to, follow, value = row
            chosen = None if follow is None else tuple(follow)
            facts = TaskFacts(id, task, index, state, tries, most, newest, bool(has_xcom), stopping_to, chosen, value)
            by_run[run].append(facts)
    places: dict[str, Mapping[str, int]] = {}
    for one in runs:
        places.setdefault(one.version, {task_id: place for place, task_id in enumerate(one.spec.tasks)})
    return [replace(one, tasks=tuple(_ordered(by_run[one.id], places[one.version]))) for one in runs]


def _ordered(tasks: Sequence[TaskFacts], places: Mapping[str, int]) -> Sequence[TaskFacts]:
    last = len(places)
    return sorted(tasks, key=lambda one: (places.get(one.task_id, last), one.task_id, one.map_index))

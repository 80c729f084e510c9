"""Retention: runs that are older than a deployment wants to keep, found and deleted in small steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, exists, func, literal_column, or_, select

from yarrow.errors import NotFound
from yarrow.language.spec import FEWEST_AVERAGED_RUNS, DagSpec
from yarrow.schedules.fires import FIRST
from yarrow.states import RunState
from yarrow.store import stale
from yarrow.store.database import Database
from yarrow.store.deleting import RUNS_AT_ONCE, STILL_RUNS
from yarrow.store.erasing import Deleted, References, count_runs, erase_runs, unnamed
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.tables import dag, dag_run, dataset_event, dataset_pending, task_instance
from yarrow.store.transitions import append, history_line

INSTANCES_A_RUN = 8
"""How many task instances a step deletes for each run that it may delete; a single run may have more."""

_FINISHED: list[ColumnElement[str]] = [literal_column("'success'"), literal_column("'failed'")]
_BY_SCHEDULE = ("scheduled", "backfill")

_DAGS = select(dag.c.dag_id).order_by(dag.c.dag_id)
_DAG = select(dag.c.version, dag.c.scheduled_through).where(dag.c.dag_id == bindparam("of_dag_id"))
_VERSIONS_IN_FLIGHT = (
    select(dag_run.c.version)
    .where(dag_run.c.dag_id == bindparam("of_dag_id"))
    .where(dag_run.c.state.in_([literal_column("'queued'"), literal_column("'running'")]))
    .distinct()
)
_ENDED_LAST = (
    select(dag_run.c.id)
    .where(dag_run.c.dag_id == bindparam("of_dag_id"), dag_run.c.ended_at.is_not(None))
    .order_by(dag_run.c.ended_at.desc(), dag_run.c.id.desc())
    .limit(bindparam("limit"))
)
_SUCCEEDED_LAST = (
    select(dag_run.c.id)
    .where(dag_run.c.dag_id == bindparam("of_dag_id"), dag_run.c.state == RunState.SUCCESS)
    .order_by(dag_run.c.logical_date.desc(), dag_run.c.id.desc())
    .limit(bindparam("limit"))
)
_later = dag_run.alias("later")
_other = dag_run.alias("other")


def _next_has_ended(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether there is a run behind this one, and the first of them is over: nothing looks at this one any more."""
    state = (
        select(_later.c.state)
        .where(
            _later.c.dag_id == dag_run.c.dag_id,
            _later.c.logical_date >= dag_run.c.logical_date,  # which the index knows
            or_(_later.c.logical_date > dag_run.c.logical_date, _later.c.id > dag_run.c.id),
            *conditions,
        )
        .order_by(_later.c.logical_date, _later.c.id)
        .limit(1)
        .scalar_subquery()
    )
    return state.in_(_FINISHED)


_OF_A_BACKFILL_UNDER_WAY = exists().where(
    _other.c.backfill_id == dag_run.c.backfill_id,
    _other.c.state.in_([literal_column("'queued'"), literal_column("'running'")]),
)
# The data interval of the run that is to come is taken from those that published what it waits for.
_AWAITED = select(dataset_event.c.run_id).where(
    dataset_event.c.id.in_(select(dataset_pending.c.event_id)),
    dataset_event.c.dag_id == bindparam("of_dag_id"),
    dataset_event.c.run_id.is_not(None),
)
_OLD = (
    dag_run.c.dag_id == bindparam("of_dag_id"),
    dag_run.c.ended_at < bindparam("before"),
    dag_run.c.state.in_(_FINISHED),
    dag_run.c.id.not_in(bindparam("kept", expanding=True)),
    ~STILL_RUNS,
    or_(dag_run.c.backfill_id.is_(None), ~_OF_A_BACKFILL_UNDER_WAY),
    dag_run.c.run_id.not_in(_AWAITED),
    # The schedule goes on behind the newest of its runs, and tasks may look at the run before theirs.
    or_(
        dag_run.c.run_type.not_in(_BY_SCHEDULE),
        and_(
            dag_run.c.logical_date.is_distinct_from(bindparam("through")),
            _next_has_ended(_later.c.run_type.in_(_BY_SCHEDULE)),
        ),
    ),
)
_INSTANCES = select(func.count()).where(task_instance.c.dag_run_id == dag_run.c.id).scalar_subquery()
_CANDIDATES = (
    select(
        dag_run.c.id,
        dag_run.c.run_id,
        dag_run.c.ended_at,
        dag_run.c.version,
        dag_run.c.backfill_id,
        _INSTANCES.label("instances"),
    )
    .where(
        *_OLD,
        dag_run.c.ended_at >= bindparam("after"),
        or_(dag_run.c.ended_at > bindparam("after"), dag_run.c.id > bindparam("after_id")),
    )
    .order_by(dag_run.c.ended_at, dag_run.c.id)
    .limit(bindparam("limit"))
)
# Whoever has one of them locked is about to change it: it is left alone, and nothing is waited for.
_LOCK = (
    select(dag_run.c.id)
    .where(dag_run.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(dag_run.c.logical_date, dag_run.c.id)
    .with_for_update(skip_locked=True)
)
_STILL_OLD = select(dag_run.c.id, dag_run.c.run_id).where(*_OLD, dag_run.c.id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class _Rules:
    """Which runs of a DAG are old enough."""

    dag_id: str
    before: datetime
    through: datetime | None  # as far as the schedule has come
    kept: Sequence[int]  # ids of runs that are needed, however old
    looks_back: bool

    def narrow(self, query: Select[Any]) -> Select[Any]:
        return query.where(_next_has_ended()) if self.looks_back else query

    @property
    def parameters(self) -> dict[str, Any]:
        return {"of_dag_id": self.dag_id, "before": self.before, "through": self.through, "kept": list(self.kept)}


class Pruning:
    """Deletes what is too old. Every step is a transaction of its own and leaves nothing half done.

    Kept, however old: runs that have not ended or of which a task still runs, those of a backfill that is still going,
    the newest that the schedule has made, the one before a run that is still to be decided on, and as many as the DAG
    needs to tell how long it takes and how often in a row it has failed.
    """

    def __init__(self, database: Database, specs: Specs) -> None:
        self._database = database
        self._specs = specs

    def steps(
        self, before: datetime, *, who: str, now: datetime | None = None, size: int = RUNS_AT_ONCE
    ) -> Iterator[Deleted]:
        """Deletes in steps what had ended before a moment; each `next` is one short transaction, or but a look.

        Several may do so at once, and it may be broken off after every step.

        Args:
            size: How many runs a step may delete at most; of other rows it deletes in proportion.
        """
        at = self._database.now(now)
        total: Counter[str] = Counter()
        for rules, rows in self._old_runs(before, size):
            step = self._delete(rules, [row.id for row in rows]) if rows else Deleted()
            total.update(step.counts)
            yield step
        for counts in stale.steps(self._database, before, at, size):
            total.update(counts)
            yield Deleted(counts=counts)
        if counted := ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in sorted((+total).items())):
            reason = f"older than {before:%Y-%m-%d %H:%M:%S} UTC: {counted}"
            line = history_line("db.pruned", at=at, who=who, reason=reason)
            self._database.write(lambda connection: append(connection, [line]))

    def count(self, before: datetime, now: datetime | None = None) -> Counter[str]:
        """How many rows `steps` would delete, by what they are. Changes nothing."""
        at = self._database.now(now)
        gone = stale.Gone()
        counts: Counter[str] = Counter()
        for rules, rows in self._old_runs(before, RUNS_AT_ONCE):
            counts.update(self._database.read(partial(count_runs, dag_id=rules.dag_id, rows=rows)))
            gone.add(rules.dag_id, rows)
        counts.update(self._database.read(lambda connection: stale.count(connection, before, at, gone)))
        return +counts

    def _old_runs(self, before: datetime, size: int) -> Iterator[tuple[_Rules, Sequence[AnyRow]]]:
        """The runs that may go, DAG by DAG, a step's worth at a time, whether they are deleted meanwhile or not.

        For each DAG an empty list is the last, so that whoever looks at many DAGs can pause in between.
        """
        for dag_id in self._database.read(lambda connection: connection.execute(_DAGS).scalars().all()):
            rules = self._database.read(partial(self._rules, dag_id=dag_id, before=before))
            after, after_id = FIRST, 0
            while rules is not None:
                place = {**rules.parameters, "after": after, "after_id": after_id, "limit": size}
                found = self._database.read(partial(_rows, query=rules.narrow(_CANDIDATES), parameters=place))
                if not found:
                    yield rules, []
                    break
                rows = _first(found, size * INSTANCES_A_RUN)
                after, after_id = rows[-1].ended_at, rows[-1].id
                yield rules, rows

    def _delete(self, rules: _Rules, ids: Sequence[int]) -> Deleted:
        """Deletes those of the runs that are still too old when they are locked."""

        def work(connection: Connection) -> tuple[Deleted, References]:
            locked = connection.execute(_LOCK, {"ids": ids}).scalars().all()
            query = rules.narrow(_STILL_OLD)
            rows = connection.execute(query, {**rules.parameters, "ids": locked}).all()
            counts, references = erase_runs(connection, rules.dag_id, rows)
            return Deleted([(rules.dag_id, row.run_id) for row in rows], counts), references

        step, references = self._database.write(work)
        if references:  # may take a look at many runs: not while rows are locked
            addresses = self._database.read(partial(unnamed, dag_id=rules.dag_id, references=references))
            step = replace(step, references=addresses)
        return step

    def _rules(self, connection: Connection, dag_id: str, before: datetime) -> _Rules | None:
        """None: the DAG has been deleted."""
        names = {"of_dag_id": dag_id}
        row = connection.execute(_DAG, names).one_or_none()
        if row is None:
            return None
        newest = self._spec(connection, dag_id, row.version)
        in_flight = connection.execute(_VERSIONS_IN_FLIGHT, names).scalars().all()
        specs = [newest, *(self._spec(connection, dag_id, version) for version in in_flight)]
        looks_back = any(spec is None or spec.looks_back for spec in specs)
        kept: set[int] = set()
        if newest is not None and newest.max_consecutive_failed_dag_runs > 0:
            limit = newest.max_consecutive_failed_dag_runs
            kept.update(connection.execute(_ENDED_LAST, {**names, "limit": limit}).scalars())
        if newest is None or _takes_averages(newest):
            kept.update(connection.execute(_SUCCEEDED_LAST, {**names, "limit": FEWEST_AVERAGED_RUNS}).scalars())
        return _Rules(dag_id, before, row.scheduled_through, sorted(kept), looks_back)

    def _spec(self, connection: Connection, dag_id: str, version: str) -> DagSpec | None:
        try:
            return self._specs.get(connection, dag_id, version)
        except (NotFound, LookupError, TypeError, ValueError):  # a newer Yarrow has written it
            return None


def _rows(connection: Connection, query: Select[Any], parameters: Mapping[str, Any]) -> Sequence[AnyRow]:
    return connection.execute(query, parameters).all()


def _first(rows: Sequence[AnyRow], instances: int) -> Sequence[AnyRow]:
    """The first of the runs, at least one, that have no more task instances than that together."""
    taken = 0
    for count, row in enumerate(rows):
        taken += row.instances
        if count and taken > instances:
            return rows[:count]
    return rows


def _takes_averages(spec: DagSpec) -> bool:
    wishes = [spec.deadline, *(task.deadline for task in spec.tasks.values())]
    return any(wish is not None and wish.reference == "average" for wish in wishes)

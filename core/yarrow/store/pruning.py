"""Retention: runs that are older than a deployment wants to keep, found and deleted in small steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, exists, func, literal_column, or_, select

from yarrow.errors import NotFound
from yarrow.language.spec import FEWEST_AVERAGED_RUNS, DagSpec
from yarrow.schedules.fires import FIRST
from yarrow.states import RunState
from yarrow.store import stale
from yarrow.store.database import Database
from yarrow.store.deleting import RUNS_AT_ONCE, STILL_RUNS, Deleted, count_runs, erase_runs, unnamed
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.stale import Gone
from yarrow.store.tables import dag, dag_run, dataset_event, dataset_pending, task_instance
from yarrow.store.transitions import append, chunks, history_line

INSTANCES_A_RUN = 8
"""How many task instances a step deletes for each run that it may delete; a single run may have more."""

_FINISHED = [literal_column("'success'"), literal_column("'failed'")]
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


def _next_has_ended(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether there is a run behind this one, and the first of them is over: nothing looks at this one any more."""
    later = _later
    state = (
        select(later.c.state)
        .where(
            later.c.dag_id == dag_run.c.dag_id,
            later.c.logical_date >= dag_run.c.logical_date,  # which the index knows
            or_(later.c.logical_date > dag_run.c.logical_date, later.c.id > dag_run.c.id),
            *conditions,
        )
        .order_by(later.c.logical_date, later.c.id)
        .limit(1)
        .scalar_subquery()
    )
    return state.in_(_FINISHED)


_later = dag_run.alias("later")
_other = dag_run.alias("other")
_OF_A_BACKFILL_UNDER_WAY = exists().where(
    _other.c.backfill_id == dag_run.c.backfill_id,
    _other.c.state.in_([literal_column("'queued'"), literal_column("'running'")]),
)
# The data interval of the run that is to come is taken from those that published what it waits for.
_AWAITED = (
    select(dataset_event.c.run_id)
    .select_from(dataset_pending.join(dataset_event))
    .where(dataset_event.c.dag_id == bindparam("of_dag_id"), dataset_event.c.run_id.is_not(None))
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
_LOOKED_AT = _next_has_ended()
_INSTANCES = select(func.count()).where(task_instance.c.dag_run_id == dag_run.c.id).scalar_subquery()
_CANDIDATES = (
    select(dag_run.c.id, dag_run.c.run_id, dag_run.c.ended_at, dag_run.c.version, dag_run.c.backfill_id, _INSTANCES)
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
    """What makes runs of a DAG old enough."""

    dag_id: str
    before: datetime
    through: datetime | None
    kept: Sequence[int]
    looks_back: bool

    def of(self, query: Select[*tuple[object, ...]]) -> Select[*tuple[object, ...]]:
        return query.where(_LOOKED_AT) if self.looks_back else query

    @property
    def parameters(self) -> dict[str, object]:
        return {"of_dag_id": self.dag_id, "before": self.before, "through": self.through, "kept": self.kept}


@dataclass(slots=True)
class _Place:
    """How far the old runs of a DAG have been gone through."""

    after: datetime = FIRST
    after_id: int = 0


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
        """Deletes in steps what had ended before a moment; each `next` is one short transaction.

        Several may do so at once, and it may be broken off after every step.

        Args:
            size: How many runs a step may delete at most; of other rows it deletes in proportion.
        """
        at = self._database.now(now)
        total: Counter[str] = Counter()
        for dag_id in self._dags():
            for step in self._prune_runs(dag_id, before, size):
                total.update(step.counts)
                yield step
        for counts in stale.steps(self._database, before, at, size):
            total.update(counts)
            yield Deleted(counts=counts)
        if total:
            reason = f"older than {before:%Y-%m-%d %H:%M:%S} UTC: " + ", ".join(
                f"{count} {what.replace('_', ' ')}" for what, count in sorted(total.items())
            )
            line = history_line("db.pruned", at=at, who=who, reason=reason)
            self._database.write(lambda connection: append(connection, [line]))

    def count(self, before: datetime, now: datetime | None = None) -> Counter[str]:
        """How many rows `steps` would delete, by what they are. Changes nothing."""
        at = self._database.now(now)
        gone = Gone()
        counts: Counter[str] = Counter()
        for dag_id in self._dags():
            place = _Place()
            while rows := self._database.read(
                partial(self._count_some, dag_id=dag_id, before=before, place=place, gone=gone, counts=counts)
            ):
                place.after, place.after_id = rows[-1].ended_at, rows[-1].id
        counts.update(self._database.read(lambda connection: stale.count(connection, before, at, gone)))
        return +counts

    def _dags(self) -> Sequence[str]:
        return self._database.read(lambda connection: connection.execute(_DAGS).scalars().all())

    def _count_some(
        self, connection: Connection, *, dag_id: str, before: datetime, place: _Place, gone: Gone, counts: Counter[str]
    ) -> Sequence[AnyRow]:
        rules = self._rules(connection, dag_id, before)
        rows = [] if rules is None else _candidates(connection, rules, place, RUNS_AT_ONCE)
        counts.update(count_runs(connection, dag_id, rows))
        gone.add(dag_id, rows)
        return rows

    def _prune_runs(self, dag_id: str, before: datetime, size: int) -> Iterator[Deleted]:
        rules = self._database.read(lambda connection: self._rules(connection, dag_id, before))
        place = _Place()
        while rules is not None:
            rows = self._database.read(partial(_candidates, rules=rules, place=place, limit=size))
            if not rows:
                return
            chosen = _first(rows, size * INSTANCES_A_RUN)
            place.after, place.after_id = chosen[-1].ended_at, chosen[-1].id
            step = self._database.write(partial(_delete, rules=rules, ids=[row.id for row in chosen]))
            if step.references:  # whether others name them is looked up after the locks are given back
                ...
            yield step

    def _rules(self, connection: Connection, dag_id: str, before: datetime) -> _Rules | None:
        """None: the DAG has been deleted."""
        row = connection.execute(_DAG, {"of_dag_id": dag_id}).one_or_none()
        if row is None:
            return None
        in_flight = connection.execute(_VERSIONS_IN_FLIGHT, {"of_dag_id": dag_id}).scalars()
        specs = [self._spec(connection, dag_id, version) for version in sorted({row.version, *in_flight})]
        newest = self._spec(connection, dag_id, row.version)
        return _Rules(
            dag_id,
            before,
            row.scheduled_through,
            _needed(connection, dag_id, newest),
            any(spec is None or spec.looks_back for spec in specs),
        )

    def _spec(self, connection: Connection, dag_id: str, version: str) -> DagSpec | None:
        try:
            return self._specs.get(connection, dag_id, version)
        except (NotFound, LookupError, TypeError, ValueError):  # a newer Yarrow has written it
            return None

"""The versions of a DAG: which one a person means, how many runs each has, and what a new one would touch."""

from __future__ import annotations

from collections.abc import Collection
from string import hexdigits
from typing import Final

from sqlalchemy import ColumnElement, Connection, Text, and_, cast, func, select

from yarrow.differences.impact import ActiveBackfill, Dataset, RunsInFlight, Standing, outlets
from yarrow.errors import NotFound, UsageError
from yarrow.language.spec import DagSpec
from yarrow.schedules.upcoming import Progress
from yarrow.states import RunState
from yarrow.store.catalog import read_dag
from yarrow.store.database import Database
from yarrow.store.progress import progress_of
from yarrow.store.records import VersionRecord
from yarrow.store.rows import columns_of
from yarrow.store.tables import backfill, dag, dag_dataset, dag_run, dag_version

SHORTEST_HASH: Final = 6
"""Characters of a hash that name a version."""

_NAMED: Final = 5
"""How many runs in flight are named."""

_UNFINISHED: Final = (RunState.QUEUED, RunState.RUNNING)
_COLUMNS: Final = columns_of(VersionRecord, dag_version)
_WHOLE: Final[ColumnElement[str]] = func.coalesce(dag_version.c.cut_from, dag_run.c.version)
"""The version of a run; for a run of some tasks only the version that it was cut from."""

_RUNS = select(_WHOLE.label("version"), dag_run.c.state).select_from(
    dag_run.outerjoin(
        dag_version, and_(dag_version.c.dag_id == dag_run.c.dag_id, dag_version.c.version == dag_run.c.version)
    )
)


class Versions:
    """The versions of DAGs. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, dag_id: str, text: str) -> VersionRecord:
        """The version that a person names: its number, or the beginning of its hash.

        Raises:
            NotFound: There is no such DAG or version.
            UsageError: It is neither, or several versions begin so.
        """
        return self._database.read(lambda connection: _find(connection, dag_id, text))

    def run_counts(self, dag_id: str) -> dict[str, dict[RunState, int]]:
        """Version -> state -> how many runs of the DAG; a version without runs is absent."""
        runs = _RUNS.where(dag_run.c.dag_id == dag_id).subquery()
        query = select(runs.c.version, runs.c.state, func.count()).group_by(runs.c.version, runs.c.state)

        def work(connection: Connection) -> dict[str, dict[RunState, int]]:
            found: dict[str, dict[RunState, int]] = {}
            for version, state, count in connection.execute(query):
                found.setdefault(version, {})[state] = count
            return found

        return self._database.read(work)

    def standing(self, dag_id: str, datasets: Collection[str]) -> tuple[Standing, Progress | None]:
        """What a new version of a DAG would touch, and how far its runs have come (None: there is no such DAG).

        Args:
            datasets: Of which to tell who else publishes them or waits for them.
        """

        def work(connection: Connection) -> tuple[Standing, Progress | None]:
            standing = Standing(
                _in_flight(connection, dag_id),
                _backfills(connection, dag_id),
                {name: _dataset(connection, dag_id, name) for name in sorted(datasets)},
            )
            return standing, progress_of(connection, [dag_id]).get(dag_id)

        return self._database.read(work)


def _all(connection: Connection, dag_id: str) -> list[VersionRecord]:
    query = select(*_COLUMNS).where(dag_version.c.dag_id == dag_id, dag_version.c.cut_from.is_(None))
    return [VersionRecord(*row) for row in connection.execute(query.order_by(dag_version.c.number.desc()))]


def _find(connection: Connection, dag_id: str, text: str) -> VersionRecord:
    read_dag(connection, dag_id)
    wanted = text.strip().lower()
    versions = _all(connection, dag_id)
    numbered = [one for one in versions if wanted == str(one.number)]
    if numbered:
        return numbered[0]
    is_hash = len(wanted) >= SHORTEST_HASH and set(wanted) <= set(hexdigits)
    if not is_hash and not wanted.isdecimal():
        raise UsageError(
            f"{text!r} names no version.",
            hint=f"A version is named by its number, or by its hash, of which {SHORTEST_HASH} characters are enough.",
        )
    found = [one for one in versions if is_hash and one.version.startswith(wanted)]
    if len(found) > 1:
        raise UsageError(f"{len(found)} versions of the DAG {dag_id!r} begin with {wanted}.", hint="Give more of it.")
    if not found:
        hint = f"Its versions are 1 to {versions[0].number}; `yarrow dags versions {dag_id}` shows them."
        raise NotFound(f"The DAG {dag_id!r} has no version {text}.", hint=hint)
    return found[0]


def _in_flight(connection: Connection, dag_id: str) -> list[RunsInFlight]:
    numbers = {one.version: one.number for one in _all(connection, dag_id)}
    query = _RUNS.add_columns(dag_run.c.run_id).where(dag_run.c.dag_id == dag_id, dag_run.c.state.in_(_UNFINISHED))
    states: dict[str, dict[str, int]] = {}
    names: dict[str, list[str]] = {}
    for version, state, run_id in connection.execute(query.order_by(dag_run.c.logical_date, dag_run.c.id)):
        counts = states.setdefault(version, {})
        counts[str(state)] = counts.get(str(state), 0) + 1
        if len(named := names.setdefault(version, [])) < _NAMED:
            named.append(run_id)
    return [
        RunsInFlight(version, numbers[version], counts, names[version])
        for version, counts in sorted(states.items(), key=lambda item: -numbers.get(item[0], 0))
        if version in numbers
    ]


def _backfills(connection: Connection, dag_id: str) -> list[ActiveBackfill]:
    query = (
        select(dag_run.c.backfill_id, dag_run.c.state, func.count())
        .join(backfill, backfill.c.id == dag_run.c.backfill_id)
        .where(dag_run.c.dag_id == dag_id, dag_run.c.state.in_(_UNFINISHED), backfill.c.cancelled_at.is_(None))
        .group_by(dag_run.c.backfill_id, dag_run.c.state)
    )
    found: dict[int, dict[str, int]] = {}
    for backfill_id, state, count in connection.execute(query):
        found.setdefault(backfill_id, {})[state] = count
    return [
        ActiveBackfill(id, states.get(RunState.QUEUED, 0), states.get(RunState.RUNNING, 0))
        for id, states in sorted(found.items())
    ]


def _dataset(connection: Connection, dag_id: str, name: str) -> Dataset:
    waiting = select(dag_dataset.c.dag_id).where(dag_dataset.c.dataset == name, dag_dataset.c.dag_id != dag_id)
    # A name holds nothing that JSON or LIKE would write another way, but for `_`, which finds too much.
    publishing = (
        select(dag_version.c.spec)
        .join(dag, and_(dag.c.dag_id == dag_version.c.dag_id, dag.c.version == dag_version.c.version))
        .where(dag.c.is_active, dag.c.dag_id != dag_id, cast(dag_version.c.spec, Text).contains(f'"{name}"'))
        .order_by(dag.c.dag_id)
    )
    specs = [DagSpec.from_json(data) for data in connection.execute(publishing).scalars()]
    return Dataset(
        tuple(connection.execute(waiting.order_by(dag_dataset.c.dag_id)).scalars()),
        tuple(spec.dag_id for spec in specs if name in outlets(spec)),
    )

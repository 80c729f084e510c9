"""The catalog: DAG files, DAGs and their versions."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, select, update

from yarrow.errors import NotFound
from yarrow.language.faults import Fault
from yarrow.language.spec import DagSpec
from yarrow.schedules.upcoming import Progress
from yarrow.schedules.words import schedule_text
from yarrow.store import datasets, deadlines
from yarrow.store.database import Database, insert_new, upsert
from yarrow.store.progress import progress_of, schedule_changes
from yarrow.store.records import DagRecord, FileRecord, VersionRecord
from yarrow.store.rows import AnyRow, columns_of
from yarrow.store.specs import Specs
from yarrow.store.tables import dag, dag_file, dag_version
from yarrow.store.transitions import CHUNK, SCHEDULER, append, chunks, history_line

_DAG_COLUMNS = columns_of(DagRecord, dag)

_log = logging.getLogger(__name__)


class Catalog:
    """What is known of DAG files and DAGs. Every method is one transaction."""

    def __init__(self, database: Database, specs: Specs) -> None:
        self._database = database
        self._specs = specs

    # Files

    def files(self) -> dict[str, FileRecord]:
        """Every file that was seen, by its path."""
        return {file.path: file for file in self._files(select(dag_file))}

    def import_errors(self) -> list[FileRecord]:
        """The files with a fault of severity error, by path."""
        return self._files(select(dag_file).where(dag_file.c.errors > 0).order_by(dag_file.c.path))

    def record_files(self, files: Iterable[FileRecord]) -> None:
        """Remembers how these files are now; replaces what was known of the same paths."""
        now = self._database.now()
        rows = [_file_row(file, now) for file in files]
        statement = upsert(self._database, dag_file, [dag_file.c.path])
        if rows:
            self._database.write(lambda connection: connection.execute(statement, rows))

    def forget_files(self, paths: Collection[str]) -> None:
        """Forgets files that are gone. The DAGs that they held are `deactivate`d separately."""

        def work(connection: Connection) -> None:
            for chunk in chunks(sorted(paths), CHUNK):
                connection.execute(delete(dag_file).where(dag_file.c.path.in_(chunk)))

        if paths:
            self._database.write(work)

    def _files(self, query: Select[Any]) -> list[FileRecord]:
        return self._database.read(lambda connection: [_file_record(row) for row in connection.execute(query)])

    # DAGs

    def publish(self, dags: Sequence[tuple[DagSpec, str, str]]) -> list[str]:
        """Makes (spec, source, path) the newest version of its DAG; new runs get it.

        An unchanged version is not written again. Changed, new and returned DAGs stand in `unscheduled` afterwards.

        Returns:
            The dag_ids that are new or got another version.
        """
        offered = {spec.dag_id: (spec, source, path) for spec, source, path in dags}
        now = self._database.now()

        def work(connection: Connection) -> list[str]:
            known = _known(connection, offered)
            wanted = {
                dag_id: offer
                for dag_id, offer in offered.items()
                if dag_id not in known or not known[dag_id].is_active or _differs(known[dag_id], *offer)
            }
            changed = [i for i, (spec, _, _) in wanted.items() if i not in known or known[i].version != spec.version]
            _add_versions(self._database, connection, [wanted[dag_id] for dag_id in changed], now)
            rows = [_dag_row(spec, path, now) for spec, _, path in wanted.values()]
            if rows:
                kept = ("created_at", "is_paused", "scheduled_through")
                connection.execute(upsert(self._database, dag, [dag.c.dag_id], keep=kept), rows)
            datasets.wait_for(connection, known.keys() & wanted.keys(), [spec for spec, _, _ in wanted.values()])
            append(connection, [_version_event(wanted[dag_id][0], now) for dag_id in changed])
            append(
                connection, self._schedule_changes(connection, known, [wanted[dag_id][0] for dag_id in changed], now)
            )
            return changed

        return self._database.write(work) if offered else []

    def _schedule_changes(
        self, connection: Connection, known: Mapping[str, AnyRow], specs: Sequence[DagSpec], now: datetime
    ) -> list[dict[str, Any]]:
        """The lines of the history for new versions with another schedule, of DAGs that have had scheduled runs."""
        changes = []
        for spec in specs:
            if spec.dag_id not in known or known[spec.dag_id].scheduled_through is None:
                continue
            try:
                changes.append((self._specs.get(connection, spec.dag_id, known[spec.dag_id].version), spec))
            except (NotFound, LookupError, TypeError, ValueError) as error:
                # What can't be read any more must not keep the version that replaces it, and others, from being used.
                _log.warning(
                    "what %s was before can't be read (%s): whether its schedule has changed is not recorded",
                    spec.dag_id,
                    error,
                    extra={"action": "spec_unreadable"},
                )
        return schedule_changes(connection, changes, now)

    def deactivate(self, dag_ids: Collection[str]) -> list[str]:
        """Takes DAGs whose file is gone out of scheduling; their history stays. Returns those that were active."""
        now = self._database.now()

        def work(connection: Connection) -> list[str]:
            gone: list[str] = []
            for chunk in chunks(sorted(dag_ids), CHUNK):
                statement = (
                    update(dag)
                    .where(dag.c.dag_id.in_(chunk), dag.c.is_active)
                    .values(
                        is_active=False,
                        next_logical_date=None,
                        next_run_after=None,
                        unscheduled_since=None,
                        updated_at=now,
                    )
                    .returning(dag.c.dag_id)
                )
                gone += connection.execute(statement).scalars()
            datasets.forget(connection, gone)
            reason = "its file is gone"
            append(connection, [history_line("dag.gone", at=now, who=SCHEDULER, dag_id=i, reason=reason) for i in gone])
            return sorted(gone)

        return self._database.write(work) if dag_ids else []

    def dags(self, active_only: bool = True) -> list[DagRecord]:
        """The DAGs by dag_id."""
        query = select(*_DAG_COLUMNS).order_by(dag.c.dag_id)
        return self._dags(query.where(dag.c.is_active) if active_only else query)

    def dag(self, dag_id: str) -> DagRecord:
        """The DAG, active or not. Raises NotFound with the nearest name."""
        return self._database.read(lambda connection: read_dag(connection, dag_id))

    def spec(self, dag_id: str, version: str | None = None) -> DagSpec:
        """The spec of a version, the newest by default. Kept in process. Raises NotFound."""

        def work(connection: Connection) -> DagSpec:
            wanted = version or read_dag(connection, dag_id).version
            return self._specs.get(connection, dag_id, wanted)

        return self._database.read(work)

    def source(self, dag_id: str, version: str | None = None) -> str:
        """The text of the file that a version came from. Raises NotFound."""

        def work(connection: Connection) -> str:
            wanted = version or read_dag(connection, dag_id).version
            query = select(dag_version.c.source).where(dag_version.c.dag_id == dag_id, dag_version.c.version == wanted)
            found: str | None = connection.execute(query).scalar_one_or_none()
            if found is None:
                raise NotFound(f"There is no version {wanted[:12]} of the DAG {dag_id!r}.")
            return found

        return self._database.read(work)

    def versions(self, dag_id: str) -> list[VersionRecord]:
        """The versions of a DAG, newest first, without those that are a part of one for the runs of a backfill."""
        of_dag = (dag_version.c.dag_id == dag_id, dag_version.c.cut_from.is_(None))
        query = select(*columns_of(VersionRecord, dag_version)).where(*of_dag).order_by(dag_version.c.number.desc())
        return self._database.read(lambda connection: [VersionRecord(*row) for row in connection.execute(query)])

    # Schedules

    def set_paused(self, dag_id: str, paused: bool, who: str) -> bool:
        """Pauses or unpauses. A paused DAG starts no runs and no tasks; what runs goes on.

        Returns:
            Whether that changed anything. An unpaused DAG stands in `unscheduled`. Raises NotFound.
        """
        now = self._database.now()

        def work(connection: Connection) -> bool:
            record = read_dag(connection, dag_id)
            values: dict[str, Any] = {"is_paused": paused, "updated_at": now}
            if not paused and record.is_active:
                values |= {"unscheduled_since": now, "next_logical_date": None, "next_run_after": None}
            statement = update(dag).where(dag.c.dag_id == dag_id, dag.c.is_paused.is_not(paused)).values(**values)
            if connection.execute(statement).rowcount != 1:
                return False
            append(connection, [history_line(_pause_kind(paused), at=now, who=who, dag_id=dag_id)])
            return True

        return self._database.write(work)

    def unscheduled(self) -> list[DagRecord]:
        """Active DAGs whose next run must be computed anew: published, changed, returned or unpaused since."""
        return self._dags(select(*_DAG_COLUMNS).where(dag.c.unscheduled_since.is_not(None)).order_by(dag.c.dag_id))

    def set_schedule(
        self, dag: DagRecord, *, next_logical_date: datetime | None, next_run_after: datetime | None
    ) -> bool:
        """Records when the next scheduled run of `dag` is due (None: never) and takes it out of `unscheduled`.

        Returns:
            False, and changes nothing, when the DAG changed, was (un)paused or got a run since `dag` was read.
        """
        return self.set_schedules([(dag, next_logical_date, next_run_after)]) == 1

    def set_schedules(self, dags: Sequence[tuple[DagRecord, datetime | None, datetime | None]]) -> int:
        """Does `set_schedule` for many (dag, next logical date, next run_after). Returns how many it changed."""

        def work(connection: Connection) -> int:
            changed = 0
            for record, logical_date, run_after in dags:
                parameters = {
                    **_seen(record),
                    "next_logical_date": logical_date,
                    "next_run_after": run_after,
                    "unscheduled_since": None,
                }
                changed += connection.execute(_SET_SCHEDULE, parameters).rowcount
            deadlines.expect(self._database, connection, [record.dag_id for record, date, _ in dags if date])
            return changed

        return self._database.write(work) if dags else 0

    def progress(self, dag_ids: Collection[str]) -> dict[str, Progress]:
        """How far the scheduled runs of these DAGs have come."""
        return self._database.read(lambda connection: progress_of(connection, dag_ids)) if dag_ids else {}

    def leave_out(self, dag: DagRecord, through: datetime, following: tuple[datetime, datetime], reason: str) -> bool:
        """Moves a DAG on past missed runs that are not made up for, and records that, once.

        Args:
            through: The logical date of the last run that is left out.
            following: The logical date of the next run, and when it is due.
            reason: A sentence for the history.

        Returns:
            False, and changes nothing, when the DAG changed, was (un)paused or got a run since `dag` was read.
        """
        now = self._database.now()

        def work(connection: Connection) -> bool:
            parameters = {
                **_seen(dag),
                "scheduled_through": through,
                "next_logical_date": following[0],
                "next_run_after": following[1],
                "unscheduled_since": None,
            }
            if connection.execute(_SET_SCHEDULE, parameters).rowcount != 1:
                return False
            append(
                connection, [history_line("dag.catchup_cut", at=now, who=SCHEDULER, dag_id=dag.dag_id, reason=reason)]
            )
            deadlines.expect(self._database, connection, [dag.dag_id])
            return True

        return self._database.write(work)

    def due(self, now: datetime, limit: int = 100) -> list[DagRecord]:
        """Active, unpaused DAGs whose next run is due, the longest overdue first."""
        query = select(*_DAG_COLUMNS).where(dag.c.next_run_after <= now, *_SCHEDULABLE)
        return self._dags(query.order_by(dag.c.next_run_after, dag.c.dag_id).limit(limit))

    def next_due(self) -> datetime | None:
        """The earliest moment at which a DAG's next run is due: how long a scheduler may sleep."""
        query = (
            select(dag.c.next_run_after)
            .where(dag.c.next_run_after.is_not(None), *_SCHEDULABLE)
            .order_by(dag.c.next_run_after)
            .limit(1)
        )
        return self._database.read(lambda connection: connection.execute(query).scalar())

    def _dags(self, query: Select[Any]) -> list[DagRecord]:
        return self._database.read(lambda connection: [DagRecord(*row) for row in connection.execute(query)])


_SCHEDULABLE = (dag.c.is_active, ~dag.c.is_paused, dag.c.unscheduled_since.is_(None))
_SET_SCHEDULE = update(dag).where(
    dag.c.dag_id == bindparam("seen_dag_id"),
    dag.c.version == bindparam("seen_version"),
    dag.c.is_active == bindparam("seen_active"),
    dag.c.is_paused == bindparam("seen_paused"),
    dag.c.scheduled_through.is_not_distinct_from(bindparam("seen_through")),
)


def _seen(record: DagRecord) -> dict[str, Any]:
    """What must not have changed since the record was read."""
    return {
        "seen_dag_id": record.dag_id,
        "seen_version": record.version,
        "seen_active": record.is_active,
        "seen_paused": record.is_paused,
        "seen_through": record.scheduled_through,
    }


_OWN_COLUMNS = ("number", "cut_from", "source", "created_at")
_BECOME_WHOLE = (
    update(dag_version)
    .where(
        dag_version.c.dag_id == bindparam("of_dag_id"),
        dag_version.c.version == bindparam("of_version"),
        dag_version.c.cut_from.is_not(None),
    )
    .values({name: bindparam(f"new_{name}") for name in _OWN_COLUMNS})
)


def read_dag(connection: Connection, dag_id: str) -> DagRecord:
    """The DAG, active or not. Raises NotFound with the nearest name."""
    row = connection.execute(select(*_DAG_COLUMNS).where(dag.c.dag_id == dag_id)).one_or_none()
    if row is not None:
        return DagRecord(*row)
    names = connection.execute(select(dag.c.dag_id).where(dag.c.is_active)).scalars().all()
    raise NotFound(f"There is no DAG {dag_id!r}.", hint=did_you_mean(dag_id, names))


def did_you_mean(name: str, names: Collection[str]) -> str | None:
    """A hint that names the nearest of `names`, if one is near."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else None


def _known(connection: Connection, dag_ids: Collection[str]) -> dict[str, AnyRow]:
    columns = (dag.c.dag_id, dag.c.version, dag.c.path, dag.c.is_active, dag.c.scheduled_through)
    known: dict[str, AnyRow] = {}
    for chunk in chunks(dag_ids, CHUNK):
        query = select(*columns).where(dag.c.dag_id.in_(chunk)).order_by(dag.c.dag_id)
        rows = connection.execute(query.with_for_update())
        known |= {row.dag_id: row for row in rows}
    return known


def _differs(known: AnyRow, spec: DagSpec, _source: str, path: str) -> bool:
    return bool(known.version != spec.version or known.path != path)


def _add_versions(
    database: Database, connection: Connection, offers: Sequence[tuple[DagSpec, str, str]], now: datetime
) -> None:
    """Adds the versions that are not there yet: a file may have been changed back.

    One that was there as a part of another, for the runs of a backfill, becomes one of its own.
    """
    newest: dict[str, int] = {}
    existing: set[tuple[str, str]] = set()
    for chunk in chunks((spec.dag_id for spec, _, _ in offers), CHUNK):
        of_dags = (dag_version.c.dag_id.in_(chunk), dag_version.c.cut_from.is_(None))
        numbers = select(dag_version.c.dag_id, func.max(dag_version.c.number)).group_by(dag_version.c.dag_id)
        newest |= {row[0]: row[1] for row in connection.execute(numbers.where(*of_dags))}
        versions = select(dag_version.c.dag_id, dag_version.c.version).where(*of_dags)
        existing |= {(row[0], row[1]) for row in connection.execute(versions)}
    rows = [
        {
            "dag_id": spec.dag_id,
            "version": spec.version,
            "number": newest.get(spec.dag_id, 0) + 1,
            "cut_from": None,
            "spec": spec.to_json(),
            "source": source,
            "created_at": now,
        }
        for spec, source, _ in offers
        if (spec.dag_id, spec.version) not in existing
    ]
    if rows:
        connection.execute(insert_new(database, dag_version), rows)
        # One that is still a part of another was not inserted, and nearly always there is none.
        connection.execute(_BECOME_WHOLE, [_whole(row) for row in rows])


def _whole(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a version becomes that was a part of another one."""
    values = {f"new_{name}": row[name] for name in _OWN_COLUMNS}
    return {"of_dag_id": row["dag_id"], "of_version": row["version"], **values}


def _dag_row(spec: DagSpec, path: str, now: datetime) -> dict[str, Any]:
    deadline_after, deadline_reference = deadlines.known_beforehand(spec) or (None, None)
    return {
        "dag_id": spec.dag_id,
        "path": path,
        "version": spec.version,
        "description": spec.description,
        "owner": spec.owner,
        "tags": list(spec.tags),
        "schedule": schedule_text(spec.schedule),
        "timezone": spec.timezone,
        "max_active_runs": spec.max_active_runs,
        "max_active_tasks": spec.max_active_tasks,
        "deadline_after": deadline_after,
        "deadline_reference": deadline_reference,
        "is_active": True,
        "is_paused": False,
        "scheduled_through": None,
        "next_logical_date": None,
        "next_run_after": None,
        "unscheduled_since": now,
        "created_at": now,
        "updated_at": now,
    }


def _version_event(spec: DagSpec, now: datetime) -> dict[str, Any]:
    reason = f"version {spec.version[:12]}"
    return history_line("dag.version", at=now, who=SCHEDULER, dag_id=spec.dag_id, reason=reason)


def _pause_kind(paused: bool) -> str:
    return "dag.paused" if paused else "dag.unpaused"


def _file_row(file: FileRecord, now: datetime) -> dict[str, Any]:
    return {
        "path": file.path,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "content_hash": file.content_hash,
        "dag_id": file.dag_id,
        "faults": [fault.to_json() for fault in file.faults],
        "errors": sum(fault.severity == "error" for fault in file.faults),
        "parsed_at": file.parsed_at or now,
    }


def _file_record(row: AnyRow) -> FileRecord:
    return FileRecord(
        path=row.path,
        size=row.size,
        mtime_ns=row.mtime_ns,
        content_hash=row.content_hash,
        dag_id=row.dag_id,
        faults=tuple(Fault(**fault) for fault in row.faults),
        parsed_at=row.parsed_at,
    )

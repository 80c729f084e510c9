"""The results of attempts that later runs may take instead of coming to them anew."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, bindparam, delete, or_, select

from yarrow.protocol import Report
from yarrow.store.database import Database, upsert
from yarrow.store.records import CachedRecord, CachedResult
from yarrow.store.rows import AnyRow, columns_of
from yarrow.store.tables import attempt, dag_run, result_cache, task_instance

_KEY = re.compile(r"[0-9a-f]{64}")
_FOUND = (
    select(result_cache.c.attempt_id, result_cache.c.has_xcom, result_cache.c.value, dag_run.c.run_id)
    .select_from(
        result_cache.outerjoin(attempt, attempt.c.attempt_id == result_cache.c.attempt_id)
        .outerjoin(task_instance, task_instance.c.id == attempt.c.task_instance_id)
        .outerjoin(dag_run, dag_run.c.id == task_instance.c.dag_run_id)
    )
    .where(
        result_cache.c.key == bindparam("wanted_key"),
        result_cache.c.dag_id == bindparam("wanted_dag_id"),
        result_cache.c.task_id == bindparam("wanted_task_id"),
        or_(result_cache.c.expires_at.is_(None), result_cache.c.expires_at > bindparam("now")),
    )
)
_CLEARS = select(task_instance.c.clears).join(attempt).where(attempt.c.attempt_id == bindparam("id"))
_LIST = select(*columns_of(CachedRecord, result_cache)).order_by(
    result_cache.c.dag_id, result_cache.c.task_id, result_cache.c.created_at.desc(), result_cache.c.key
)


class ResultCache:
    """The results that are kept. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(
        self,
        key: str,
        dag_id: str,
        task_id: str,
        now: datetime | None = None,
        *,
        attempt_id: str | None = None,
    ) -> CachedResult | None:
        """The result of a task under a key; None when there is none or it is too old.

        Args:
            attempt_id: The attempt that asks. When its task instance was cleared it is to be executed, and gets none.
        """
        names = {"wanted_key": key, "wanted_dag_id": dag_id, "wanted_task_id": task_id, "now": self._database.now(now)}

        def work(connection: Connection) -> AnyRow | None:
            if attempt_id is not None and connection.execute(_CLEARS, {"id": attempt_id}).scalar():
                return None
            return connection.execute(_FOUND, names).one_or_none()

        row = self._database.read(work)
        return None if row is None else CachedResult(*row)

    def entries(self, dag_id: str | None = None, task_id: str | None = None, limit: int = 1000) -> list[CachedRecord]:
        """What is kept, by DAG and task, the newest result first; also what is too old and not yet removed."""
        query = _LIST.where(*_of(dag_id, task_id)).limit(limit)
        return self._database.read(lambda connection: [CachedRecord(*row) for row in connection.execute(query)])

    def clear(self, dag_id: str | None = None, task_id: str | None = None, before: datetime | None = None) -> int:
        """Forgets results, so that the tasks are executed again.

        Args:
            dag_id, task_id: Of which DAG and task; None: of all.
            before: Only those that had become too old by then.

        Returns:
            How many were forgotten.
        """
        conditions = _of(dag_id, task_id)
        if before is not None:
            conditions.append(result_cache.c.expires_at <= before)
        statement = delete(result_cache).where(*conditions)
        return self._database.write(lambda connection: connection.execute(statement).rowcount)


def keep(
    database: Database,
    connection: Connection,
    report: Report,
    dag_id: str,
    task_id: str,
    ttl: float | None,
    at: datetime,
) -> None:
    """Keeps the result of a success under its key, in place of an older one."""
    row = {
        "key": report.cache_key,
        "dag_id": dag_id,
        "task_id": task_id,
        "attempt_id": report.attempt_id,
        "value": report.xcom if report.has_xcom else None,
        "has_xcom": report.has_xcom,
        "created_at": at,
        "expires_at": None if ttl is None else at + timedelta(seconds=ttl),
    }
    connection.execute(upsert(database, result_cache, [result_cache.c.key]), row)


def is_key(text: object) -> bool:
    """Whether this can be a key: a SHA-256 in hexadecimal."""
    return isinstance(text, str) and _KEY.fullmatch(text) is not None


def _of(dag_id: str | None, task_id: str | None) -> list[ColumnElement[bool]]:
    pairs = ((result_cache.c.dag_id, dag_id), (result_cache.c.task_id, task_id))
    return [column == name for column, name in pairs if name is not None]

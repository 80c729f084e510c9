"""What is deleted with runs, counted by what it is, and what they leave in the object store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    func,
    select,
)

from yarrow.store.records import Record
from yarrow.store.rows import AnyRow
from yarrow.store.tables import (
    approval,
    attempt,
    dag_run,
    deadline,
    result_cache,
    task_instance,
    xcom,
)
from yarrow.store.transitions import CHUNK, chunks
from yarrow.xcom import REFERENCE, is_reference


@dataclass(frozen=True, slots=True)
class Deleted(Record):
    """What was deleted, or would be."""

    runs: Sequence[tuple[str, str]] = ()  # (dag_id, run_id): their logs may go
    counts: Mapping[str, int] = field(default_factory=dict)  # rows, by what they are
    references: Sequence[str] = ()  # addresses of large XComs that nothing in the database names any more


References = Mapping[str, Collection[str]]
"""task_id -> addresses of its large XComs."""

_IDS: BindParameter[int] = bindparam("ids", expanding=True)
_NAMES: BindParameter[str] = bindparam("names", expanding=True)
_OF_DAG: BindParameter[str] = bindparam("of_dag_id")
_INSTANCES = select(task_instance.c.id).where(task_instance.c.dag_run_id.in_(_IDS))
_ATTEMPTS = select(attempt.c.attempt_id).join(task_instance).where(task_instance.c.dag_run_id.in_(_IDS))
# The children first: what a database deletes by cascading it does not count.
_OF_RUNS: Sequence[tuple[str, Table, ColumnElement[bool]]] = (
    ("xcoms", xcom, xcom.c.attempt_id.in_(_ATTEMPTS)),
    ("approvals", approval, approval.c.task_instance_id.in_(_INSTANCES)),
    ("attempts", attempt, attempt.c.task_instance_id.in_(_INSTANCES)),
    ("task_instances", task_instance, task_instance.c.dag_run_id.in_(_IDS)),
    ("deadlines", deadline, and_(deadline.c.dag_id == _OF_DAG, deadline.c.run_id.in_(_NAMES))),
    ("runs", dag_run, dag_run.c.id.in_(_IDS)),
)
_LIKE_REFERENCE = f'{{"{REFERENCE}":%'
IS_REFERENCE = cast(xcom.c.value, Text).like(_LIKE_REFERENCE)
"""Whether an XCom may be a reference to an object: no other is dropped without one."""

_REFERENCES = (
    select(task_instance.c.task_id, xcom.c.value)
    .join(attempt, attempt.c.attempt_id == xcom.c.attempt_id)
    .join(task_instance, task_instance.c.id == attempt.c.task_instance_id)
    .where(task_instance.c.dag_run_id.in_(_IDS), IS_REFERENCE)
)
_TASKS: BindParameter[str] = bindparam("task_ids", expanding=True)
_CACHED = select(result_cache.c.value).where(
    result_cache.c.dag_id == _OF_DAG, cast(result_cache.c.value, Text).like(_LIKE_REFERENCE)
)
_STILL_NAMED = (
    _CACHED.where(result_cache.c.task_id.in_(_TASKS)),
    # A result that was taken from the cache is the very object of the run that came to it, whichever goes first.
    select(xcom.c.value)
    .select_from(dag_run.join(task_instance).join(attempt, attempt.c.task_instance_id == task_instance.c.id).join(xcom))
    .where(
        dag_run.c.dag_id == _OF_DAG,
        task_instance.c.task_id.in_(_TASKS),
        IS_REFERENCE,
    ),
)


def erase_runs(connection: Connection, dag_id: str, rows: Sequence[AnyRow]) -> tuple[Counter[str], dict[str, set[str]]]:
    """Deletes locked runs of one DAG with what hangs on them, but for the history and notifications.

    Args:
        rows: With their `id` and `run_id`.

    Returns:
        How many rows went, by what they were, and where their large XComs lie, by task: see `unnamed`.
    """
    counts: Counter[str] = Counter()
    references: dict[str, set[str]] = {}
    for chunk in chunks(rows, CHUNK):
        names = {"ids": [row.id for row in chunk], "names": [row.run_id for row in chunk], "of_dag_id": dag_id}
        for task_id, value in connection.execute(_REFERENCES, {"ids": names["ids"]}):
            if is_reference(value):
                references.setdefault(task_id, set()).add(str(value[REFERENCE]))
        for what, table, condition in _OF_RUNS:
            counts[what] += connection.execute(delete(table).where(condition), names).rowcount
    return +counts, references


def count_runs(connection: Connection, dag_id: str, rows: Sequence[AnyRow]) -> Counter[str]:
    """How many rows `erase_runs` would delete, by what they are."""
    counts: Counter[str] = Counter()
    for chunk in chunks(rows, CHUNK):
        names = {"ids": [row.id for row in chunk], "names": [row.run_id for row in chunk], "of_dag_id": dag_id}
        for what, table, condition in _OF_RUNS:
            query = select(func.count()).select_from(table).where(condition)
            counts[what] += connection.execute(query, names).scalar_one()
    return +counts


def unnamed(connection: Connection, dag_id: str, references: References) -> list[str]:
    """Those of these addresses that nothing names any more, now that their runs are deleted."""
    if not references:
        return []
    names = {"of_dag_id": dag_id, "task_ids": sorted(references)}
    wanted = {address for addresses in references.values() for address in addresses}
    for query in _STILL_NAMED:
        wanted -= set(_addresses(connection.execute(query, names).scalars()))
    return sorted(wanted)


def cached_references(connection: Connection, dag_id: str) -> list[str]:
    """The addresses of the large XComs that the cache names, of all tasks of a DAG."""
    return sorted(set(_addresses(connection.execute(_CACHED, {"of_dag_id": dag_id}).scalars())))


def _addresses(values: Iterable[Any]) -> list[str]:
    return [str(value[REFERENCE]) for value in values if is_reference(value)]

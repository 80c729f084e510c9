"""The connection to the database: units of work, retried where that is safe, with errors a person understands."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import URL, Column, Connection, Engine, Insert, Table, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, ProgrammingError

from yarrow.clock import Clock, utc_now
from yarrow.errors import StoreError

T = TypeVar("T")

RETRIES = 3
"""How often a unit of work is repeated after a conflict with another one."""

BUSY_TIMEOUT = 15_000
"""Milliseconds that a write transaction waits for SQLite's write lock."""

_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
_CONFLICTS = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available


class Raced(Exception):
    """Another transaction moved the row between the look and the move."""


class Database:
    """An engine, a clock and the two ways to use them: `read` and `write`."""

    def __init__(self, url: str, clock: Clock = utc_now, new_id: Callable[[], str] = lambda: uuid4().hex) -> None:
        self.url = parse_url(url)
        self.clock = clock
        self.new_id = new_id
        self._reader = _create_engine(self.url)
        self._writer = self._reader.execution_options(yarrow_write=True)
        self.dialect = self._reader.dialect.name
        self._own_clock_for_leases = self.dialect == "sqlite" or clock is not utc_now
        # Threads of one process hand the write lock on at once; SQLite's own busy handler would sleep between looks.
        self._turn: AbstractContextManager[Any] = threading.Lock() if self.dialect == "sqlite" else nullcontext()

    def now(self, now: datetime | None = None) -> datetime:
        """The given moment, or the clock's."""
        return self.clock() if now is None else now

    def lease_now(self, connection: Connection) -> datetime:
        """The moment by which leases are given and judged: the database's own, where processes have different hosts."""
        if self._own_clock_for_leases:
            return self.clock()
        now: datetime = connection.execute(_DATABASE_CLOCK).scalar_one()
        return now.astimezone(UTC)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a read transaction: one state of the database on SQLite, committed rows on PostgreSQL."""
        return self._run(self._reader, work, nullcontext())

    def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a write transaction and commits. It may run more than once, so it must have no other effect.

        Raises:
            StoreError: The database can't be used, or stayed busy.
        """
        return self._run(self._writer, work, self._turn)

    def close(self) -> None:
        """Gives back connections."""
        self._reader.dispose()

    def _run(self, engine: Engine, work: Callable[[Connection], T], turn: AbstractContextManager[Any]) -> T:
        tries = 0
        while True:
            try:
                with turn, engine.begin() as connection:
                    return work(connection)
            except Raced as error:
                if tries == RETRIES:
                    raise StoreError("The database is too busy: other transactions were always faster.") from error
            except DBAPIError as error:
                if tries == RETRIES or not _worth_repeating(error):
                    raise explain(error, self.url) from error
            tries += 1
            time.sleep(random.uniform(0.005, 0.02) * 2**tries)  # noqa: S311 -- jitter, not a secret


_DATABASE_CLOCK = select(func.clock_timestamp())


def parse_url(url: str) -> URL:
    """Reads a database URL. Raises StoreError for what Yarrow can't work with."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StoreError(
            "The database URL can't be read.", hint="Examples: sqlite:////var/lib/yarrow.db, postgresql://user@host/db"
        ) from error
    backend = parsed.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StoreError(f"Yarrow keeps its metadata in SQLite or PostgreSQL, not in {backend!r}.")
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError("A SQLite database of Yarrow is a file.", hint="Example: sqlite:////var/lib/yarrow.db")
    return parsed


def _create_engine(url: URL) -> Engine:
    options: dict[str, Any] = {
        "json_serializer": dump_json,
        "json_deserializer": json.loads,
        "pool_size": 8,
        "max_overflow": 32,
    }
    if url.get_backend_name() == "sqlite":
        try:
            Path(str(url.database)).expanduser().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"The folder of the database {url.database} can't be made: {error.strerror}.") from error
        options["connect_args"] = {"timeout": BUSY_TIMEOUT / 1000, "isolation_level": None}
    else:
        options["connect_args"] = {
            "connect_timeout": 10,
            "application_name": "yarrow",
            # A process that is frozen inside a transaction must not hold its locks for ever.
            "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=60s -c lock_timeout=30s",
        }
    try:
        engine = create_engine(url, **options)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(
            "PostgreSQL needs a driver.", hint="Install it with: pip install 'yarrow[postgres]'"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA busy_timeout = 1")  # see `_take_turn`
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that begins as a reader and writes later fails at once when another one has written meanwhile.
    write = connection.get_execution_options().get("yarrow_write")
    if not write or not _take_turn(connection.connection.dbapi_connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _take_turn(connection: Any) -> bool:
    """Begins to write as soon as no other process does. Returns False when that can't be had.

    SQLite alone would sleep for longer and longer, up to a tenth of a second, while a busy process takes turn after
    turn: in a trial with three processes the slowest write took 1.6 s that way, and 0.09 s this way.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT / 1000
    while time.monotonic() < deadline:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith(_BUSY):
                break
            time.sleep(random.uniform(0.0001, 0.001))  # noqa: S311 -- jitter, not a secret
        else:
            return True
    return False


def upsert(database: Database, table: Table, key: Sequence[Column[Any]], keep: Collection[str] = ()) -> Insert:
    """An insert that updates the row when its key is there already, except for the columns named in `keep`."""
    names = {column.name for column in key} | set(keep)
    statement = _insert(database, table)
    changes = {column.name: statement.excluded[column.name] for column in table.c if column.name not in names}
    return statement.on_conflict_do_update(index_elements=key, set_=changes)


def insert_new(database: Database, table: Table) -> Insert:
    """An insert that does nothing when there is a row with one of its unique keys already."""
    return _insert(database, table).on_conflict_do_nothing()


def _insert(database: Database, table: Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if database.dialect == "sqlite" else postgresql.insert(table)


def dump_json(value: Any) -> str:
    """The text of a JSON value. Raises ValueError for NaN and infinities, which are not JSON."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _worth_repeating(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None) or ""
    return code in _CONFLICTS or code.startswith(_BUSY)


_SQLITE_ERRORS = {
    "SQLITE_FULL": ("The disk of the database {name} is full.", "Free some space; nothing is lost."),
    "SQLITE_READONLY": ("The database {name} can't be written.", "Look at the permissions of the file and its folder."),
    "SQLITE_CANTOPEN": ("The database {name} can't be opened.", "Look at the path and at the permissions."),
    "SQLITE_PERM": ("The database {name} can't be opened.", "Look at the permissions."),
    "SQLITE_IOERR": ("The disk of the database {name} reports an error.", "Look at the disk: is it full or broken?"),
    "SQLITE_NOTADB": ("The file {name} is not a SQLite database.", "Look at `database_url`."),
    "SQLITE_CORRUPT": ("The database {name} is damaged.", "Restore it from a backup."),
    "SQLITE_BUSY": ("The database {name} is locked by another program.", "Is a tool holding a transaction open?"),
    "SQLITE_LOCKED": ("The database {name} is locked by another program.", "Is a tool holding a transaction open?"),
}
_POSTGRES_ERRORS = {
    "53100": ("The disk of the database {name} is full.", "Free some space; nothing is lost."),
    "25006": ("The database {name} is read-only.", "Is it a standby?"),
    "53300": ("The database {name} has no connection left.", "Raise `max_connections`."),
    "42501": ("The database user may not do that in {name}.", "Grant it the schema and its tables."),
}


def explain(error: DBAPIError, url: URL) -> Exception:
    """The error as a sentence for people; itself when it is a mistake in our SQL."""
    name = url.database if url.get_backend_name() == "sqlite" else f"{url.host or 'localhost'}/{url.database}"
    if code := getattr(error.orig, "sqlite_errorname", None):
        for prefix, (message, hint) in _SQLITE_ERRORS.items():
            if code.startswith(prefix):
                return StoreError(message.format(name=name), hint=hint)
    state = getattr(error.orig, "sqlstate", None)
    if state in _POSTGRES_ERRORS:
        message, hint = _POSTGRES_ERRORS[state]
        return StoreError(message.format(name=name), hint=hint)
    if isinstance(error, ProgrammingError) or code == "SQLITE_ERROR":
        return error
    lines = str(error.orig).strip().splitlines() or ["no reason given"]
    return StoreError(f"The database {name} can't be used: {lines[0].rstrip('.')}.")

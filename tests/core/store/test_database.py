import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.engine import Engine

from yarrow.errors import StoreError
from yarrow.store import Store, database
from yarrow.store.database import Database, Raced
from yarrow.store.tables import pool


@pytest.fixture
def opened(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


@pytest.fixture
def pragma(request: pytest.FixtureRequest) -> Iterator[None]:
    """Sets the pragmas named by the test on every new SQLite connection."""

    def prepare(connection: Any, _record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute(f"PRAGMA {request.param}")

    event.listen(Engine, "connect", prepare)
    yield
    event.remove(Engine, "connect", prepare)


def test_sqlite_runs_as_it_should(sqlite_url: str) -> None:
    one = Database(sqlite_url)
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    found = one.read(lambda connection: [connection.execute(text(f"PRAGMA {name}")).scalar() for name in names])
    assert found == ["wal", 1, 1, 1]
    one.close()


def test_what_fails_leaves_no_trace(opened: Database) -> None:
    def work(connection: Any) -> None:
        connection.execute(pool.insert(), {"name": "x", "slots": 1})
        raise KeyError("x")

    with pytest.raises(KeyError):
        opened.write(work)
    assert opened.read(lambda connection: connection.execute(select(pool)).all()) == []


def test_a_lost_race_is_repeated_within_a_budget(opened: Database) -> None:
    tries = []

    def work(connection: Any) -> str:
        connection.execute(pool.insert(), {"name": "x", "slots": 1})
        tries.append(1)
        if len(tries) < 3:
            raise Raced
        return "done"

    assert opened.write(work) == "done"
    assert len(opened.read(lambda connection: connection.execute(select(pool)).all())) == 1

    tries.clear()

    def never(connection: Any) -> None:
        tries.append(1)
        raise Raced

    with pytest.raises(StoreError, match="too busy"):
        opened.write(never)
    assert len(tries) == 1 + database.RETRIES


def test_a_serialization_failure_is_repeated(postgres_url: str) -> None:
    one = Database(postgres_url)
    tries = []

    def work(connection: Any) -> str:
        tries.append(1)
        if len(tries) == 1:
            connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$"))
        return "done"

    assert one.write(work) == "done"
    assert len(tries) == 2
    one.close()


def test_a_connection_that_was_cut_is_replaced(postgres_url: str) -> None:
    one = Database(postgres_url)
    own = one.read(lambda connection: connection.execute(text("SELECT pg_backend_pid()")).scalar())
    other = Database(postgres_url)
    other.write(lambda connection: connection.execute(text(f"SELECT pg_terminate_backend({own})")))
    assert one.write(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1
    one.close()
    other.close()


def test_a_mistake_in_our_sql_is_not_dressed_up(opened: Database) -> None:
    from sqlalchemy.exc import DBAPIError

    with pytest.raises(DBAPIError):
        opened.read(lambda connection: connection.execute(text("SELECT nonsense FROM nowhere")))


def test_writers_wait_for_each_other(database_url: str) -> None:
    """Threads and stores that write at once: nobody sees `database is locked`."""
    stores = [Store.open(database_url) for _ in range(3)]
    stores[0].workers.set_pools({})
    errors: list[Exception] = []

    def write(store: Store, name: str) -> None:
        try:
            for number in range(20):
                store.workers.register_scheduler(name, "host", 1, beat=0)
                store.workers.beat_scheduler(name, loop_seconds=number)
        except Exception as error:  # noqa: BLE001 -- shown by the assertion
            errors.append(error)

    name = "only" if stores[0].dialect == "sqlite" else "s{}"
    threads = [
        threading.Thread(target=write, args=(store, name.format(number)))
        for number, store in enumerate([*stores, *stores])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert errors == []


@pytest.mark.parametrize("pragma", ["max_page_count = 2"], indirect=True)
def test_a_full_disk_is_told_in_a_sentence(sqlite_url: str, pragma: None) -> None:
    store = Store.open(sqlite_url)
    with pytest.raises(StoreError, match=r"The disk of the database .*yarrow\.db is full\. Free some space"):
        store.workers.set_pools({f"{number}" * 200: 1 for number in range(2000)})
    assert store.workers.pools() == []
    store.close()


@pytest.mark.parametrize("pragma", ["query_only = on"], indirect=True)
def test_a_read_only_database_is_told_in_a_sentence(sqlite_url: str, pragma: None) -> None:
    store = Store.open(sqlite_url)
    with pytest.raises(StoreError, match=r"yarrow\.db can't be written\. Look at the permissions"):
        store.workers.set_pools({"x": 1})
    store.close()


def test_a_database_held_by_another_program_is_told_in_a_sentence(sqlite_url: str, monkeypatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 10)
    store = Store.open(sqlite_url)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another program"):
        store.workers.set_pools({"x": 1})
    other.execute("ROLLBACK")
    store.workers.set_pools({"x": 1})
    other.close()
    store.close()


def test_a_file_that_is_no_database_is_told_in_a_sentence(tmp_path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("Dear diary, " * 500)
    with pytest.raises(StoreError, match=r"notes\.db is not a SQLite database"):
        Store.open(f"sqlite:///{path}")
    with pytest.raises(StoreError, match="can't be opened"):
        Store.open(f"sqlite:///{tmp_path}")
    with pytest.raises(StoreError, match="The folder of the database"):
        Store.open(f"sqlite:///{path}/below/yarrow.db")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "can't be read"),
        ("nonsense", "can't be read"),
        ("mysql://user@host/db", "not in 'mysql'"),
        ("sqlite://", "is a file"),
        ("sqlite:///:memory:", "is a file"),
    ],
)
def test_a_url_that_can_not_work_is_refused(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        Store.open(url)


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    with pytest.raises(StoreError, match=r"The database 127\.0\.0\.1/yarrow can't be used") as error:
        Store.open("postgresql://ann:geheim@127.0.0.1:1/yarrow")
    assert "geheim" not in str(error.value)


def test_postgresql_judges_leases_by_its_own_clock(postgres_url: str) -> None:
    own = Database(postgres_url)
    start = datetime(2000, 1, 1, tzinfo=UTC)
    frozen = Database(postgres_url, clock=lambda: start)
    assert abs(own.read(own.lease_now) - datetime.now(UTC)) < timedelta(seconds=10)
    assert frozen.read(frozen.lease_now) == start
    own.close()
    frozen.close()


def test_instants_keep_their_zone_and_microseconds(opened: Database) -> None:
    from yarrow.store.tables import scheduler

    moment = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=UTC)
    row = {"scheduler_id": "x", "hostname": "h", "pid": 1, "started_at": moment, "seen_at": moment}
    opened.write(lambda connection: connection.execute(scheduler.insert(), row))
    assert opened.read(lambda connection: connection.execute(select(scheduler.c.seen_at)).scalar()) == moment
    with pytest.raises(Exception, match="must be aware"):
        opened.read(lambda c: c.execute(select(scheduler).where(scheduler.c.seen_at > datetime(2026, 1, 1))))

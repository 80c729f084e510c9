"""`yarrow notifications`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from yarrow.clock import utc_now
from yarrow.notify import Happening
from yarrow.store import Store
from yarrow.store.notifications import write_down

Yarrow = Callable[..., Any]

SECRET = "https://hooks.example.com/topsecret"


@pytest.fixture
def told(store: Store) -> Store:
    """A store with two notifications: one is delivered, one is given up."""
    happening = Happening(kind="failure", dag_id="orders", run_id="r1", task_id="load", state="failed", at=utc_now())

    def work(connection: Connection) -> None:
        write_down(connection, happening, ["ops", SECRET])

    store._database.write(work)
    for record in store.notifications.claim(9, utc_now())[0]:
        if record.target == "ops":
            store.notifications.delivered(record)
        else:
            store.notifications.failed(record, "It answered 500.", None)
    return store


def test_list(yarrow: Yarrow, told: Store) -> None:
    text = yarrow("notifications", "list").stdout
    assert "orders: task load failed  https://hooks.example.com/...  given up" in text
    assert "ops                            delivered" in text
    assert "topsecret" not in text
    listed = yarrow("notifications", "list", "orders", "--json").json()
    assert [(one["target"], one["delivery"], one["tries"], one["error"]) for one in listed] == [
        ("https://hooks.example.com/...", "given up", 1, "It answered 500."),
        ("ops", "delivered", 1, None),
    ]
    assert listed[0]["payload"]["event"] == "task.failure"


def test_list_of_what_has_not_arrived(yarrow: Yarrow, told: Store) -> None:
    (failed,) = yarrow("notifications", "list", "--failed", "--json").json()
    assert failed["target"] == "https://hooks.example.com/..."


def test_list_of_nothing(yarrow: Yarrow, store: Store) -> None:
    assert yarrow("notifications", "list").stdout == "There is no notification.\n"
    assert yarrow("notifications", "list", "nothing").exit_code == 2


def test_a_target_is_tried(yarrow: Yarrow, receiver: Any) -> None:
    answer = yarrow("notifications", "test", receiver.url)
    assert (answer.exit_code, answer.stdout) == (0, f"http://127.0.0.1:{receiver.server_port}/... took the message.\n")
    assert receiver.posted[0]["body"]["title"] == "Yarrow: a test"
    assert receiver.posted[0]["headers"]["x-yarrow-event"] == "test"


def test_a_connection_is_tried(yarrow: Yarrow, receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARROW_CONN_OPS", receiver.url)
    assert yarrow("notifications", "test", "ops", "--json").json() == {
        "target": "ops",
        "delivered": True,
        "error": None,
    }


def test_a_target_that_fails_is_told(yarrow: Yarrow, receiver: Any) -> None:
    receiver.answers = [500, 500]
    answer = yarrow("notifications", "test", receiver.url)
    where = f"http://127.0.0.1:{receiver.server_port}/..."
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr == f"Error: {where} answered 500 Internal Server Error.\n"
    answer = yarrow("notifications", "test", receiver.url, "--json")
    assert answer.exit_code == 1
    assert '"delivered": false' in answer.stdout


def test_the_log_needs_no_try(yarrow: Yarrow) -> None:
    assert (
        yarrow("notifications", "test", "log").stdout == "`log` is the scheduler's own log: what goes there arrives.\n"
    )

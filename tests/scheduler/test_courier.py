"""The courier: sends what is in the outbox until it arrives, whoever hangs, fails or is killed meanwhile."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from yarrow.clock import utc_now
from yarrow.config import Config
from yarrow.errors import StoreError, Undelivered
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec
from yarrow.notify import Happening, Sender
from yarrow.store import Store
from yarrow.store.notifications import write_down
from yarrow_scheduler.courier import Courier, pause_after

MakeDag = Callable[..., DagSpec]


class FakeSender:
    """Keeps what it is to send. `fail` says what goes wrong; a target that hangs is left by `release`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.fail: Exception | None = None
        self.hangs: set[str] = set()
        self.released = threading.Event()
        self.changed = threading.Condition()

    def send(self, id: str, target: str, payload: Mapping[str, Json]) -> None:
        with self.changed:
            self.sent.append((id, target))
            self.changed.notify_all()
        if target in self.hangs:
            assert self.released.wait(60)
        if self.fail is not None:
            raise self.fail

    def wait(self, *targets: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: set(targets) <= {target for _, target in self.sent}, 30), self.sent


def post(store: Store, *targets: str, at: Any = None) -> None:
    """Puts a notification for each target into the outbox."""
    happening = Happening(kind="failure", dag_id="d", run_id="r", state="failed", at=at or utc_now())

    def work(connection: Connection) -> None:
        for target in targets:  # one by one: the same target may come twice
            write_down(connection, happening, [target])

    store._database.write(work)


def eventually(happened: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.01)


@pytest.fixture
def sender() -> Iterator[FakeSender]:
    sender = FakeSender()
    yield sender
    sender.released.set()


@pytest.fixture
def courier(store: Store, sender: FakeSender, clock: Any, config: Config) -> Iterator[Courier]:
    """One that is driven by hand, on the test's clock."""
    courier = Courier(store.notifications, sender, clock, config)
    yield courier
    sender.released.set()
    courier.close()


def look(courier: Courier) -> float:
    """A look at the outbox, with everything that it begins sent to the end."""
    pause = courier.look()
    assert courier.flush(30)
    return pause


def test_what_is_due_is_sent_and_done_with(courier: Courier, store: Store, sender: FakeSender, clock: Any) -> None:
    post(store, "ops", "boss", at=clock())
    assert look(courier) == 0.0, "there may be more"
    assert sorted(target for _, target in sender.sent) == ["boss", "ops"]
    assert [one.delivered_at for one in store.notifications.list()] == [clock()] * 2
    assert look(courier) == 60.0
    assert len(sender.sent) == 2


def test_the_id_is_the_same_whenever_it_is_sent(courier: Courier, store: Store, sender: FakeSender, clock: Any) -> None:
    post(store, "ops", at=clock())
    sender.fail = Undelivered("It answered 500.")
    look(courier)
    clock.advance(10)
    look(courier)
    assert sender.sent == [("1", "ops")] * 2


def test_a_failure_is_tried_again_later_and_later(
    courier: Courier, store: Store, sender: FakeSender, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    post(store, "https://hooks.example.com/topsecret", at=clock())
    sender.fail = Undelivered("It answered 500.")
    pauses = []
    with caplog.at_level(logging.INFO):
        for _ in range(9):
            look(courier)
            pauses.append(courier.look())
            clock.advance(
                min(store.notifications.claim(0, clock())[1] - clock(), timedelta(minutes=15)).total_seconds()
            )
    assert pauses == [10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0, 60.0, 60.0], "it looks again after a minute at most"
    (kept,) = store.notifications.list(failed=True)
    assert (kept.tries, kept.error) == (9, "It answered 500.")
    assert "topsecret" not in caplog.text
    assert "notification 1 to https://hooks.example.com/... was not delivered, next try at 00:00:10 UTC" in caplog.text
    sender.fail = None
    look(courier)
    assert store.notifications.list()[0].delivered_at == clock()


def test_the_pauses_grow_to_a_quarter_of_an_hour() -> None:
    assert [pause_after(tries).total_seconds() for tries in (1, 2, 3, 7, 8, 100, 10_000)] == [
        10.0,
        20.0,
        40.0,
        640.0,
        900.0,
        900.0,
        900.0,
    ]


def test_it_is_given_up_after_a_day(
    courier: Courier, store: Store, sender: FakeSender, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    post(store, "ops", at=clock())
    sender.fail = Undelivered("It answered 500.")
    began = clock()
    while not store.notifications.list()[0].given_up:
        look(courier)
        clock.advance(900)
        assert clock() - began < timedelta(hours=25)
    assert clock() - began >= timedelta(hours=24)
    (kept,) = store.notifications.list(failed=True)
    assert kept.error == "It answered 500."
    assert store.runs.events()[-1].kind == "notification.given_up"
    assert "given up: It answered 500." in caplog.text
    tried = len(sender.sent)
    clock.advance(86400)
    look(courier)
    assert len(sender.sent) == tried


def test_a_sender_that_breaks_is_told_without_its_words(courier: Courier, store: Store, sender: FakeSender) -> None:
    clock = store._database.clock
    post(store, "ops", at=clock())
    sender.fail = ValueError("https://hooks.example.com/topsecret")
    look(courier)
    error = store.notifications.list()[0].error
    assert error is not None
    assert re.fullmatch(r"Sending it failed with ValueError \(test_courier\.py:\d+\)\.", error)


def test_who_hangs_delays_nobody_else(courier: Courier, store: Store, sender: FakeSender, clock: Any) -> None:
    sender.hangs = {"frozen"}
    post(store, *["frozen"] * 200, "ops", at=clock())
    began = time.monotonic()
    courier.look()
    sender.wait("frozen")
    courier.look()
    sender.wait("ops")
    assert time.monotonic() - began < 20
    courier.look()
    assert [target for _, target in sender.sent].count("frozen") == 1, "a target gets one at a time"
    sender.released.set()
    assert courier.flush(30)
    look(courier)
    assert [target for _, target in sender.sent].count("frozen") == 2


def test_no_more_than_a_few_are_sent_at_once(courier: Courier, store: Store, sender: FakeSender, clock: Any) -> None:
    targets = [f"t{number}" for number in range(20)]
    sender.hangs = set(targets)
    post(store, *targets, at=clock())
    courier.look()
    sender.wait(*targets[:8])
    assert courier.look() == 60.0, "until one of them comes back"
    assert len(sender.sent) == 8


def test_two_couriers_do_not_send_the_same(
    courier: Courier, store: Store, sender: FakeSender, clock: Any, config: Config
) -> None:
    second = Courier(store.notifications, sender, clock, config)
    sender.hangs = {"ops"}
    post(store, "ops", at=clock())
    courier.look()
    sender.wait("ops")
    second.look()
    clock.advance(119)
    second.look()
    assert len(sender.sent) == 1
    clock.advance(1)
    second.look()
    eventually(lambda: len(sender.sent) == 2)  # the first one has had two minutes: it may be dead
    sender.released.set()
    second.close()


def test_the_thread_delivers_and_wakes_for_what_is_new(
    sqlite_store: Store, sender: FakeSender, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = Courier(sqlite_store.notifications, sender, utc_now, config)
    post(sqlite_store, "first")
    courier.start()
    try:
        sender.wait("first")
        post(sqlite_store, "second", "third", "third")
        courier.wake()
        eventually(lambda: len(sender.sent) == 4)
    finally:
        courier.close()
    assert [one.delivered_at is not None for one in sqlite_store.notifications.list()] == [True] * 4
    assert not courier._thread.is_alive()


def test_it_comes_back_by_itself_for_another_try(sqlite_store: Store, sender: FakeSender, config: Config) -> None:
    """Nobody wakes it: it sleeps until the next try is due."""
    courier = Courier(sqlite_store.notifications, sender, utc_now, config)
    post(sqlite_store, "ops", at=utc_now() + timedelta(seconds=0.5))
    courier.start()
    try:
        sender.wait("ops")
    finally:
        courier.close()


def test_a_database_that_is_away_is_waited_for(
    sqlite_store: Store,
    sender: FakeSender,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    courier = Courier(sqlite_store.notifications, sender, utc_now, config)
    claim = sqlite_store.notifications.claim
    failures = iter([StoreError("The database is away.")])

    def fail_once(*arguments: Any, **options: Any) -> Any:
        for failure in failures:
            raise failure
        return claim(*arguments, **options)

    monkeypatch.setattr(sqlite_store.notifications, "claim", fail_once)
    post(sqlite_store, "ops")
    with caplog.at_level(logging.INFO):
        courier.start()
        eventually(lambda: "the outbox can't be read: The database is away." in caplog.text)
        courier.wake()
        sender.wait("ops")
        courier.close()
    assert "notifications are delivered again" in caplog.text


def test_stopping_does_not_wait_for_who_hangs(
    sqlite_store: Store, sender: FakeSender, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yarrow_scheduler.courier._CLOSE_SECONDS", 0.2)
    courier = Courier(sqlite_store.notifications, sender, utc_now, config)
    sender.hangs = {"ops"}
    post(sqlite_store, "ops")
    courier.start()
    sender.wait("ops")
    began = time.monotonic()
    courier.close()
    assert time.monotonic() - began < 10
    assert sqlite_store.notifications.list()[0].delivered_at is None


def test_a_webhook_that_fails_in_every_way_gets_it_in_the_end(
    sqlite_store: Store, receiver: Any, clock: Any, make_config: Callable[..., Config]
) -> None:
    config = make_config(notification_timeout=0.3)
    courier = Courier(sqlite_store.notifications, Sender(config, {}), clock, config)
    receiver.answers = [500, "hang", "hang up", 429]
    post(sqlite_store, receiver.url, at=clock())
    errors = []
    for _ in range(5):
        look(courier)
        errors.append(sqlite_store.notifications.list()[0].error)
        clock.advance(900)
    where = f"http://127.0.0.1:{receiver.server_port}/..."
    assert errors == [
        f"{where} answered 500 Internal Server Error.",
        f"{where} did not answer within 0.3 seconds.",
        f"{where} broke the connection off.",
        f"{where} answered 429 Too Many Requests.",
        None,
    ]
    assert [posted["headers"]["idempotency-key"] for posted in receiver.posted] == ["1"] * 5
    assert sqlite_store.notifications.list()[0].delivered_at is not None


# The loop


def test_the_loop_does_not_wait_for_a_receiver_that_hangs(sqlite_engine: Any, make_dag: MakeDag, receiver: Any) -> None:
    engine = sqlite_engine
    receiver.answers = ["hang"] * 100
    engine.publish(make_dag("d", "a", "b", task={"on_success": (receiver.url,)}, on_success=(receiver.url,)))
    engine.add_worker()
    engine.scheduler._courier.start()
    try:
        engine.store.runs.trigger("d", who="tester")
        engine.tick()
        engine.workers[0].work()
        engine.tick()
        receiver.wait()
        began = time.monotonic()
        for number in range(20):
            engine.store.runs.trigger("d", who="tester", run_id=f"again{number}")
        engine.settle()
        assert time.monotonic() - began < 30
        engine.assert_ended("d")
        assert not receiver.released.is_set()
        assert len(receiver.posted) == 1, "all that time it was waited for, by the courier alone"
    finally:
        receiver.release()
        engine.scheduler._courier.close()


# Killed between sending and noting it

KILLED_COURIER = """
import sys
from yarrow.clock import utc_now
from yarrow.config import load_config
from yarrow.notify import Sender
from yarrow.store import Store
from yarrow_scheduler.courier import Courier

config = load_config()
store = Store.open(config.database_url)
courier = Courier(store.notifications, Sender(config, {}), utc_now, config, lease=1.0)
courier.start()
sys.stdin.read()
courier.close()
"""


@pytest.mark.slow
def test_killed_after_sending_it_sends_again(tmp_path: Path, database_url: str, receiver: Any) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("YARROW_")}
    environment |= {
        "YARROW_HOME": str(tmp_path),
        "YARROW_DATABASE_URL": database_url,
        "YARROW_NOTIFICATION_TIMEOUT": "0.5",
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path),
    }
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        command = [sys.executable, "-P", "-c", KILLED_COURIER]
        running.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))

    def kill() -> int:
        """The message has arrived; the courier dies before it hears so."""
        running[0].send_signal(signal.SIGKILL)
        running[0].wait()
        return 200

    store = Store.open(database_url)
    receiver.answers = [kill]
    try:
        post(store, receiver.url)
        start()
        receiver.wait(1)
        assert running[0].wait(30) == -signal.SIGKILL
        assert store.notifications.list()[0].delivered_at is None
        start()
        first, second = receiver.wait(2)
        assert first["headers"]["idempotency-key"] == second["headers"]["idempotency-key"] == "1"
        eventually(lambda: store.notifications.list()[0].delivered_at is not None)
        running[1].communicate(timeout=30)
        assert running[1].returncode == 0
    finally:
        for process in running:
            process.kill()
            process.communicate()
        store.close()

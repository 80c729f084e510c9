"""Notifier and Listener over a real broker: what is heard, what is lost without harm, and what a dead broker does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from yarrow import broker, wakeup
from yarrow.wakeup import CHANNEL, Listener, Notifier

NOBODY = "redis://127.0.0.1:1/0"


def eventually(happened: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happened():
            return True
    return False


def settle(listener: Listener) -> None:
    """Leaves the listener connected, with nothing to hear."""
    assert listener.wait(5.0), "listening begins"
    while listener.wait(0.05):
        pass


def test_a_notification_wakes_the_listener(valkey_url: str) -> None:
    with Listener(valkey_url) as listener, Notifier(valkey_url) as notifier:
        settle(listener)
        notifier.notify()
        assert listener.wait(5.0)


def test_a_quiet_time_ends_with_the_timeout(valkey_url: str) -> None:
    with Listener(valkey_url) as listener:
        settle(listener)
        started = time.monotonic()
        assert not listener.wait(0.3)
        assert 0.25 < time.monotonic() - started < 2.0


def test_many_notifications_wake_once(valkey_url: str) -> None:
    with Listener(valkey_url) as listener:
        settle(listener)
        with redis.Redis.from_url(valkey_url) as client:
            for _ in range(50):
                client.publish(CHANNEL, b"")
        assert listener.wait(5.0)
        assert not listener.wait(0.1)


def test_a_burst_of_notifications_is_a_few_messages(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client, client.pubsub() as heard, Notifier(valkey_url) as notifier:
        heard.subscribe(CHANNEL)
        assert heard.get_message(timeout=5.0)
        started = time.monotonic()
        for _ in range(10_000):
            notifier.notify()
        assert time.monotonic() - started < 1.0, "notify does not wait for the broker"
        count = 0
        while heard.get_message(timeout=0.2):
            count += 1
    assert 1 <= count < 250


def test_two_listeners_hear_the_same_notification(valkey_url: str) -> None:
    with Listener(valkey_url) as one, Listener(valkey_url) as other, Notifier(valkey_url) as notifier:
        settle(one)
        settle(other)
        notifier.notify()
        assert one.wait(5.0)
        assert other.wait(5.0)


def test_closing_ends_a_wait(valkey_url: str) -> None:
    listener = Listener(valkey_url)
    settle(listener)
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(listener.wait(60.0)))
    waiting.start()
    listener.close()
    waiting.join(5.0)
    assert answers == [False]
    assert not listener.wait(60.0), "and every later one"


def test_without_a_broker_the_listener_says_to_look_once_a_second() -> None:
    with Listener(NOBODY) as listener:
        started = time.monotonic()
        assert all(listener.wait(60.0) for _ in range(3))
        assert 0.4 < time.monotonic() - started < 4.0


def test_without_a_broker_a_notifier_neither_blocks_nor_raises() -> None:
    notifier = Notifier(NOBODY)
    started = time.monotonic()
    for _ in range(100):
        notifier.notify()
    notifier.close()
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize("url", ["nonsense", "redis://", "http://127.0.0.1/"])
def test_an_unusable_address_is_as_good_as_a_dead_broker(url: str) -> None:
    with Listener(url) as listener, Notifier(url) as notifier:
        notifier.notify()
        listener.wait(0.01)


def test_a_notifier_that_was_never_used_starts_nothing() -> None:
    before = threading.active_count()
    with Notifier(NOBODY):
        assert threading.active_count() == before


@contextmanager
def _server(prepared: broker.Broker) -> Iterator[None]:
    with subprocess.Popen(prepared.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            broker.wait_until_up(prepared, process)
            yield
        finally:
            process.kill()


@pytest.mark.slow
def test_both_survive_a_restart_of_the_broker(tmp_path: Path) -> None:
    prepared = broker.prepare(tmp_path)
    with Listener(prepared.url) as listener, Notifier(prepared.url) as notifier:
        with _server(prepared):
            settle(listener)
            notifier.notify()
            assert listener.wait(5.0)
        assert listener.wait(30.0), "the loss of the broker is a reason to look"
        notifier.notify()  # nobody hears it yet, but it is kept
        with _server(prepared):
            assert eventually(lambda: not listener.wait(0.1)), "while it is deaf, every wait is a reason to look"
            notifier.notify()
            assert listener.wait(10.0)


@pytest.mark.slow
def test_a_notification_outlives_a_short_outage(tmp_path: Path) -> None:
    prepared = broker.prepare(tmp_path)
    with Notifier(prepared.url) as notifier:
        notifier.notify()
        with _server(prepared), redis.Redis.from_url(prepared.url) as client, client.pubsub() as heard:
            heard.subscribe(CHANNEL)
            assert heard.get_message(timeout=5.0)
            assert heard.get_message(timeout=wakeup._LONGEST_PAUSE + 5.0)


_FORKS = """
import os, sys
from yarrow.wakeup import Notifier
notifier = Notifier(sys.argv[1])
notifier.notify()
child = os.fork()
if child == 0:
    notifier.notify()
    notifier.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
notifier.close()
"""


@pytest.mark.slow
def test_a_forked_child_can_notify(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client, client.pubsub() as heard:
        heard.subscribe(CHANNEL)
        assert heard.get_message(timeout=5.0)
        path = str(Path(wakeup.__file__).parents[1])
        subprocess.run([sys.executable, "-c", _FORKS, valkey_url], check=True, timeout=30, env={"PYTHONPATH": path})
        messages = 0
        while heard.get_message(timeout=0.5):
            messages += 1
        assert messages >= 2

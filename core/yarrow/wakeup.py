"""Wakes the scheduler when something has happened: a hint over the broker's pub/sub that may be lost without harm.

The web server notifies after it has committed a finish, a trigger or a change of a DAG; the scheduler listens. What
happened stands in the database, so a notification carries nothing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.client import PubSub
from redis.retry import Retry

CHANNEL = "yarrow:wake"

_TIMEOUT = 2.0  # seconds for one command; a frozen broker must not hold a thread for longer
_SPACING = 0.005  # seconds between two notifications: any number of finishes in between wakes the scheduler once
_PAUSE = 0.5  # seconds after the first failure; doubled for each further one
_LONGEST_PAUSE = 5.0
_SLICE = 0.25  # seconds after which a waiting listener sees that it was closed
_DEAF = 1.0  # seconds after which a listener without a broker says that something may have happened

_log = logging.getLogger(__name__)


class Notifier:
    """Tells listening schedulers to look at the database. Safe to use from any thread, and after a fork."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._lock = threading.Lock()
        self._pid = 0
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._closed = threading.Event()

    def notify(self) -> None:
        """Asks for a wake-up. Returns at once and never raises; many calls in a row become one message."""
        if self._pid != os.getpid() or self._thread is None:
            self._start()
        self._wanted.set()

    def close(self) -> None:
        """Sends what is still asked for, unless the broker is down, and gives back the connection."""
        if self._pid != os.getpid() or self._thread is None:
            return
        self._closed.set()
        self._wanted.set()
        self._thread.join(_TIMEOUT + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        if self._pid != os.getpid():
            # Threads do not survive a fork, and a lock may have been held by one: the child begins anew.
            self._lock = threading.Lock()
            self._thread = None
            self._pid = os.getpid()
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._wanted = threading.Event()
                self._thread = threading.Thread(target=self._run, name="yarrow-notifier", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        failures = 0
        client: redis.Redis | None = None
        while not (self._closed.is_set() and (failures or not self._wanted.is_set())):
            self._wanted.wait()
            self._wanted.clear()
            try:
                client = client or _connect(self._broker_url)
                client.publish(CHANNEL, b"")
                failures = 0
                self._closed.wait(_SPACING)
            except (redis.RedisError, OSError, ValueError) as error:
                failures += 1
                if failures == 1:
                    _log.warning("can't wake the scheduler: %s", _words(error), extra={"action": "notify_failed"})
                self._wanted.set()  # asked for again, so that it is not lost to a short outage
                self._closed.wait(_pause(failures))
        if client is not None:
            with suppress(redis.RedisError, OSError):
                client.close()


class Listener:
    """Waits for notifications. One thread waits; any thread may close it."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._client: redis.Redis | None = None
        self._pubsub: PubSub | None = None
        self._failures = 0
        self._retry_at = 0.0  # monotonic
        self._closed = threading.Event()
        self._waiting = threading.Lock()

    def wait(self, timeout: float) -> bool:
        """Waits for a notification, for `timeout` seconds at most.

        Returns:
            True when there may be something to look at: a notification came, listening has just begun, or the broker
            can't be heard, in which case it comes back within a second. False after a quiet time, or once closed.
        """
        with self._waiting:
            if self._closed.is_set():
                return False
            try:
                if self._pubsub is None:
                    return self._begin(timeout)
                return self._hear(self._pubsub, time.monotonic() + timeout)
            except (redis.RedisError, OSError, ValueError) as error:
                return self._lose(error)

    def close(self) -> None:
        """Ends a `wait` that is under way within a moment, and every later one at once."""
        self._closed.set()
        with self._waiting:
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, timeout: float) -> bool:
        delay = self._retry_at - time.monotonic()
        if delay > 0:
            # Deaf for now. The caller looks for itself once a second.
            return not self._closed.wait(min(delay, timeout, _DEAF))
        self._client = _connect(self._broker_url)
        self._pubsub = self._client.pubsub()  # type: ignore[no-untyped-call]  # redis leaves it unannotated
        self._pubsub.subscribe(CHANNEL)
        if self._pubsub.get_message(timeout=_TIMEOUT) is None:
            raise redis.TimeoutError("it does not answer")
        if self._failures:
            _log.info("the broker is heard again", extra={"action": "listener_connected"})
        self._failures = 0
        return not self._closed.is_set()

    def _hear(self, pubsub: PubSub, deadline: float) -> bool:
        while not self._closed.is_set():
            slice_ = min(deadline - time.monotonic(), _SLICE)
            if slice_ <= 0:
                return False
            if pubsub.get_message(ignore_subscribe_messages=True, timeout=slice_) is not None:
                while pubsub.get_message(ignore_subscribe_messages=True, timeout=0.0) is not None:
                    pass  # all that came meanwhile is one reason to look
                return True
        return False

    def _lose(self, error: Exception) -> bool:
        self._drop()
        self._failures += 1
        self._retry_at = time.monotonic() + _pause(self._failures)
        if self._failures == 1:
            _log.warning("the broker can't be heard: %s", _words(error), extra={"action": "listener_lost"})
        return not self._closed.is_set()

    def _drop(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        client, self._client = self._client, None
        for part in (pubsub, client):
            if part is not None:
                with suppress(redis.RedisError, OSError):
                    part.close()


def _connect(broker_url: str) -> redis.Redis:
    return redis.Redis.from_url(
        broker_url,
        socket_timeout=_TIMEOUT,
        socket_connect_timeout=_TIMEOUT,
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 0),
    )


def _pause(failures: int) -> float:
    doublings = min(failures - 1, 10)
    return min(_PAUSE * (1 << doublings), _LONGEST_PAUSE)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__

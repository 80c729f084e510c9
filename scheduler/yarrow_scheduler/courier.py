"""Delivers notifications in threads of its own, so that no receiver ever holds the loop."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from yarrow.clock import Clock
from yarrow.config import Config
from yarrow.errors import Undelivered, YarrowError
from yarrow.jsontypes import Json
from yarrow.notify import shown_target
from yarrow.store.notifications import Notifications
from yarrow.store.records import NotificationRecord

_MOST_AT_ONCE = 8  # and one at a time for each target, so that a receiver that hangs delays nobody else's
_LEASE = 120.0  # seconds until another courier sends what this one has claimed and not reported on
_FIRST_PAUSE = 10.0  # seconds until the second try; doubled for each further one
_LONGEST_PAUSE = 900.0
_LONGEST_SLEEP = 60.0
_AFTER_FAILURE = 5.0  # seconds until the outbox is looked at again when the database is away
_SPACING = 0.1  # seconds between two looks at the outbox because of passes of the loop, which may be many
_CLOSE_SECONDS = 3.0

_log = logging.getLogger(__name__)


class Sends(Protocol):
    """What `yarrow.notify.Sender` does."""

    def send(self, id: str, target: str, payload: Mapping[str, Json]) -> None: ...


class Courier:
    """Sends what is in the outbox until it is delivered or given up: each notification at least once."""

    def __init__(
        self, notifications: Notifications, sender: Sends, clock: Clock, config: Config, *, lease: float = _LEASE
    ) -> None:
        """Args:
        lease: Seconds for which a claimed notification is this courier's; more than sending may take.
        """
        self._notifications = notifications
        self._sender = sender
        self._clock = clock
        self._give_up = timedelta(seconds=config.notification_give_up)
        self._lease = timedelta(seconds=max(lease, 2 * config.notification_timeout))
        self._changed = threading.Condition()
        self._sending: set[str] = set()  # targets
        self._woken = self._freed = self._closed = False
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="yarrow-courier", daemon=True)

    def start(self) -> None:
        """Begins with what is due already."""
        self._thread.start()

    def wake(self) -> None:
        """Says that there may be something new to deliver. Returns at once; safe from any thread."""
        self._set("_woken")

    def close(self) -> None:
        """Ends. Waits a moment for what is being sent; what does not arrive by then is sent again by the next one."""
        self._set("_closed")
        with self._changed:
            self._changed.wait_for(lambda: not self._sending, _CLOSE_SECONDS)
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)

    def look(self) -> float:
        """Begins to send what is due. Returns for how many seconds there is nothing more to do."""
        with self._changed:
            busy = frozenset(self._sending)
        room = _MOST_AT_ONCE - len(busy)
        if room <= 0:
            return _LONGEST_SLEEP
        now = self._clock()
        claimed, next_due = self._notifications.claim(room, now + self._lease, but=busy, now=now)
        for record in claimed:
            with self._changed:
                self._sending.add(record.target)
            threading.Thread(target=self._deliver, args=(record,), name="yarrow-courier-send", daemon=True).start()
        if next_due is None:
            return 0.0 if claimed else _LONGEST_SLEEP
        return min(max((next_due - now).total_seconds(), 0.0), _LONGEST_SLEEP)

    def flush(self, timeout: float) -> bool:
        """Waits until nothing is being sent. Returns whether that came true."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._sending, timeout)

    def _set(self, flag: str) -> None:
        with self._changed:
            setattr(self, flag, True)
            self._changed.notify_all()

    def _run(self) -> None:
        while not self._closed:
            pause = self._look()
            with self._changed:
                self._changed.wait_for(lambda: self._woken or self._freed or self._closed, pause)
                if self._woken:
                    self._changed.wait_for(lambda: self._freed or self._closed, _SPACING)
                self._woken = self._freed = False

    def _look(self) -> float:
        try:
            pause = self.look()
        except Exception as error:  # noqa: BLE001 - the thread must live on
            if not self._failed:
                trace = None if isinstance(error, YarrowError) else error
                _log.error("the outbox can't be read: %s", error, exc_info=trace, extra={"action": "courier_failed"})
            self._failed = True
            return _AFTER_FAILURE
        if self._failed:
            _log.info("notifications are delivered again", extra={"action": "courier_back"})
        self._failed = False
        return pause

    def _deliver(self, record: NotificationRecord) -> None:
        try:
            self._note(record, self._send(record))
        except Exception as error:  # noqa: BLE001 - whatever it was, the notification is sent again after the lease
            _log.warning(
                "what became of notification %d could not be noted, it may arrive twice: %s",
                record.id,
                error,
                extra={"action": "notification_unnoted"},
            )
        finally:
            with self._changed:
                self._sending.discard(record.target)
                self._freed = True
                self._changed.notify_all()

    def _send(self, record: NotificationRecord) -> str | None:
        """Sends it. Returns what went wrong, without any secret."""
        try:
            self._sender.send(str(record.id), record.target, record.payload)
        except Undelivered as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - whatever a library raises; its text may quote the target
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return f"Sending it failed with {type(error).__name__} ({Path(frame.filename).name}:{frame.lineno})."
        return None

    def _note(self, record: NotificationRecord, error: str | None) -> None:
        now = self._clock()
        if error is None:
            self._notifications.delivered(record, now)
            return
        tries = record.tries + 1
        again_at: datetime | None = now + pause_after(tries)
        if now - record.created_at >= self._give_up:
            again_at = None
        self._notifications.failed(record, error, again_at, now)
        tell: Callable[..., None] = _log.warning if again_at is None or tries == 1 else _log.info
        tell(
            "notification %d to %s was not delivered, %s: %s",
            record.id,
            shown_target(record.target),
            "given up" if again_at is None else f"next try at {again_at:%H:%M:%S} UTC",
            error,
            extra={"action": "notification_failed"},
        )


def pause_after(tries: int) -> timedelta:
    """How long to wait after so many tries that failed."""
    return timedelta(seconds=min(_FIRST_PAUSE * 2.0 ** min(tries - 1, 20), _LONGEST_PAUSE))

"""The scheduler's side of Celery: sends wake-ups to the queues of workers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from yarrow.executor import Wakeup

if TYPE_CHECKING:
    from kombu.connection import Connection
    from kombu.messaging import Producer

_TIMEOUT = 1.5  # seconds for one command; opening a connection to a frozen broker takes three of them

_log = logging.getLogger(__name__)


class CeleryExecutor:
    """Publishes wake-ups over one connection. Not for several threads."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._app: Any = None
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self.error: str | None = None
        """Why the last publish failed; None when it did not."""

    def publish(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        """Sends the wake-ups in one go: either all went out, or it is unknown which did and none is named."""
        if not wakeups:
            return ()
        try:
            producer = self._connect()
            with producer.batch():
                for wakeup in wakeups:
                    self._send(producer, wakeup)
        except Exception as error:  # noqa: BLE001 - redis, kombu and the system raise what they like; all mean "unknown"
            self.error = f"{type(error).__name__}: {error.__cause__ or error}"
            _log.warning("%d wake-ups may not have been sent: %s", len(wakeups), self.error)
            self._disconnect()
            return ()
        self.error = None
        return tuple(wakeups)

    def close(self) -> None:
        """Gives back the connection."""
        self._disconnect()

    def _connect(self) -> Producer:
        if self._producer is None:
            # Celery costs half a second to import: not before there is something to send.
            from yarrow_executor.app import make_app

            if self._app is None:
                self._app = make_app(self._broker_url)
            options = {**self._app.conf.broker_transport_options, **_short_timeouts()}
            self._connection = self._app.connection_for_write(
                connect_timeout=_TIMEOUT, transport_options=options, heartbeat=0
            )
            self._producer = self._app.amqp.Producer(self._connection.channel(), auto_declare=False)
        return self._producer

    def _send(self, producer: Producer, wakeup: Wakeup) -> None:
        from yarrow_executor.app import queue_name
        from yarrow_executor.transport import TASK

        task_id = uuid.uuid4().hex
        message = self._app.amqp.as_task_v2(task_id, TASK, args=(wakeup.attempt_id, wakeup.token), ignore_result=True)
        producer.publish(
            message.body,
            exchange="",
            routing_key=queue_name(wakeup.queue),
            headers=message.headers,
            serializer="json",
            delivery_mode=2,
            retry=False,
            **message.properties,
        )

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            try:
                connection.release()
            except Exception as error:  # noqa: BLE001 - a broken connection may fail in any way while it is closed
                _log.debug("closing the broker connection: %s", error)


def _short_timeouts() -> dict[str, float]:
    return {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}

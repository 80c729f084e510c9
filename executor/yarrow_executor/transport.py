"""kombu's Redis transport for a worker, which drops what is no wake-up before Celery sees it.

Celery takes a worker down for a message that is not JSON or has not all of its fields. A queue in a broker is a place
where anybody may have put anything, so a message is checked here, whole, before it counts as received.
"""

from __future__ import annotations

import logging
from queue import Empty
from typing import Any

from kombu import connection as kombu_connection
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis import RedisError

TASK = "yarrow.attempt"
"""The one Celery task that there is."""

_LONGEST_BODY = 4096  # bytes; a wake-up has about 300
_HEADERS = ("lang", "task", "id", "root_id", "origin")  # the others could ask Celery for a delay, a callback, a limit

_log = logging.getLogger("yarrow.worker")


class NotAWakeup(ValueError):
    """The message is none of ours."""


class Message(virtual.Message):
    """A wake-up as Celery sends it: the attempt's id and its token."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        if not isinstance(payload, dict) or not isinstance(payload.get("headers"), dict):
            raise NotAWakeup("it has no headers")
        headers = {name: payload["headers"][name] for name in _HEADERS if name in payload["headers"]}
        if headers.get("task") != TASK or not isinstance(headers.get("id"), str):
            raise NotAWakeup("it is not for the task of Yarrow")
        if payload.get("content-type") != "application/json" or len(payload.get("body") or "") > _LONGEST_BODY:
            raise NotAWakeup("its body is too long, or not JSON")
        properties = payload.get("properties")
        if not isinstance(properties, dict) or not isinstance(properties.get("delivery_tag"), str):
            raise NotAWakeup("it has no delivery tag")
        super().__init__(  # type: ignore[no-untyped-call]  # kombu leaves it unannotated
            {**payload, "headers": headers}, channel=channel, **options
        )
        match self.payload:
            case [[str(), str()], {}, dict(embedded)] if not any(embedded.values()):
                return
        raise NotAWakeup("its body is not an attempt's id and a token")


class Channel(kombu_redis.Channel):
    """Reads messages one by one, and goes on after one that can't be read."""

    Message = Message

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu leaves it unannotated
        except (Empty, RedisError, OSError):
            raise  # kombu knows what to do
        except Exception as error:  # noqa: BLE001 - a message may be wrong in any way, and none may end the worker
            _log.warning("dropping a message that is not a wake-up: %s: %s", type(error).__name__, str(error)[:200])
            return True


class Transport(kombu_redis.Transport):
    """Redis and Valkey."""

    Channel = Channel


class Connection(kombu_connection.Connection):
    """A connection that uses this transport for the URLs of Redis, and tells them as they were written."""

    def get_transport_cls(self) -> Any:
        transport = super().get_transport_cls()  # type: ignore[no-untyped-call]  # kombu leaves it unannotated
        return Transport if transport is kombu_redis.Transport else transport

"""The health checks: whether this process lives, and whether the whole deployment can do its work."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import datetime

import redis
from flask import Blueprint, Response
from redis.backoff import NoBackoff
from redis.retry import Retry

from yarrow.clock import Clock
from yarrow.config import Config
from yarrow.errors import StoreError
from yarrow.store import Store
from yarrow.version import __version__

_BROKER_TIMEOUT = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Part:
    """The state of one part of the deployment."""

    ok: bool
    detail: str


def create_blueprint(config: Config, store: Store, clock: Clock) -> Blueprint:
    """`/health/live` and `/health/ready`. Neither needs a login; neither says more than names and counts."""
    checks = Checks(config, store, clock)
    blueprint = Blueprint("health", __name__, url_prefix="/health")

    def live() -> Response:
        return _answer({"status": "live", "version": __version__}, 200)

    def ready() -> Response:
        """200 once database, broker, a scheduler and a worker are there, 503 otherwise."""
        parts = checks.look()
        ok = all(part["ok"] for part in parts.values())
        return _answer(
            {"status": "ready" if ok else "not ready", "version": __version__, "parts": parts}, 200 if ok else 503
        )

    blueprint.add_url_rule("/live", "live", live)
    blueprint.add_url_rule("/ready", "ready", ready)
    return blueprint


class Checks:
    """Looks at each part, and remembers since when it has been as it is."""

    def __init__(self, config: Config, store: Store, clock: Clock) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._broker = (
            redis.Redis.from_url(
                config.broker_url,
                socket_timeout=_BROKER_TIMEOUT,
                socket_connect_timeout=_BROKER_TIMEOUT,
                retry=Retry(NoBackoff(), 0),
            )
            if config.broker_url
            else None
        )
        self._since: dict[str, tuple[bool, datetime]] = {}
        self._lock = threading.Lock()

    def look(self) -> dict[str, dict[str, bool | str]]:
        """The parts by name: `ok`, `detail`, and `since` when (seen from this process) it has been so."""
        now = self._clock()
        parts = {**self._database_parts(), "broker": self._look_at_broker()}
        with self._lock:
            for name, part in parts.items():
                if name not in self._since or self._since[name][0] != part.ok:
                    self._since[name] = (part.ok, now)
            return {
                name: {"ok": part.ok, "detail": part.detail, "since": self._since[name][1].isoformat()}
                for name, part in parts.items()
            }

    def _database_parts(self) -> dict[str, Part]:
        try:
            report = self._store.workers.health(lease=self._config.lease)
        except StoreError as error:
            unknown = Part(False, "not known without the database")
            return {"database": Part(False, str(error)), "scheduler": unknown, "worker": unknown}
        workers = [worker for worker in report.workers if not worker.stopping]
        slots = sum(worker.slots for worker in workers)
        return {
            "database": Part(True, report.database),
            "scheduler": Part(bool(report.schedulers), _count(len(report.schedulers), "scheduler")),
            "worker": Part(bool(workers), f"{_count(len(workers), 'worker')}, {_count(slots, 'slot')}"),
        }

    def _look_at_broker(self) -> Part:
        if self._broker is None:
            return Part(False, "no `broker_url` is set, and no embedded broker runs")
        try:
            self._broker.ping()
        except redis.AuthenticationError:
            return Part(False, "it refuses the password")
        except (redis.RedisError, OSError) as error:
            return Part(False, f"it does not answer: {type(error).__name__}")
        return Part(True, "answers")


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _answer(body: object, status: int) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")

"""The Execution API: the routes of `yarrow.protocol`, through which workers claim, report and log attempts.

This is the busy path: each task is one or two requests here. A handler checks the token, runs one transaction of the
store, wakes the scheduler and answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from yarrow import protocol, tokens
from yarrow.config import Config
from yarrow.connections import resolve_connections, resolve_variables
from yarrow.errors import ConfigError, Conflict, InvalidToken, NotFound, Refused, StoreError, UsageError, YarrowError
from yarrow.jsontypes import Json
from yarrow.logs import LogStore
from yarrow.protocol import Assignment, Heartbeat, HeartbeatReply, LogLine, Report
from yarrow.states import AttemptState
from yarrow.store import Store
from yarrow.store.cache import is_key
from yarrow.store.records import AttemptRecord, ClaimedAttempt

BODY_LIMIT = 4 * 1024 * 1024
"""Bytes of a request. The largest are the logs of many attempts and reports with an inline XCom."""

_REMEMBERED = 4096  # attempts whose logs are written to at a time
_REPORTED = frozenset(
    {
        AttemptState.SUCCESS,
        AttemptState.FAILED,
        AttemptState.SKIPPED,
        AttemptState.LOST,
        AttemptState.CANCELLED,
        AttemptState.DEFERRED,
    }
)

_Place = tuple[str, str, str, int, int]
"""DAG, run, task, map index and try: what a log is found by."""

T = TypeVar("T")


class Notifies(Protocol):
    """What wakes the scheduler: `yarrow.wakeup.Notifier`."""

    def notify(self) -> None:
        """Something has happened."""


def create_blueprint(config: Config, store: Store, key: bytes, notifier: Notifies, log_store: LogStore) -> Blueprint:
    """The Execution API as a blueprint.

    Args:
        key: The signing key of the tokens.
        notifier: Told after each commit that gives the scheduler something to decide.
        log_store: Where the lines go that workers send.
    """
    api = _Api(config, store, key, notifier, log_store)
    blueprint = Blueprint("execution", __name__, url_prefix=f"/execution/v{protocol.VERSION}")
    for name, handler in (
        ("claim", api.claim),
        ("finish", api.finish),
        ("heartbeat", api.heartbeat),
        ("logs", api.logs),
        ("trigger", api.trigger),
        ("cache", api.cache),
        ("task-state", api.task_state),
    ):
        blueprint.add_url_rule(f"/{name}", name, _route(handler), methods=["POST"])
    return blueprint


def _route(handler: Callable[[str, Mapping[str, Any]], dict[str, Any]]) -> Callable[[], Response]:
    """A view: takes bearer token and JSON object out of the request, and turns errors into their status."""

    def view() -> Response:
        try:
            _check_version(request.headers.get(protocol.VERSION_HEADER))
            return _answer(handler(_bearer(), _body()))
        except _Failure as error:
            return _answer({"error": error.message}, error.status)
        except RequestEntityTooLarge:
            return _answer({"error": f"The request is larger than {BODY_LIMIT:,} bytes."}, 413)
        except YarrowError as error:
            return _answer({"error": str(error)}, _status(error))

    return view


class _Failure(YarrowError):
    """The request is refused."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Api:
    """The handlers. Each gets the bearer token and the body, and returns the answer's body."""

    def __init__(self, config: Config, store: Store, key: bytes, notifier: Notifies, log_store: LogStore) -> None:
        self._config = config
        self._store = store
        self._key = key
        self._notifier = notifier
        self._log_store = log_store
        self._places: OrderedDict[str, _Place] = OrderedDict()  # where the log of an attempt goes, by its token
        self._workers: set[tuple[str, bool]] = set()
        self._lock = threading.Lock()

    def claim(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        attempt_id, nonce = self._of_attempt(token, _field(body, "attempt_id", str))
        worker_id = _field(body, "worker_id", str)
        claimed = self._store.attempts.claim(attempt_id, nonce, worker_id, self._config.lease)
        assignment = self._assignment(claimed, worker_id)
        if assignment is None:
            raise Refused("The attempt has failed: not all of its variables and connections are set.")
        return assignment.to_json()

    def finish(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        report = _message(Report, _field(body, "report", dict))
        _, nonce = self._of_attempt(token, report.attempt_id)
        if report.state not in _REPORTED:
            raise _Failure(HTTPStatus.BAD_REQUEST, f"An attempt can't end as {report.state!r}.")
        worker_id = _field(body, "worker_id", str)
        queue = body.get("next")
        outcome = self._store.attempts.finish(
            report,
            nonce,
            worker_id,
            infra_budget=self._config.infra_budget,
            queued_timeout=self._config.queued_timeout,
            next_for=queue if isinstance(queue, str) else None,
            lease=self._config.lease,
        )
        self._notifier.notify()
        following = outcome.next
        while following is not None:
            assignment = self._assignment(following, worker_id)
            if assignment is not None:
                return {"next": assignment.to_json()}
            following = self._store.attempts.next_for(following.queue, worker_id, self._config.lease)
        return {"next": None}

    def heartbeat(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        tokens.check_worker_token(self._key, token)
        heartbeat = _message(Heartbeat, body)
        if heartbeat.stopping and not heartbeat.attempts:
            self._store.workers.remove(heartbeat.worker_id)
            stop: dict[str, str] = {}
        else:
            stop = self._store.attempts.heartbeat(heartbeat, self._config.lease)
        self._announce(heartbeat.worker_id, heartbeat.stopping)
        return HeartbeatReply(stop, self._config.heartbeat_interval).to_json()

    def logs(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        tokens.check_worker_token(self._key, token)
        refused = 0
        for batch in _field(body, "batches", list):
            lines = [_message(LogLine, line) for line in _field(batch, "lines", list)]
            try:
                place = self._place(_field(batch, "token", str))
            except (InvalidToken, NotFound, Refused):
                refused += 1
                continue
            self._log_store.append(*place, lines)
        return {"refused": refused}

    def trigger(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        attempt = self._running(token, "trigger")
        dag_id, params, logical_date = _field(body, "dag_id", str), body.get("params") or {}, body.get("logical_date")
        run = self._store.runs.trigger(
            dag_id,
            params=params,
            logical_date=_instant(logical_date) if logical_date else None,
            run_id=_triggered_run_id(attempt, dag_id, params, logical_date),
            who=f"task {attempt.dag_id} {attempt.run_id} {attempt.task_id}",
            run_type="triggered",
            exist_ok=True,
        )
        self._notifier.notify()
        return {"run_id": run.run_id}

    def cache(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        attempt = self._running(token, "ask for")
        key = _field(body, "key", str)
        if not is_key(key):
            raise _Failure(HTTPStatus.BAD_REQUEST, "A key of the cache is a SHA-256 in hexadecimal: 64 characters.")
        found = self._store.cache.get(key, attempt.dag_id, attempt.task_id, attempt_id=attempt.attempt_id)
        if found is None:
            return {"hit": False, "has_xcom": False, "xcom": None, "attempt_id": None, "run_id": None}
        return {
            "hit": True,
            "has_xcom": found.has_xcom,
            "xcom": found.xcom,
            "attempt_id": found.attempt_id,
            "run_id": found.run_id,
        }

    def task_state(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._running(token, "ask for")
        dag_id, date = _field(body, "dag_id", str), _instant(_field(body, "logical_date", str))
        task_id = _field(body, "task_id", str) if body.get("task_id") is not None else None
        found = self._store.attempts.awaited(dag_id, task_id, date)
        run_id, state = (None, None) if found is None else found
        return {"state": state, "run_id": run_id}

    def _running(self, token: str, verb: str) -> AttemptRecord:
        """The attempt whose token it is, which has to be under way to ask for anything."""
        attempt_id, nonce = tokens.read_attempt_token(self._key, token)
        attempt = self._store.attempts.get(attempt_id, nonce)
        if attempt.state != AttemptState.RUNNING:
            raise Refused(f"The attempt is {attempt.state} and can't {verb} anything.")
        return attempt

    def _of_attempt(self, token: str, attempt_id: str) -> tuple[str, str]:
        """Attempt id and nonce of a token that has to be that attempt's."""
        owner, nonce = tokens.read_attempt_token(self._key, token)
        if owner != attempt_id:
            raise _Failure(HTTPStatus.FORBIDDEN, "The token belongs to another attempt.")
        return owner, nonce

    def _assignment(self, claimed: ClaimedAttempt, worker_id: str) -> Assignment | None:
        """What the worker gets. None when a variable or connection is set nowhere: then the attempt has failed."""
        try:
            variables = resolve_variables(self._config, os.environ, claimed.task.variables)
            connections = resolve_connections(self._config, os.environ, claimed.task.connections)
        except (NotFound, ConfigError) as error:
            report = Report(claimed.attempt_id, AttemptState.FAILED, reason=str(error), retryable=False)
            self._store.attempts.finish(report, claimed.nonce, worker_id, infra_budget=self._config.infra_budget)
            self._notifier.notify()
            return None
        token = tokens.attempt_token(self._key, claimed.attempt_id, claimed.nonce)
        place = (claimed.dag_id, claimed.run_id, claimed.task_id, claimed.map_index, claimed.try_number)
        self._remember(token, place)
        cache = claimed.task.cache
        return Assignment(
            attempt_id=claimed.attempt_id,
            token=token,
            dag_id=claimed.dag_id,
            run_id=claimed.run_id,
            task_id=claimed.task_id,
            map_index=claimed.map_index,
            try_number=claimed.try_number,
            max_tries=claimed.max_tries,
            identity=identity(claimed.dag_id, claimed.run_id, claimed.task_id, claimed.map_index),
            operator=claimed.task.operator,
            arguments=claimed.task.arguments,
            queue=claimed.queue,
            execution_timeout=claimed.task.execution_timeout,
            logical_date=claimed.logical_date.isoformat(),
            data_interval_start=claimed.data_interval_start.isoformat(),
            data_interval_end=claimed.data_interval_end.isoformat(),
            timezone=claimed.timezone,
            params=claimed.params,
            xcoms=claimed.xcoms,
            variables=variables,
            connections=connections,
            lease=claimed.lease,
            dag_tasks=claimed.downstream,
            map_value=claimed.map_value,
            mapped_xcoms=claimed.mapped_xcoms,
            cache=None if cache is None else {"ttl": cache.ttl, "key": cache.key},
            first_started_at=claimed.first_started_at.isoformat(),
        )

    def _place(self, token: str) -> _Place:
        """Where the log of a token's attempt goes. Looked up at most once: it never changes."""
        with self._lock:
            if token in self._places:
                self._places.move_to_end(token)
                return self._places[token]
        attempt_id, nonce = tokens.read_attempt_token(self._key, token)
        attempt = self._store.attempts.get(attempt_id, nonce)
        place = (attempt.dag_id, attempt.run_id, attempt.task_id, attempt.map_index, attempt.try_number)
        self._remember(token, place)
        return place

    def _remember(self, token: str, place: _Place) -> None:
        with self._lock:
            self._places[token] = place
            while len(self._places) > _REMEMBERED:
                self._places.popitem(last=False)

    def _announce(self, worker_id: str, stopping: bool) -> None:
        """Wakes the scheduler for a worker that came or goes: tasks may wait for its queues."""
        with self._lock:
            if (worker_id, stopping) in self._workers:
                return
            self._workers.discard((worker_id, not stopping))
            if not stopping:
                self._workers.add((worker_id, stopping))
        self._notifier.notify()


def identity(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """The identity of a task instance: the same for every try, and safe as the name of a folder."""
    return hashlib.sha256(f"{dag_id}\0{run_id}\0{task_id}\0{map_index}".encode()).hexdigest()[:32]


def _triggered_run_id(attempt: AttemptRecord, dag_id: str, params: Json, logical_date: object) -> str:
    """The same for each try of the calling task instance, so that a retry finds the run it made before."""
    caller = identity(attempt.dag_id, attempt.run_id, attempt.task_id, attempt.map_index)
    call = json.dumps([caller, dag_id, params, logical_date], sort_keys=True)
    return f"triggered__{hashlib.sha256(call.encode()).hexdigest()[:16]}"


def _check_version(version: str | None) -> None:
    if version == str(protocol.VERSION):
        return
    if version is None or not version.isdecimal():
        message = f"The header {protocol.VERSION_HEADER} is missing: is this a worker of Yarrow?"
    elif int(version) < protocol.VERSION:
        message = f"The worker is older than this web server (protocol {version}, here {protocol.VERSION}): update it."
    else:
        message = f"The worker is newer than this web server (protocol {version}, here {protocol.VERSION})."
    raise _Failure(HTTPStatus.UPGRADE_REQUIRED, message)


def _bearer() -> str:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind != "Bearer" or not token:
        raise InvalidToken("There is no token: `Authorization: Bearer ...` is missing.")
    return token


def _body() -> Mapping[str, Any]:
    request.max_content_length = BODY_LIMIT
    try:
        body = json.loads(request.get_data(cache=False))
    except (ValueError, RecursionError):
        raise _Failure(HTTPStatus.BAD_REQUEST, "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise _Failure(HTTPStatus.BAD_REQUEST, "The body is not a JSON object.")
    return body


def _field(body: object, name: str, kind: type[T]) -> T:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, kind):
        raise _Failure(HTTPStatus.BAD_REQUEST, f"The field `{name}` is missing or not a {kind.__name__}.")
    return value


M = TypeVar("M", bound=protocol.Message)


def _message(kind: type[M], data: Mapping[str, Any]) -> M:
    try:
        return kind.from_json(data)
    except (TypeError, AttributeError) as error:
        raise _Failure(HTTPStatus.BAD_REQUEST, f"This is not a {kind.__name__}: {error}.") from error


def _instant(text: object) -> datetime:
    try:
        instant = datetime.fromisoformat(str(text))
        return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise _Failure(HTTPStatus.BAD_REQUEST, f"{text!r} is not an ISO 8601 date.") from None


def _status(error: YarrowError) -> int:
    match error:
        case InvalidToken():
            return HTTPStatus.UNAUTHORIZED
        case Refused() | Conflict():
            return HTTPStatus.CONFLICT
        case NotFound():
            return HTTPStatus.NOT_FOUND
        case UsageError():
            return HTTPStatus.BAD_REQUEST
        case StoreError():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR


def _answer(body: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(body, separators=(",", ":")), status, mimetype="application/json")

"""What runs ask people, over HTTP: the open questions, and the answers."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import Unauthorized, UnsupportedMediaType

from yarrow import tokens
from yarrow.approvals import APPROVE, REJECT
from yarrow.clock import Clock
from yarrow.errors import Conflict, InvalidToken, UsageError
from yarrow.store import Store
from yarrow_webserver.execution import Notifies

_BY_API = "api:"
_LONGEST = 250 - len(_BY_API)
"""Characters of a name that goes into the history."""
_MOST_INSTANCES = 2**31 - 1


def create_blueprint(store: Store, key: bytes, notifier: Notifies, clock: Clock) -> Blueprint:
    """`GET /api/v1/approvals` and `POST /api/v1/approvals/<dag_id>/<run_id>/<task_id>`.

    Both want the token that `yarrow config api-token` prints: `Authorization: Bearer <token>`. An answer is a JSON
    object: `{"answer": "approve" or "reject", "by": name, "comment": text, "map_index": number}`, the last two when
    needed.
    """
    blueprint = Blueprint("approvals", __name__, url_prefix="/api/v1/approvals")

    @blueprint.before_request
    def check_token() -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise InvalidToken("The request carries no token.")
            tokens.check_api_token(key, token.strip())
        except InvalidToken as error:
            description = f"{error} `yarrow config api-token` prints one: send it as Authorization: Bearer TOKEN."
            raise Unauthorized(description) from None

    @blueprint.get("")
    def list_open() -> Response:
        return _json([record.to_json() for record in store.approvals.open(request.args.get("dag_id"))])

    @blueprint.post("/<dag_id>/<run_id>/<task_id>")
    def answer(dag_id: str, run_id: str, task_id: str) -> Response:
        given = _answer()
        try:
            record = store.approvals.answer(
                dag_id,
                run_id,
                task_id,
                given.get("map_index", -1),
                approve=given["answer"] == APPROVE,
                who=f"{_BY_API}{given['by']}",
                comment=given.get("comment"),
                now=clock(),
            )
        except Conflict as error:
            return _json({"error": str(error)}, HTTPStatus.CONFLICT)
        notifier.notify()
        return _json(record.to_json())

    return blueprint


def _answer() -> dict[str, Any]:
    """The body of an answer. Raises UsageError for one that is not of the form."""
    if not request.is_json:
        raise UnsupportedMediaType("An answer is JSON, with the header Content-Type: application/json.")
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise UsageError('The body is a JSON object such as {"answer": "approve", "by": "ada"}.')
    if strange := sorted(set(body) - {"answer", "by", "comment", "map_index"}):
        raise UsageError(f"An answer has no field {strange[0]!r}; it has `answer`, `by`, `comment` and `map_index`.")
    if body.get("answer") not in (APPROVE, REJECT):
        raise UsageError("`answer` is approve or reject.")
    by = body.get("by")
    if not isinstance(by, str) or not by.strip() or len(by) > _LONGEST:
        raise UsageError(f"`by` is the name of who answers, in at most {_LONGEST} characters.")
    if not isinstance(body.get("comment", ""), str | None):
        raise UsageError("`comment` is text.")
    map_index = body.get("map_index", -1)
    if not isinstance(map_index, int) or isinstance(map_index, bool) or not -1 <= map_index <= _MOST_INSTANCES:
        raise UsageError("`map_index` is a whole number: from 0, or -1 for a task that is not mapped.")
    return body


def _json(data: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(json.dumps(data), status, mimetype="application/json")

"""What runs ask people, over HTTP: the open questions, and the answers."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from yarrow.approvals import APPROVE, REJECT
from yarrow.clock import Clock
from yarrow.errors import UsageError
from yarrow.store import Store
from yarrow_webserver.access import as_json, json_body, name_of, token_check
from yarrow_webserver.execution import Notifies

_MOST_INSTANCES = 2**31 - 1


def create_blueprint(store: Store, key: bytes, notifier: Notifies, clock: Clock) -> Blueprint:
    """`GET /api/v1/approvals` and `POST /api/v1/approvals/<dag_id>/<run_id>/<task_id>`.

    Both want the token that `yarrow config api-token` prints: `Authorization: Bearer <token>`. An answer is a JSON
    object: `{"answer": "approve" or "reject", "by": name, "comment": text, "map_index": number}`, the last two when
    needed.
    """
    blueprint = Blueprint("approvals", __name__, url_prefix="/api/v1/approvals")
    blueprint.before_request(token_check(key))

    @blueprint.get("")
    def list_open() -> Response:
        return as_json([record.to_json() for record in store.approvals.open(request.args.get("dag_id"))])

    @blueprint.post("/<dag_id>/<run_id>/<task_id>")
    def answer(dag_id: str, run_id: str, task_id: str) -> Response:
        given = _answer()
        who = name_of(given)
        record = store.approvals.answer(
            dag_id,
            run_id,
            task_id,
            given.get("map_index", -1),
            approve=given["answer"] == APPROVE,
            who=who,
            comment=given.get("comment"),
            now=clock(),
        )
        notifier.notify()
        return as_json(record.to_json())

    return blueprint


def _answer() -> dict[str, Any]:
    """The body of an answer. Raises UsageError for one that is not of the form."""
    body = json_body('{"answer": "approve", "by": "ada"}')
    if strange := sorted(set(body) - {"answer", "by", "comment", "map_index"}):
        raise UsageError(f"An answer has no field {strange[0]!r}; it has `answer`, `by`, `comment` and `map_index`.")
    if body.get("answer") not in (APPROVE, REJECT):
        raise UsageError("`answer` is approve or reject.")
    if not isinstance(body.get("comment", ""), str | None):
        raise UsageError("`comment` is text.")
    map_index = body.get("map_index", -1)
    if not isinstance(map_index, int) or isinstance(map_index, bool) or not -1 <= map_index <= _MOST_INSTANCES:
        raise UsageError("`map_index` is a whole number: from 0, or -1 for a task that is not mapped.")
    return body

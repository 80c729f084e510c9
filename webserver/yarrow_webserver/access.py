"""Who may use the REST API, and the form of what it takes and answers: bearer token, JSON in, JSON out."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Response, request
from werkzeug.exceptions import Unauthorized, UnsupportedMediaType

from yarrow import tokens
from yarrow.errors import InvalidToken, UsageError
from yarrow.store.transitions import plain_text

_BY_API = "api:"
_LONGEST_NAME = 250 - len(_BY_API)
"""Characters of a name that goes into the history."""


def token_check(key: bytes) -> Callable[[], None]:
    """What to do before a request: it has to carry the token that `yarrow config api-token` prints, or gets a 401."""

    def check_token() -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise InvalidToken("The request carries no token.")
            tokens.check_api_token(key, token.strip())
        except InvalidToken as error:
            description = f"{error} `yarrow config api-token` prints one: send it as Authorization: Bearer TOKEN."
            raise Unauthorized(description) from None

    return check_token


def json_body(example: str) -> dict[str, Any]:
    """The body of the request, a JSON object.

    Args:
        example: One, for the sentence about a body that is none.

    Raises:
        UsageError: It is something else.
    """
    if not request.is_json:
        raise UnsupportedMediaType("The body is JSON, with the header Content-Type: application/json.")
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        raise UsageError("The body is nested too deeply.") from None
    if not isinstance(body, dict):
        raise UsageError(f"The body is a JSON object such as {example}.")
    return body


def name_of(body: dict[str, Any]) -> str:
    """Who did something, for the history: the field `by`. Raises UsageError."""
    by = body.get("by")
    if not isinstance(by, str) or not by.strip() or len(by) > _LONGEST_NAME:
        raise UsageError(f"`by` is the name of who does this, in at most {_LONGEST_NAME} characters.")
    return f"{_BY_API}{plain_text(by)}"


def as_json(data: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """An answer."""
    return Response(json.dumps(data), status, mimetype="application/json")

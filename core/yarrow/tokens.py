"""Signed tokens: for one dispatch of one attempt, for the heartbeats of workers, and for people who use the API.

A token is `<kind>.<attempt id>.<nonce>.<HMAC-SHA256>`, all URL-safe. It does not expire by the clock: the nonce is
compared with the attempt's row, so it ends when the attempt does, however long the task takes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from yarrow.errors import ConfigError, InvalidToken


def load_or_create_key(path: Path) -> bytes:
    """Reads the signing key, or makes one with mode 0600 on the first start; several processes may start at once."""
    try:
        return _read_key(path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    try:
        os.link(fresh, path)  # fails when another process was faster; never replaces its key
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return _read_key(path)


def _read_key(path: Path) -> bytes:
    try:
        key = path.read_text().strip().encode()
    except PermissionError as error:
        raise ConfigError(f"The signing key {path} can't be read.", hint="It belongs to another user.") from error
    if len(key) < 32:
        raise ConfigError(f"The signing key {path} is too short.", hint="Delete the file to have a new one made.")
    return key


def new_nonce() -> str:
    """A nonce for one dispatch of an attempt."""
    return secrets.token_hex(12)


def attempt_token(key: bytes, attempt_id: str, nonce: str) -> str:
    """The token that claims, reports and logs one dispatch of one attempt."""
    return _sign(key, f"a1.{attempt_id}.{nonce}")


def worker_token(key: bytes) -> str:
    """The token with which workers send heartbeats."""
    return _sign(key, "w1.worker.0")


def api_token(key: bytes) -> str:
    """The token of people and programs that use the API."""
    return _sign(key, "p1.api.0")


def read_attempt_token(key: bytes, token: str) -> tuple[str, str]:
    """Returns (attempt id, nonce). Raises InvalidToken."""
    body = _verify(key, token)
    kind, attempt_id, nonce = body.split(".")
    if kind != "a1":
        raise InvalidToken("This is not an attempt token.")
    return attempt_id, nonce


def check_worker_token(key: bytes, token: str) -> None:
    """Raises InvalidToken unless it is a worker token."""
    if not _verify(key, token).startswith("w1."):
        raise InvalidToken("This is not a worker token.")


def check_api_token(key: bytes, token: str) -> None:
    """Raises InvalidToken unless it is a token of the API."""
    if not _verify(key, token).startswith("p1."):
        raise InvalidToken("This is not a token of the API.")


def _sign(key: bytes, body: str) -> str:
    return f"{body}.{hmac.new(key, body.encode(), hashlib.sha256).hexdigest()}"


def _verify(key: bytes, token: str) -> str:
    body, _, _ = token.rpartition(".")
    if body.count(".") != 2 or not hmac.compare_digest(_sign(key, body).encode(), token.encode()):
        raise InvalidToken("The token is not valid: it was not made by this deployment, or it is damaged.")
    return body

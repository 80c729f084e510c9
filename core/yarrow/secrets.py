"""Keeps secrets out of logs: replaces their values, however they are encoded, by `***`."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

from yarrow.connections import Connection
from yarrow.errors import ConfigError

MASK = "***"

MIN_LENGTH = 4
"""Shorter values are not masked: `***` in the place of every `a` or `42` would make a log useless.
A secret should be longer than that."""

_MIN_LENGTH_INSIDE_BASE64 = 8
"""From this length on a value is also found inside other base64 text, such as a Basic Authorization header."""

_SECRET_WORDS = ("password", "passwd", "passphrase", "secret", "token", "key", "credential", "authorization")


def looks_secret(name: str) -> bool:
    """Whether the name of a variable or of a connection's extra says that its value is a secret."""
    lowered = name.lower()
    return any(word in lowered for word in _SECRET_WORDS)


class Masker:
    """Masks a fixed set of values, in whatever form they turn up.

    The forms: as it is, URL-encoded, base64, hexadecimal, and escaped for JSON, Python or a shell. A value of several
    lines is masked line by line, since a log is written line by line. Values of fewer than `MIN_LENGTH` characters are
    left alone.
    """

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value)}
        # The longest first: of two forms that begin alike, the whole of the longer one has to go.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(re.escape(form) for form in ordered)) if ordered else None

    def __bool__(self) -> bool:
        """Whether there is anything to mask."""
        return self._pattern is not None

    def mask(self, text: str) -> str:
        """Returns the text with every secret replaced by `***`."""
        return self._pattern.sub(MASK, text) if self._pattern else text


def masker_for(connections: Mapping[str, str], variables: Mapping[str, str]) -> Masker:
    """A masker for what one task was given.

    Secret are the passwords of the connections' URIs, the login of an HTTP connection without a password (a token),
    extras and variables whose names say so (`looks_secret`), and a URI that can't be read, as a whole.
    """
    values = [value for name, value in variables.items() if looks_secret(name)]
    for conn_id, uri in connections.items():
        values.extend(_secrets_of(conn_id, uri))
    return Masker(values)


def _secrets_of(conn_id: str, uri: str) -> Iterator[str]:
    try:
        connection = Connection.from_uri(conn_id, uri)
    except ConfigError:
        yield uri
        return
    if connection.password:
        yield connection.password
        if connection.login:  # as an Authorization header carries it
            yield base64.b64encode(f"{connection.login}:{connection.password}".encode()).decode()
    elif connection.login and connection.type in ("http", "https"):
        yield connection.login
    yield from (value for name, value in connection.extra.items() if looks_secret(name))


def _forms(value: str) -> Iterator[str]:
    """Every spelling of a value that could turn up in a log."""
    lines = [line.strip() for line in value.splitlines()]
    for plain in {value.strip(), *lines}:
        if len(plain) < MIN_LENGTH or "\n" in plain:
            continue
        yield plain
        yield from _escaped(plain)
        yield from _encoded(plain)
    if len(lines) > 1:  # a value of several lines on one line of the log
        yield from (form for form in _escaped(value) if "\n" not in form)
        yield from _encoded(value)


def _escaped(value: str) -> Iterator[str]:
    for encoded in (quote(value), quote(value, safe=""), quote_plus(value)):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match.group().lower(), encoded)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield json.dumps(json.dumps(value)[1:-1])[1:-1]
    yield repr(value)[1:-1]
    yield shlex.quote(value)
    yield value.replace("'", "'\\''")  # as `set -x` in bash shows it


def _encoded(value: str) -> Iterator[str]:
    data = value.encode()
    yield base64.b64encode(data).rstrip(b"=").decode()
    yield base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    if len(data) < _MIN_LENGTH_INSIDE_BASE64:
        return
    yield data.hex()
    yield data.hex().upper()
    # Base64 writes three bytes as four characters, so a value reads in three ways, by its place in the whole. Only the
    # characters that no neighbouring byte has a share in are searched for.
    for before in range(3):
        padded = bytes(before) + data
        start = (before * 8 + 5) // 6
        stop = len(padded) * 8 // 6
        yield base64.b64encode(padded)[start:stop].decode()
        yield base64.urlsafe_b64encode(padded)[start:stop].decode()

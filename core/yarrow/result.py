"""Makes plain JSON data of what an operator returned, or says which part of it is not JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from yarrow.errors import Fail
from yarrow.jsontypes import Json

DEEPEST = 100
"""How deeply lists and mappings may be nested."""

_LARGEST_INTEGER = 10**4000
"""Python refuses to write an integer with many more digits as text."""

_HINTS: Mapping[str, str] = {
    "set": "Return a sorted list.",
    "frozenset": "Return a sorted list.",
    "datetime": "Return `value.isoformat()`.",
    "date": "Return `value.isoformat()`.",
    "time": "Return `value.isoformat()`.",
    "timedelta": "Return `value.total_seconds()`.",
    "Decimal": "Return a float or text.",
    "bytes": "Write it to a file and return its address.",
    "bytearray": "Write it to a file and return its address.",
    "ndarray": "Return `value.tolist()`, or write a data set and return its manifest.",
    "DataFrame": "Write a data set and return its manifest.",
    "generator": "Return a list.",
    "coroutine": "Await it, or call `asyncio.run(...)`.",
}


def plain_json(value: Any, path: str = "result", depth: int = 0) -> Json:
    """Returns the value as plain JSON data: tuples become lists, subclasses of str, int and float lose their class.

    Raises:
        Fail: A part of it is not JSON; the message names where.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        if abs(value) >= _LARGEST_INTEGER:
            raise Fail(f"`{path}` is an integer of more than 4000 digits, too long to pass on.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Fail(f"`{path}` is {float(value)}, which JSON can't say.", hint="Return None in its place.")
        return float(value)
    if depth >= DEEPEST:
        raise Fail(f"The result is nested more than {DEEPEST} deep, or holds itself.")
    if isinstance(value, Mapping):
        return {_key(key, path): plain_json(item, _inside(path, key), depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    return _number_of_a_library(value, path)


def _inside(path: str, key: Any) -> str:
    return f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[{key!r:.40}]"


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise Fail(
            f"`{path}` has the key {key!r:.80}; the keys of a JSON object are text.", hint=f'Write "{key!s:.80}".'
        )
    return _text(key, path)


def _text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Fail(f"`{path}` is not valid text: it holds half a character at position {error.start}.") from None
    return str(text)


def _number_of_a_library(value: Any, path: str) -> Json:
    """NumPy's scalars answer `item()` with Python's own; everything else is refused."""
    name = type(value).__name__
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        own = value.item()
        if isinstance(own, bool | int | float | str):
            return plain_json(own, path)
    raise Fail(
        f"`{path}` is a {name}, which is not JSON.", hint=_HINTS.get(name, "Return text, numbers, lists and objects.")
    )

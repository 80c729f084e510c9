"""What an expression does with values: look-ups along paths, comparisons and additions, each strict about types."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias

from yarrow.language.values import MissingPath, ValueFault, bounded, bounded_number, kind

Path: TypeAlias = tuple[str, ...]
"""A path as a template writes it, such as `("xcom", "ingest", "rows")`; list indices are digits."""

_ORDER: Final[Mapping[str, tuple[str, Callable[[Any, Any], bool]]]] = {
    "gt": (">", operator.gt),
    "gteq": (">=", operator.ge),
    "lt": ("<", operator.lt),
    "lteq": ("<=", operator.le),
}


def find_xcom(context: Mapping[str, Any], path: Path) -> tuple[Any, int]:
    """The XCom that a path starts with and how many parts of the path name its task, dots and all."""
    xcoms = context.get("xcom", {})
    for end in range(len(path), 1, -1):
        task_id = ".".join(path[1:end])
        if task_id in xcoms:
            return xcoms[task_id], end
    raise MissingPath(f"`{'.'.join(path)}`: there is no XCom of that task. There is: {listed(xcoms)}.")


def walk(value: Any, start: int, path: Path) -> Any:
    for place in range(start, len(path)):
        value = step(value, path[place], path[:place])
    return value


def step(value: Any, name: Any, before: Path | str) -> Any:
    """One look-up. `before` is what was walked so far, for the message."""
    if isinstance(value, Mapping) and not isinstance(name, bool) and isinstance(name, str | int):
        found = value.get(str(name), _ABSENT)
        if found is not _ABSENT:
            return found
    elif isinstance(value, list | tuple | str):
        index = _index(name)
        if index is not None and -len(value) <= index < len(value):
            return value[index]
    where = before if isinstance(before, str) else ".".join(before)
    full = f"{where}.{name}" if where else str(name)
    raise MissingPath(f"`{full}` does not exist: {_contents(value, where)}.")


_ABSENT: Final = object()


def _index(name: Any) -> int | None:
    if isinstance(name, bool):
        return None
    if isinstance(name, int):
        return name
    return int(name) if isinstance(name, str) and re.fullmatch(r"-?\d{1,9}", name, re.ASCII) else None


def _contents(value: Any, where: str) -> str:
    if not where:
        return f"there is {listed(value)}"
    shown = where if where == "the value" else f"`{where}`"
    if isinstance(value, Mapping):
        return f"{shown} has {listed(value)}" if value else f"{shown} is empty"
    if isinstance(value, list | tuple):
        return f"{shown} is a list of {len(value)}"
    return f"{shown} is {kind(value)}"


def listed(names: Any) -> str:
    shown = [f"`{name}`" for name in names]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "") if shown else "nothing"


def holds(symbol: str, left: Any, right: Any) -> bool:
    if symbol in ("eq", "ne"):
        return bool(left == right) is (symbol == "eq")
    if symbol in ("in", "notin"):
        if isinstance(right, str) and not isinstance(left, str):
            raise ValueFault(f"`in` a text needs text on the left, not {kind(left)}.")
        if not isinstance(right, str | list | tuple | Mapping):
            raise ValueFault(f"`in` needs text, a list or a mapping on the right, not {kind(right)}.")
        if isinstance(right, Mapping):
            return (isinstance(left, str) and left in right) is (symbol == "in")
        return (left in right) is (symbol == "in")
    word, compare = _ORDER[symbol]
    if kind(left) != kind(right) or not isinstance(left, int | float | str | datetime) or isinstance(left, bool):
        raise ValueFault(f"`{word}` can't compare {kind(left)} with {kind(right)}.")
    return compare(left, right)


def plus(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return bounded(left + right)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return bounded([*left, *right])
    if kind(left) == kind(right) == "a number":
        return bounded_number(left + right)
    raise ValueFault(
        f"`+` can't add {kind(left)} and {kind(right)}.",
        hint="`~` joins anything into a text." if "text" in (kind(left), kind(right)) else None,
    )

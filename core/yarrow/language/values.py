"""The values inside a template: plain data and dates, with limits on what may be built from them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from yarrow.errors import TemplateError
from yarrow.jsontypes import Json
from yarrow.language import codes

MAX_TEXT: Final = 1024 * 1024
"""Characters of a text, and of a list or mapping written as JSON, that a template may build."""
MAX_INTEGER: Final = 2**63


class TemplateFault(TemplateError):
    """A template is wrong: where in its text, and under which code."""

    def __init__(self, code: str, message: str, *, offset: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.offset = offset


class ValueFault(TemplateFault):
    """A value does not fit what a template does with it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(codes.TEMPLATE_SYNTAX, message, hint=hint)


class MissingPath(ValueFault):
    """A path of a template does not exist in the data."""


def kind(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, datetime):
        return "a date"
    return "a mapping" if isinstance(value, Mapping) else "a list"


def number(value: Any, what: str) -> int | float:
    """The value, when it is a number. `what` names the operation in the fault."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueFault(f"{what} needs a number, not {kind(value)}.")


def bounded_number(value: int | float) -> int | float:
    """The value, unless it is beyond 64 bits or not finite."""
    fits = math.isfinite(value) if isinstance(value, float) else -MAX_INTEGER <= value < MAX_INTEGER
    if not fits:
        raise ValueFault("The result is too large for a number.")
    return value


def text(value: Any, what: str) -> str:
    """The value, when it is text."""
    if isinstance(value, str):
        return value
    raise ValueFault(f"{what} needs text, not {kind(value)}.")


def sequence(value: Any, what: str) -> list[Any]:
    """The value, when it is a list."""
    if isinstance(value, list | tuple):
        return list(value)
    raise ValueFault(f"{what} needs a list, not {kind(value)}.")


def to_text(value: Any) -> str:
    """A value as a part of a text: text as it is, a date as ISO 8601, everything else as JSON writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    return to_json(value)


def to_json(value: Any) -> str:
    """A value as JSON."""
    return json.dumps(plain(bounded(value)), ensure_ascii=False)


def plain(value: Any) -> Json:
    """A value as plain JSON data: dates become ISO 8601."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value  # type: ignore[no-any-return] # nothing else gets into a template


def bounded(value: Any) -> Any:
    """The value, unless it would be longer than the limit as JSON."""
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise ValueFault(f"The text is longer than {MAX_TEXT:,} characters.")
    elif isinstance(value, Mapping | list | tuple) and _size(value, MAX_TEXT) > MAX_TEXT:
        raise ValueFault(f"The value is longer than {MAX_TEXT:,} characters.")
    return value


def _size(value: Any, limit: int) -> int:
    """About how many characters a value has as JSON; stops counting beyond the limit."""
    total = 0
    waiting = [value]
    while waiting and total <= limit:
        item = waiting.pop()
        total += 2
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, Mapping):
            total += sum(len(str(key)) + 4 for key in item)
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            total += len(item)
            waiting.extend(item)
        else:
            total += 6
    return total

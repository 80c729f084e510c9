"""Compares plain JSON data as JSON has it: `1`, `1.0` and `true` are three values, and the order of keys is none."""

from __future__ import annotations

import json
from typing import Any


def json_text(value: Any) -> str:
    """The value as JSON, the same text for the same value; a tuple is a list."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON."""
    return json_text(one) == json_text(other)

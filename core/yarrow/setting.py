"""A setting: how it is declared, and how its value is read from YAML, from the environment and from a flag."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def setting(
    default: Any,
    doc: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    seconds: bool = False,
    secret: bool = False,
) -> Any:
    """Declares a setting: a dataclass field with what the reader, the reference and `config show` need to know.

    Args:
        default: What it is when nobody sets it.
        doc: One sentence for the reference.
        minimum, maximum: Bounds of a number, inclusive.
        choices: The texts allowed, in capitals.
        seconds: A time: a duration such as `5m` may be written.
        secret: Its value is never shown in full.
    """
    metadata = {
        "doc": doc,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "seconds": seconds,
        "secret": secret,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def absolute(path: Path, base: Path | None = None) -> Path:
    """An absolute path, `~` expanded, seen from `base` (the present folder). Links stay what they are."""
    return Path(os.path.normpath((base or Path.cwd()) / path.expanduser()))


# Reading one value: each reader takes what YAML or a text from the environment holds, and raises ValueError with the
# words that complete "must be ...".


def read_value(field: dataclasses.Field[Any], value: Any, base: Path) -> Any:
    if field.type == "Path":
        return _read_path(value, base)
    read: Callable[[dataclasses.Field[Any], Any], Any] = _READERS[str(field.type)]
    value = read(field, value)
    if field.name == "worker_python_path":
        return tuple(str(_read_path(item, base)) for item in value)
    return value


def _read_path(value: Any, base: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("the path of a folder")
    return absolute(Path(value), base)


def _read_text(field: dataclasses.Field[Any], value: Any) -> str:
    choices = field.metadata["choices"]
    if not isinstance(value, str):
        raise ValueError("text (put it in quotes)")
    if not choices:
        return value.strip()
    if value.strip().upper() not in choices:
        raise ValueError(f"one of {', '.join(choices)}")
    return value.strip().upper()


def _read_number(field: dataclasses.Field[Any], value: Any) -> float:
    whole = field.type != "float"
    number: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        number = _number_of(value.strip(), seconds=field.metadata["seconds"])
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    if (
        number is None
        or (whole and number != int(number))
        or (low is not None and number < low)
        or (high is not None and number > high)
    ):
        raise ValueError(_allowed_number(field))
    return int(number) if whole else float(number)


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _number_of(text: str, *, seconds: bool) -> float | None:
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)(ms|s|m|h|d)?", text)
    if not match or (match[2] and not seconds):
        return None
    return float(match[1]) * _UNITS[match[2] or "s"]


def _allowed_number(field: dataclasses.Field[Any]) -> str:
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    kind = "a number of seconds" if field.metadata["seconds"] else "a whole number"
    span = ""
    if low is not None:
        span = f" from {low:g} to {high:g}" if high is not None else f" of at least {low:g}"
    return f"{kind}{span}" + (", or a duration such as `90s` or `5m`" if field.metadata["seconds"] else "")


def _read_list(field: dataclasses.Field[Any], value: Any) -> tuple[str, ...]:
    allowed = "a list of texts; in the environment `a,b` or JSON"
    if isinstance(value, str):
        value = _json_or(value, "[", lambda text: [item.strip() for item in text.split(",") if item.strip()], allowed)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(allowed)
    return tuple(dict.fromkeys(value))


def _read_texts(field: dataclasses.Field[Any], value: Any) -> dict[str, str]:
    return {
        name: text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
        for name, text in _read_mapping(value).items()
    }


def _read_numbers(field: dataclasses.Field[Any], value: Any) -> dict[str, int]:
    try:
        return {name: int(_read_number(field, number)) for name, number in _read_mapping(value).items()}
    except ValueError as error:
        raise ValueError("a mapping of names to whole numbers; in the environment `a=1,b=2` or JSON") from error


def _read_mapping(value: Any) -> Mapping[str, Any]:
    allowed = "a mapping; in the environment `a=1,b=2` or JSON"
    if isinstance(value, str):
        value = _json_or(value, "{", _pairs, allowed)
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
        raise ValueError(allowed)
    return value


def _pairs(text: str) -> dict[str, str]:
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    if not all(sign for _, sign, _ in pairs):
        raise ValueError
    return {name.strip(): value.strip() for name, _, value in pairs}


def _json_or(text: str, bracket: str, otherwise: Callable[[str], Any], allowed: str) -> Any:
    try:
        return json.loads(text) if text.lstrip().startswith(bracket) else otherwise(text)
    except ValueError as error:
        raise ValueError(allowed) from error


_READERS: Mapping[str, Callable[[dataclasses.Field[Any], Any], Any]] = {
    "str": _read_text,
    "int": _read_number,
    "float": _read_number,
    "tuple[str, ...]": _read_list,
    "Mapping[str, int]": _read_numbers,
    "Mapping[str, str]": _read_texts,
}


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

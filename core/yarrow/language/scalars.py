"""Shapes of single values: texts, numbers, truth values, durations, enumerations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from yarrow.language import codes
from yarrow.language.durations import parse_duration
from yarrow.language.nodes import describe
from yarrow.language.shape import Problem, Schema, Shape, did_you_mean
from yarrow.schedules.cron import LONGEST_EXPRESSION, cron_pattern
from yarrow.schedules.zones import zone_names

_DATE: Final = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?)?"


class Text(Shape):
    """A text."""

    __slots__ = ("literal", "nonempty", "pattern", "rule")
    words = "text"

    def __init__(
        self,
        *,
        template: bool = False,
        literal: bool = False,
        nonempty: bool = False,
        pattern: str | None = None,
        rule: str | None = None,
    ) -> None:
        super().__init__(template)
        self.literal = literal  # without templates: `{{` is ordinary text
        self.pattern = re.compile(pattern) if pattern is not None else None
        self.rule = rule  # the pattern of an id, in words
        self.nonempty = nonempty

    def takes_braces(self) -> bool:
        return self.literal

    def problem(self, value: Any) -> Problem | None:
        if not isinstance(value, str):
            return self.wrong_type(value)
        if self.nonempty and not value.strip():
            return codes.BAD_VALUE, "must not be empty.", None
        if self.pattern is not None and self.pattern.fullmatch(value) is None:
            if self.rule is not None:
                return codes.BAD_ID, f"is not allowed to be {describe(value)}.", f"It {self.rule}."
            return codes.BAD_VALUE, f"must match `{self.pattern.pattern}`; {describe(value)} does not.", None
        return None

    def type_hint(self, value: Any) -> str | None:
        if isinstance(value, bool):
            return f'Quote it if it is text: "{str(value).lower()}".'
        return f'Quote it: "{value}".' if isinstance(value, int | float) else None

    def json_schema(self) -> Schema:
        schema: Schema = {"type": "string"}
        if self.nonempty:
            schema["pattern"] = r"\S"
        if self.pattern is not None:
            schema["pattern"] = f"^(?:{self.pattern.pattern})$"
        return self.or_template(schema) if self.pattern is not None else schema


class CronText(Text):
    """A cron expression or a preset. The schema tells what a pattern can; `schedules.cron` reads it in earnest."""

    __slots__ = ()

    def json_schema(self) -> Schema:
        return {"type": "string", "maxLength": LONGEST_EXPRESSION, "pattern": cron_pattern()}


class ZoneText(Text):
    """The name of a time zone. The schema lists them, so that an editor completes it."""

    __slots__ = ()

    def json_schema(self) -> Schema:
        return {"enum": zone_names()}


class Number(Shape):
    """A number, or a whole number, within bounds."""

    __slots__ = ("integer", "maximum", "minimum")
    words = "a number"

    def __init__(
        self,
        *,
        integer: bool = False,
        minimum: float | None = None,
        maximum: float | None = None,
        template: bool = False,
    ) -> None:
        super().__init__(template)
        self.integer = integer
        self.minimum = minimum
        self.maximum = maximum

    def expects(self) -> str:
        return "a whole number" if self.integer else "a number"

    def problem(self, value: Any) -> Problem | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.wrong_type(value)
        if self.integer and isinstance(value, float) and not value.is_integer():
            return self.wrong_type(value)
        if self.minimum is not None and value < self.minimum:
            return codes.BAD_VALUE, f"must be at least {self.minimum:g}, not {value}.", None
        if self.maximum is not None and value > self.maximum:
            return codes.BAD_VALUE, f"must be at most {self.maximum:g}, not {value}.", None
        return None

    def convert(self, value: Any) -> Any:
        return int(value) if self.integer else value

    def type_hint(self, value: Any) -> str | None:
        if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d+)?", value):
            return "Write it without quotes." if str(value)[:1] != "0" else "Write it without a leading zero."
        return None

    def json_schema(self) -> Schema:
        schema: Schema = {"type": "integer" if self.integer else "number"}
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.maximum is not None:
            schema["maximum"] = self.maximum
        return self.or_template(schema)


class Boolean(Shape):
    """True or false."""

    __slots__ = ()
    words = "true or false"

    def problem(self, value: Any) -> Problem | None:
        return None if isinstance(value, bool) else self.wrong_type(value)

    def type_hint(self, value: Any) -> str | None:
        if isinstance(value, str) and value.lower() in ("yes", "no", "on", "off", "y", "n", "true", "false"):
            return "Write `true` or `false`, without quotes: in YAML 1.2 `yes`, `no`, `on` and `off` are texts."
        return None

    def json_schema(self) -> Schema:
        return self.or_template({"type": "boolean"})


class Null(Shape):
    """Nothing."""

    __slots__ = ()
    words = "null"

    def problem(self, value: Any) -> Problem | None:
        return None if value is None else self.wrong_type(value)

    def json_schema(self) -> Schema:
        return {"type": "null"}


class Duration(Shape):
    """A duration such as `90s`. Its value is the text, or seconds with `seconds`."""

    __slots__ = ("positive", "seconds")
    words = "a duration such as `90s`, `5m`, `2h` or `1d`"

    def __init__(self, *, template: bool = False, seconds: bool = False, positive: bool = False) -> None:
        super().__init__(template)
        self.seconds = seconds
        self.positive = positive

    def problem(self, value: Any) -> Problem | None:
        if isinstance(value, Mapping | list):
            return self.wrong_type(value)
        if not isinstance(value, str):
            hint = f"Write `{value}s` for seconds." if type(value) in (int, float) and value >= 0 else None
            return codes.BAD_DURATION, f"must be {self.words}, not {describe(value)}.", hint
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            return codes.BAD_DURATION, f"is wrong: {error}.", None
        if self.positive and seconds == 0:
            return codes.BAD_DURATION, "must be longer than `0s`.", None
        return None

    def convert(self, value: Any) -> Any:
        return parse_duration(value) if self.seconds else value

    def json_schema(self) -> Schema:
        more = r"(?=.*[1-9])" if self.positive else ""
        return self.or_template({"type": "string", "pattern": rf"^{more}\d{{1,9}}(\.\d{{1,9}})?(ms|s|m|h|d)$"})


class Date(Shape):
    """A date, or a date and time, in ISO 8601."""

    __slots__ = ()
    words = "a date such as `2013-01-01` or `2013-01-01T06:00`"

    def problem(self, value: Any) -> Problem | None:
        if isinstance(value, str) and re.fullmatch(_DATE, value, re.ASCII):
            try:
                datetime.fromisoformat(value)
            except ValueError as error:
                return codes.BAD_DATE, f"is not a date: {error}.", None
            return None
        return codes.BAD_DATE, f"must be {self.words}, not {describe(value)}.", None

    def json_schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{_DATE})$"}


class Enum(Shape):
    """One of a few values."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[str | int | bool | None], *, template: bool = False) -> None:
        super().__init__(template)
        self.values = tuple(values)

    def expects(self) -> str:
        return "one of " + ", ".join(f"`{_word(value)}`" for value in self.values)

    def problem(self, value: Any) -> Problem | None:
        if any(value == known and type(value) is type(known) for known in self.values):
            return None
        hint = did_you_mean(value, [known for known in self.values if isinstance(known, str)])
        if isinstance(value, Mapping | list) or type(value) not in {type(known) for known in self.values}:
            return codes.WRONG_TYPE, f"must be {self.expects()}, not {describe(value)}.", hint
        return codes.BAD_VALUE, f"must be {self.expects()}, not {describe(value)}.", hint

    def json_schema(self) -> Schema:
        return self.or_template({"enum": list(self.values)})


def _word(value: Any) -> str:
    return value if isinstance(value, str) else {True: "true", False: "false", None: "null"}.get(value, str(value))

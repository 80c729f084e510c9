"""Waits for a moment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any, TypedDict
from zoneinfo import ZoneInfo

from yarrow import Context, Duration, Fail, NotYet, Sensor, param
from yarrow.language.durations import parse_duration
from yarrow.operator import ArgumentPath
from yarrow_operators.moments import HINT, is_moment, read_moment

_TIME = r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d)?"


class WaitUntil(Sensor):
    """Waits until a moment, and goes on at once when it has passed.

    It knows when to look again, so it looks at most twice, and `poke_interval` does not matter. A moment that lies
    beyond the `timeout` of 7 days fails at once: give a longer `timeout` to wait for it.
    """

    at: str | None = param(
        default=None,
        doc="The date and time, in ISO 8601; without an offset it is in the DAG's time zone.",
        examples=("{{ ds }}T18:00:00",),
    )
    time: str | None = param(
        default=None,
        doc="The time of day in the DAG's time zone, on the day on which the data interval ends.",
        pattern=_TIME,
        examples=("06:00",),
    )
    delay: Duration | None = param(
        default=None, doc="How long after the end of the data interval.", template=False, examples=("90m",)
    )

    class Outputs(TypedDict):
        at: str

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """No moment, several, and one that is none."""
        yield from super().check(arguments, downstream)
        given = [name for name in ("at", "time", "delay") if arguments.get(name) is not None]
        if len(given) != 1:
            yield tuple(given[1:2]), "Give one of `at`, `time` and `delay`."
        at = arguments.get("at")
        if isinstance(at, str) and not is_moment(at):
            yield ("at",), f"`at` is not a date and time: {at!r}. {HINT}"

    def poke(self, context: Context) -> Outputs | NotYet:
        moment = self._moment(context)
        if context.now() >= moment:
            return {"at": moment.isoformat()}
        latest = context.first_started_at + timedelta(seconds=parse_duration(self.timeout))
        shown = moment.astimezone(ZoneInfo(context.timezone)).isoformat(sep=" ")
        if moment > latest:
            raise Fail(
                f"{shown} is further away than the `timeout` of {self.timeout}.", hint="Give a longer `timeout`."
            )
        return NotYet(f"Waiting until {shown}.")

    def next_look(self, context: Context) -> datetime:
        return self._moment(context)

    def _moment(self, context: Context) -> datetime:
        if self.at is not None:
            return read_moment(self.at, context.timezone, "at")
        if self.delay is not None:
            return context.data_interval_end.astimezone(UTC) + timedelta(seconds=parse_duration(self.delay))
        if self.time is None or re.fullmatch(_TIME, self.time, re.ASCII) is None:
            raise Fail("Give one of `at`, `time` and `delay`.")
        zone = ZoneInfo(context.timezone)
        day = context.data_interval_end.astimezone(zone).date()
        hour, minute, second = (int(part) for part in f"{self.time}:00".split(":")[:3])
        # Of a time that does not exist Python takes the offset from before the gap: it is shifted forward.
        return datetime.combine(day, time(hour, minute, second), tzinfo=zone).astimezone(UTC)

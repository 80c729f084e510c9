"""The base of operators that wait for something and hold no worker slot meanwhile::

from pathlib import Path
from typing import TypedDict

from yarrow import Context, NotYet, Sensor, param


class WaitForFlag(Sensor):
    \"\"\"Waits until a flag is there.\"\"\"

    path: str = param(doc="Of the flag.")

    class Outputs(TypedDict):
        path: str

    def poke(self, context: Context) -> Outputs | NotYet:
        if not Path(self.path).exists():
            return NotYet(f"`{self.path}` is not there.")
        return {"path": self.path}
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from yarrow.errors import Fail, Reschedule
from yarrow.language.durations import parse_duration
from yarrow.operator import ArgumentPath, Context, Duration, Operator, param


class SensorTimeout(Fail):
    """What the sensor waited for has not come in time."""


class NotYet:
    """What `poke` returns to say what is missing; it is false, as every other answer that means "not yet"."""

    def __init__(self, reason: str) -> None:
        """Args: reason: A sentence for people."""
        self.reason = reason

    def __bool__(self) -> bool:
        return False


class Sensor(Operator):
    """Looks whether something is there, and looks again after a while until it is.

    Between two looks the attempt is put off: it holds no slot of a worker or a pool, and the next look may happen on
    another worker. All looks of one try share its number, its log and its work folder.
    """

    poke_interval: Duration = param(default="60s", doc="The time between two looks; at least a second.", template=False)
    timeout: Duration = param(
        default="7d",
        doc="How long a try waits altogether. When it is over, a last look is taken, and then the task fails without "
        "another try; with the task's `soft_fail: true` it is skipped.",
        template=False,
    )

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """An interval that would keep a worker busy."""
        interval = arguments.get("poke_interval")
        if isinstance(interval, str) and parse_duration(interval) < 1:
            yield ("poke_interval",), f"`poke_interval` must be at least a second, not `{interval}`."

    @abstractmethod
    def poke(self, context: Context) -> Any:
        """Looks once, and soon comes back.

        Returns:
            Anything false (None, an empty list, `NotYet("what is missing")`) when it is not there yet; otherwise the
            XCom, or True for none.

        Raises:
            Exception: As of `Operator.execute`; a try that fails is retried as the task's `retries` say.
        """

    def next_look(self, context: Context) -> datetime:
        """When to look again. After `poke_interval`, unless a subclass knows better."""
        return context.now() + timedelta(seconds=parse_duration(self.poke_interval))

    def execute(self, context: Context) -> Any:
        found = self.poke(context)
        if found:
            return None if found is True else found
        missing = found.reason if isinstance(found, NotYet) else "What it waits for is not there yet."
        deadline = context.first_started_at + timedelta(seconds=parse_duration(self.timeout))
        if context.now() >= deadline:
            raise SensorTimeout(f"Waited for {self.timeout} in vain. {missing}")
        raise Reschedule(min(self.next_look(context), deadline), missing)

"""Waits for a task or a run of another DAG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict
from zoneinfo import ZoneInfo

from yarrow import Context, Duration, Fail, NotYet, Sensor, Skip, param
from yarrow.language.durations import parse_duration
from yarrow.operator import ArgumentPath
from yarrow_operators.moments import HINT, is_moment, read_moment

_State = Literal["success", "failed", "skipped", "upstream_failed"]


class WaitForTask(Sensor):
    """Waits until a task of another DAG, or a whole run of it, has ended.

    It looks at the run of that DAG which has the same logical date as its own run, unless `logical_date` or `offset`
    names another one. As long as there is no such run, it waits. A mapped task has ended when all its instances have.

    In `yarrow dags test` there are no other runs: what it waits for is taken to have succeeded.
    """

    dag_id: str = param(doc="The other DAG.")
    task_id: str | None = param(default=None, doc="The task in it; by default the whole run is waited for.")
    logical_date: str | None = param(
        default=None,
        doc="The logical date of the other run, in ISO 8601; without an offset it is in this DAG's time zone.",
        examples=("{{ macros.ds_add(ds, -1) }}",),
    )
    offset: Duration | None = param(
        default=None,
        doc="How much earlier than its own the logical date of the other run is. Whole days are counted by the "
        "calendar of the DAG's time zone.",
        template=False,
        examples=("1d",),
    )
    allowed_states: list[_State] = param(default=["success"], doc="The states that it waits for.")
    failed_states: list[_State] = param(
        default=["failed", "upstream_failed"], doc="The states with which it fails at once, without another try."
    )
    skipped_states: list[_State] = param(default=[], doc="The states with which it is skipped.")

    class Outputs(TypedDict):
        run_id: str
        state: str

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """Two dates, a date that is none, and a state that means two things."""
        yield from super().check(arguments, downstream)
        date = arguments.get("logical_date")
        if date is not None and arguments.get("offset") is not None:
            yield ("offset",), "Give either `logical_date` or `offset`."
        if isinstance(date, str) and not is_moment(date):
            yield ("logical_date",), f"`logical_date` is not a date: {date!r}. {HINT}"
        named: dict[str, str] = {}
        for name in ("allowed_states", "failed_states", "skipped_states"):
            states = arguments.get(name)
            for state in states if isinstance(states, list) else []:
                if state in named:
                    yield (name,), f"`{state}` is in `{named[state]}` as well as in `{name}`."
                named[state] = name
        if arguments.get("allowed_states") == []:
            yield ("allowed_states",), "`allowed_states` is empty, so it would never end well."

    def poke(self, context: Context) -> Outputs | NotYet:
        date = self._date(context)
        what = f"the task `{self.task_id}`" if self.task_id else "the run"
        run = f"{what} of the DAG `{self.dag_id}` with the logical date {date.isoformat()}"
        found = context.task_state(self.dag_id, self.task_id, date)
        if found is None:
            return NotYet(f"There is no such run yet: {run}.")
        # A state that is waited for counts as that, also where the defaults say otherwise.
        if found.state in self.allowed_states:
            return {"run_id": found.run_id, "state": found.state}
        if found.state in self.skipped_states:
            raise Skip(f"Skipped as it was waiting for {run}, which is {found.state}.")
        if found.state in self.failed_states:
            raise Fail(f"It would wait in vain: {run} is {found.state}.")
        return NotYet(f"Waiting for {run}, which is {found.state}.")

    def _date(self, context: Context) -> datetime:
        if self.logical_date is not None:
            return read_moment(self.logical_date, context.timezone, "logical_date")
        days, seconds = divmod(parse_duration(self.offset) if self.offset else 0.0, 86400)
        # Days by the calendar: the run before that of a day on which the clocks change is not 24 hours away.
        local = context.logical_date.astimezone(ZoneInfo(context.timezone)) - timedelta(days=days)
        return local.astimezone(UTC) - timedelta(seconds=seconds)

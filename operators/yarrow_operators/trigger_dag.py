"""Starts a run of another DAG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypedDict

from yarrow import Context, Fail, Operator, param
from yarrow.jsontypes import Json
from yarrow.operator import ArgumentPath

_DATE_HINT = "Write 2013-01-01T00:00:00+00:00."


class TriggerDag(Operator):
    """Starts a run of another DAG and goes on without waiting for it.

    However often the task is tried, it starts one run.
    """

    dag_id: str = param(doc="The DAG to run.")
    params: dict[str, Json] = param(default={}, doc="The params of the run; the DAG's own defaults fill in the rest.")
    logical_date: str | None = param(
        default=None,
        doc="The logical date of the run, in ISO 8601; UTC when it has no offset. By default the moment of the start.",
        examples=("{{ ts }}",),
    )

    class Outputs(TypedDict):
        dag_id: str
        run_id: str

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """A date that is none."""
        date = arguments.get("logical_date")
        if isinstance(date, str) and _read_date(date) is None:
            yield ("logical_date",), f"`logical_date` is not a date: {date!r}. {_DATE_HINT}"

    def execute(self, context: Context) -> Outputs:
        run_id = context.trigger_dag(self.dag_id, params=self.params, logical_date=self._logical_date())
        context.log.info("Run %s of DAG %s.", run_id, self.dag_id)
        return {"dag_id": self.dag_id, "run_id": run_id}

    def _logical_date(self) -> datetime | None:
        if self.logical_date is None:
            return None
        date = _read_date(self.logical_date)
        if date is None:
            raise Fail(f"`logical_date` is not a date: {self.logical_date!r}.", hint=_DATE_HINT)
        return date


def _read_date(text: str) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)

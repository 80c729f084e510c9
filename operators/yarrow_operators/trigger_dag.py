"""Starts a run of another DAG."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypedDict

from yarrow import Context, Fail, Operator, param
from yarrow.jsontypes import Json


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

    def execute(self, context: Context) -> Outputs:
        run_id = context.trigger_dag(self.dag_id, params=self.params, logical_date=self._logical_date())
        context.log.info("Run %s of DAG %s.", run_id, self.dag_id)
        return {"dag_id": self.dag_id, "run_id": run_id}

    def _logical_date(self) -> datetime | None:
        if self.logical_date is None:
            return None
        try:
            date = datetime.fromisoformat(self.logical_date)
        except ValueError as error:
            raise Fail(
                f"`logical_date` is not a date: {self.logical_date!r}.", hint="Write 2013-01-01T00:00:00+00:00."
            ) from error
        return date if date.tzinfo else date.replace(tzinfo=UTC)

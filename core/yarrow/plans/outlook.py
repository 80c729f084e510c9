"""What tasks that look at the run before theirs will find there, as a backfill goes through its span."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from yarrow.decision.decisions import PastView
from yarrow.decision.past import unmet
from yarrow.language.spec import DagSpec
from yarrow.plans.scope import instances
from yarrow.plans.situation import RunFacts
from yarrow.states import FAILED_TASK_STATES, TaskState

SCHEDULED_TYPES = ("scheduled", "backfill")
"""The types of runs that stand for the schedule: with catchup, these alone count as the run before."""


class Outlook:
    """The run before the one that is looked at, as it will be: what has failed in it and stays so."""

    def __init__(self, newest: DagSpec, before: RunFacts | None) -> None:
        self._any_type = not newest.catchup
        self._previous: PastView | None = None
        if before is not None:
            self.passes(before)

    def passes(self, run: RunFacts, rerun: Collection[str] = ()) -> None:
        """Goes on behind a run, of which some tasks will run again."""
        if self._any_type or run.run_type in SCHEDULED_TYPES:
            left = {task_id: rows for task_id, rows in instances(run).items() if task_id not in rerun}
            failed = {
                task_id: one.state
                for task_id, rows in left.items()
                for one in rows
                if one.state in FAILED_TASK_STATES or (run.state.finished and not one.state.finished)
            }
            self._set(run.run_id, failed)

    def makes(self, run_id: str) -> None:
        """Goes on behind a run that is yet to be made."""
        self._set(run_id, {})

    def blocks(self, spec: DagSpec, task_ids: Collection[str]) -> str | None:
        """Why some tasks of the next run would wait for ever; None: they would not."""
        for task_id in [one for one in spec.tasks if one in task_ids] if spec.looks_back else ():
            reason = unmet(spec.tasks[task_id], spec.downstream[task_id], self._previous)
            if reason is not None:
                return reason
        return None

    def _set(self, run_id: str, failed: Mapping[str, TaskState]) -> None:
        self._previous = PastView(run_id, {task_id: (state,) for task_id, state in failed.items()})

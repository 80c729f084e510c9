"""Step `decide`: what follows from the states of each run to which something happened."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from yarrow import xcom
from yarrow.decide import decide
from yarrow.errors import NotFound, StoreError
from yarrow.states import TaskState
from yarrow.store import Store

_RUNS_AT_ONCE = 100
_LONGEST_QUARANTINE = 300  # seconds
_LONGEST_ERROR = 500  # characters

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Decided:
    """What a pass of the step did."""

    ended: list[str] = field(default_factory=list)  # the dag_ids of runs that ended
    more: bool = False  # there are more runs to decide on
    published: bool = False  # data sets, for which DAGs may wait
    refused: bool = False  # something happened to a run in the middle of it: decide again


class Decider:
    """Decides on runs. A run on which that fails is left alone for ever longer; the others go on."""

    def __init__(self, store: Store, queued_timeout: float) -> None:
        self._store = store
        self._queued_timeout = queued_timeout
        self._failures: dict[int, int] = {}

    def decide(self, now: datetime) -> Decided:
        """Decides on the runs to which something happened, or whose wait is over."""
        decided = Decided()
        ids = self._store.runs.undecided(now, _RUNS_AT_ONCE)
        decided.more = len(ids) == _RUNS_AT_ONCE
        for id_ in ids:
            try:
                self._decide_one(id_, now, decided)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - one bad run must not stop the others
                self._quarantine(id_, error, now)
            else:
                self._failures.pop(id_, None)
        return decided

    def _decide_one(self, id_: int, now: datetime, decided: Decided) -> None:
        snapshot = self._store.runs.snapshot(id_)
        if snapshot is None:
            return
        run = snapshot.record
        xcoms = {instance: xcom.resolve(value) for instance, value in snapshot.xcoms.items()}
        decisions = decide(snapshot.spec, run.view, snapshot.tasks, now, xcoms, snapshot.past)
        applied = self._store.runs.apply(id_, decisions, run.change_seq, queued_timeout=self._queued_timeout, now=now)
        decided.published |= any(
            decision.to_state is TaskState.SUCCESS and snapshot.spec.tasks[decision.task_id].outlets
            for decision in decisions.tasks
        )
        for expansion in decisions.expansions if applied else ():
            _log.debug(
                "task %s of run %s of %s has %d instances now",
                expansion.task_id,
                run.run_id,
                run.dag_id,
                len(expansion.values),
                extra={"action": "task_expanded", "dag_id": run.dag_id, "run_id": run.run_id},
            )
        if not applied:
            decided.refused = True
        elif decisions.run is not None:
            decided.ended.append(run.dag_id)
            state, reason = decisions.run.to_state, decisions.run.reason
            _log.info(
                "run %s of %s ended as %s%s",
                run.run_id,
                run.dag_id,
                state,
                f": {reason}" if reason else "",
                extra={"action": "run_ended", "dag_id": run.dag_id, "run_id": run.run_id, "state": str(state)},
            )

    def _quarantine(self, id_: int, error: Exception, now: datetime) -> None:
        seconds = min(2 ** self._failures.get(id_, 0), _LONGEST_QUARANTINE)
        text = f"Deciding on this run failed with {type(error).__name__}: {error}"[:_LONGEST_ERROR]
        try:
            self._failures[id_] = self._store.runs.quarantine(id_, text, now + timedelta(seconds=seconds))
        except NotFound:
            return  # it has ended meanwhile
        _log.error(
            "run %d is left alone for %d s: %s", id_, seconds, text, exc_info=error, extra={"action": "run_quarantined"}
        )

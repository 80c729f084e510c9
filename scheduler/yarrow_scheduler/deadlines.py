"""Step `deadlines`: people are told of runs and tasks that were not done in time."""

from __future__ import annotations

import logging
from datetime import datetime

from yarrow.store import Store

_AT_ONCE = 100

_log = logging.getLogger(__name__)


class DeadlineWatch:
    """Judges deadlines as they pass."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.next_due: datetime | None = None
        """When the next one passes, as of the last look."""

    def judge(self, now: datetime) -> bool:
        """Judges what has passed. Returns whether there is more of it to judge at once."""
        self.next_due = self._store.deadlines.next_due()
        if self.next_due is None or self.next_due > now:
            return False
        passed, missed = self._store.deadlines.judge(now, _AT_ONCE)
        for deadline in missed:
            _log.warning(
                "run %s of %s missed the deadline%s",
                deadline.run_id,
                deadline.dag_id,
                f" of its task {deadline.task_id}" if deadline.task_id else "",
                extra={"action": "deadline_missed", "dag_id": deadline.dag_id, "run_id": deadline.run_id},
            )
        self.next_due = self._store.deadlines.next_due()
        return passed == _AT_ONCE

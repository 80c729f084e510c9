"""Works out what a backfill does for each data interval of its span."""

from __future__ import annotations

from yarrow.plans.plan import RunChange
from yarrow.plans.requests import BackfillRequest
from yarrow.plans.situation import Situation


def plan_backfill(request: BackfillRequest, situation: Situation) -> list[RunChange]:
    """What becomes of each data interval, in the order in which the runs go."""
    raise NotImplementedError

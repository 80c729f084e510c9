"""Works out what clearing does to each task instance."""

from __future__ import annotations

from yarrow.plans.plan import RunChange
from yarrow.plans.requests import ClearRequest
from yarrow.plans.situation import Situation


def plan_clear(request: ClearRequest, situation: Situation) -> list[RunChange]:
    """What becomes of each run that the request is about."""
    raise NotImplementedError

"""Works out what marking does to each task instance and its run."""

from __future__ import annotations

from yarrow.plans.plan import RunChange
from yarrow.plans.requests import MarkRequest
from yarrow.plans.situation import Situation


def plan_mark(request: MarkRequest, situation: Situation) -> list[RunChange]:
    """What becomes of each run that the request is about."""
    raise NotImplementedError

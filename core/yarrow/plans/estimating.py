"""Estimates how long a plan takes and what it asks of pools, from the durations of past runs."""

from __future__ import annotations

from collections.abc import Sequence

from yarrow.plans.plan import Estimate, RunChange
from yarrow.plans.requests import Request
from yarrow.plans.situation import Situation


def estimate(request: Request, runs: Sequence[RunChange], situation: Situation) -> Estimate:
    """The estimate for all runs of a plan together."""
    raise NotImplementedError

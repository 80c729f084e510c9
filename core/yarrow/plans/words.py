"""Requests and plans in words."""

from __future__ import annotations

from collections.abc import Sequence

from yarrow.plans.plan import RunChange
from yarrow.plans.requests import Request
from yarrow.plans.situation import Situation


def request_text(request: Request) -> str:
    """A request in a line: for the history."""
    raise NotImplementedError


def notes_of(request: Request, runs: Sequence[RunChange], situation: Situation) -> list[str]:
    """What people should know about a plan besides its rows, in sentences."""
    raise NotImplementedError

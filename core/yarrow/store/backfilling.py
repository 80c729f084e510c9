"""How a plan to backfill is carried out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from yarrow.plans.plan import RunChange
from yarrow.plans.requests import BackfillRequest
from yarrow.store.database import Database
from yarrow.store.specs import Specs


def begin(
    database: Database,
    specs: Specs,
    connection: Connection,
    plan_id: str,
    request: BackfillRequest,
    runs: Sequence[RunChange],
    who: str,
    at: datetime,
) -> int:
    """Makes the backfill and its runs. Returns its id."""
    raise NotImplementedError

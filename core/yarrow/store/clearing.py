"""How a plan to clear is carried out, run by run."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from yarrow.plans.plan import RunChange
from yarrow.store.database import Database
from yarrow.store.specs import Specs


def carry_out(
    database: Database,
    specs: Specs,
    connection: Connection,
    dag_id: str,
    change: RunChange,
    reason: str | None,
    who: str,
    at: datetime,
) -> None:
    """Makes the change to a run whose rows are locked."""
    raise NotImplementedError

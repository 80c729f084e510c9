"""What is read of a DAG and its runs before a plan is made of it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from yarrow.plans.requests import Request
from yarrow.plans.situation import Situation
from yarrow.store.specs import Specs


def load(connection: Connection, specs: Specs, request: Request, now: datetime, *, locked: bool) -> Situation:
    """What a request is about, as it stands.

    Args:
        locked: Runs and task instances stay as they are until the transaction ends.

    Raises:
        NotFound: There is no such DAG or run.
    """
    raise NotImplementedError

"""Plans: drawn, looked at, and applied exactly as they were shown."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from string import hexdigits
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from yarrow.errors import Conflict, NotFound, UsageError
from yarrow.plans.backfilling import plan_backfill
from yarrow.plans.clearing import plan_clear
from yarrow.plans.estimating import estimate
from yarrow.plans.marking import plan_mark
from yarrow.plans.plan import Plan, RunChange, differences
from yarrow.plans.requests import BackfillRequest, ClearRequest, Request, check_text
from yarrow.plans.situation import Situation
from yarrow.plans.words import notes_of, request_text
from yarrow.store import backfilling, clearing, marking, situations
from yarrow.store.database import Database
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.tables import plan
from yarrow.store.transitions import append, history_line

KEPT = timedelta(days=7)
"""How long a plan is kept that nobody has applied."""

_SHORTEST_ID = 6

_BY_ID = select(plan).where(plan.c.id.startswith(bindparam("id"))).order_by(plan.c.id).limit(2)
_LIST = select(plan.c.document, plan.c.run_count).order_by(plan.c.planned_at.desc())
_LOCK = select(plan.c.applied_at).where(plan.c.id == bindparam("id")).with_for_update()
_APPLIED = (
    update(plan)
    .where(plan.c.id == bindparam("plan_id"), plan.c.applied_at.is_(None))
    .values(applied_at=bindparam("at"), applied_by=bindparam("by"), document=bindparam("document_"))
)


class Plans:
    """Plans to clear, to mark and to backfill. Every method is one transaction."""

    def __init__(self, database: Database, specs: Specs) -> None:
        self._database = database
        self._specs = specs

    def draw(self, request: Request, *, who: str, now: datetime | None = None) -> Plan:
        """Works out what a request would do, and keeps that under an id. Nothing else is changed.

        Raises:
            UsageError: It asks for what there is not, or for nothing at all.
        """
        check_text(request)
        at = self._database.now(now)
        drawn = self._database.read(lambda connection: self._plan(connection, request, who, at, locked=False))
        self._database.write(lambda connection: _keep(connection, drawn))
        return drawn

    def get(self, plan_id: str) -> Plan:
        """The plan with that id, or with the only id that begins so. Raises NotFound."""
        return self._database.read(lambda connection: _read(_row(connection, plan_id)))

    def list(self, dag_id: str | None = None, limit: int = 50) -> builtins.list[tuple[Plan, int]]:
        """Plans without their runs, each with how many there are to which something happens; the newest first."""
        query = _LIST if dag_id is None else _LIST.where(plan.c.dag_id == dag_id)
        rows = self._database.read(lambda connection: connection.execute(query.limit(limit)).all())
        return [(Plan.from_json({**row.document, "runs": ()}), row.run_count) for row in rows]

    def apply(self, plan_id: str, *, who: str, now: datetime | None = None) -> Plan:
        """Does exactly what a plan lists, if it would still come out the same.

        Raises:
            NotFound: There is no such plan.
            Conflict: It has been applied before, or something has changed since; nothing was done.
            UsageError: It lists nothing to do, or what it asks for is not there any more.
        """
        at = self._database.now(now)
        # What it lists never changes, and may be long: it is not read while others can't write.
        row = self._database.read(lambda connection: _row(connection, plan_id))
        kept = _read(row)

        def work(connection: Connection) -> Plan:
            locked = connection.execute(_LOCK, {"id": row.id}).one_or_none()
            if locked is None:
                raise NotFound(f"There is no plan {row.id!r} any more.", hint="Make a new one.")
            if locked.applied_at is not None:
                raise Conflict(f"The plan {row.id} was applied at {locked.applied_at:%Y-%m-%d %H:%M:%S} UTC.")
            fresh = self._plan(connection, kept.request, who, at, locked=True)
            if fresh.digest != row.digest:
                changes = "; ".join(differences(kept, fresh)) or "what was asked for comes out another way"
                raise Conflict(
                    f"The plan {row.id} is out of date, and nothing was done: {changes}.", hint="Make a new plan."
                )
            return self._apply(connection, kept, fresh, who, at)

        return self._database.write(work)

    def carry_out(self, request: Request, *, who: str, now: datetime | None = None) -> Plan:
        """Works out what a request comes to and does it, in one transaction. Raises as `draw` and `apply` do."""
        check_text(request)
        at = self._database.now(now)

        def work(connection: Connection) -> Plan:
            fresh = self._plan(connection, request, who, at, locked=True)
            _keep(connection, fresh)
            return self._apply(connection, fresh, fresh, who, at)

        return self._database.write(work)

    def _plan(self, connection: Connection, request: Request, who: str, at: datetime, *, locked: bool) -> Plan:
        """The plan of a request. When `locked`, the rows that it is about stay as they are until the end."""
        situation = situations.load(connection, self._specs, request, at, locked=locked)
        runs = tuple(_planned(request, situation))
        return Plan(
            id=self._database.new_id()[:12],
            request=request,
            runs=runs,
            planned_at=at,
            planned_by=who,
            estimate=estimate(request, runs, situation),
            notes=tuple(notes_of(request, runs, situation)),
        )

    def _apply(self, connection: Connection, kept: Plan, fresh: Plan, who: str, at: datetime) -> Plan:
        if not fresh.effective:
            reasons = list(dict.fromkeys(run.reason for run in fresh.runs if run.reason))
            many = f" in any of {len(fresh.runs):,} runs" if len(fresh.runs) > 1 else ""
            others = ", or another reason" if len(reasons) > 1 else ""
            raise UsageError(f"There is nothing to do{many}{f': {reasons[0]}{others}' if reasons else ''}.")
        request = fresh.request
        result: dict[str, int] = {}
        if isinstance(request, BackfillRequest):
            result["backfill_id"] = backfilling.begin(
                self._database, self._specs, connection, kept.id, request, fresh.runs, who, at
            )
        else:
            carry_out = clearing.carry_out if isinstance(request, ClearRequest) else marking.carry_out
            carry_out(self._specs, connection, request.dag_id, fresh.effective, request.reason, who, at)
        applied = replace(kept, applied_at=at, applied_by=who, result=result)
        document = replace(applied, runs=()).to_json()
        document["digest"] = fresh.digest
        connection.execute(_APPLIED, {"plan_id": kept.id, "at": at, "by": who, "document_": _without_runs(document)})
        reason = f"plan {kept.id}: {request_text(request)}"
        append(connection, [history_line("plan.applied", at=at, who=who, dag_id=request.dag_id, reason=reason)])
        return applied


def _planned(request: Request, situation: Situation) -> builtins.list[RunChange]:
    if isinstance(request, ClearRequest | BackfillRequest) and situation.is_paused and not request.while_paused:
        dag_id = request.dag_id
        hint = f"Unpause it with `yarrow dags unpause {dag_id}`, or have the runs wait with --while-paused."
        raise UsageError(f"{dag_id} is paused: none of its tasks would run.", hint=hint)
    if isinstance(request, BackfillRequest):
        return plan_backfill(request, situation)
    return plan_clear(request, situation) if isinstance(request, ClearRequest) else plan_mark(request, situation)


def _keep(connection: Connection, drawn: Plan) -> None:
    connection.execute(delete(plan).where(plan.c.planned_at < drawn.planned_at - KEPT, plan.c.applied_at.is_(None)))
    document = drawn.to_json()
    row = {
        "id": drawn.id,
        "kind": drawn.request.kind,
        "dag_id": drawn.request.dag_id,
        "document": _without_runs(document),
        "runs": document["runs"],
        "run_count": len(drawn.effective),
        "digest": drawn.digest,
        "planned_at": drawn.planned_at,
        "planned_by": drawn.planned_by,
    }
    connection.execute(insert(plan), row)


def _without_runs(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "runs"}


def _row(connection: Connection, plan_id: str) -> AnyRow:
    wanted = plan_id.strip().lower()
    sound = len(wanted) >= _SHORTEST_ID and set(wanted) <= set(hexdigits)
    rows = connection.execute(_BY_ID, {"id": wanted}).all() if sound else []
    if len(rows) != 1:
        several = "Several plans begin so" if rows else "Plans that were not applied are kept for a week"
        raise NotFound(f"There is no plan {plan_id!r}.", hint=f"{several}; `yarrow plans list` shows them.")
    return rows[0]


def _read(row: AnyRow) -> Plan:
    return Plan.from_json({**row.document, "runs": row.runs})

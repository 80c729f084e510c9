"""Plans and backfills over HTTP: the same planner as on the command line."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, request

from yarrow.clock import Clock
from yarrow.errors import UsageError
from yarrow.plans.plan import Plan
from yarrow.plans.requests import request_from_json
from yarrow.plans.words import request_text
from yarrow.store import Store
from yarrow_webserver.access import as_json, json_body, name_of, token_check
from yarrow_webserver.execution import Notifies

_MOST_LISTED = 200
_EXAMPLE = '{"kind": "clear", "dag_id": "orders", "run_ids": ["r1"], "tasks": "load+", "by": "ada"}'
_BY = '{"by": "ada"}'


def create_blueprint(store: Store, key: bytes, notifier: Notifies, clock: Clock) -> Blueprint:
    """The routes below `/api/v1/plans` and `/api/v1/backfills`.

    - `POST /plans` plans a request (`yarrow.plans.requests` as JSON, with `by`) and changes nothing; with
      `?apply=true` it is carried out at once. 201 and the plan.
    - `GET /plans?dag_id=&limit=` lists plans without their runs, `GET /plans/<id>` is one in full.
    - `POST /plans/<id>/apply` does exactly what the plan lists, or answers 409 with what has changed.
    - `GET /backfills?dag_id=`, `GET /backfills/<id>`, `POST /backfills/<id>/pause`, `/resume` and `/cancel`.

    All want the token that `yarrow config api-token` prints, and what changes something a body with `by`, a name for
    the history.
    """
    blueprint = Blueprint("plans", __name__, url_prefix="/api/v1")
    blueprint.before_request(token_check(key))

    @blueprint.post("/plans")
    def draw() -> Response:
        body = json_body(_EXAMPLE)
        who = name_of(body)
        wanted = request_from_json({name: value for name, value in body.items() if name != "by"})
        if not _at_once():
            return as_json(store.plans.draw(wanted, who=who, now=clock()).to_json(), HTTPStatus.CREATED)
        plan = store.plans.carry_out(wanted, who=who, now=clock())
        notifier.notify()
        return as_json(plan.to_json(), HTTPStatus.CREATED)

    @blueprint.get("/plans")
    def list_plans() -> Response:
        found = store.plans.list(_known_dag(store), _limit())
        return as_json([_listed(plan, count) for plan, count in found])

    @blueprint.get("/plans/<plan_id>")
    def show_plan(plan_id: str) -> Response:
        return as_json(store.plans.get(plan_id).to_json())

    @blueprint.post("/plans/<plan_id>/apply")
    def apply(plan_id: str) -> Response:
        plan = store.plans.apply(plan_id, who=_who(), now=clock())
        notifier.notify()
        return as_json(plan.to_json())

    @blueprint.get("/backfills")
    def list_backfills() -> Response:
        return as_json([record.to_json() for record in store.backfills.list(_known_dag(store))])

    @blueprint.get("/backfills/<int(max=9223372036854775807):backfill_id>")
    def show_backfill(backfill_id: int) -> Response:
        return as_json(store.backfills.get(backfill_id).to_json())

    @blueprint.post("/backfills/<int(max=9223372036854775807):backfill_id>/cancel")
    def cancel(backfill_id: int) -> Response:
        body = json_body(_BY)
        if strange := sorted(set(body) - {"by", "reason"}):
            raise UsageError(f"The body has no field {strange[0]!r:.80}; it has `by` and `reason`.")
        reason = body.get("reason")
        if not isinstance(reason, str | None):
            raise UsageError("`reason` is text.")
        record = store.backfills.cancel(backfill_id, who=name_of(body), reason=reason, now=clock())
        notifier.notify()
        return as_json(record.to_json())

    @blueprint.post("/backfills/<int(max=9223372036854775807):backfill_id>/<any(pause, resume):verb>")
    def control(backfill_id: int, verb: str) -> Response:
        change = getattr(store.backfills, verb)
        record = change(backfill_id, who=_who(), now=clock())
        notifier.notify()
        return as_json(record.to_json())

    return blueprint


def _at_once() -> bool:
    """Whether `?apply=true` stands in the address. Raises UsageError for another value than true and false."""
    value = request.args.get("apply", "false")
    if value not in ("true", "false"):
        raise UsageError(f"`apply` is true or false, not {value!r:.80}.")
    return value == "true"


def _known_dag(store: Store) -> str | None:
    """The DAG that `?dag_id=` names. Raises NotFound for one that there is not."""
    dag_id = request.args.get("dag_id")
    if dag_id is not None:
        store.catalog.dag(dag_id)
    return dag_id


def _limit() -> int:
    text = request.args.get("limit", "50")
    if not text.isascii() or not text.isdigit() or len(text) > 3 or not 1 <= int(text) <= _MOST_LISTED:
        raise UsageError(f"`limit` is a whole number from 1 to {_MOST_LISTED}, not {text!r:.80}.")
    return int(text)


def _who() -> str:
    """Who changes something. Raises UsageError for a body with anything else than `by`."""
    body = json_body(_BY)
    if strange := sorted(set(body) - {"by"}):
        raise UsageError(f"The body has no field {strange[0]!r:.80}; it has `by`.")
    return name_of(body)


def _listed(plan: Plan, run_count: int) -> dict[str, Any]:
    """A plan for a listing: how many runs, instead of what becomes of each."""
    data = plan.to_json()
    del data["runs"]
    return {**data, "what": request_text(plan.request), "run_count": run_count}

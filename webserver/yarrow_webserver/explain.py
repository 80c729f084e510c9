"""Why a task isn't running, over HTTP: the same explanation as on the command line."""

from __future__ import annotations

from flask import Blueprint, Response, request

from yarrow.config import Config
from yarrow.errors import UsageError
from yarrow.explaining.explanation import Explanation
from yarrow.store import Store
from yarrow_webserver.access import as_json, token_check

_MOST_INSTANCES = 2**31 - 1


def create_blueprint(config: Config, store: Store, key: bytes) -> Blueprint:
    """`GET /api/v1/explain/<dag_id>/<run_id>/<task_id>?map_index=`; the run_id `-` is the newest run.

    It wants the token that `yarrow config api-token` prints.
    """
    blueprint = Blueprint("explain", __name__, url_prefix="/api/v1/explain")
    blueprint.before_request(token_check(key))

    @blueprint.get("/<dag_id>/<run_id>/<task_id>")
    def get(dag_id: str, run_id: str, task_id: str) -> Response:
        return as_json(explain(config, store, dag_id, run_id, task_id, _map_index()).to_json())

    return blueprint


def explain(config: Config, store: Store, dag_id: str, run_id: str, task_id: str, map_index: int) -> Explanation:
    """The explanation of a task instance in this deployment. Raises NotFound."""
    return store.explanations.get(
        dag_id,
        run_id,
        task_id,
        map_index,
        parallelism=config.parallelism,
        lease=config.lease,
        beat=config.heartbeat_interval,
    )


def _map_index() -> int:
    given = request.args.get("map_index", "-1")
    digits = given.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 10) or not -1 <= int(given) <= _MOST_INSTANCES:
        raise UsageError("`map_index` is a whole number: from 0, or -1 for a task that is not mapped.")
    return int(given)

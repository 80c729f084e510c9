"""What the deployment has, for `yarrow dags lint --against URL`: names and figures, and no secret."""

from __future__ import annotations

import json

from flask import Blueprint, Response

from yarrow.config import Config
from yarrow.store import Store


def create_blueprint(config: Config, store: Store) -> Blueprint:
    """`GET /api/v1/deployment`."""
    blueprint = Blueprint("deployment", __name__, url_prefix="/api/v1")

    def deployment() -> Response:
        """The queues that live workers serve (`*`: all), the slots of the pools, the mean seconds of past successes."""
        report = store.workers.health(lease=config.lease)
        served = {queue for worker in report.workers if not worker.stopping for queue in worker.queues}
        body = {
            "queues": sorted(served),
            "pools": {pool.name: pool.slots for pool in report.pools} or dict(config.pools),
            "durations": store.history.durations(),
        }
        return Response(json.dumps(body), mimetype="application/json")

    blueprint.add_url_rule("/deployment", "deployment", deployment)
    return blueprint

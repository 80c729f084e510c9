"""The web application: puts together the Execution API, the health checks and the pages."""

from __future__ import annotations

import hashlib
import json
import logging
from http import HTTPStatus
from pathlib import Path

from flask import Flask, Response, render_template, request
from werkzeug.exceptions import HTTPException

from yarrow import tokens
from yarrow.clock import Clock, utc_now
from yarrow.config import Config
from yarrow.errors import Conflict, NotFound, StoreError, UsageError
from yarrow.logs import LogStore
from yarrow.store import Store
from yarrow.version import __version__
from yarrow.wakeup import Notifier
from yarrow_webserver import approvals, deployment, execution, explain, health, pages, plans, words

BODY_LIMIT = 1024 * 1024
"""Bytes of a request, unless a route sets another limit."""

_HEADERS = {
    # Everything comes from this server, nothing is inline and nobody frames it.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_STATIC_AGE = 86_400  # seconds

_log = logging.getLogger(__name__)


def create_app(config: Config, store: Store, clock: Clock = utc_now) -> Flask:
    """The WSGI application.

    Args:
        config: The configuration.
        store: Shared by all threads of this process.
        clock: Where `now` comes from.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = _STATIC_AGE
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals["version"] = __version__
    app.jinja_env.globals["static_version"] = _static_version(Path(str(app.static_folder)))
    words.register(app.jinja_env)

    log_store = LogStore(config.logs_url)
    key = tokens.load_or_create_key(config.signing_key_file)
    notifier = Notifier(config.broker_url) if config.broker_url else _Quiet()
    app.register_blueprint(execution.create_blueprint(config, store, key, notifier, log_store))
    app.register_blueprint(health.create_blueprint(config, store, clock))
    app.register_blueprint(deployment.create_blueprint(config, store))
    app.register_blueprint(approvals.create_blueprint(store, key, notifier, clock))
    app.register_blueprint(plans.create_blueprint(store, key, notifier, clock))
    app.register_blueprint(explain.create_blueprint(config, store, key))
    app.register_blueprint(pages.create_blueprint(config, store, log_store, clock))
    app.after_request(_add_headers)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(UsageError, _usage_error)
    app.register_error_handler(StoreError, _store_error)
    app.register_error_handler(Exception, _unexpected_error)
    return app


def _static_version(folder: Path) -> str:
    """Stands in the addresses of the static files, so that a browser fetches one anew exactly when it has changed."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


class _Quiet:
    """Stands in for the notifier without a broker: a scheduler then looks at the database by itself every second."""

    def notify(self) -> None:
        """Nothing to wake."""


def _add_headers(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _http_error(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or 500)
    sentence = "There is no such page." if status == HTTPStatus.NOT_FOUND else error.description or ""
    answer = _error(status, sentence)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            answer.headers[name] = value
    return answer


def _usage_error(error: UsageError) -> Response:
    status = HTTPStatus.BAD_REQUEST
    if isinstance(error, NotFound):
        status = HTTPStatus.NOT_FOUND
    elif isinstance(error, Conflict):
        status = HTTPStatus.CONFLICT
    return _error(status, str(error))


def _store_error(error: StoreError) -> Response:
    _log.error("the database can't be used: %s", error, extra={"action": "store_error"})
    return _error(HTTPStatus.SERVICE_UNAVAILABLE, "The database can't be used at the moment.")


def _unexpected_error(error: Exception) -> Response:
    _log.exception("%s %s failed", request.method, request.path, extra={"action": "request_failed"}, exc_info=error)
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here. The web server's log says what.")


def _error(status: HTTPStatus, sentence: str) -> Response:
    """A page for a browser, JSON for everything else."""
    if "text/html" in request.headers.get("Accept", ""):
        return Response(render_template("error.html", status=status, sentence=sentence), status)
    return Response(json.dumps({"error": sentence}), status, mimetype="application/json")

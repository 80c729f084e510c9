"""What holds for every answer of the web application."""

import ast
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from yarrow.config import Config
from yarrow.errors import StoreError
from yarrow.store import Store
from yarrow_webserver.app import create_app

WRITING = ["approvals.answer", "plans.draw", "plans.apply", "plans.control", "plans.cancel"]
PATHS = ["/", "/no-such-page", "/health/live", "/static/yarrow.css", "/execution/v1/claim"]


@pytest.mark.parametrize("path", PATHS)
def test_security_headers_are_on_every_answer(client: FlaskClient, path: str) -> None:
    with client.get(path, headers={"Accept": "text/html"}) as answer:
        headers = answer.headers

    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers
    assert "Set-Cookie" not in headers


def test_pages_are_not_kept_and_static_files_are(client: FlaskClient) -> None:
    assert client.get("/").headers["Cache-Control"] == "no-store"
    with client.get("/static/yarrow.css") as answer:
        assert "max-age=86400" in answer.headers["Cache-Control"]


def test_templates_need_no_exception_from_the_policy() -> None:
    import yarrow_webserver

    folder = Path(str(yarrow_webserver.__file__)).parent
    for template in (folder / "templates").iterdir():
        text = template.read_text()
        for forbidden in (
            "style=",
            "<style",
            "onclick",
            "onload",
            "javascript:",
            "|safe",
            "autoescape false",
            "http://",
        ):
            assert forbidden not in text, f"{template.name}: {forbidden}"
        assert text.count("<script") == text.count("<script src=")


def test_what_writes_wants_a_token(app: Flask, client: FlaskClient) -> None:
    for rule in app.url_map.iter_rules():
        methods = (rule.methods or set()) - {"OPTIONS", "HEAD"}
        writes = rule.endpoint.startswith("execution.") or rule.endpoint in WRITING
        assert methods == ({"POST"} if writes else {"GET"}), rule
        if writes:
            path = re.sub(r"<(.*?:)?(\w+)>", "1", rule.rule.replace("<any(pause, resume):verb>", "pause"))
            assert client.post(path, json={}, headers={"X-Yarrow-Protocol": "1"}).status_code == 401, rule


def test_a_wrong_method_is_refused_with_what_is_allowed(client: FlaskClient) -> None:
    answer = client.post("/")

    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    assert answer.json == {"error": "The method is not allowed for the requested URL."}


def test_a_large_body_is_refused(client: FlaskClient) -> None:
    answer = client.post("/execution/v1/claim", data=b"x" * (5 * 1024 * 1024))

    assert answer.status_code in (400, 401, 413, 426)


def test_an_unexpected_error_is_logged_and_not_shown(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks() -> str:
        raise RuntimeError("secret detail")

    app.add_url_rule("/breaks", "breaks", breaks)
    with caplog.at_level(logging.ERROR):
        answer = client.get("/breaks", headers={"Accept": "text/html"})

    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "Traceback" not in answer.text
    assert "secret detail" in caplog.text
    assert client.get("/breaks").json == {"error": "Something went wrong here. The web server's log says what."}


def test_a_database_that_is_gone_is_a_503(client: FlaskClient, sqlite_store: Store, monkeypatch: Any) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise StoreError("the file /var/secret.db is gone")

    monkeypatch.setattr(sqlite_store._database, "read", broken)

    answer = client.get("/", headers={"Accept": "text/html"})

    assert answer.status_code == 503
    assert "secret.db" not in answer.text


def test_the_signing_key_is_made_with_mode_0600(config: Config, app: Flask) -> None:
    assert config.signing_key_file.stat().st_mode & 0o777 == 0o600


def test_it_works_without_a_broker(make_config: Any, sqlite_store: Store) -> None:
    app = create_app(make_config(broker_url=""), sqlite_store)

    assert app.test_client().get("/health/live").status_code == 200


def test_no_data_library_and_no_celery_is_loaded() -> None:
    import subprocess
    import sys

    heavy = ("celery", "duckdb", "numpy", "fsspec", "alembic")
    code = f"import sys, yarrow_webserver.command; print([m for m in {heavy} if m in sys.modules])"
    printed = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"], capture_output=True, text=True
    )
    assert ast.literal_eval(printed.stdout.strip() or "None") == [], printed.stderr

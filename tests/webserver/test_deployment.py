"""What the web server says of the deployment, and `yarrow dags lint --against` it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from yarrow.cli import main
from yarrow.cli.against import ask
from yarrow.errors import UsageError
from yarrow.store import Store

URL = "/api/v1/deployment"


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    """A web server on a port of its own."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_an_empty_deployment(client: FlaskClient, sqlite_store: Store) -> None:
    answer = client.get(URL)
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.json == {"queues": [], "pools": {"default_pool": 128}, "durations": {}}
    assert client.post(URL).status_code == 405


def test_what_it_has(client: FlaskClient, deployment: Any, sqlite_store: Store) -> None:
    sqlite_store.workers.set_pools({"default_pool": 8, "gpu": 2})
    deployment.publish(deployment.spec())
    deployment.trigger()
    for seconds in (30, 90, 6):
        deployment.step(seconds=seconds)
    deployment.beat()
    answer = client.get(URL).json
    assert answer == {
        "queues": ["*"],
        "pools": {"default_pool": 8, "gpu": 2},
        "durations": {"flights": {"ingest": 30.0, "score": 90.0, "publish": 6.0}},
    }
    deployment.beat(stopping=True)
    assert client.get(URL).json["queues"] == []


def test_known_is_what_it_says(url: str, deployment: Any, sqlite_store: Store) -> None:
    sqlite_store.workers.set_pools({"default_pool": 2})
    deployment.publish(deployment.spec())
    deployment.trigger()
    for seconds in (30, 1, 1):
        deployment.step(seconds=seconds)
    deployment.beat()
    known = ask(url + "/")
    assert (known.queues, known.pools, known.served) == (None, {"default_pool": 2}, {"*"})
    assert known.durations is not None
    assert known.durations["flights", "ingest"] == 30.0


@pytest.fixture
def lint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Lints a DAG file against a URL."""
    monkeypatch.setenv("YARROW_HOME", str(tmp_path / "home"))
    file = tmp_path / "flights.yaml"

    def lint(text: str, url: str) -> Any:
        file.write_text(text)
        return CliRunner().invoke(main, ["dags", "lint", "--against", url, "--json", str(file)])

    return lint


def test_lint_against_a_deployment(lint: Callable[..., Any], url: str, deployment: Any, sqlite_store: Store) -> None:
    sqlite_store.workers.set_pools({"default_pool": 2})
    deployment.publish(deployment.spec())
    deployment.trigger()
    for _ in range(3):
        deployment.step(seconds=60)
    deployment.beat()
    text = (
        "deadline: {after: 2m, from: queued_at}\n"
        "tasks:\n"
        "  ingest: {operator: empty, pool_slots: 3}\n"
        "  score: {operator: empty, depends_on: [ingest], queue: gpu}\n"
        "  publish: {operator: empty, depends_on: [score]}\n"
    )
    answer = lint(text, url)
    assert answer.exit_code == 0, answer.output
    assert [(fault["code"], fault["line"]) for fault in json.loads(answer.stdout)] == [("YRW094", 1), ("YRW092", 3)]
    assert "past runs took 3m on the way ingest → score → publish" in answer.stdout
    deployment.beat(stopping=True)
    codes = [fault["code"] for fault in json.loads(lint(text, url).stdout)]
    assert sorted(codes) == ["YRW092", "YRW093", "YRW093", "YRW093", "YRW094"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8080", "is not the URL of a web server"),
        ("ftp://example.org", "is not the URL of a web server"),
        ("http://[::1", "is not the URL of a web server"),
        ("http://127.0.0.1:1", "can't be asked: "),
    ],
)
def test_where_nobody_answers(lint: Callable[..., Any], url: str, words: str) -> None:
    answer = lint("tasks: {a: {operator: empty}}\n", url)
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert answer.stdout == ""


def test_another_web_server() -> None:
    answers = iter([(404, b"no"), (200, b"<html>"), (200, b'{"queues": 5}'), (200, b"[]")])

    def other(_environ: Any, start_response: Any) -> list[bytes]:
        status, body = next(answers)
        start_response(f"{status} X", [("Content-Type", "text/html")])
        return [body]

    server = make_server("127.0.0.1", 0, other)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        for why in ("status 404", "can't be read", "can't be read", "can't be read"):
            with pytest.raises(UsageError, match=why):
                ask(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()

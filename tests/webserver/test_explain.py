"""Why a task isn't running: over HTTP, and on the page of a task instance."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from yarrow import tokens
from yarrow.config import Config


@pytest.fixture
def run(deployment: Any) -> Any:
    """A run whose first task is queued."""
    deployment.publish(deployment.spec())
    run = deployment.trigger("flights", run_id="r1")
    deployment.store.workers.register_scheduler("s", "host", 1)
    deployment.beat()
    deployment.decide()
    return run


@pytest.fixture
def headers(config: Config) -> dict[str, str]:
    key = tokens.load_or_create_key(config.signing_key_file)
    return {"Authorization": f"Bearer {tokens.api_token(key)}"}


def test_the_api_explains(client: FlaskClient, run: Any, headers: dict[str, str]) -> None:
    found = client.get("/api/v1/explain/flights/r1/score", headers=headers).json
    assert found["state"] == "none"
    assert found["summary"] == (
        "`score` waits for its upstream task `ingest`, which goes next: the scheduler is about to queue it."
    )
    names = [check["name"] for check in found["checks"]]
    assert names == ["scheduler", "run", "trigger_rule"]
    newest = client.get("/api/v1/explain/flights/-/score", headers=headers).json
    assert newest["run_id"] == "r1"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("flights/r1/scores", 404, "Did you mean 'score'"),
        ("flights/r9/score", 404, "has no run 'r9'"),
        ("flight/r1/score", 404, "Did you mean 'flights'"),
        ("flights/r1/score?map_index=0", 404, "has no instance 0"),
        ("flights/r1/score?map_index=-2", 400, "`map_index` is a whole number"),
        ("flights/r1/score?map_index=99999999999", 400, "`map_index` is a whole number"),
        ("flights/r1/score?map_index=x", 400, "`map_index` is a whole number"),
    ],
)
def test_bad_input(client: FlaskClient, run: Any, headers: dict[str, str], path: str, status: int, words: str) -> None:
    answer = client.get(f"/api/v1/explain/{path}", headers=headers)
    assert (answer.status_code, words in answer.json["error"]) == (status, True)


def test_without_the_token_nothing_is_told(client: FlaskClient, run: Any) -> None:
    answer = client.get("/api/v1/explain/flights/r1/score")
    assert answer.status_code == 401
    assert "api-token" in answer.json["error"]


def test_the_page_of_a_task_that_waits_says_why(client: FlaskClient, deployment: Any, run: Any) -> None:
    page = client.get(f"/runs/{run.id}/tasks/score", headers={"Accept": "text/html"}).text
    assert "Why isn&#39;t it running?" in page or "Why isn't it running?" in page
    assert "waits for its upstream task <code>ingest</code>" in page
    assert page.count('<li class="unmet">') == 1
    assert page.count('<li class="met">') == 2
    assert "<style" not in page
    assert "style=" not in page
    deployment.step()
    ended = client.get(f"/runs/{run.id}/tasks/ingest", headers={"Accept": "text/html"}).text
    assert "it running?" not in ended

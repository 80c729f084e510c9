"""The open questions and the answers, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from yarrow import tokens
from yarrow.config import Config
from yarrow.language.spec import DagSpec, TaskSpec


@pytest.fixture
def asked(deployment: Any) -> Any:
    """A run that asks whether to publish."""
    ask = TaskSpec("ask", "approval", {"message": "Publish {{ ds }}?", "default": "reject"})
    publish = TaskSpec("publish", "bash", {"command": "true"}, upstream=("ask",))
    deployment.publish(DagSpec("release", {"ask": ask, "publish": publish}))
    run = deployment.trigger("release", run_id="r1")
    deployment.decide()
    return run


@pytest.fixture
def headers(config: Config) -> dict[str, str]:
    key = tokens.load_or_create_key(config.signing_key_file)
    return {"Authorization": f"Bearer {tokens.api_token(key)}"}


def test_a_question_is_listed_and_answered(
    client: FlaskClient, deployment: Any, asked: Any, headers: dict[str, str]
) -> None:
    [question] = client.get("/api/v1/approvals", headers=headers).json
    assert (question["dag_id"], question["run_id"], question["task_id"]) == ("release", "r1", "ask")
    assert question["message"].startswith("Publish ")
    answer = client.post(
        "/api/v1/approvals/release/r1/ask",
        json={"answer": "approve", "by": "ada", "comment": "looks right"},
        headers=headers,
    )
    assert answer.status_code == 200
    assert (answer.json["answer"], answer.json["answered_by"]) == ("approve", "api:ada")
    deployment.decide()
    states = {task.task_id: task.state for task in deployment.store.runs.task_instances(asked.id)}
    assert states == {"ask": "success", "publish": "scheduled"}
    assert client.get("/api/v1/approvals", headers=headers).json == []


def test_a_second_answer_is_refused(client: FlaskClient, asked: Any, headers: dict[str, str]) -> None:
    url, body = "/api/v1/approvals/release/r1/ask", {"answer": "reject", "by": "ada"}
    assert client.post(url, json=body, headers=headers).status_code == 200
    again = client.post(url, json=body, headers=headers)
    assert again.status_code == 409
    assert "answered before" in again.json["error"]


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("token", [None, "Bearer nonsense", "Basic abc", "worker"])
def test_without_the_token_nothing_is_told(
    client: FlaskClient, config: Config, asked: Any, method: str, token: str | None
) -> None:
    if token == "worker":
        token = f"Bearer {tokens.worker_token(tokens.load_or_create_key(config.signing_key_file))}"
    url = "/api/v1/approvals" + ("/release/r1/ask" if method == "post" else "")
    answer = getattr(client, method)(
        url, headers={"Authorization": token} if token else {}, json={"answer": "approve", "by": "eve"}
    )
    assert answer.status_code == 401
    assert "api-token" in answer.json["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "JSON object"),
        ({"answer": "maybe", "by": "ada"}, "approve or reject"),
        ({"answer": "approve"}, "`by`"),
        ({"answer": "approve", "by": " "}, "`by`"),
        ({"answer": "approve", "by": "ada", "comment": 3}, "`comment`"),
        ({"answer": "approve", "by": "ada", "map_index": True}, "`map_index`"),
        ({"answer": "approve", "by": "ada", "force": True}, "no field 'force'"),
    ],
)
def test_a_bad_answer_is_a_sentence(
    client: FlaskClient, asked: Any, headers: dict[str, str], body: Any, words: str
) -> None:
    answer = client.post("/api/v1/approvals/release/r1/ask", json=body, headers=headers)
    assert answer.status_code == 400
    assert words in answer.json["error"]


def test_what_is_not_asked_is_not_found(client: FlaskClient, asked: Any, headers: dict[str, str]) -> None:
    body = {"answer": "approve", "by": "ada"}
    for path in ("release/r1/publish", "release/r2/ask", "other/r1/ask"):
        answer = client.post(f"/api/v1/approvals/{path}", json=body, headers=headers)
        assert answer.status_code == 404, path
    form = client.post("/api/v1/approvals/release/r1/ask", data={"answer": "approve"}, headers=headers)
    assert form.status_code == 415


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("by", "x" * 247, "`by`"),  # "api:" stands before it in the history
        ("map_index", 2**31, "`map_index`"),
        ("map_index", -2, "`map_index`"),
    ],
)
def test_what_has_no_place_in_the_database_is_refused(
    client: FlaskClient, asked: Any, headers: dict[str, str], name: str, value: Any, words: str
) -> None:
    body = {"answer": "approve", "by": "ada", name: value}
    answer = client.post("/api/v1/approvals/release/r1/ask", json=body, headers=headers)
    assert answer.status_code == 400
    assert words in answer.json["error"]


def test_odd_characters_in_an_answer_are_left_out(client: FlaskClient, asked: Any, headers: dict[str, str]) -> None:
    body = {"answer": "approve", "by": "a\0d\ud800a", "comment": "f\0ine\ud800"}
    answer = client.post("/api/v1/approvals/release/r1/ask", json=body, headers=headers)
    assert (answer.status_code, answer.json["answered_by"], answer.json["comment"]) == (200, "api:ad?a", "fine?")

"""Plans and backfills over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from played import Played
from yarrow import tokens
from yarrow.config import Config
from yarrow.store import Store

PLANS = "/api/v1/plans"


@pytest.fixture
def played(sqlite_store: Store, clock: Any) -> Played:
    """A run that failed at its first task."""
    played = Played(sqlite_store)
    played.publish(
        """
dag_id: sales
schedule: "@daily"
start_date: 2025-12-01
tasks:
  load: {operator: bash, with: {command: date}}
  report: {operator: bash, with: {command: date}, depends_on: [load]}
"""
    )
    played.run("sales", "bad", clock(), ["failed"])
    return played


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A wake-up of the scheduler for each entry."""
    from yarrow_webserver import app

    found: list[bool] = []
    monkeypatch.setattr(app._Quiet, "notify", lambda _: found.append(True))
    monkeypatch.setattr(app.Notifier, "notify", lambda _: found.append(True))
    return found


@pytest.fixture
def api(woken: list[bool], client: FlaskClient, config: Config) -> Any:
    """Calls the API with its token."""
    key = tokens.load_or_create_key(config.signing_key_file)
    headers = {"Authorization": f"Bearer {tokens.api_token(key)}"}

    def call(method: str, path: str, body: Any = None) -> Any:
        return getattr(client, method)(path, headers=headers, **({} if body is None else {"json": body}))

    return call


def clear(**fields: Any) -> dict[str, Any]:
    return {"kind": "clear", "dag_id": "sales", "run_ids": ["bad"], "tasks": "load+", "by": "ada"} | fields


def backfill(**fields: Any) -> dict[str, Any]:
    dates = {"from_date": "2025-12-02T00:00:00+00:00", "to_date": "2025-12-04T00:00:00+00:00"}
    return {"kind": "backfill", "dag_id": "sales", "by": "ada"} | dates | fields


def test_a_plan_is_made_looked_at_and_applied(api: Any, played: Played, woken: list[bool]) -> None:
    before = played.tables("plan")
    made = api("post", PLANS, clear(reason="fixed"))
    assert made.status_code == 201
    assert (made.json["planned_by"], made.json["request"]["reason"]) == ("api:ada", "fixed")
    assert played.tables("plan") == before
    assert woken == []

    [listed] = api("get", f"{PLANS}?dag_id=sales&limit=1").json
    assert (listed["id"], listed["run_count"], listed["what"]) == (made.json["id"], 1, "clear load+ of bad: fixed")
    assert "runs" not in listed
    assert api("get", f"{PLANS}/{made.json['id']}").json == made.json

    done = api("post", f"{PLANS}/{made.json['id']}/apply", {"by": "eve"})
    assert (done.status_code, done.json["applied_by"]) == (200, "api:eve")
    assert played.states("sales", "bad") == {"load": "none", "report": "none"}
    assert woken == [True]


def test_a_plan_is_applied_once(api: Any, played: Played) -> None:
    path = f"{PLANS}/{api('post', PLANS, clear()).json['id']}/apply"
    assert api("post", path, {"by": "ada"}).status_code == 200
    again = api("post", path, {"by": "ada"})
    assert again.status_code == 409
    assert "was applied at" in again.json["error"]


def test_a_stale_plan_is_refused_with_what_changed(api: Any, played: Played, woken: list[bool]) -> None:
    path = f"{PLANS}/{api('post', PLANS, clear()).json['id']}/apply"
    mark = {"kind": "mark", "state": "success", "dag_id": "sales", "run_ids": ["bad"], "tasks": "load", "by": "eve"}
    assert api("post", f"{PLANS}?apply=true", mark).status_code == 201
    before = played.tables()
    woken.clear()
    answer = api("post", path, {"by": "ada"})
    assert answer.status_code == 409
    assert "load of bad was failed and is success" in answer.json["error"]
    assert "Make a new plan." in answer.json["error"]
    assert played.tables() == before
    assert woken == []


def test_planned_and_applied_at_once(api: Any, played: Played, woken: list[bool]) -> None:
    answer = api("post", f"{PLANS}?apply=true", clear())
    assert (answer.status_code, answer.json["applied_by"]) == (201, "api:ada")
    assert played.states("sales", "bad") == {"load": "none", "report": "none"}
    assert woken == [True]


def test_a_backfill_is_made_and_governed(api: Any, played: Played, woken: list[bool]) -> None:
    made = api("post", f"{PLANS}?apply=true", backfill(reason="new prices"))
    assert made.status_code == 201, made.text
    number = made.json["result"]["backfill_id"]
    [listed] = api("get", "/api/v1/backfills?dag_id=sales").json
    assert (listed["id"], listed["run_count"]) == (number, 3)
    path = f"/api/v1/backfills/{number}"
    assert api("post", f"{path}/pause", {"by": "eve"}).json["is_paused"] is True
    assert api("get", path).json["is_paused"] is True
    assert api("post", f"{path}/resume", {"by": "eve"}).json["is_paused"] is False
    assert api("post", f"{path}/cancel", {"by": "eve", "reason": 5}).status_code == 400
    cancelled = api("post", f"{path}/cancel", {"by": "eve", "reason": "enough"})
    assert cancelled.status_code == 200, cancelled.text
    assert cancelled.json["cancelled_at"] is not None
    assert len(woken) == 4
    assert [run.run_id for run in played.store.runs.list("sales")] == ["bad"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ([], 400, "JSON object"),
        ({"by": "ada"}, 400, "`kind` is one of"),
        (clear(kind="delete"), 400, "`kind` is one of"),
        (clear(by=""), 400, "`by`"),
        (clear(by=3), 400, "`by`"),
        (clear(reason="f\0ine"), 400, "`reason`"),
        (clear(force=True), 400, "no field 'force'"),
        (clear(run_ids="bad"), 400, "`run_ids` is a list of texts"),
        (clear(tasks="lode"), 400, "Did you mean `load`?"),
        (clear(tasks=""), 400, "selector is empty"),
        (clear(run_ids=["worse"]), 404, "worse"),
        (clear(dag_id="sale"), 404, "Did you mean 'sales'?"),
        (clear(run_ids=[]), 400, "run"),
        ({"kind": "mark", "dag_id": "sales", "run_ids": ["bad"], "by": "ada", "state": "queued"}, 400, "queued"),
        (backfill(from_date="2025-12-09"), 400, "offset from UTC"),
        (backfill(from_date="2025-12-09T00:00:00+00:00"), 400, "2025-12-09"),
        (backfill(reprocess="some"), 400, "some"),
        (backfill(max_active_runs=0), 400, "max_active_runs"),
        (backfill(max_active_runs=2**40), 400, "max_active_runs"),
        (backfill(priority_class=2**40), 400, "priority_class"),
        (backfill(params={"limit": 3}), 400, "limit"),
        (clear(map_index=2**40), 400, "map_index"),
    ],
)
def test_a_bad_request_is_a_sentence(
    api: Any, played: Played, woken: list[bool], body: Any, status: int, words: str
) -> None:
    before = played.tables()
    for query in ("", "?apply=true"):
        answer = api("post", f"{PLANS}{query}", body)
        assert (answer.status_code, words in answer.json["error"]) == (status, True), answer.text
    assert played.tables() == before
    assert woken == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("get", f"{PLANS}/abcdef123456", None, 404),
        ("post", f"{PLANS}/abcdef123456/apply", {"by": "ada"}, 404),
        ("post", f"{PLANS}/abcdef123456/apply", {}, 400),
        ("post", f"{PLANS}/abcdef123456/apply", {"by": "ada", "force": True}, 400),
        ("post", f"{PLANS}/abcdef123456/apply", None, 415),
        ("post", f"{PLANS}?apply=maybe", clear(), 400),
        ("get", f"{PLANS}?dag_id=sale", None, 404),
        ("get", f"{PLANS}?limit=0", None, 400),
        ("get", f"{PLANS}?limit=201", None, 400),
        ("get", f"{PLANS}?limit={'9' * 5000}", None, 400),
        ("get", "/api/v1/backfills/7", None, 404),
        ("get", f"/api/v1/backfills/{2**64}", None, 404),
        ("get", "/api/v1/backfills?dag_id=sale", None, 404),
        ("post", "/api/v1/backfills/7/pause", {"by": "ada"}, 404),
        ("post", "/api/v1/backfills/7/delete", {"by": "ada"}, 404),
    ],
)
def test_what_is_not_there_is_told(
    api: Any, played: Played, woken: list[bool], method: str, path: str, body: Any, status: int
) -> None:
    answer = api(method, path, body)
    assert answer.status_code == status, answer.text
    assert answer.json["error"]
    assert woken == []


@pytest.mark.parametrize("token", [None, "Bearer nonsense", "Basic abc"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("get", PLANS), ("post", PLANS), ("post", f"{PLANS}/abcdef123456/apply"), ("post", "/api/v1/backfills/1/cancel")],
)
def test_without_the_token_nothing_is_told(
    client: FlaskClient, played: Played, method: str, path: str, token: str | None
) -> None:
    before = played.tables()
    answer = getattr(client, method)(path, headers={"Authorization": token} if token else {}, json=clear())
    assert answer.status_code == 401
    assert "api-token" in answer.json["error"]
    assert played.tables() == before


def test_a_body_that_is_nested_too_deeply(client: FlaskClient, config: Config) -> None:
    headers = {"Authorization": f"Bearer {tokens.api_token(tokens.load_or_create_key(config.signing_key_file))}"}
    answer = client.post(PLANS, data="[" * 100_000, headers=headers, content_type="application/json")
    assert (answer.status_code, answer.json) == (400, {"error": "The body is nested too deeply."})


def test_odd_characters_do_no_harm(api: Any, played: Played) -> None:
    answer = api("post", f"{PLANS}?apply=true", clear(by="a\0d\ud800a"))
    assert (answer.status_code, answer.json["applied_by"]) == (201, "api:ad?a")
    assert api("get", PLANS).status_code == 200

"""The Execution API over HTTP requests, on a real store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from yarrow import protocol, tokens
from yarrow.config import Config
from yarrow.decide import decide
from yarrow.language.spec import CacheSpec, DagSpec, TaskSpec
from yarrow.logs import LogStore
from yarrow.plans.requests import ClearRequest
from yarrow.protocol import Assignment, Heartbeat, Report, RunningAttempt
from yarrow.states import AttemptState, TaskState
from yarrow.store import Store
from yarrow.testing import FrozenClock
from yarrow_webserver.execution import BODY_LIMIT, create_blueprint, identity

KEY = b"k" * 64
WORKER = tokens.worker_token(KEY)
FORGED = tokens.worker_token(b"f" * 64)


class Wakes:
    """Counts what the scheduler would be woken for."""

    def __init__(self) -> None:
        self.count = 0

    def notify(self) -> None:
        self.count += 1


class Api:
    """The API with a run of one DAG in the store: `first` upstream of `second`, and `other`."""

    def __init__(self, store: Store, config: Config, tmp_path: Path, clock: FrozenClock) -> None:
        self.store = store
        self.clock = clock
        self.config = config
        self.wakes = Wakes()
        self.logs = LogStore(str(tmp_path / "logs"))
        self.client = self.another_process()
        tasks = {
            "first": TaskSpec("first", "python", {"callable": "m:f"}, retries=1, execution_timeout=60.0),
            "second": TaskSpec("second", "bash", {}, upstream=("first",), xcoms=("first",)),
            "other": TaskSpec("other", "bash", {}, variables=("threshold",), connections=("shop",)),
            "third": TaskSpec("third", "bash", {}, priority_weight=0),
        }
        params = {"day": {"type": "string", "default": "monday"}}
        store.catalog.publish([(DagSpec("dag", tasks, timezone="Europe/Berlin", params=params), "", "dag.yaml")])
        self.run = store.runs.trigger("dag", run_id="run", who="test")
        self.advance()

    def another_process(self) -> FlaskClient:
        """A client of a web server that knows nothing but what is in the store."""
        app = Flask("test")
        app.register_blueprint(create_blueprint(self.config, self.store, KEY, self.wakes, self.logs))
        return app.test_client()

    def advance(self) -> dict[str, tuple[str, str]]:
        """A pass of the scheduler. Returns task -> (attempt id, token) of what is queued."""
        store = self.store
        store.runs.start_due()
        for number in store.runs.undecided():
            if snapshot := store.runs.snapshot(number):
                now = self.clock()
                decisions = decide(snapshot.spec, snapshot.record.view, snapshot.tasks, now, snapshot.xcoms)
                store.runs.apply(number, decisions, snapshot.record.change_seq)
        store.attempts.grant(100)
        rows = store.attempts.to_publish({"default": 100})
        self.queued = {
            store.attempts.get(row.attempt_id).task_id: (
                row.attempt_id,
                tokens.attempt_token(KEY, row.attempt_id, row.nonce),
            )
            for row in rows
        }
        return self.queued

    def post(self, route: str, token: str, body: Any, *, version: str | None = "1") -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}"} | ({protocol.VERSION_HEADER: version} if version else {})
        response = self.client.post(f"/execution/v1/{route}", data=json.dumps(body), headers=headers)
        answer = response.get_json()
        assert isinstance(answer, dict), response.data
        assert response.status_code == 200 or isinstance(answer["error"], str)
        return response.status_code, answer

    def claim(self, task: str, worker: str = "w1") -> Assignment:
        attempt_id, token = self.queued[task]
        status, answer = self.post("claim", token, {"attempt_id": attempt_id, "worker_id": worker})
        assert status == 200, answer
        return Assignment.from_json(answer)

    def finish(
        self, assignment: Assignment, state: str = "success", *, next: str | None = None, **report: Any
    ) -> tuple[int, dict[str, Any]]:
        body = {
            "worker_id": "w1",
            "report": Report(assignment.attempt_id, state, **report).to_json(),
            "next": next,
        }
        return self.post("finish", assignment.token, body)

    def state(self, task: str) -> TaskState:
        return self.store.runs.task_instance("dag", "run", task).state


@pytest.fixture
def api(
    sqlite_store: Store, config: Config, tmp_path: Path, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Api]:
    monkeypatch.setenv("YARROW_VAR_THRESHOLD", "0.5")
    monkeypatch.setenv("YARROW_CONN_SHOP", "https://ada:secret@shop.example")
    return Api(sqlite_store, config, tmp_path, clock)


def test_claim_answers_with_all_that_the_task_names_and_nothing_else(api: Api) -> None:
    first = api.claim("first")
    assert (first.dag_id, first.run_id, first.task_id, first.operator) == ("dag", "run", "first", "python")
    assert first.arguments == {"callable": "m:f"}
    assert (first.try_number, first.max_tries, first.execution_timeout, first.lease) == (1, 2, 60.0, api.config.lease)
    assert (first.params, first.timezone, first.queue) == ({"day": "monday"}, "Europe/Berlin", "default")
    assert first.dag_tasks == ["second"]
    assert first.identity == identity("dag", "run", "first", -1)
    assert (first.variables, first.connections, first.xcoms) == ({}, {}, {})
    assert api.state("first") == TaskState.RUNNING

    other = api.claim("other")
    assert other.variables == {"threshold": "0.5"}
    assert other.connections == {"shop": "https://ada:secret@shop.example"}


def test_xcoms_reach_the_tasks_that_name_them(api: Api) -> None:
    status, answer = api.finish(api.claim("first"), xcom={"rows": 3}, has_xcom=True, metrics={"rows_in": 3})
    assert (status, answer) == (200, {"next": None})
    assert api.wakes.count == 1
    assert api.state("first") == TaskState.SUCCESS
    api.advance()
    assert api.claim("second").xcoms == {"first": {"rows": 3}}


def test_a_second_claim_is_refused(api: Api) -> None:
    first = api.claim("first")
    attempt_id, token = api.queued["first"]
    for worker in ("w1", "w2"):
        status, answer = api.post("claim", token, {"attempt_id": attempt_id, "worker_id": worker})
        assert status == 409
        assert "taken before" in answer["error"]
    assert api.finish(first)[0] == 200


def test_finish_brings_the_next_attempt_of_the_queue_by_priority(api: Api) -> None:
    first = api.claim("first")
    status, answer = api.finish(first, next="default")
    following = Assignment.from_json(answer["next"])
    assert (status, following.task_id) == (200, "other"), "`third` has a lower priority, `second` is not decided on"
    assert following.token != api.queued["other"][1], "the message that is out for it is void"
    assert api.post("claim", api.queued["other"][1], {"attempt_id": following.attempt_id, "worker_id": "w2"})[0] == 409
    assert api.finish(first, next="default") == (200, {"next": None}), "repeated: accepted, without another attempt"
    assert api.finish(following, next="another queue") == (200, {"next": None})
    assert api.finish(api.claim("third"), next="default") == (200, {"next": None})


def test_a_fenced_report_is_refused(api: Api) -> None:
    first = api.claim("first")
    assert api.finish(first, "failed", reason="boom")[0] == 200
    assert api.state("first") == TaskState.UP_FOR_RETRY
    status, answer = api.finish(first, "success")
    assert status == 409
    assert "too late" in answer["error"]


@pytest.mark.parametrize("unset", ["YARROW_VAR_THRESHOLD", "YARROW_CONN_SHOP"])
def test_a_task_whose_variable_or_connection_is_not_set_fails_with_the_reason(
    api: Api, unset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(unset)
    attempt_id, token = api.queued["other"]
    status, answer = api.post("claim", token, {"attempt_id": attempt_id, "worker_id": "w1"})
    assert status == 409
    assert "has failed" in answer["error"]
    task = api.store.runs.task_instance("dag", "run", "other")
    assert task.state == TaskState.FAILED
    assert unset in (task.reason or "")
    assert api.wakes.count == 1


def test_such_a_task_is_passed_over_on_the_way_to_the_next(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YARROW_VAR_THRESHOLD")
    _, answer = api.finish(api.claim("first"), next="default")
    assert answer["next"]["task_id"] == "third"
    assert api.state("other") == TaskState.FAILED


def test_heartbeats_record_the_worker_and_tell_what_to_stop(api: Api) -> None:
    first = api.claim("first")
    heartbeat = Heartbeat(
        "w1",
        "host",
        1,
        ("*",),
        2,
        "0.1.0",
        (RunningAttempt(first.attempt_id, 5, 10, "rows"), RunningAttempt("f" * 32)),
    )
    status, answer = api.post("heartbeat", WORKER, heartbeat.to_json())
    assert status == 200
    assert answer["interval"] == api.config.heartbeat_interval
    assert set(answer["stop"]) == {"f" * 32}
    assert api.wakes.count == 1, "a new worker: tasks may wait for it"
    assert api.store.runs.task_instance("dag", "run", "first").progress == {"done": 5, "total": 10, "unit": "rows"}
    api.store.attempts.cancel("dag", "run", "first", who="ada", reason="enough")
    _, answer = api.post("heartbeat", WORKER, heartbeat.to_json())
    assert answer["stop"][first.attempt_id] == "enough"
    assert api.wakes.count == 1
    [worker] = api.store.workers.alive()
    assert (worker.worker_id, worker.slots, worker.running) == ("w1", 2, 1)


def test_a_worker_that_has_stopped_is_forgotten(api: Api) -> None:
    heartbeat = Heartbeat("w1", "host", 1, ("*",), 2, "0.1.0")
    api.post("heartbeat", WORKER, heartbeat.to_json())
    assert api.post("heartbeat", WORKER, {**heartbeat.to_json(), "stopping": True})[0] == 200
    assert api.store.workers.alive() == []
    assert api.wakes.count == 2


def test_log_lines_are_kept_and_those_of_strangers_are_not(api: Api) -> None:
    first = api.claim("first")
    line = {"at": "2026-01-01T00:00:00+00:00", "stream": "stdout", "text": "hello", "level": None, "from_newer": 1}
    forged = tokens.attempt_token(b"f" * 64, first.attempt_id, "0" * 24)
    stale = tokens.attempt_token(KEY, first.attempt_id, "0" * 24)
    unknown = tokens.attempt_token(KEY, "f" * 32, "0" * 24)
    batches = [{"token": token, "lines": [line]} for token in (forged, first.token, stale, unknown, "x", first.token)]
    assert api.post("logs", WORKER, {"batches": batches}) == (200, {"refused": 4})
    found, _ = api.logs.read("dag", "run", "first", -1, 1)
    assert [entry.text for entry in found] == ["hello", "hello"]
    api.finish(first)
    api.post("logs", WORKER, {"batches": [{"token": first.token, "lines": [line]}]})
    assert len(api.logs.read("dag", "run", "first", -1, 1)[0]) == 3, "the last lines may come after the report"
    api.client = api.another_process()
    for _ in range(2):
        assert api.post("logs", WORKER, {"batches": batches}) == (200, {"refused": 4})
    assert len(api.logs.read("dag", "run", "first", -1, 1)[0]) == 7


def test_a_task_triggers_a_run_once_however_often_it_tries(api: Api) -> None:
    api.store.catalog.publish([(DagSpec("target", {"t": TaskSpec("t", "bash", {})}), "", "target.yaml")])
    first = api.claim("first")
    body = {"dag_id": "target", "params": {}, "logical_date": None}
    status, answer = api.post("trigger", first.token, body)
    assert status == 200
    assert api.post("trigger", first.token, body) == (200, answer)
    api.finish(first, "lost")
    api.advance()
    again = api.claim("first")
    assert api.post("trigger", again.token, body) == (200, answer), "another try of the same task instance"
    dated = api.post("trigger", again.token, {**body, "logical_date": "2026-03-01T00:00:00"})[1]
    assert dated != answer
    runs = {run.run_id: run for run in api.store.runs.list("target", limit=10)}
    assert set(runs) == {answer["run_id"], dated["run_id"]}
    assert runs[dated["run_id"]].logical_date.isoformat() == "2026-03-01T00:00:00+00:00"
    assert runs[answer["run_id"]].run_type == "triggered"
    assert "first" in (runs[answer["run_id"]].triggered_by or "")


def test_a_sensor_is_put_off_and_goes_on_as_the_same_attempt(api: Api) -> None:
    first = api.claim("first")
    assert (first.first_started_at, first.cache, first.map_value, first.mapped_xcoms) == (
        "2026-01-01T00:00:00+00:00",
        None,
        None,
        [],
    )
    resume_at = (api.clock() + timedelta(minutes=5)).isoformat()
    assert api.finish(first, "deferred", resume_at=resume_at) == (200, {"next": None})
    assert api.wakes.count == 1
    assert api.state("first") == TaskState.UP_FOR_RESCHEDULE
    assert api.finish(first, "deferred", resume_at=resume_at)[0] == 200, "repeated"
    api.clock.advance(300)
    api.advance()
    again = api.claim("first", "w2")
    assert (again.attempt_id, again.try_number, again.first_started_at) == (
        first.attempt_id,
        1,
        "2026-01-01T00:00:00+00:00",
    )
    assert api.finish(first, "deferred", resume_at=resume_at)[0] == 409, "from before it was queued again"
    assert api.finish(again)[0] == 200
    assert api.state("first") == TaskState.SUCCESS


def test_a_mapped_task_instance_gets_its_value_and_all_xcoms(api: Api) -> None:
    tasks = {
        "a": TaskSpec("a", "bash", {}, expand={"day": ["mon", "tue"]}),
        "b": TaskSpec("b", "bash", {}, upstream=("a",), xcoms=("a",)),
    }
    api.store.catalog.publish([(DagSpec("mapped", tasks), "", "mapped.yaml")])
    api.store.runs.trigger("mapped", run_id="r", who="test")
    api.advance()
    claimed = [api.store.attempts.next_for("default", "w1", 60) for _ in range(5)]
    mine = [one for one in claimed if one is not None and one.dag_id == "mapped"]
    assert [(one.map_index, one.map_value) for one in mine] == [(0, {"day": "mon"}), (1, {"day": "tue"})]
    for one in mine:
        report = Report(one.attempt_id, "success", xcom=one.map_index, has_xcom=True)
        api.store.attempts.finish(report, one.nonce, "w1")
    api.advance()
    b = api.claim("b")
    assert (b.xcoms, b.mapped_xcoms, b.map_value, b.map_index) == ({"a": [0, 1]}, ["a"], None, -1)


def test_a_result_is_found_by_later_runs_under_its_key(api: Api) -> None:
    cache = CacheSpec(3600.0, "{{ params.x }}")
    api.store.catalog.publish([(DagSpec("kept", {"t": TaskSpec("t", "bash", {}, cache=cache)}), "", "kept.yaml")])
    key = "0123456789abcdef" * 4

    def begin(run_id: str) -> Assignment:
        api.store.runs.trigger("kept", run_id=run_id, who="test")
        api.advance()
        return api.claim("t")

    nothing = {"hit": False, "has_xcom": False, "xcom": None, "attempt_id": None, "run_id": None}
    first = begin("one")
    assert first.cache == {"ttl": 3600.0, "key": "{{ params.x }}"}
    assert api.post("cache", first.token, {"key": key}) == (200, nothing)
    assert api.finish(first, xcom={"rows": 3}, has_xcom=True, cache_key=key)[0] == 200
    second = begin("two")
    status, found = api.post("cache", second.token, {"key": key})
    assert status == 200
    assert found == {
        "hit": True,
        "has_xcom": True,
        "xcom": {"rows": 3},
        "attempt_id": first.attempt_id,
        "run_id": "one",
    }
    assert api.post("cache", api.claim("first").token, {"key": key}) == (200, nothing), "another task's"
    assert api.finish(second, xcom={"rows": 3}, has_xcom=True, cache_key=key, cached=True)[0] == 200
    assert [api.store.runs.task_instance("kept", run, "t").cached for run in ("one", "two")] == [False, True]
    assert api.post("cache", second.token, {"key": key})[0] == 409, "it has ended"
    api.store.plans.carry_out(ClearRequest(dag_id="kept", run_ids=("two",)), who="ann")
    api.advance()
    again = api.claim("t")
    assert (again.run_id, again.try_number) == ("two", 2)
    assert api.post("cache", again.token, {"key": key}) == (200, nothing), "what is cleared is executed"
    api.clock.advance(3600)
    third = begin("three")
    assert api.post("cache", third.token, {"key": key}) == (200, nothing), "too old"


@pytest.mark.parametrize("key", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, 7, None])
def test_what_is_no_key_is_refused(api: Api, key: Any) -> None:
    status, answer = api.post("cache", api.claim("first").token, {"key": key})
    assert (status, "key" in answer["error"]) == (400, True)


def test_a_task_asks_how_another_run_is_doing(api: Api) -> None:
    first = api.claim("first")
    date = api.run.logical_date.isoformat()

    def ask(**body: Any) -> tuple[int, dict[str, Any]]:
        return api.post("task-state", first.token, {"dag_id": "dag", "task_id": None, "logical_date": date, **body})

    assert ask() == (200, {"state": "running", "run_id": "run"})
    assert ask(task_id="first") == (200, {"state": "running", "run_id": "run"})
    assert ask(task_id="second") == (200, {"state": "none", "run_id": "run"})
    assert ask(logical_date="2020-01-01T00:00:00+00:00") == (200, {"state": None, "run_id": None})
    status, answer = ask(dag_id="dog")
    assert (status, answer["error"]) == (404, "There is no DAG 'dog'. Did you mean 'dag'?")
    status, answer = ask(task_id="frist")
    assert (status, answer["error"]) == (404, "The DAG 'dag' has no task 'frist'. Did you mean 'first'?")
    beyond = {"logical_date": "9999-12-31T23:59:59-14:00"}
    for wrong in ({"logical_date": "soon"}, {"logical_date": None}, beyond, {"dag_id": 7}, {"task_id": 7}):
        assert ask(**wrong)[0] == 400
    api.finish(first)
    assert ask()[0] == 409


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"dag_id": "nothing"}, 404, "nothing"),
        ({"dag_id": "dag", "params": {"day": 7}}, 400, "day"),
        ({"dag_id": "dag", "logical_date": "yesterday"}, 400, "ISO 8601"),
        ({}, 400, "dag_id"),
    ],
)
def test_what_can_not_be_triggered_is_told(api: Api, body: dict[str, Any], status: int, word: str) -> None:
    found, answer = api.post("trigger", api.claim("first").token, body)
    assert (found, word in answer["error"]) == (status, True), answer


def test_a_finished_attempt_triggers_nothing(api: Api) -> None:
    first = api.claim("first")
    api.finish(first)
    assert api.post("trigger", first.token, {"dag_id": "dag"})[0] == 409


def test_tokens_are_checked(api: Api) -> None:
    attempt_id, token = api.queued["first"]
    body = {"attempt_id": attempt_id, "worker_id": "w1"}
    forged = tokens.attempt_token(b"f" * 64, attempt_id, token.split(".")[2])
    for bad in (forged, token[:-1], token + "0", "x", "a1..", WORKER, token.replace("a1", "w1", 1)):
        assert api.post("claim", bad, body)[0] == 401, bad
    assert api.post("claim", api.queued["other"][1], body)[0] == 403, "of another attempt"
    stale = tokens.attempt_token(KEY, attempt_id, "0" * 24)
    assert api.post("claim", stale, body)[0] == 409, "an older message"
    unknown = tokens.attempt_token(KEY, "f" * 32, "0" * 24)
    assert api.post("claim", unknown, {**body, "attempt_id": "f" * 32})[0] == 409
    for route in ("heartbeat", "logs"):
        for bad in (FORGED, token):
            assert api.post(route, bad, {"batches": []})[0] == 401
    response = api.client.post("/execution/v1/claim", data="{}", headers={protocol.VERSION_HEADER: "1"})
    assert response.status_code == 401
    assert api.state("first") == TaskState.QUEUED


@pytest.mark.parametrize(("version", "word"), [(None, "missing"), ("0", "older"), ("2", "newer"), ("x", "missing")])
def test_another_protocol_version_is_refused_with_the_reason(api: Api, version: str | None, word: str) -> None:
    status, answer = api.post("heartbeat", WORKER, {}, version=version)
    assert status == 426
    assert word in answer["error"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[1]", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"attempt_id": 7, "worker_id": "w"}', 400),
        (b'"' + b"x" * BODY_LIMIT + b'"', 413),
    ],
)
def test_bad_bodies_are_refused(api: Api, data: bytes, status: int) -> None:
    headers = {"Authorization": f"Bearer {api.queued['first'][1]}", protocol.VERSION_HEADER: "1"}
    response = api.client.post("/execution/v1/claim", data=data, headers=headers)
    assert response.status_code == status
    assert response.get_json()["error"]


def test_bad_messages_are_refused(api: Api) -> None:
    first = api.claim("first")
    assert api.finish(first, "running")[0] in (400, 409)
    assert api.post("finish", first.token, {"worker_id": "w1", "report": {"state": "success"}})[0] == 400
    assert api.post("heartbeat", WORKER, {"worker_id": "w1"})[0] == 400
    assert api.post("heartbeat", WORKER, {"worker_id": "w1", "attempts": 3})[0] == 400
    assert api.post("logs", WORKER, {"batches": [{"token": first.token, "lines": ["x"]}]})[0] == 400
    assert api.post("logs", WORKER, {"batches": ["x"]})[0] == 400
    assert api.state("first") == TaskState.RUNNING
    assert api.store.attempts.get(first.attempt_id).state == AttemptState.RUNNING


def test_a_store_that_fails_is_worth_another_try(api: Api) -> None:
    first = api.claim("first")
    api.store.close()
    database = Path(api.config.database_url.removeprefix("sqlite:///"))
    database.rename(database.with_suffix(".away"))
    database.mkdir()
    assert api.finish(first)[0] == 503

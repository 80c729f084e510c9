"""What notifications say, and how they are sent: to a real web server, through the real Apprise, into the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from yarrow import notify
from yarrow.config import Config
from yarrow.errors import ConfigError, Undelivered
from yarrow.notify import Happening, Sender, linked, payload_of, shown_target, trial_payload

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # by Apprise

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MakeConfig = Callable[..., Config]


def happening(**fields: Any) -> Happening:
    facts: dict[str, Any] = {
        "kind": "failure",
        "dag_id": "orders",
        "run_id": "r1",
        "task_id": "load",
        "dag_run_id": 7,
        "state": "failed",
        "at": AT,
        "logical_date": AT - timedelta(days=1),
        "try_number": 2,
        "max_tries": 3,
        "reason": "it broke",
    }
    return Happening(**{**facts, **fields})


def of_run(kind: str, state: str, **fields: Any) -> Happening:
    return happening(kind=kind, state=state, task_id=None, try_number=None, max_tries=None, **fields)


def test_a_failed_task_in_words_and_facts() -> None:
    payload = payload_of(happening())
    assert payload == {
        "event": "task.failure",
        "title": "orders: task load failed",
        "body": "The task load failed in try 2 of 3 at 2026-01-02 03:04:05 UTC.\n"
        "Reason: it broke\n"
        "DAG: orders\n"
        "Run: r1\n"
        "Logical date: 2026-01-01 03:04:05 UTC",
        "dag_id": "orders",
        "run_id": "r1",
        "task_id": "load",
        "map_index": -1,
        "try_number": 2,
        "max_tries": 3,
        "state": "failed",
        "reason": "it broke",
        "logical_date": "2026-01-01T03:04:05+00:00",
        "next_try_at": None,
        "due_at": None,
        "at": "2026-01-02T03:04:05+00:00",
        "path": "/runs/7/tasks/load",
    }


def test_a_message_about_a_mapped_task_leads_to_the_instance() -> None:
    assert happening(map_index=0).path == "/runs/7/tasks/load?map_index=0"


@pytest.mark.parametrize(
    ("what", "event", "title", "sentence"),
    [
        (
            happening(kind="retry", state="up_for_retry", next_try_at=AT + timedelta(seconds=10)),
            "task.retry",
            "orders: task load failed and will be tried again",
            "The task load failed and will be tried again in try 2 of 3",
        ),
        (
            happening(kind="success", state="success", map_index=3, reason=None),
            "task.success",
            "orders: task load[3] succeeded",
            "The task load[3] succeeded in try 2 of 3",
        ),
        (of_run("failure", "failed"), "run.failure", "orders: run r1 failed", "The run r1 failed at 2026-01-02"),
        (of_run("success", "success"), "run.success", "orders: run r1 succeeded", "The run r1 succeeded at"),
        (
            of_run("deadline", "missing", due_at=AT - timedelta(hours=2), dag_run_id=None),
            "run.deadline",
            "orders: run r1 missed its deadline",
            "The run r1 should have succeeded by 2026-01-02 01:04:05 UTC, 2h ago. It is not there yet.",
        ),
        (
            happening(kind="deadline", state="running", due_at=AT),
            "task.deadline",
            "orders: task load missed its deadline",
            "The task load should have succeeded by 2026-01-02 03:04:05 UTC. It is running.",
        ),
    ],
)
def test_each_kind_has_its_words(what: Happening, event: str, title: str, sentence: str) -> None:
    payload = payload_of(what)
    assert (payload["event"], payload["title"]) == (event, title)
    assert str(payload["body"]).startswith(sentence)


def test_a_reason_can_not_pass_for_another_line() -> None:
    payload = payload_of(happening(reason="Rejected by ann: no\r\n\x1b[2KERROR root: all is lost"))
    assert "Reason: Rejected by ann: no [2KERROR root: all is lost\n" in str(payload["body"])


def test_a_long_reason_is_cut_in_words_and_kept_as_a_fact() -> None:
    payload = payload_of(happening(reason="x" * 5000))
    assert len(str(payload["body"])) < 1300
    assert len(str(payload["reason"])) == 5000


def test_the_page_is_linked_when_its_address_is_known() -> None:
    payload = payload_of(happening())
    assert linked(payload, "https://yarrow.example.com/")["url"] == "https://yarrow.example.com/runs/7/tasks/load"
    assert str(linked(payload, "https://y.example.com")["body"]).endswith("\nhttps://y.example.com/runs/7/tasks/load")
    assert "url" not in linked(payload, "")
    assert linked(payload_of(of_run("deadline", "missing", due_at=AT, dag_run_id=None)), "http://y")["url"] == (
        "http://y/dags/orders"
    )


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("log", "log"),
        ("ops_chat", "ops_chat"),
        ("https://ann:hunter22@hooks.example.com:8443/T123/secret?token=x", "https://hooks.example.com:8443/..."),
        ("tgram://123456:secret/chat", "tgram://..."),
    ],
)
def test_a_target_is_shown_without_its_secrets(target: str, shown: str) -> None:
    assert shown_target(target) == shown


def test_a_base_url_must_be_one(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        make_config(base_url="yarrow.example.com")


# Webhooks


def test_a_webhook_gets_the_message_as_json(make_config: MakeConfig, receiver: Any) -> None:
    sender = Sender(make_config(base_url="https://y.example.com"), {})
    sender.send("12", receiver.url.replace("http://", "http://ann:p%40ss@"), payload_of(happening()))
    (posted,) = receiver.posted
    assert posted["path"] == "/hook"
    assert posted["headers"]["x-yarrow-event"] == "task.failure"
    assert posted["headers"]["idempotency-key"] == "12"
    assert posted["headers"]["content-type"] == "application/json"
    assert posted["headers"]["authorization"] == "Basic YW5uOnBAc3M="
    assert posted["body"]["id"] == "12"
    assert posted["body"]["title"] == "orders: task load failed"
    assert posted["body"]["url"] == "https://y.example.com/runs/7/tasks/load"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (500, "answered 500 Internal Server Error."),
        (404, "answered 404 Not Found."),
        (302, "answered 302 Found."),
        ("hang up", "broke the connection off."),
    ],
)
def test_whatever_is_not_a_success_is_told(config: Config, receiver: Any, answer: Any, sentence: str) -> None:
    receiver.answers = [answer]
    with pytest.raises(Undelivered) as caught:
        Sender(config, {}).send("1", receiver.url + "/topsecret?key=topsecret", trial_payload(AT))
    assert str(caught.value) == f"http://127.0.0.1:{receiver.server_port}/... {sentence}"
    assert len(receiver.posted) == 1, "a redirect is not followed, and nothing is repeated here"


def test_a_receiver_that_hangs_is_left_in_time(make_config: MakeConfig, receiver: Any) -> None:
    receiver.answers = ["hang"]
    started = time.monotonic()
    with pytest.raises(Undelivered, match=r"did not answer within 0\.3 seconds"):
        Sender(make_config(notification_timeout=0.3), {}).send("1", receiver.url, trial_payload(AT))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:1/secret", "http://127.0.0.1:1/... can't be reached"),
        ("http://no-such-host.invalid/secret", "http://no-such-host.invalid/... can't be "),
        ("http://[::1/secret", "is not a URL that can be called"),
        ("http:///secret", "is not a URL that can be called"),
    ],
)
def test_an_address_that_leads_nowhere_is_told(config: Config, url: str, sentence: str) -> None:
    with pytest.raises(Undelivered) as caught:
        Sender(config, {}).send("1", url, trial_payload(AT))
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_without_tls_is_told(config: Config, receiver: Any) -> None:
    with pytest.raises(Undelivered, match=r"no certificate that can be trusted, or speaks no TLS\."):
        Sender(config, {}).send("1", receiver.url.replace("http://", "https://"), trial_payload(AT))


# Connections and the log


def test_a_connection_is_looked_up(make_config: MakeConfig, receiver: Any) -> None:
    sender = Sender(make_config(connections={"ops": "http://127.0.0.1:1"}), {"YARROW_CONN_OPS": receiver.url})
    sender.send("1", "ops", trial_payload(AT))
    assert len(receiver.posted) == 1


def test_a_connection_that_is_not_set_is_told(config: Config) -> None:
    with pytest.raises(Undelivered, match=r"connection `ops` is not set\. Set YARROW_CONN_OPS in the environment of"):
        Sender(config, {}).send("1", "ops", trial_payload(AT))


def test_the_log_is_a_target(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Sender(config, {}).send("1", "log", payload_of(happening()))
    (record,) = caplog.records
    assert record.name == "yarrow.notifications"
    assert record.getMessage().startswith("orders: task load failed\nThe task load failed in try 2 of 3")


# Apprise


def test_apprise_delivers(config: Config, receiver: Any) -> None:
    Sender(config, {"YARROW_CONN_OPS": receiver.url.replace("http://", "json://")}).send(
        "1", "ops", payload_of(happening(reason="<b> & *it* broke"))
    )
    (posted,) = receiver.posted
    assert posted["body"]["title"] == "orders: task load failed"
    assert "<b> & *it* broke" in posted["body"]["message"]
    assert posted["body"]["type"] == "failure"


def test_apprise_says_why_it_could_not_deliver(config: Config, receiver: Any) -> None:
    receiver.answers = [500]
    url = f"json://ann:topsecret@127.0.0.1:{receiver.server_port}/topsecret"
    with pytest.raises(Undelivered) as caught:
        Sender(config, {}).send("1", url, trial_payload(AT))
    assert str(caught.value).startswith("json://...: ")
    assert "500" in str(caught.value)
    assert "topsecret" not in str(caught.value)


def test_what_apprise_says_is_told_without_what_the_url_hides() -> None:
    said = "Login of ann with p@ss word! failed, key s3cr/etkey, token tok/en-1234"
    result = SimpleNamespace(logs=lambda: [SimpleNamespace(message=said)])
    why = notify._why_undelivered(result, "mailto://ann:p%40ss%20word!@host/tok%2Fen-1234?key=s3cr%2Fetkey")
    assert why == "Login of ann with *** failed, key ***, token ***"


def test_apprise_leaves_a_receiver_that_hangs(make_config: MakeConfig, receiver: Any) -> None:
    receiver.answers = ["hang"]
    url = receiver.url.replace("http://", "json://")
    started = time.monotonic()
    with pytest.raises(Undelivered, match=r"json://\.\.\.: "):
        Sender(make_config(notification_timeout=0.3), {}).send("1", url, trial_payload(AT))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("url", ["nonsense://topsecret", "tgram://topsecret"])
def test_a_url_that_apprise_does_not_know_is_told(config: Config, url: str) -> None:
    with pytest.raises(Undelivered, match=r"is not a complete URL of a service that Apprise knows") as caught:
        Sender(config, {}).send("1", url, trial_payload(AT))
    assert "topsecret" not in str(caught.value)


def test_without_apprise_it_says_what_to_install(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(Undelivered, match=r"pip install 'yarrow\[notify\]'"):
        Sender(config, {}).send("1", "tgram://x/y", trial_payload(AT))

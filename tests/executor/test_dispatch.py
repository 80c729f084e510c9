"""Sending wake-ups to a real broker, and to one that is not there."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import time

import pytest
import redis

from yarrow.executor import Wakeup
from yarrow_executor.app import make_app
from yarrow_executor.dispatch import CeleryExecutor
from yarrow_executor.transport import TASK


def wakeups(count: int, queue: str = "any") -> list[Wakeup]:
    return [Wakeup(f"{number:032d}", f"token-{number}", queue) for number in range(count)]


def test_wake_ups_lie_in_their_queues_in_order(valkey_url: str) -> None:
    executor = CeleryExecutor(valkey_url)
    try:
        assert list(executor.publish([])) == []
        sent = [*wakeups(1500), *wakeups(2, "inference")]
        assert list(executor.publish(sent)) == sent
        assert executor.error is None
    finally:
        executor.close()
    with redis.Redis.from_url(valkey_url) as broker:
        assert broker.llen("yarrow.any") == 1500
        assert broker.llen("yarrow.inference") == 2
        raw = json.loads(broker.rpop("yarrow.any") or b"")  # type: ignore[arg-type]  # a synchronous client
        assert broker.keys("_kombu*") == [], "nothing is declared that would stay"
    args, kwargs, _ = json.loads(base64.b64decode(raw["body"]))
    assert (args, kwargs) == ([f"{0:032d}", "token-0"], {})
    assert raw["headers"]["task"] == TASK
    assert raw["content-type"] == "application/json"


@pytest.mark.slow
def test_a_broker_that_is_away_or_frozen_costs_seconds_and_nothing_else(valkey_url: str) -> None:
    frozen = socket.create_server(("127.0.0.1", 0))
    port = frozen.getsockname()[1]
    executor = CeleryExecutor(f"redis://127.0.0.1:{port}/0")
    began = time.monotonic()
    assert list(executor.publish(wakeups(3))) == []
    assert time.monotonic() - began < 6
    assert executor.error
    frozen.close()
    began = time.monotonic()
    assert list(executor.publish(wakeups(3))) == []
    assert time.monotonic() - began < 5
    assert "refused" in executor.error.lower()
    executor.close()


@pytest.mark.slow
def test_after_an_outage_it_sends_again(valkey_url: str) -> None:
    executor = CeleryExecutor(valkey_url)
    assert len(executor.publish(wakeups(1))) == 1
    with redis.Redis.from_url(valkey_url) as broker:
        broker.client_kill_filter(_type="normal", skipme=True)
        executor.publish(wakeups(1))  # may fail: its connection is gone
        assert len(executor.publish(wakeups(1))) == 1
        assert executor.error is None
    executor.close()


def test_the_scheduler_does_not_load_celery_before_there_is_something_to_send() -> None:
    script = (
        "import sys; from yarrow_executor.dispatch import CeleryExecutor; CeleryExecutor('redis://x').publish([]); "
        "sys.exit(any(name.split('.')[0] in ('celery', 'kombu', 'redis') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {script}"], check=True)


def test_the_celery_app_loses_nothing_and_retries_nothing() -> None:
    conf = make_app("redis://127.0.0.1:1/0", ["any", "inference"]).conf
    assert [queue.name for queue in conf.task_queues] == ["yarrow.any", "yarrow.inference"]
    assert conf.accept_content == ["json"]
    assert conf.result_backend is None
    off = ("task_acks_late", "task_reject_on_worker_lost", "task_publish_retry", "task_create_missing_queues")
    assert [conf[name] for name in off] == [False] * 4
    assert not conf.worker_enable_remote_control
    assert conf.worker_disable_prefetch
    assert "retry_on_timeout" not in conf.broker_transport_options

"""Wake-ups get lost, doubled, late or half sent, the broker goes away, and every task still runs exactly once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from yarrow.errors import StoreError
from yarrow.executor import Wakeup
from yarrow.language.spec import DagSpec
from yarrow.states import RunState
from yarrow.store.records import PublishRow, WorkerRecord
from yarrow.store.workers import served_queues
from yarrow_scheduler.dispatch import room, route
from yarrow_scheduler.publisher import Publisher

MakeDag = Callable[..., DagSpec]

CHAIN = {"b": ["a"], "c": ["b"], "d": ["c"]}


@pytest.fixture
def chain(engine: Any, make_dag: MakeDag) -> Any:
    """Two runs of a chain of four tasks."""
    engine.publish(make_dag("chain", "a", "b", "c", "d", upstream=CHAIN))
    engine.add_worker()
    for number in range(2):
        engine.store.runs.trigger("chain", who="tester", run_id=f"run-{number}")
    return engine


def assert_each_task_ran_once(engine: Any) -> None:
    engine.assert_ended("chain", RunState.SUCCESS)
    ran = [(attempt.run_id, attempt.task_id) for worker in engine.workers for attempt in worker.claimed]
    assert len(ran) == len(set(ran)) == 8
    for run in engine.runs("chain"):
        for instance in engine.store.runs.task_instances(run.id):
            assert len(engine.store.attempts.attempts(instance.id)) == 1


def test_a_lost_message_is_sent_again(chain: Any) -> None:
    chain.executor.fault = "drop"
    chain.settle()
    chain.executor.fault = None
    chain.advance(50)
    chain.settle()
    assert chain.workers[0].claimed == []
    chain.advance(20)
    chain.settle()
    assert_each_task_ran_once(chain)


def test_every_message_doubled_and_out_of_order(chain: Any) -> None:
    chain.executor.fault = "double"
    chain.settle()
    assert_each_task_ran_once(chain)
    assert chain.workers[0].refused == 8


def test_a_late_message_claims_nothing_any_more(chain: Any) -> None:
    chain.tick()
    late = list(chain.executor.delivered)
    chain.executor.delivered.clear()
    chain.advance(70)
    chain.settle()
    chain.executor.delivered += late
    chain.settle()
    assert_each_task_ran_once(chain)
    assert chain.workers[0].refused == len(late)


@pytest.mark.parametrize("fault", ["raise", "deliver and raise", "half"])
def test_a_publish_error_is_unknown_and_tried_again(chain: Any, fault: str) -> None:
    chain.executor.fault = fault
    chain.settle()
    assert chain.scheduler.publisher.error is not None
    chain.executor.fault = None
    chain.advance(10, step=1)
    chain.settle()
    assert_each_task_ran_once(chain)
    assert chain.scheduler.publisher.error is None


def test_while_the_broker_is_down_it_is_asked_less_and_less_often(chain: Any, caplog: pytest.LogCaptureFixture) -> None:
    chain.executor.fault = "raise"
    with caplog.at_level(logging.INFO):
        chain.advance(120, step=1)
    assert 10 < chain.executor.calls < 25
    (record,) = chain.store.workers.schedulers()
    assert record.broker_error == "The broker is down."
    chain.executor.fault = None
    with caplog.at_level(logging.INFO):
        chain.advance(10, step=1)
        chain.settle()
    assert_each_task_ran_once(chain)
    actions = [record.action for record in caplog.records if hasattr(record, "action")]
    assert actions.count("publish_failed") == 1, "said once"
    assert actions.count("broker_back") == 1
    chain.advance(5)
    (record,) = chain.store.workers.schedulers()
    assert record.broker_error is None


@pytest.mark.parametrize("fault", [None, "drop", "deliver and raise"])
def test_a_scheduler_that_dies_before_it_notes_what_was_sent(
    chain: Any, fault: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise StoreError("The scheduler was killed.")

    chain.executor.fault = fault
    with monkeypatch.context() as patch:
        patch.setattr(type(chain.store.attempts), "mark_published", die)
        chain.tick()
    chain.executor.fault = None
    chain.start_scheduler()
    chain.settle()
    chain.advance(70)
    chain.settle()
    assert_each_task_ran_once(chain)


def test_a_restart_with_everything_queued_sends_nothing_twice(chain: Any) -> None:
    chain.tick()
    sent = len(chain.executor.delivered)
    for _ in range(3):
        chain.start_scheduler()
        chain.tick()
    assert len(chain.executor.delivered) == sent
    chain.settle()
    assert_each_task_ran_once(chain)


class FrozenExecutor:
    """A broker that takes a message and does not answer until it is let go."""

    error: str | None = None

    def __init__(self) -> None:
        self.go = threading.Event()
        self.entered = threading.Event()
        self.sent: list[Wakeup] = []

    def publish(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        self.entered.set()
        assert self.go.wait(10)
        self.sent += wakeups
        return wakeups

    def close(self) -> None:
        pass


@pytest.fixture
def frozen(sqlite_store: Any, clock: Any) -> Any:
    executor = FrozenExecutor()
    rung: list[bool] = []
    publisher = Publisher(
        executor,
        sqlite_store.attempts,
        b"k" * 64,
        clock,
        dispatch_timeout=60.0,
        on_idle=lambda: rung.append(True),
    )
    yield executor, publisher, rung
    executor.go.set()
    publisher.close()


BATCH = [(PublishRow("a" * 32, "nonce", "default"), "default")]


def test_a_frozen_broker_does_not_hold_the_loop(frozen: Any, clock: Any) -> None:
    executor, publisher, rung = frozen
    assert publisher.ready(clock())
    publisher.hand_over(BATCH)
    assert executor.entered.wait(10)
    assert not publisher.ready(clock()), "one batch at a time"
    assert not publisher.flush(0.01)
    executor.go.set()
    assert publisher.flush(10)
    assert publisher.ready(clock())
    publisher.close()
    assert rung == [True], "the loop had more for it, and is told"


def test_nobody_is_woken_who_did_not_ask(frozen: Any) -> None:
    executor, publisher, rung = frozen
    executor.go.set()
    publisher.hand_over(BATCH)
    assert publisher.flush(10)
    publisher.close()
    assert rung == []


def test_a_batch_too_large_is_cut_and_the_rest_asked_for(frozen: Any) -> None:
    executor, publisher, rung = frozen
    executor.go.set()
    publisher.hand_over([(PublishRow(f"{number:032}", "nonce", "default"), "default") for number in range(501)])
    assert publisher.flush(10)
    publisher.close()
    assert len(executor.sent) == 500
    assert rung == [True]


def test_a_pause_longer_than_any_is_the_clock_put_back(frozen: Any, clock: Any) -> None:
    executor, publisher, _ = frozen
    executor.go.set()
    executor.publish = lambda wakeups: ()
    publisher.hand_over(BATCH)
    assert publisher.flush(10)
    assert not publisher.ready(clock())
    assert publisher.error == "1 of 1 messages may not have gone out"
    clock.advance(-3600)
    assert publisher.ready(clock())


def worker(queues: Sequence[str], slots: int = 2, running: int = 0, *, stopping: bool = False) -> WorkerRecord:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return WorkerRecord(",".join(queues), "host", 1, queues, slots, "0", stopping, now, now, running)


@pytest.mark.parametrize(
    ("workers", "outstanding", "expected"),
    [
        ([], {}, {}),
        ([worker(["default"])], {}, {"default": 4}),
        ([worker(["default"], running=2)], {}, {"default": 0}),
        ([worker(["default"], running=3)], {}, {"default": 0}),
        ([worker(["default"]), worker(["default", "gpu"], slots=1)], {}, {"default": 6, "gpu": 2}),
        ([worker(["default"])], {"default": 3}, {"default": 1}),
        ([worker(["default"])], {"default": 9}, {"default": -5}),
        ([worker(["*"])], {"default": 1, "gpu": 2}, {"any": 1}),
        ([worker(["*"]), worker(["gpu"])], {"default": 1, "gpu": 2}, {"any": 3, "gpu": 2}),
        ([worker(["*"]), worker(["gpu"], stopping=True)], {"gpu": 2}, {"any": 2}),
        ([worker(["*", "gpu"])], {}, {"any": 4, "gpu": 4}),
        ([worker(["default", "default"])], {}, {"default": 4}),
    ],
)
def test_room(workers: list[WorkerRecord], outstanding: dict[str, int], expected: dict[str, int]) -> None:
    assert dict(room(workers, outstanding)) == expected


def test_routes() -> None:
    served = served_queues([worker(["gpu", "*"]), worker(["old"], stopping=True)])
    assert served == {"gpu", "*"}
    assert [route(queue, served) for queue in ("gpu", "default", "old")] == ["gpu", "any", "any"]

import os
import socket
from datetime import timedelta

import pytest

from yarrow.errors import SecondScheduler
from yarrow.store.records import PoolRecord, QueueRecord

HERE = socket.gethostname()
NOBODY = 2**22 + 1  # beyond the largest process id of Linux


def test_a_worker_is_alive_for_a_lease(stage) -> None:
    stage.begin()
    stage.beat(worker="w1", queues=["default", "gpu"], slots=8)
    claimed = stage.claim("w1")
    (worker,) = stage.store.workers.alive(60)
    assert (worker.worker_id, worker.queues, worker.slots, worker.running) == ("w1", ["default", "gpu"], 8, 1)
    started = worker.started_at
    stage.clock.advance(60)
    stage.beat(claimed.attempt_id, worker="w1", stopping=True)
    (worker,) = stage.store.workers.alive(60)
    assert (worker.started_at, worker.seen_at, worker.stopping) == (started, stage.clock(), True)
    stage.clock.advance(61)
    assert stage.store.workers.alive(60) == []


def test_what_is_gone_is_forgotten(stage) -> None:
    stage.beat(worker="w1")
    stage.store.workers.register_scheduler("s1", HERE, NOBODY)
    stage.clock.advance(100)
    stage.beat(worker="w2")
    assert stage.store.workers.forget_stale(stage.clock() - timedelta(seconds=50)) == 2
    assert [worker.worker_id for worker in stage.store.workers.alive(1000)] == ["w2"]
    stage.store.workers.remove("w2")
    assert stage.store.workers.alive(1000) == []


def test_pools_are_what_the_configuration_says(stage) -> None:
    stage.store.workers.set_pools({"default_pool": 4, "db": 2})
    stage.begin(stage.dag(tasks=[stage.task("a", pool="db")]))
    stage.store.attempts.grant(10)
    assert stage.store.workers.pools() == [PoolRecord("db", 2, 1), PoolRecord("default_pool", 4, 0)]
    stage.store.workers.set_pools({"default_pool": 5})
    assert stage.store.workers.pools() == [PoolRecord("default_pool", 5, 0)]
    stage.store.workers.set_pools({})
    assert stage.store.workers.pools() == []


def test_a_scheduler_beats(stage) -> None:
    workers = stage.store.workers
    workers.register_scheduler("s1", HERE, os.getpid())
    stage.clock.advance(5)
    workers.beat_scheduler("s1", loop_seconds=0.02, broker_error="connection refused")
    (scheduler,) = workers.schedulers()
    assert (scheduler.seen_at, scheduler.loop_seconds) == (stage.clock(), 0.02)
    assert scheduler.broker_error == "connection refused"
    workers.beat_scheduler("s1")
    assert workers.schedulers()[0].broker_error is None
    workers.unregister_scheduler("s1")
    assert workers.schedulers() == []
    with pytest.raises(SecondScheduler, match="its place was taken"):
        workers.beat_scheduler("s1")


def test_sqlite_allows_one_scheduler(sqlite_stage) -> None:
    stage, workers = sqlite_stage, sqlite_stage.store.workers
    workers.register_scheduler("s1", "elsewhere", 4711, beat=5)
    stage.clock.advance(14)
    with pytest.raises(SecondScheduler, match="process 4711 on elsewhere, last seen at 00:00:00 UTC") as error:
        workers.register_scheduler("s2", HERE, os.getpid(), beat=5)
    assert "PostgreSQL" in str(error.value)
    workers.register_scheduler("s1", "elsewhere", 4711, beat=5)  # the same one again
    stage.clock.advance(16)
    workers.register_scheduler("s2", HERE, os.getpid(), beat=5)
    with pytest.raises(SecondScheduler):
        workers.beat_scheduler("s1")


@pytest.mark.parametrize(("pid", "refused"), [(NOBODY, False), (os.getpid(), False), (os.getppid(), True)])
def test_a_scheduler_that_was_killed_on_this_machine_leaves_its_place_at_once(sqlite_stage, pid, refused) -> None:
    workers = sqlite_stage.store.workers
    workers.register_scheduler("s1", HERE, pid)
    if refused:
        with pytest.raises(SecondScheduler):
            workers.register_scheduler("s2", HERE, os.getpid())
    else:
        workers.register_scheduler("s2", HERE, os.getpid())
        assert [one.scheduler_id for one in workers.schedulers()] == ["s2"]


def test_postgresql_allows_many_schedulers(postgres_stage) -> None:
    workers = postgres_stage.store.workers
    workers.register_scheduler("s1", "one", 1)
    workers.register_scheduler("s2", "two", 2)
    assert {one.scheduler_id for one in workers.schedulers()} == {"s1", "s2"}


def test_health_names_every_problem(stage) -> None:
    health = stage.store.workers.health()
    assert health.problems == ["No scheduler is running.", "No worker is running."]
    assert health.database == stage.store.dialect

    stage.begin(stage.dag(tasks=[stage.task("a"), stage.task("g", queue="gpu")]), "a", "g")
    stage.store.workers.register_scheduler("s1", HERE, os.getpid())
    stage.store.workers.beat_scheduler("s1", broker_error="connection refused")
    stage.beat(worker="w1", slots=4)
    stage.claim("w1")
    health = stage.store.workers.health()
    assert health.problems == [
        "The broker: connection refused",
        "No worker serves the queue 'gpu'; tasks that wait for one: 1.",
    ]
    assert health.queues == [
        QueueRecord("default", scheduled=0, queued=0, running=1, workers=1, slots=4),
        QueueRecord("gpu", scheduled=0, queued=1, running=0, workers=0, slots=0),
    ]
    assert health.runs == {"running": 1}
    assert health.pools == [PoolRecord("default_pool", 128, 2)]

    stage.beat(worker="w2", queues=["*"], slots=2)
    stage.store.workers.beat_scheduler("s1")
    health = stage.store.workers.health()
    assert health.problems == []
    assert [(queue.workers, queue.slots) for queue in health.queues] == [(2, 6), (1, 2)]
    stage.clock.advance(61)
    assert stage.store.workers.health().problems[:2] == ["No scheduler is running.", "No worker is running."]
    assert health.to_json()["workers"][0]["worker_id"] == "w1"

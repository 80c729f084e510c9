"""The peer: what Celery alone does with no-op tasks, on the same broker, with its defaults and the same concurrency."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path

import redis
from celery import Celery

QUEUE = "bench-noop"


def make_bench_app(broker_url: str) -> Celery:
    app = Celery("bench", broker=broker_url, set_as_current=False)
    app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
    client = redis.Redis.from_url(broker_url)

    @app.task(name="bench.noop", shared=False)
    def noop() -> None:
        pass

    @app.task(name="bench.mark", shared=False)
    def mark(key: str) -> None:
        client.set(key, 1)

    return app


def tasks_per_second(broker_url: str, *, concurrency: int, count: int = 2000) -> float:
    """Publishes `count` no-op tasks to a running worker and times the last one's execution. Unit: tasks/s."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.raw_celery", broker_url, str(concurrency)],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        app = make_bench_app(broker_url)
        client = redis.Redis.from_url(broker_url)
        _run(app, client, 50)  # until its pool is warm
        return count / _run(app, client, count)
    finally:
        worker.terminate()
        worker.wait(timeout=30)


def _run(app: Celery, client: redis.Redis, count: int) -> float:
    """Seconds from the first message until the last task has been executed, which sets a key of this run alone."""
    key = f"bench-mark-{uuid.uuid4().hex}"
    started = time.monotonic()
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for _ in range(count):
            app.tasks["bench.noop"].apply_async(producer=producer, queue=QUEUE)
        app.tasks["bench.mark"].apply_async((key,), producer=producer, queue=QUEUE)
    while not client.delete(key):
        if time.monotonic() - started > 120:
            raise RuntimeError("the plain Celery worker did not finish its tasks")
        time.sleep(0.002)
    return time.monotonic() - started


def serve(broker_url: str, concurrency: int) -> None:
    app = make_bench_app(broker_url)
    app.worker_main(
        ["worker", "-Q", QUEUE, "-c", str(concurrency), "--without-gossip", "--without-mingle", "--without-heartbeat"]
    )


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))

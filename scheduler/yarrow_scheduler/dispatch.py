"""Step `dispatch`: workers with a free slot are woken for the attempts that wait for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime

from yarrow.store import Store
from yarrow.store.records import PublishRow, WorkerRecord
from yarrow.store.workers import served_queues
from yarrow_scheduler.publisher import Publisher

EVERY_QUEUE = "*"
"""What a worker says of itself that takes the tasks of every queue without a worker of its own."""
ANY = "any"
"""The executor's queue from which such a worker takes its messages."""

_MESSAGES_PER_SLOT = 2  # so that a slot finds the next message there as soon as it is free


def dispatch(store: Store, now: datetime, workers: Collection[WorkerRecord], publisher: Publisher) -> None:
    """Hands over what the workers have room for, unless the publisher is busy or waits for the broker."""
    if not publisher.ready(now):
        return
    waiting = store.attempts.waiting(now)
    if not waiting:
        return
    served = served_queues(workers)
    left = room(workers, store.attempts.outstanding(now))
    rows = store.attempts.to_publish({queue: left[route(queue, served)] for queue in waiting}, now)
    chosen: list[tuple[PublishRow, str]] = []
    for row in rows:
        target = route(row.queue, served)
        if left[target] > 0:
            left[target] -= 1
            chosen.append((row, target))
    publisher.hand_over(chosen)


def route(queue: str, served: Collection[str]) -> str:
    """The executor's queue for the tasks of a queue: its own, or the one that all others share."""
    return queue if queue in served else ANY


def room(workers: Collection[WorkerRecord], outstanding: Mapping[str, int]) -> Counter[str]:
    """How many messages each of the executor's queues may get: twice the free slots, less those that are out."""
    served = served_queues(workers)
    left: Counter[str] = Counter()
    for worker in workers:
        free = max(worker.slots - worker.running, 0)
        for queue in set(worker.queues) & served if not worker.stopping else ():
            left[ANY if queue == EVERY_QUEUE else queue] += _MESSAGES_PER_SLOT * free
    for queue, count in outstanding.items():
        left[route(queue, served)] -= count
    return left

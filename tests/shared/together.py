"""Many things done at once, as several processes do them."""

from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any


def together(*works: Callable[[], Any]) -> list[Exception]:
    """Runs the works in threads, all from the same moment, and returns what they raised."""
    errors: list[Exception] = []
    barrier = Barrier(len(works))

    def guarded(work: Callable[[], Any]) -> None:
        try:
            barrier.wait(timeout=30)
            work()
        except Exception as error:  # noqa: BLE001 -- shown by the assertion
            errors.append(error)

    threads = [Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return errors

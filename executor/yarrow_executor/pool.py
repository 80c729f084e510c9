"""Celery's prefork pool, which also tells what a pool child was doing when it ended."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool

OnDown = Callable[[int, int, int], None]

_SOON = 0.005  # seconds


def slot_pool(on_down: OnDown) -> type[TaskPool]:
    """The pool class of a worker.

    Args:
        on_down: Called in the main process with slot, pid and exit code (negative: minus the signal) of a child that
            ended, before another one takes its slot.
    """

    class Processes(AsynPool):  # type: ignore[misc]  # celery has no types
        def _create_process_handlers(self, hub: Any) -> None:
            super()._create_process_handlers(hub)
            forget: Callable[[Any], None] = getattr(self, "on_process_down")  # noqa: B009 - set by the line above

            def down(process: Any) -> None:
                on_down(process.index, process.pid, process.exitcode)
                # Celery gives up the lost job, and its place, when it looks at the pool next time.
                hub.call_later(2 * self.lost_worker_timeout, self.maintain_pool)
                forget(process)

            self.on_process_down = down

        def _event_process_exit(self, hub: Any, process: Any) -> None:
            super()._event_process_exit(hub, process)
            self._look_again(hub, process, _SOON)

        def _look_again(self, hub: Any, process: Any, after: float) -> None:
            # A process closes the pipe that tells of its end a moment before it can be waited for, and Celery's next
            # look is up to five seconds away.
            if process in self._pool and after < 1:
                self.maintain_pool()
                hub.call_later(after, self._look_again, hub, process, 2 * after)

    class Pool(TaskPool):  # type: ignore[misc]  # celery has no types
        Pool = Processes

        def on_terminate(self) -> None:
            # Children ignore the SIGTERM that Celery would send them and wait for.
            if self._pool is not None:
                for process in self._pool._pool:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
            super().on_terminate()

    return Pool

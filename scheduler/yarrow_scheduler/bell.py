"""What wakes the loop from its sleep: any thread, or a signal handler, may ring."""

from __future__ import annotations

import queue


class Bell:
    """A doorbell. Rings that nobody waited for are kept, and heard as one."""

    def __init__(self) -> None:
        # Unlike those of an Event, the locks of a SimpleQueue can be taken again inside a signal handler.
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ring(self) -> None:
        """Wakes whoever waits, now or next. Never blocks."""
        self._rings.put(None)

    def wait(self, timeout: float) -> bool:
        """Sleeps for `timeout` seconds or until it rings. Returns whether it rang."""
        try:
            self._rings.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return False
        try:
            while True:
                self._rings.get_nowait()
        except queue.Empty:
            return True

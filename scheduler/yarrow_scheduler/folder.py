"""The thread that looks through the DAG folder again and again, beside the loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from yarrow.errors import YarrowError
from yarrow_scheduler.catalog import Catalog
from yarrow_scheduler.parser import Parser, ParserClosed

_CONFIRM = 0.5  # seconds until the second look that confirms that a file is gone
_LONGEST_PAUSE = 60.0  # seconds between tries while nothing works
_CLOSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class FolderWatch:
    """Refreshes the catalog every `interval` seconds."""

    def __init__(self, catalog: Catalog, parser: Parser, interval: float, on_change: Callable[[], None]) -> None:
        """Args:
        on_change: Called when DAGs were published or are gone.
        """
        self._catalog = catalog
        self._parser = parser
        self._interval = interval
        self._on_change = on_change
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="yarrow-catalog", daemon=True)

    def start(self) -> None:
        """Begins the first look at once."""
        self._thread.start()

    def close(self) -> None:
        """Ends, in the middle of a look if need be."""
        self._closed.set()
        self._parser.close()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        failures = 0
        pause = 0.0
        while not self._closed.wait(pause):
            pause = self._interval
            try:
                if self._catalog.refresh(self._on_change).look_again:
                    pause = min(_CONFIRM, self._interval)
                failures = 0
            except ParserClosed:
                return
            except Exception as error:  # noqa: BLE001 - whatever happens here, the DAGs that are known run on
                failures += 1
                pause = min(max(self._interval, 2.0**failures), max(self._interval, _LONGEST_PAUSE))
                trace = None if isinstance(error, YarrowError) else error
                _log.error(
                    "the DAGs could not be refreshed: %s", error, exc_info=trace, extra={"action": "refresh_failed"}
                )

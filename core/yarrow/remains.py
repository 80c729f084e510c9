"""What deleted runs leave behind outside the database: their logs, and their large XComs in the object store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from yarrow import xcom
from yarrow.config import Config
from yarrow.errors import YarrowError
from yarrow.logs import LogStore


class Remains:
    """Removes what deleted runs leave behind. Nothing depends on it any more, so what fails is told and left."""

    def __init__(self, config: Config) -> None:
        self._logs = LogStore(config.logs_url)
        self._objects_url = config.objects_url

    def remove(self, runs: Iterable[tuple[str, str]], references: Iterable[str]) -> list[str]:
        """Removes the logs of runs (dag_id, run_id), and objects by their address.

        Returns:
            A sentence for each of which that failed.
        """
        work = [
            (f"The logs of {dag_id} {run_id}", partial(self._logs.delete_run, dag_id, run_id))
            for dag_id, run_id in runs
        ]
        work += [(f"The XCom {address}", partial(xcom.discard, address, self._objects_url)) for address in references]
        return _attempted(work)

    def remove_dag(self, dag_id: str) -> list[str]:
        """Removes the logs of all runs of a DAG. Returns as `remove` does."""
        return _attempted([(f"The logs of {dag_id}", partial(self._logs.delete_dag, dag_id))])

    def log_bytes(self, runs: Iterable[tuple[str, str]]) -> int | None:
        """The bytes of the logs of runs; None where counting them is slow."""
        total = 0
        for dag_id, run_id in runs:
            size = self._logs.size_of_run(dag_id, run_id)
            if size is None:
                return None
            total += size
        return total


def _attempted(work: Sequence[tuple[str, Callable[[], None]]]) -> list[str]:
    failures = []
    for what, remove in work:
        try:
            remove()
        except Exception as error:  # noqa: BLE001 - whatever an object store raises: the others are removed all the same
            reason = error.message if isinstance(error, YarrowError) else f"{type(error).__name__}: {error}"
            failures.append(f"{what} could not be removed: {reason.rstrip('.')}.")
    return failures

"""The specs of DAG versions, read once and kept in the process."""

from __future__ import annotations

import threading
from collections import OrderedDict

from sqlalchemy import Connection, bindparam, select

from yarrow.errors import NotFound
from yarrow.language.spec import DagSpec
from yarrow.store.tables import dag_version

_READ = select(dag_version.c.spec).where(
    dag_version.c.dag_id == bindparam("dag_id"), dag_version.c.version == bindparam("version")
)


class Specs:
    """Keeps the specs used last. A version never changes, so nothing here can be out of date."""

    def __init__(self, limit: int = 50_000) -> None:
        """Keeps at most `limit` tasks, about a kilobyte each, however many DAGs they belong to."""
        self._limit = limit
        self._kept: OrderedDict[tuple[str, str], DagSpec] = OrderedDict()
        self._tasks = 0
        self._lock = threading.Lock()

    def get(self, connection: Connection, dag_id: str, version: str) -> DagSpec:
        """The spec of a version. Raises NotFound."""
        key = (dag_id, version)
        with self._lock:
            if (spec := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return spec
        data = connection.execute(_READ, {"dag_id": dag_id, "version": version}).scalar_one_or_none()
        if data is None:
            raise NotFound(f"There is no version {version[:12]} of the DAG {dag_id!r}.")
        spec = DagSpec.from_json(data)
        self._keep(key, spec)
        return spec

    def _keep(self, key: tuple[str, str], spec: DagSpec) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = spec
            self._tasks += len(spec.tasks)
            while self._tasks > self._limit and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._tasks -= len(oldest.tasks)

"""Keeps the store's catalog in step with the DAG folder.

What a file proves to be depends on the installed operators too, so every start of the scheduler proves all files anew,
while the DAGs of last time run on. From then on only what changes is read.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from yarrow.clock import Clock
from yarrow.language import codes
from yarrow.language.faults import Fault
from yarrow.store.catalog import Catalog as StoredCatalog
from yarrow.store.records import FileRecord
from yarrow_scheduler.parsed import Parsed
from yarrow_scheduler.parser import Parser
from yarrow_scheduler.scan import Scan, Stamp, scan, stamp_of

_BATCH = 100  # files written to the store at a time: the first DAGs appear while the last are being parsed
_RACY_NS = 2_000_000_000  # a file that changed so lately may change again and keep its size and time
_LARGEST_HASHED = 1024 * 1024  # bytes; the loader refuses what is larger without reading on
_SCANS_UNTIL_GONE = 2
_TOLD_ONE_BY_ONE = 10

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refresh:
    """What one pass over the folder did."""

    files: int
    parsed: int = 0
    published: int = 0  # DAGs that are new or changed
    deactivated: int = 0
    look_again: bool = False  # a file is missing or was passed over, and the next scan will tell


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a file since it was last looked at."""

    stamp: Stamp
    settled: bool = False  # False: the stamp alone does not say that the file is the same
    content_hash: str | None = None  # None: parse it whatever it holds
    included: Mapping[str, Stamp | None] = field(default_factory=dict)
    dag_id: str | None = None  # that it holds, however broken it may be now
    wants: str | None = None  # the dag_id that another file holds
    faults: tuple[Fault, ...] = ()
    missed: int = 0  # scans in a row that did not find it


class Catalog:
    """One DAG folder. Its owner calls `refresh` again and again, from one thread."""

    def __init__(self, folder: Path, store: StoredCatalog, parser: Parser, clock: Clock) -> None:
        self._folder = folder
        self._store = store
        self._parser = parser
        self._clock = clock
        self._known: dict[str, _Known] | None = None  # by path; None: to be recalled from the store
        self._holders: dict[str, tuple[str, str]] = {}  # dag_id -> (the file that holds it, the version published)
        self._fragments: frozenset[str] = frozenset()  # files that others name with `!file`
        self._complaints: dict[str, str] = {}

    def refresh(self, on_change: Callable[[], None]) -> Refresh:
        """Looks through the folder once, and brings the store up to date with it.

        Args:
            on_change: Called when DAGs were published or deactivated, perhaps several times.

        Raises:
            ParserUnavailable, ParserClosed: Not everything could be parsed. The next pass begins anew.
            StoreError: The database can't be used. The next pass begins anew.
        """
        if self._known is None:
            self._known = self._recall()
        try:
            return self._refresh(self._known, on_change)
        except BaseException:
            self._known = None  # what is known may be ahead of what the store has been told
            raise

    def _refresh(self, known: dict[str, _Known], on_change: Callable[[], None]) -> Refresh:
        found = scan(self._folder)
        self._complain(found)
        changed = self._changed(known, found)
        published = 0
        outcomes = zip(self._parser.parse([path for path, _ in changed]), changed, strict=True)
        for batch in _batches(outcomes, _BATCH):
            if new := self._take_in(known, found, [(outcome, entry) for outcome, (_, entry) in batch]):
                published += len(new)
                on_change()
        self._record_faults(known, [path for path, _ in changed])
        missing = self._note_missing(known, found)
        deactivated = self._deactivate(known)
        if deactivated:
            on_change()
        released = self._release(known)
        if not changed:
            self._parser.rest()
        return Refresh(len(found.files), len(changed), published, len(deactivated), look_again=missing or released)

    # What there is to parse.

    def _recall(self) -> dict[str, _Known]:
        """What the store knows from last time: enough to tell which file holds which dag_id, and which has changed."""
        self._holders = {dag.dag_id: (dag.path, dag.version) for dag in self._store.dags(active_only=True)}
        recalled = {
            path: _Known(Stamp(row.size, row.mtime_ns, 0), dag_id=row.dag_id, faults=tuple(row.faults))
            for path, row in self._store.files().items()
        }
        for dag_id, (path, _) in self._holders.items():
            recalled.setdefault(path, _Known(Stamp(0, 0, 0), dag_id=dag_id))
        return recalled

    def _changed(self, known: dict[str, _Known], found: Scan) -> list[tuple[str, _Known]]:
        """The files to parse, each with its entry to be; those that were never seen like this come first."""
        changed: list[tuple[bool, str, _Known]] = []
        touched: list[str] = []
        now_ns = self._now_ns()
        for path, stamp in found.files.items():
            before = known.get(path)
            if before is None:
                changed.append((False, path, self._entry(path, stamp, now_ns)))
                continue
            same_included = all(stamp_of(self._folder / included) == seen for included, seen in before.included.items())
            if before.settled and before.stamp == stamp and same_included:
                continue
            entry = replace(self._entry(path, stamp, now_ns), dag_id=before.dag_id)
            if same_included and before.content_hash is not None and before.content_hash == entry.content_hash:
                known[path] = replace(before, stamp=stamp, settled=entry.settled)
                if before.stamp != stamp:
                    touched.append(path)
            else:
                seen = (before.stamp.size, before.stamp.mtime_ns) == (stamp.size, stamp.mtime_ns) and not before.faults
                changed.append((seen, path, entry))
        self._record(known, touched)
        changed.sort(key=lambda item: item[:2])
        return [(path, entry) for _, path, entry in changed]

    def _entry(self, path: str, stamp: Stamp, now_ns: int) -> _Known:
        # Hashed before it is parsed, so that a change in between is seen by the next pass.
        return _Known(stamp, settled=_is_settled(stamp, now_ns), content_hash=self._hash(path, stamp))

    def _hash(self, path: str, stamp: Stamp) -> str | None:
        if stamp.size > _LARGEST_HASHED:
            return None
        try:
            return hashlib.sha256((self._folder / path).read_bytes()).hexdigest()
        except OSError:
            return None  # the loader says why

    def _now_ns(self) -> int:
        return int(self._clock().timestamp() * 1_000_000_000)

    # What became of it.

    def _take_in(self, known: dict[str, _Known], found: Scan, batch: list[tuple[Parsed, _Known]]) -> list[str]:
        """Publishes the good ones. Returns the dag_ids that are new or changed."""
        dags = []
        good = []
        for outcome, entry in batch:
            path, spec = outcome.path, outcome.spec
            entry = self._with_included(replace(entry, faults=outcome.faults), outcome.included)
            if spec is not None and (holder := self._holder(spec.dag_id, path, known, found)):
                entry = replace(
                    entry, wants=spec.dag_id, faults=(*outcome.faults, _duplicate(spec.dag_id, outcome, holder))
                )
            elif spec is not None:
                entry = replace(entry, dag_id=spec.dag_id)
                good.append(path)
                if self._holders.get(spec.dag_id) != (path, spec.version):
                    self._holders[spec.dag_id] = (path, spec.version)
                    dags.append((spec, outcome.source, path))
            known[path] = entry
        published = self._store.publish(dags) if dags else []
        self._record(known, good)
        self._tell_published(published)
        return published

    def _tell_published(self, dag_ids: Collection[str]) -> None:
        if len(dag_ids) > _TOLD_ONE_BY_ONE:
            _log.info("published %d DAGs", len(dag_ids), extra={"action": "dags_published"})
            return
        for dag_id in dag_ids:
            _log.info("published %s from %s", dag_id, self._holders[dag_id][0], extra={"action": "dag_published"})

    def _with_included(self, entry: _Known, included: Collection[str]) -> _Known:
        if not included:
            return entry
        now_ns = self._now_ns()
        stamps = {path: stamp_of(self._folder / path) for path in included}
        settled = all(stamp is None or _is_settled(stamp, now_ns) for stamp in stamps.values())
        if settled:
            return replace(entry, included=stamps)
        # They may have changed since they were read, and only parsing again would tell.
        return replace(entry, included=stamps, settled=False, content_hash=None)

    def _holder(self, dag_id: str, path: str, known: Mapping[str, _Known], found: Scan) -> str | None:
        """The other file that holds a dag_id; None when it is free for this one."""
        holder, _ = self._holders.get(dag_id, (path, ""))
        if holder == path or not (holder in found.files or found.hides(holder)):
            return None  # a file that was renamed takes its DAG along
        entry = known.get(holder)
        return holder if entry is None or entry.dag_id == dag_id else None

    def _record_faults(self, known: Mapping[str, _Known], changed: Collection[str]) -> None:
        """Records the broken files, now that it is known which of them are not DAG files but parts of one."""
        fragments = self._fragments_of(known)
        regrouped = [path for path in fragments ^ self._fragments if path in known]
        self._fragments = fragments
        broken = [path for path in changed if known[path].faults]
        self._record(known, {*broken, *regrouped})
        for path in sorted(broken):
            faults = self._shown_faults(path, known[path])
            for fault in faults[:1]:
                more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
                _log.warning("%s%s", fault, more, extra={"action": "dag_file_broken", "path": path})

    def _fragments_of(self, known: Mapping[str, _Known]) -> frozenset[str]:
        return frozenset(included for entry in known.values() for included in entry.included)

    def _shown_faults(self, path: str, entry: _Known) -> tuple[Fault, ...]:
        is_fragment = path in self._fragments and entry.dag_id is None and entry.wants is None
        return () if is_fragment else entry.faults

    def _record(self, known: Mapping[str, _Known], paths: Iterable[str]) -> None:
        records = [
            FileRecord(
                path=path,
                size=known[path].stamp.size,
                mtime_ns=known[path].stamp.mtime_ns,
                content_hash=known[path].content_hash,
                dag_id=known[path].dag_id,
                faults=self._shown_faults(path, known[path]),
            )
            for path in sorted(paths)
        ]
        if records:
            self._store.record_files(records)

    # What is gone.

    def _note_missing(self, known: dict[str, _Known], found: Scan) -> bool:
        """Forgets files that two scans in a row did not find. Returns whether the next scan has to confirm any."""
        gone = []
        unsure = False
        for path, entry in list(known.items()):
            if path in found.files:
                if entry.missed:
                    known[path] = replace(entry, missed=0)
            elif not found.hides(path):
                if entry.missed + 1 >= _SCANS_UNTIL_GONE:
                    del known[path]
                    gone.append(path)
                else:
                    known[path] = replace(entry, missed=entry.missed + 1)
                    unsure = True
        if gone:
            self._store.forget_files(gone)
        return unsure

    def _deactivate(self, known: Mapping[str, _Known]) -> list[str]:
        """Takes out the DAGs that no file holds any more."""
        orphans = [
            dag_id for dag_id, (path, _) in self._holders.items() if path not in known or known[path].dag_id != dag_id
        ]
        for dag_id in orphans:
            path, _ = self._holders.pop(dag_id)
            _log.info("deactivated %s: %s is gone", dag_id, path, extra={"action": "dag_deactivated"})
        return self._store.deactivate(orphans) if orphans else []

    def _release(self, known: dict[str, _Known]) -> bool:
        """Has the files parsed again whose dag_id has become free. Returns whether there are any."""
        released = [
            path
            for path, entry in known.items()
            if entry.wants is not None and entry.wants not in self._holders and not entry.missed
        ]
        for path in released:
            known[path] = replace(known[path], settled=False, content_hash=None, wants=None)
        return bool(released)

    def _complain(self, found: Scan) -> None:
        """Logs what can't be looked at, once for as long as that lasts."""
        complaints = {
            str(self._folder / folder): f"can't be read ({why}); its DAGs stay as they are"
            for folder, why in found.unreadable.items()
        }
        complaints |= dict.fromkeys(found.misnamed, "has a name that is not UTF-8 or a path that is too long")
        for place, text in complaints.items():
            if self._complaints.get(place) != text:
                _log.warning("%s %s", place, text, extra={"action": "dags_folder_unreadable"})
        for place in self._complaints.keys() - complaints.keys():
            _log.info("%s is all right again", place, extra={"action": "dags_folder_readable"})
        self._complaints = complaints


def _is_settled(stamp: Stamp, now_ns: int) -> bool:
    return abs(now_ns - stamp.mtime_ns) > _RACY_NS


def _duplicate(dag_id: str, outcome: Parsed, holder: str) -> Fault:
    message = f"The dag_id `{dag_id}` is used by two files: {holder}, which keeps it, and {outcome.path}."
    hint = "Give one of them another `dag_id`."
    return Fault(outcome.path, *outcome.dag_id_place, codes.DUPLICATE_DAG_ID, message, hint)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch

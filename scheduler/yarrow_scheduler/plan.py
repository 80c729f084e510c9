"""Step `plan`: due data intervals become runs, no more of them than may run."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from yarrow.errors import StoreError
from yarrow.language.spec import DagSpec
from yarrow.params import run_params
from yarrow.store import Store
from yarrow.store.records import DagRecord
from yarrow.timetable import NO_START, Interval, Timetable

_DUE_AT_ONCE = 500  # DAGs in one pass; the rest follows in the next one
_RUNS_AT_ONCE = 50  # runs of one DAG in one pass
_BLOCKED = timedelta(seconds=1)  # until a DAG with all its runs active is looked at again, should no run of it end
_BROKEN = timedelta(seconds=60)  # until a DAG whose schedule can't be worked out is looked at again

_log = logging.getLogger(__name__)


class Planner:
    """Creates runs. It remembers which DAGs have as many as they may, to spare the database the question."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._set_aside: dict[str, tuple[str, datetime]] = {}  # dag_id -> (version, until)
        self._look_at: datetime | None = None  # no need to look before

    def plan(self, now: datetime) -> bool:
        """Creates the runs that are due and may run. Returns whether there are more to create at once."""
        scheduled = self._schedule(now)
        if self._look_at is not None and now < self._look_at and not scheduled:
            return False
        limit = _DUE_AT_ONCE + len(self._set_aside)
        due = self._store.catalog.due(now, limit)
        more = len(due) == limit
        for dag in due:
            version, until = self._set_aside.get(dag.dag_id, ("", now))
            if version == dag.version and now < until:
                continue
            more |= self._plan_one(dag, now)
        self._set_aside = {dag_id: aside for dag_id, aside in self._set_aside.items() if now < aside[1]}
        self._look_at = now + _BLOCKED if self._set_aside and not more else None
        return more

    def forget(self) -> None:
        """Starts afresh: the clock was put back, and the times that are remembered mean nothing any more."""
        self._set_aside.clear()
        self._look_at = None

    def run_ended(self, dag_id: str) -> None:
        """Says that the DAG may have another run now."""
        self._set_aside.pop(dag_id, None)
        self._look_at = None

    def _schedule(self, now: datetime) -> bool:
        """Works out the next run of DAGs that were published, changed or unpaused. Returns whether there were any."""
        planned: list[tuple[DagRecord, datetime | None, datetime | None]] = []
        for dag in self._store.catalog.unscheduled():
            try:
                interval = first_interval(self._store.catalog.spec(dag.dag_id, dag.version), dag, now)
            except StoreError:
                raise
            except Exception:  # noqa: BLE001 - one DAG that can't be scheduled must not stop the others
                interval = None
                _log.exception("%s is not scheduled", dag.dag_id, extra={"action": "schedule_failed"})
            planned.append((dag, interval.logical_date, interval.run_after) if interval else (dag, None, None))
        if planned:
            self._store.catalog.set_schedules(planned)
        return bool(planned)

    def _plan_one(self, dag: DagRecord, now: datetime) -> bool:
        try:
            spec = self._store.catalog.spec(dag.dag_id, dag.version)
            room = spec.max_active_runs - self._store.runs.active_count(dag.dag_id)
            if room <= 0:
                self._set_aside[dag.dag_id] = (dag.version, now + _BLOCKED)
                return False
            return self._create(spec, dag, now, room)
        except StoreError:
            raise
        except Exception:  # noqa: BLE001 - one DAG that can't be planned must not stop the others
            self._set_aside[dag.dag_id] = (dag.version, now + _BROKEN)
            _log.exception("no run of %s could be made", dag.dag_id, extra={"action": "plan_failed"})
            return False

    def _create(self, spec: DagSpec, dag: DagRecord, now: datetime, room: int) -> bool:
        """Creates at most `room` runs. Returns whether more could be created at once."""
        timetable = timetable_of(spec, dag)
        interval = timetable.next_interval(dag.scheduled_through) if spec.catchup else _latest(timetable, dag, now)
        if interval is None or interval.run_after > now:
            # What is due is not in the timetable: have it worked out anew.
            upcoming = first_interval(spec, dag, now)
            due = (upcoming.logical_date, upcoming.run_after) if upcoming else (None, None)
            self._store.catalog.set_schedule(dag, next_logical_date=due[0], next_run_after=due[1])
            return False
        for _ in range(_RUNS_AT_ONCE):
            following = timetable.next_interval(interval.logical_date)
            room -= self._create_one(spec, dag, interval, following, now)
            if following is None or following.run_after > now:
                return False
            if room <= 0:
                self._set_aside[dag.dag_id] = (dag.version, now + _BLOCKED)
                return False
            interval = following
        return True

    def _create_one(
        self, spec: DagSpec, dag: DagRecord, interval: Interval, following: Interval | None, now: datetime
    ) -> int:
        """Creates a run and moves the DAG on to the following one, in one transaction. Returns how many it made."""
        made = self._store.runs.create(
            spec,
            dag.version,
            run_id=run_id_of(interval.logical_date),
            run_type="scheduled",
            interval=(
                interval.logical_date,
                interval.data_interval_start,
                interval.data_interval_end,
                interval.run_after,
            ),
            params=run_params(spec, {}),
            advance=(following.logical_date, following.run_after) if following else (None, None),
            now=now,
        )
        if made is None:
            return 0  # another scheduler was faster
        _log.info("created run %s of %s", made.run_id, dag.dag_id, extra={"action": "run_created"})
        return 1


def timetable_of(spec: DagSpec, dag: DagRecord) -> Timetable:
    """The timetable of a DAG that has a schedule. Without a start date it has no beginning; `@once` is now, then."""
    assert spec.schedule is not None
    once = spec.schedule.cron == "@once"
    return Timetable.of(spec.schedule, spec.start_date or (dag.created_at if once else NO_START), spec.end_date)


def _latest(timetable: Timetable, dag: DagRecord, now: datetime) -> Interval | None:
    """The newest run that is due, from the one on that the DAG waits for."""
    latest = timetable.latest_due(now, dag.scheduled_through)
    if latest is None or (dag.next_logical_date is not None and latest.logical_date < dag.next_logical_date):
        return None
    return latest


def first_interval(spec: DagSpec, dag: DagRecord, now: datetime) -> Interval | None:
    """The next run to create, due or not; None: never. Without catchup, what was missed but for the latest is left out.

    A schedule of the meaning `trigger` that has no run yet waits for its next moment.
    """
    if spec.schedule is None:
        return None
    timetable = timetable_of(spec, dag)
    if spec.catchup:
        return timetable.next_interval(dag.scheduled_through)
    if spec.schedule.semantics == "interval" or dag.scheduled_through is not None:
        latest = timetable.latest_due(now, dag.scheduled_through)
        if latest is not None:
            return latest
    return next(iter(timetable.starting_after(now, 1)), None)


def run_id_of(logical_date: datetime) -> str:
    """The run_id of a scheduled run."""
    return f"scheduled__{logical_date.isoformat()}"

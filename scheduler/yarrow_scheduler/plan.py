"""Step `plan`: due data intervals and published data sets become runs, no more of them than may run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from yarrow.errors import StoreError
from yarrow.language.spec import DagSpec
from yarrow.params import run_params
from yarrow.schedules.cron import is_continuous
from yarrow.schedules.upcoming import Progress, cut_catchup, timetable_of, upcoming
from yarrow.store import Store
from yarrow.store.records import DagRecord
from yarrow.timetable import Interval, Timetable, scheduled_run_id

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
        """Looks at DAGs that were published, changed or unpaused, or whose data sets were. Returns whether any were."""
        dags = self._store.catalog.unscheduled()
        progress = self._progress(dags)
        planned = [(dag, *self._next(dag, progress[dag.dag_id], now)) for dag in dags]
        if planned:
            self._store.catalog.set_schedules(planned)
        return bool(planned)

    def _next(self, dag: DagRecord, progress: Progress, now: datetime) -> tuple[datetime | None, datetime | None]:
        """The logical date of the next run and when it is due; a DAG that waits for data sets is looked at now."""
        try:
            spec = self._store.catalog.spec(dag.dag_id, dag.version)
            if _waits_for_datasets(spec):
                return None, now
            interval = upcoming(spec, progress, now)
        except StoreError:
            raise
        except Exception:  # noqa: BLE001 - one DAG that can't be scheduled must not stop the others
            _log.exception("%s is not scheduled", dag.dag_id, extra={"action": "schedule_failed"})
            return None, None
        return (interval.logical_date, interval.run_after) if interval else (None, None)

    def _progress(self, dags: Sequence[DagRecord]) -> dict[str, Progress]:
        """How far the runs of these DAGs have come; those that have had none are not asked about."""
        begun = self._store.catalog.progress([dag.dag_id for dag in dags if dag.scheduled_through is not None])
        return {dag.dag_id: begun.get(dag.dag_id) or Progress(dag.created_at) for dag in dags}

    def _plan_one(self, dag: DagRecord, now: datetime) -> bool:
        try:
            spec = self._store.catalog.spec(dag.dag_id, dag.version)
            if _waits_for_datasets(spec):
                return self._make_dataset_run(spec, dag, now)
            most = 1 if _is_continuous(spec) else spec.max_active_runs
            room = most - self._store.runs.active_count(dag.dag_id)
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

    def _make_dataset_run(self, spec: DagSpec, dag: DagRecord, now: datetime) -> bool:
        """Makes a run for what was published, if it is enough. Returns whether more could be made at once: never."""
        made, blocked = self._store.datasets.make_run(spec, dag.version, now)
        if made is not None:
            _log.info("created run %s of %s", made.run_id, dag.dag_id, extra={"action": "run_created"})
        if blocked:
            self._set_aside[dag.dag_id] = (dag.version, now + _BLOCKED)
        return False

    def _create(self, spec: DagSpec, dag: DagRecord, now: datetime, room: int) -> bool:
        """Creates at most `room` runs. Returns whether more could be created at once."""
        if self._leave_out(spec, dag, now):
            return True
        timetable = timetable_of(spec, dag.created_at)
        interval = _due(spec, timetable, dag, now)
        if interval is None:
            # What is due is not in the timetable: have it worked out anew.
            logical_date, run_after = self._next(dag, self._progress([dag])[dag.dag_id], now)
            self._store.catalog.set_schedule(dag, next_logical_date=logical_date, next_run_after=run_after)
            return False
        for _ in range(_RUNS_AT_ONCE):
            following = _following(spec, timetable, dag, interval, now)
            room -= self._create_one(spec, dag, interval, following, now)
            if following is None or following.run_after > now:
                return False
            if room <= 0:
                self._set_aside[dag.dag_id] = (dag.version, now + _BLOCKED)
                return False
            interval = following
        return True

    def _leave_out(self, spec: DagSpec, dag: DagRecord, now: datetime) -> bool:
        """Moves the DAG on past the missed runs that `max_catchup_runs` leaves out. Returns whether there were any."""
        if not spec.catchup or spec.max_catchup_runs is None or dag.next_logical_date is None:
            return False
        cut = cut_catchup(spec, dag.created_at, dag.next_logical_date, now)
        if cut is None:
            return False
        following = (cut.first.logical_date, cut.first.run_after)
        if self._store.catalog.leave_out(dag, cut.through, following, cut.reason):
            _log.warning("%s: %s", dag.dag_id, cut.reason, extra={"action": "catchup_cut"})
        return True

    def _create_one(
        self, spec: DagSpec, dag: DagRecord, interval: Interval, following: Interval | None, now: datetime
    ) -> int:
        """Creates a run and moves the DAG on to the following one, in one transaction. Returns how many it made."""
        made = self._store.runs.create(
            spec,
            dag.version,
            run_id=scheduled_run_id(interval.logical_date),
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


def _due(spec: DagSpec, timetable: Timetable, dag: DagRecord, now: datetime) -> Interval | None:
    """The run that is due: the one that the DAG waits for or, without catchup, the newest from it on."""
    date = dag.next_logical_date
    if date is None or (dag.scheduled_through is not None and date <= dag.scheduled_through):
        return None
    if _is_continuous(spec):
        over = spec.end_date is not None and now > spec.end_date
        return Interval.between(date, now) if date < now and not over else None
    awaited = timetable.at(date)
    if not spec.catchup:
        latest = timetable.latest_due(now, dag.scheduled_through)
        if latest is not None and latest.logical_date > date:
            return latest
    return awaited if awaited is not None and awaited.run_after <= now else None


def _following(
    spec: DagSpec, timetable: Timetable, dag: DagRecord, interval: Interval, now: datetime
) -> Interval | None:
    """The run after one that is being created."""
    if _is_continuous(spec):
        return upcoming(spec, Progress(dag.created_at, interval.logical_date, interval.data_interval_end), now)
    return timetable.next_interval(interval.logical_date)


def _is_continuous(spec: DagSpec) -> bool:
    return spec.schedule is not None and is_continuous(spec.schedule.cron)


def _waits_for_datasets(spec: DagSpec) -> bool:
    return spec.schedule is not None and bool(spec.schedule.datasets)

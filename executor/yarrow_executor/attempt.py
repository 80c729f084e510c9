"""Carries out attempts in a pool child: claim, execute, report, and the next one as long as there is one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from yarrow import attempt as core
from yarrow.clock import Clock, utc_now
from yarrow.context import CachedResult
from yarrow.error_kinds import error_kinds
from yarrow.errors import Fail, Refused, YarrowError
from yarrow.jsontypes import Json
from yarrow.operator import OtherState
from yarrow.protocol import Assignment, Report
from yarrow.states import AttemptState
from yarrow_executor.child import Child, Stopped
from yarrow_executor.client import ApiClient, Rejected, Unreachable
from yarrow_executor.slots import SlotState, SlotTable, ticks
from yarrow_executor.spool import Envelope, Spool

_CLAIM_PAUSES = (0.1, 0.3, 1.0, 2.0, 4.0)  # seconds; after them the wake-up is dropped, and the scheduler sends another
_FINISH_PAUSES = (0.1, 0.3, 1.0)  # seconds; after them the minder takes over
_UNSPOOLED_PAUSES = (0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 20.0, 20.0)  # when there is no place for the report on disk
_ASK_PAUSES = (0.2, 1.0, 3.0)

T = TypeVar("T")

_log = logging.getLogger("yarrow.worker")
_task_log = logging.getLogger("yarrow.task")


@dataclass(frozen=True, slots=True)
class Work:
    """What the pool children of a worker need to know, the same for all."""

    worker_id: str
    surroundings: core.Surroundings
    slot_hold: float  # seconds


class Attempts:
    """Executes the attempts of one slot."""

    def __init__(self, work: Work, table: SlotTable, child: Child, client: ApiClient, spool: Spool) -> None:
        self._work = work
        self._table = table
        self._child = child
        self._client = client
        self._spool = spool
        self._clock: Clock = utc_now
        self._claimed = 0.0  # the tick of the request that brought the assignment

    def run(self, attempt_id: str, token: str) -> None:
        """Executes the attempt, and then others of its queue until none waits or the slot has been held long enough."""
        since = ticks()
        assignment = self._claim(attempt_id, token)
        if assignment is not None and self._table.stopping:
            # The message came too late. Another worker gets the task sooner than if its wake-up were lost.
            report = Report(attempt_id, AttemptState.CANCELLED, reason="the worker was stopped")
            self._deliver(report, assignment.token, following_of=None, pauses=_FINISH_PAUSES)
            assignment = None
        try:
            while assignment is not None:
                report = self._execute(assignment)
                go_on = not self._table.stopping and ticks() - since < self._work.slot_hold
                assignment = self._finish(assignment, report, go_on=go_on)
        finally:
            self._child.rest()

    def _claim(self, attempt_id: str, token: str) -> Assignment | None:
        """The attempt, or None: a refused wake-up is an old one, or a second one, and is dropped."""
        self._child.slot.claim(self._child.pid, attempt_id, token)
        uncertain = False
        for pause in (*_CLAIM_PAUSES, None):
            self._claimed = ticks()
            try:
                return self._client.claim(attempt_id, token, self._work.worker_id)
            except Unreachable as error:
                uncertain = True
                if pause is None or self._table.stopping:
                    _log.warning("dropping the wake-up for attempt %s: %s", attempt_id, error)
                    break
                time.sleep(pause)
            except Rejected as error:
                _log.warning("dropping the wake-up for attempt %s: %s", attempt_id, error)
                return None
            except Refused as error:
                _log.debug("attempt %s: %s", attempt_id, error)
                break
        if uncertain and not self._runs_elsewhere(attempt_id):
            # A claim may have gone through with its answer lost. Then the attempt is ours, and nobody executes it.
            report = Report(attempt_id, AttemptState.LOST, reason="the answer to its claim was lost")
            self._deliver(report, token, following_of=None, pauses=())
        return None

    def _execute(self, assignment: Assignment) -> Report:
        child = self._child
        child.begin(assignment, self._claimed)
        try:
            report = core.execute(
                assignment,
                config=self._work.surroundings,
                services=_Services(assignment, self._table, child, self._client),
                log=_task_log,
                clock=self._clock,
            )
        except Stopped:
            report = Report(assignment.attempt_id, AttemptState.CANCELLED)  # the minder knows more, and reports
        except BaseException as error:  # noqa: BLE001 - whatever a task does, its attempt gets a report
            _task_log.exception("The attempt could not be executed")
            reason = f"{type(error).__name__}: {error}"
            report = Report(assignment.attempt_id, AttemptState.FAILED, reason=reason, kinds=error_kinds(error))
        child.end()
        return report

    def _finish(self, assignment: Assignment, report: Report, *, go_on: bool) -> Assignment | None:
        self._claimed = ticks()
        accepted, following = self._deliver(
            report, assignment.token, following_of=assignment.queue if go_on else None, pauses=_FINISH_PAUSES
        )
        if accepted:
            core.discard_work(assignment, report, self._work.surroundings.work_root)
        return following

    def _deliver(
        self, report: Report, token: str, *, following_of: str | None, pauses: tuple[float, ...]
    ) -> tuple[bool, Assignment | None]:
        """Whether the report was accepted, and the next assignment. What can't be delivered goes to the spool."""
        spooled = False
        tries = iter(pauses)
        while True:
            try:
                following = self._client.finish(report, token, self._work.worker_id, following_of=following_of)
                break
            except (Refused, Rejected) as error:
                log = _log.info if isinstance(error, Refused) else _log.error
                log("the report on attempt %s was not taken: %s", report.attempt_id, error)
                if isinstance(error, Rejected) and error.other_version:
                    self._put_into_spool(report, token)  # the next worker will speak the server's version
                else:
                    self._unspool(report, token, spooled)
                return False, None
            except Unreachable as error:
                following_of = None  # a repeated report brings no further attempt
                if not spooled:
                    spooled = self._put_into_spool(report, token)
                    tries = tries if spooled else iter(_UNSPOOLED_PAUSES)
                pause = None if spooled and self._table.stopping else next(tries, None)
                if pause is None:
                    _log.warning("the report on attempt %s is delivered later: %s", report.attempt_id, error)
                    if spooled:
                        self._child.spooled()
                    return False, None
                time.sleep(pause)
        self._unspool(report, token, spooled)
        return True, following

    def _put_into_spool(self, report: Report, token: str) -> bool:
        try:
            self._spool.put(Envelope(report, token, self._work.worker_id))
        except OSError as error:
            _log.warning("the report on attempt %s can't be kept on disk: %s", report.attempt_id, error)
            return False
        return True

    def _unspool(self, report: Report, token: str, spooled: bool) -> None:
        if spooled:
            self._spool.remove(Envelope(report, token, self._work.worker_id))

    def _runs_elsewhere(self, attempt_id: str) -> bool:
        """Whether another slot of this worker has the attempt: it was delivered twice."""
        return any(
            occupant.attempt_id == attempt_id and occupant.state != SlotState.IDLE
            for occupant in self._table.occupants()
            if occupant.slot != self._child.slot.number
        )


class _Services:
    """What an attempt may ask of its worker while it runs."""

    def __init__(self, assignment: Assignment, table: SlotTable, child: Child, client: ApiClient) -> None:
        self._assignment = assignment
        self._table = table
        self._child = child
        self._client = client

    def progress(self, done: float, total: float | None, unit: str) -> None:
        self._child.slot.progress(done, total, unit)

    def metric(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """The report carries it; there is nobody here to tell in between."""

    def trigger_dag(self, dag_id: str, params: Mapping[str, Json], logical_date: datetime | None) -> str:
        date = logical_date.isoformat() if logical_date else None
        return self._ask(
            lambda: self._client.trigger(self._assignment.token, dag_id, params, date),
            f"The DAG `{dag_id}` could not be triggered",
        )

    def task_state(self, dag_id: str, task_id: str | None, logical_date: datetime) -> OtherState | None:
        date = logical_date.isoformat()
        found = self._ask(
            lambda: self._client.task_state(self._assignment.token, dag_id, task_id, date),
            f"The state of `{task_id or dag_id}` could not be asked for",
        )
        return OtherState(str(found["run_id"]), str(found["state"])) if found.get("state") else None

    def cached_result(self, key: str) -> CachedResult | None:
        """One question, without patience: executing the task is always right."""
        try:
            found = self._client.cache(self._assignment.token, key)
        except (Unreachable, Rejected, Refused) as error:
            _task_log.warning("The cache could not be asked: %s", error)
            return None
        if not found.get("hit"):
            return None
        return CachedResult(
            str(found.get("attempt_id")), str(found.get("run_id")), bool(found.get("has_xcom")), found.get("xcom")
        )

    def _ask(self, question: Callable[[], T], otherwise: str) -> T:
        """The answer to a question to the web server, which may be away for a moment."""
        pauses = iter(_ASK_PAUSES)
        while True:
            try:
                return question()
            except Rejected as error:
                raise Fail(error.message) from error
            except Unreachable as error:
                pause = next(pauses, None)
                if pause is None:
                    raise YarrowError(f"{otherwise}: {error.message}") from error
                time.sleep(pause)

    def interrupted(self) -> bool:
        return self._table.stopping

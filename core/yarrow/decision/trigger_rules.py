"""Decides from the states of a task's direct upstream tasks whether its trigger rule lets it run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from yarrow.states import TaskState


class Verdict(StrEnum):
    """What a trigger rule says of a task that has not started."""

    WAIT = "wait"
    RUN = "run"
    SKIP = "skip"
    UPSTREAM_FAILED = "upstream_failed"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many direct upstream task instances there are, and how many of them ended in which state."""

    upstream: int
    success: int = 0
    skipped: int = 0
    failed: int = 0
    upstream_failed: int = 0
    removed: int = 0
    excused: int = 0  # of the removed ones, those that a mapped task instance does not wait for
    setups: int = 0  # how many of all these are setups
    successful_setups: int = 0
    skipped_setups: int = 0

    @property
    def done(self) -> int:
        return self.success + self.skipped + self.failed + self.upstream_failed + self.removed

    @property
    def all_done(self) -> bool:
        return self.done >= self.upstream

    @property
    def broken(self) -> int:
        """Those that failed, themselves or through something further up."""
        return self.failed + self.upstream_failed


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict of a trigger rule, and why."""

    verdict: Verdict
    reason: str
    because: frozenset[TaskState] = frozenset()  # a single upstream task in one of these states was enough


_BROKEN = frozenset({TaskState.FAILED, TaskState.UPSTREAM_FAILED})
_SKIPPED = frozenset({TaskState.SKIPPED})
_SUCCESS = frozenset({TaskState.SUCCESS})

RUN = Judgement(Verdict.RUN, "the trigger rule is met")
WAIT = Judgement(Verdict.WAIT, "it waits for its upstream tasks")

_ONE_FAILED = Judgement(Verdict.UPSTREAM_FAILED, "an upstream task failed", _BROKEN)
_NONE_SUCCEEDED = Judgement(Verdict.UPSTREAM_FAILED, "no upstream task succeeded")
_ONE_SKIPPED = Judgement(Verdict.SKIP, "an upstream task was skipped", _SKIPPED)
_ALL_SKIPPED = Judgement(Verdict.SKIP, "all upstream tasks were skipped")
_NOT_ALL_FAILED = Judgement(Verdict.SKIP, "an upstream task did not fail", _SUCCESS | _SKIPPED)
_NOT_ALL_SKIPPED = Judgement(Verdict.SKIP, "an upstream task was not skipped", _SUCCESS | _BROKEN)
_NONE_FAILED = Judgement(Verdict.SKIP, "no upstream task failed")
_NONE_RAN = Judgement(Verdict.SKIP, "no upstream task ran")
_NO_SETUP_SUCCEEDED = Judgement(Verdict.UPSTREAM_FAILED, "no setup of it succeeded")
_ALL_SETUPS_SKIPPED = Judgement(Verdict.SKIP, "all setups of it were skipped")


def _all_success(counts: Counts) -> Judgement:
    if counts.broken:
        return _ONE_FAILED
    if counts.skipped:
        return _ONE_SKIPPED
    return RUN if counts.success + counts.excused == counts.upstream else WAIT


def _all_failed(counts: Counts) -> Judgement:
    if counts.success or counts.skipped:
        return _NOT_ALL_FAILED
    return RUN if counts.broken + counts.excused == counts.upstream else WAIT


def _all_done(counts: Counts) -> Judgement:
    return RUN if counts.all_done else WAIT


def _all_done_min_one_success(counts: Counts) -> Judgement:
    if counts.skipped:
        return _ONE_SKIPPED
    if not counts.all_done:
        return WAIT
    return RUN if counts.success else _NONE_SUCCEEDED


def _all_skipped(counts: Counts) -> Judgement:
    if counts.success or counts.broken:
        return _NOT_ALL_SKIPPED
    return RUN if counts.skipped == counts.upstream else WAIT


def _one_failed(counts: Counts) -> Judgement:
    if counts.broken:
        return RUN
    return _NONE_FAILED if counts.all_done else WAIT


def _one_success(counts: Counts) -> Judgement:
    if counts.success:
        return RUN
    if not counts.all_done:
        return WAIT
    return _ALL_SKIPPED if counts.skipped == counts.upstream else _NONE_SUCCEEDED


def _one_done(counts: Counts) -> Judgement:
    if counts.success or counts.failed:
        return RUN
    return _NONE_RAN if counts.all_done else WAIT


def _none_failed(counts: Counts) -> Judgement:
    if counts.broken:
        return _ONE_FAILED
    return RUN if counts.success + counts.skipped + counts.excused == counts.upstream else WAIT


def _none_failed_min_one_success(counts: Counts) -> Judgement:
    if counts.broken:
        return _ONE_FAILED
    if counts.skipped == counts.upstream:
        return _ALL_SKIPPED
    return RUN if counts.success + counts.skipped + counts.excused == counts.upstream else WAIT


def _none_skipped(counts: Counts) -> Judgement:
    if counts.skipped:
        return _ONE_SKIPPED
    return RUN if counts.all_done else WAIT


def _always(counts: Counts) -> Judgement:
    return RUN


def _all_done_setup_success(counts: Counts) -> Judgement:
    if not counts.all_done:
        return WAIT
    if counts.successful_setups or not counts.setups:
        return RUN
    return _ALL_SETUPS_SKIPPED if counts.skipped_setups == counts.setups else _NO_SETUP_SUCCEEDED


TRIGGER_RULES: Mapping[str, Callable[[Counts], Judgement]] = {
    "all_success": _all_success,
    "all_failed": _all_failed,
    "all_done": _all_done,
    "all_done_min_one_success": _all_done_min_one_success,
    "all_skipped": _all_skipped,
    "one_failed": _one_failed,
    "one_success": _one_success,
    "one_done": _one_done,
    "none_failed": _none_failed,
    "none_failed_min_one_success": _none_failed_min_one_success,
    "none_skipped": _none_skipped,
    "always": _always,
}
"""Every trigger rule by its name. The semantics are Airflow's: some rules settle a task's state before all upstream
tasks are done (one failure is enough for `all_success`), and only direct upstream tasks count."""


TEARDOWN_RULE = "all_done_setup_success"
"""The rule of teardowns, and of nothing else: it waits for all, and for one success among the setups."""

_RULES: Mapping[str, Callable[[Counts], Judgement]] = {**TRIGGER_RULES, TEARDOWN_RULE: _all_done_setup_success}


def judge(rule: str, counts: Counts) -> Judgement:
    """Applies the trigger rule named `rule`. A task without upstream tasks always may run."""
    if counts.upstream == 0:
        return RUN
    return _RULES[rule](counts)

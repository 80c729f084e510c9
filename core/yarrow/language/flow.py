"""What follows through the graph of a DAG from a task that is skipped or has failed, by the trigger rules alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final

from yarrow.decision.trigger_rules import TEARDOWN_RULE
from yarrow.language.spec import DagSpec, TaskSpec

_STOPPED_BY_ONE_SKIP: Final = ("all_success", "all_failed", "all_done_min_one_success", "none_skipped")
_STOPPED_BY_ALL_SKIPS: Final = ("one_success", "one_failed", "one_done", "none_failed_min_one_success")
_BROKEN_BY_ONE: Final = ("all_success", "none_failed", "none_failed_min_one_success")
_BROKEN_BY_ALL: Final = ("one_success", "all_done_min_one_success")


class Flow:
    """Asks "what if" of one DAG."""

    def __init__(self, spec: DagSpec) -> None:
        self.spec = spec
        self.work = 0  # how many tasks were looked at so far

    @cached_property
    def _places(self) -> dict[str, int]:
        return {task_id: place for place, task_id in enumerate(self.spec.tasks)}

    def after(self, task_ids: Iterable[str]) -> list[str]:
        """All tasks downstream of some, near and far, in order."""
        return self._reached(task_ids, self.spec.downstream)

    def before(self, task_id: str) -> list[str]:
        """All tasks upstream of one, near and far, in order."""
        return self._reached([task_id], self._upstream)

    @cached_property
    def _upstream(self) -> Mapping[str, Sequence[str]]:
        return {task_id: task.upstream for task_id, task in self.spec.tasks.items()}

    def _reached(self, task_ids: Iterable[str], neighbours: Mapping[str, Sequence[str]]) -> list[str]:
        found: set[str] = set()
        waiting = [other for task_id in task_ids for other in neighbours[task_id]]
        while waiting:
            if (name := waiting.pop()) not in found:
                found.add(name)
                waiting.extend(neighbours[name])
        self.work += len(found) + 1
        return sorted(found, key=self._places.__getitem__)

    def without(self, skipped: Collection[str]) -> set[str]:
        """The tasks that are skipped, in any case, when these are and nothing fails."""
        gone = set(skipped)
        for task_id in self.after(skipped):
            if self._is_stopped(self.spec.tasks[task_id], gone):
                gone.add(task_id)
        return gone

    def broken_by(self, failed: str, gone: Collection[str] = ()) -> set[str]:
        """The tasks that fail, in any case, when one fails: that one, and those that can't run for that reason.

        Args:
            failed: The task that fails.
            gone: The tasks that are skipped then.
        """
        broken, skipped = {failed}, set(gone)
        for task_id in self.after([failed]):
            task = self.spec.tasks[task_id]
            if task_id in skipped:
                continue
            if self._is_broken(task, broken, skipped):
                broken.add(task_id)
            elif self._is_stopped(task, skipped) or self._skips_a_failure(task, broken):
                skipped.add(task_id)
        return broken

    def runs_despite(self, task: TaskSpec, failed: str) -> bool:
        """Whether a task may run although one directly upstream of it has failed."""
        broken = self.broken_by(failed)
        return task.task_id not in broken and task.trigger_rule != "all_skipped"

    def _is_stopped(self, task: TaskSpec, gone: Collection[str]) -> bool:
        if not task.teardown and any(setup in gone for setup in self.spec.required_setups.get(task.task_id, ())):
            return True
        if task.trigger_rule in _STOPPED_BY_ONE_SKIP:
            return any(upstream in gone for upstream in task.upstream)
        if task.trigger_rule in _STOPPED_BY_ALL_SKIPS:
            return all(upstream in gone for upstream in task.upstream)
        return task.trigger_rule == TEARDOWN_RULE and _all(self._setups_of(task), gone)

    def _is_broken(self, task: TaskSpec, broken: Collection[str], gone: Collection[str]) -> bool:
        if not task.teardown and any(setup in broken for setup in self.spec.required_setups.get(task.task_id, ())):
            return True
        if task.trigger_rule in _BROKEN_BY_ONE:
            return any(upstream in broken for upstream in task.upstream)
        if task.trigger_rule in _BROKEN_BY_ALL:
            return all(upstream in broken or upstream in gone for upstream in task.upstream)
        return task.trigger_rule == TEARDOWN_RULE and _all(self._setups_of(task), broken)

    def _skips_a_failure(self, task: TaskSpec, broken: Collection[str]) -> bool:
        """Whether a task waits for skips alone, so that a failure before it has it skipped."""
        return task.trigger_rule == "all_skipped" and any(upstream in broken for upstream in task.upstream)

    def _setups_of(self, task: TaskSpec) -> Sequence[str]:
        return [upstream for upstream in task.upstream if self.spec.tasks[upstream].setup]


def _all(task_ids: Sequence[str], among: Collection[str]) -> bool:
    return bool(task_ids) and all(task_id in among for task_id in task_ids)

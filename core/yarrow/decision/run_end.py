"""Tells how a run ends whose tasks have all ended, in words too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from yarrow.decision.decisions import RunDecision, RunView
from yarrow.decision.standing import Standing
from yarrow.language.durations import format_duration
from yarrow.language.spec import DagSpec
from yarrow.mapping import Instance
from yarrow.states import FAILED_TASK_STATES, RunState, TaskState

_NAMED = 5
"""How many task instances a sentence names."""


DEADLOCK = "deadlock: its trigger rule can never be met"
"""Why task instances end that wait for what will never happen."""


def timeout_due(spec: DagSpec, run: RunView) -> datetime | None:
    """When the run is to be stopped because it takes too long; None: never, or it has not started."""
    if spec.dagrun_timeout is None or run.started_at is None:
        return None
    return run.started_at + timedelta(seconds=spec.dagrun_timeout)


def overdue(spec: DagSpec, run: RunView, now: datetime) -> str | None:
    """Why the run is to be stopped, when it has taken too long."""
    due = timeout_due(spec, run)
    if due is None or due > now or spec.dagrun_timeout is None:
        return None
    return f"dagrun_timeout of {format_duration(spec.dagrun_timeout)} is over"


def failed_run(reason: str) -> RunDecision:
    return RunDecision(RunState.RUNNING, RunState.FAILED, reason)


def end_of_run(spec: DagSpec, standing: Standing) -> RunDecision:
    """Returns the end of a run by the states of its last tasks, or of all of them where `run_state` says so."""
    if standing.present().isdisjoint(FAILED_TASK_STATES):
        return RunDecision(RunState.RUNNING, RunState.SUCCESS)
    failed = failures(spec, standing)
    if failed and spec.fail_fast:
        return failed_run(fail_fast_reason([one for one in failed if not _was_stopped(standing, one)] or failed))
    deciding = counting_tasks(spec) if spec.run_state == "all_tasks" else spec.effective_leaves
    broken = standing.those(FAILED_TASK_STATES, deciding)
    if not broken:
        return RunDecision(RunState.RUNNING, RunState.SUCCESS)
    failed = failed or standing.those((TaskState.FAILED,), deciding)
    return failed_run(sentence(failed, "failed") if failed else sentence(broken, "could not run"))


def counting_tasks(spec: DagSpec) -> Sequence[str]:
    return [task_id for task_id, task in spec.tasks.items() if task.failure_counts]


def failures(spec: DagSpec, standing: Standing) -> list[Instance]:
    """The instances that failed, without those of teardowns whose failure does not count."""
    return standing.those((TaskState.FAILED,), counting_tasks(spec))


def _was_stopped(standing: Standing, instance: Instance) -> bool:
    """Whether it ended because of the failure of another one."""
    view = standing.view(*instance)
    return view is not None and view.stopping


def fail_fast_reason(failed: Sequence[Instance]) -> str:
    return f"fail_fast: {sentence(failed, 'failed')}"


def sentence(instances: Sequence[Instance], verb: str) -> str:
    """A sentence about one or several task instances: "tasks `a`, `b[2]` and 3 more failed"."""
    named = [label(instance) for instance in instances[:_NAMED]]
    if len(instances) > _NAMED:
        named.append(f"{len(instances) - _NAMED} more")
    *others, last = named
    return f"tasks {', '.join(others)} and {last} {verb}" if others else f"task {last} {verb}"


def label(instance: Instance) -> str:
    """A task instance as people read it: `a`, or `a[2]` of a mapped task."""
    task_id, map_index = instance
    return f"`{task_id}`" if map_index < 0 else f"`{task_id}[{map_index}]`"

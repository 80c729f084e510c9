"""What selected tasks take from tasks that are not selected, and whether it is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.plans.plan import Need
from yarrow.plans.situation import TaskFacts
from yarrow.states import TaskState

XCOM = "xcom"
STATE = "state"

_ENDED_WELL = (TaskState.SUCCESS, TaskState.SKIPPED)


def needs_of(spec: DagSpec, task_ids: Collection[str], facts: Mapping[str, Sequence[TaskFacts]]) -> tuple[Need, ...]:
    """What some tasks take from others.

    Args:
        spec: The DAG of the run.
        task_ids: The tasks that will run.
        facts: The task instances of the run by their task; none: the run is yet to be made.
    """
    found = []
    for task in (task for task_id, task in spec.tasks.items() if task_id in task_ids):
        taken = xcoms_of(task)
        for other in sorted({*task.upstream, *taken} - set(task_ids)):
            what = XCOM if other in taken else STATE
            found.append(Need(task.task_id, other, what, _is_there(what, facts.get(other, ()))))
    return tuple(found)


def missing(needs: Sequence[Need]) -> str | None:
    """Says which outputs are needed and not there; None: all are."""
    lacking = [need for need in needs if need.what == XCOM and not need.there]
    if not lacking:
        return None
    first = lacking[0]
    more = f", and {len(lacking) - 1:,} more are not there" if len(lacking) > 1 else ""
    return f"`{first.task_id}` needs the output of `{first.of_task_id}`, which is not selected and not there{more}"


def xcoms_of(task: TaskSpec) -> set[str]:
    """The tasks whose XCom a task names."""
    return {*task.xcoms, *task.when_xcoms, *task.expand_xcoms}


def _is_there(what: str, instances: Sequence[TaskFacts]) -> bool:
    present = [one for one in instances if one.state is not TaskState.REMOVED]
    if what == XCOM:
        return any(one.has_xcom and one.state is TaskState.SUCCESS for one in present)
    return bool(present) and all(one.state in _ENDED_WELL for one in present)

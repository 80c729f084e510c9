"""A DAG cut down to some of its tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from yarrow.language.spec import DagSpec, TaskSpec


def cut_out(spec: DagSpec, task_ids: Collection[str]) -> DagSpec:
    """The DAG with only these tasks; itself when they are all that it has.

    What waits for one of the others waits for what that one waits for, so the order of those that are left stays. None
    of them may take an XCom of one that is not among them: there is nowhere to take it from.
    """
    kept = {task_id: task for task_id, task in spec.tasks.items() if task_id in task_ids}
    if len(kept) == len(spec.tasks):
        return spec
    nearest: dict[str, frozenset[str]] = {}  # of each task the kept ones right before it, over those that are not kept
    tasks: dict[str, TaskSpec] = {}
    for task_id, task in spec.tasks.items():
        nearest[task_id] = frozenset[str]().union(
            *({upstream} if upstream in kept else nearest[upstream] for upstream in task.upstream)
        )
        if task_id in kept:
            tasks[task_id] = dataclasses.replace(task, upstream=tuple(sorted(nearest[task_id])))
    return dataclasses.replace(spec, tasks=tasks)

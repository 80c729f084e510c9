"""Executes a control operator where nothing else is executed: what it chooses follows from its parameters alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn, cast

from yarrow import attempt
from yarrow.context import Services, Surroundings
from yarrow.decide import RunView, TaskView
from yarrow.errors import UsageError
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec
from yarrow.protocol import Assignment, Report

CHOOSERS: Final = ("branch", "short_circuit")
"""The operators that may be executed so: they read nothing and write nothing."""

_SILENT = logging.Logger("yarrow.simulation.choosing", level=logging.CRITICAL + 1)
_SURROUNDINGS = Surroundings(work_root=Path("work"), objects_url="memory://", xcom_inline_limit=2**31)


def choose(spec: DagSpec, run: RunView, view: TaskView, xcoms: Mapping[str, Json], now: datetime) -> Report:
    """Returns how a try at a control task ends.

    Args:
        spec: The DAG.
        run: The run.
        view: The task instance; its task has one of the `CHOOSERS` as its operator and names no variable and no
            connection.
        xcoms: Those that it names, as it sees them.
        now: The moment of the try.
    """
    task = spec.tasks[view.task_id]
    name = f"{view.task_id}[{view.map_index}]"
    assignment = Assignment(
        attempt_id=name,
        token="",
        dag_id=run.dag_id,
        run_id=run.run_id,
        task_id=view.task_id,
        map_index=view.map_index,
        try_number=view.try_number,
        max_tries=view.max_tries,
        identity=name,
        operator=task.operator,
        arguments=task.arguments,
        queue=task.queue,
        execution_timeout=None,
        logical_date=run.logical_date.isoformat(),
        data_interval_start=run.data_interval_start.isoformat(),
        data_interval_end=run.data_interval_end.isoformat(),
        timezone=spec.timezone,
        params=run.params,
        xcoms=xcoms,
        variables={},
        connections={},
        lease=0.0,
        dag_tasks=spec.downstream[view.task_id],
        map_value=view.map_value,
    )
    return attempt.execute(
        assignment, config=_SURROUNDINGS, services=cast(Services, _Nothing()), log=_SILENT, clock=lambda: now
    )


class _Nothing:
    """What an attempt may ask for. These operators ask for none of it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise UsageError(f"A control operator asked for `{name}`, which is not there where nothing is executed.")

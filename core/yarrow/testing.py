"""Helps to test DAGs: runs them in one process, on a clock that stands still, with tasks that end as told.

A test of a DAG needs no service, no waiting and no cleaning up::

    from datetime import UTC, datetime

    from yarrow.testing import Tries, run_dag


    def test_a_bad_file_is_quarantined() -> None:
        result = run_dag("dags/orders.yaml", params={"day": "2026-01-01"})
        assert result.success
        assert result.tasks["validate"].xcom["report"]["failed"] == 3


    def test_the_alert_goes_out_when_loading_fails() -> None:
        result = run_dag("dags/orders.yaml", outcomes={"load": ConnectionError("refused"), "alert": None})
        assert result.tasks["load"].tries == 3
        assert result.tasks["alert"].state == "success"


    def test_a_retry_helps() -> None:
        result = run_dag("dags/orders.yaml", outcomes={"load": Tries(TimeoutError(), {"rows": 7})})
        assert result.tasks["load"].xcom == {"rows": 7}
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from yarrow.approvals import APPROVE, REJECT
from yarrow.connections import CONNECTION_PREFIX, VARIABLE_PREFIX, environment_name
from yarrow.dag_result import DagResult, TaskResult, Triggered
from yarrow.decide import Question
from yarrow.errors import UsageError
from yarrow.inline import Inline, agreeable
from yarrow.jsontypes import Json
from yarrow.language.loader import LoadResult, load_file, load_text
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.operator import Context, Operator

__all__ = ["DagResult", "FrozenClock", "Inline", "TaskResult", "Tries", "Triggered", "load_dag", "run_dag"]


class FrozenClock:
    """A clock that stands still until it is moved. It can be passed wherever Yarrow takes a `Clock`."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        if now.tzinfo is None:
            raise ValueError("the time must be aware")
        self.now = now.astimezone(UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> datetime:
        """Moves on, or back, and returns the new time."""
        self.now += timedelta(seconds=seconds)
        return self.now


class Tries:
    """Outcomes for the first, the second ... try of a task; the last one is for all further tries."""

    def __init__(self, *outcomes: Any) -> None:
        if not outcomes:
            raise ValueError("at least one outcome is needed")
        self._outcomes = outcomes

    def of(self, try_number: int) -> Any:
        """The outcome of a try; 1 is the first."""
        return self._outcomes[min(try_number, len(self._outcomes)) - 1]


def load_dag(source: str | Path) -> DagSpec:
    """Loads a DAG from a path, or from YAML: a text of several lines, or one that looks like a mapping.

    Raises:
        UsageError: It has faults; the message has each with its line and column.
    """
    result = _load(source)
    if result.spec is None:
        raise UsageError("\n".join(["The DAG has faults:", *map(str, result.faults)]))
    return result.spec


def run_dag(
    source: str | Path | DagSpec,
    *,
    logical_date: datetime | None = None,
    params: Mapping[str, Json] | None = None,
    outcomes: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    connections: Mapping[str, str] | None = None,
    work: Path | None = None,
    clock: FrozenClock | None = None,
) -> DagResult:
    """Runs a DAG in this thread and returns how it ended. Tasks are really executed, unless `outcomes` says otherwise.

    Retry delays are not waited for, and pools, queues and `execution_timeout` do not count.

    Args:
        source: A path, YAML or a loaded DAG.
        logical_date: Aware. By default that of the newest data interval that is complete, else the clock's time.
        params: Those that are not to be at their default.
        outcomes: Task id -> how the task ends without being executed: an exception (instance or class) that it raises,
            such as `Skip("nothing to do")`; anything else is its XCom, None no XCom. `{"follow": [...]}` for a branch.
            `Tries(...)` gives one for each try. Of an approval it is the answer, approve or reject; None: nobody
            answers. Without one it gets its default answer, or is approved.
        variables, connections: What the tasks find, besides `YARROW_VAR_...` and `YARROW_CONN_...` of the environment.
        work: The folder for data sets and work folders; by default one that goes when this process ends.
        clock: The time of the run; by default it stands at 2026-01-01 00:00 UTC.

    Raises:
        UsageError: The DAG has faults, or an outcome is for a task that it does not have.
        InvalidParams: The params do not fit.
    """
    spec = source if isinstance(source, DagSpec) else load_dag(source)
    scripted = dict(outcomes or {})
    unknown = [f"`{task_id}`" for task_id in scripted if task_id not in spec.tasks]
    if unknown:
        raise UsageError(f"There are outcomes for {', '.join(unknown)}, but the DAG has no such task.")

    def instead(task: TaskSpec, try_number: int) -> Operator | None:
        if task.task_id not in scripted:
            return None
        outcome = scripted[task.task_id]
        return _Scripted(outcome=outcome.of(try_number) if isinstance(outcome, Tries) else outcome)

    def answer(task: TaskSpec, question: Question) -> str | None:
        if task.task_id not in scripted:
            return agreeable(task, question)
        given = scripted[task.task_id]
        if given not in (APPROVE, REJECT, None):
            raise UsageError(f"The outcome of the approval `{task.task_id}` is approve, reject or None, not {given!r}.")
        return cast("str | None", given)

    named = {environment_name(VARIABLE_PREFIX, name): value for name, value in (variables or {}).items()}
    named |= {environment_name(CONNECTION_PREFIX, name): uri for name, uri in (connections or {}).items()}
    inline = Inline(
        env={**os.environ, **named},
        work=work or _temporary_folder(),
        clock=clock or FrozenClock(),
        dags_folder=_folder(source),
        echo=False,
        instead=instead,
        answer=answer,
    )
    return inline.run(spec, logical_date=logical_date, params=params)


class _Scripted(Operator):
    """Ends as it was told."""

    outcome: Any

    @property
    def control(self) -> bool:  # type: ignore[override]  # it steers when it is told to
        return isinstance(self.outcome, Mapping) and "follow" in self.outcome

    def execute(self, context: Context) -> Any:
        outcome = self.outcome
        if isinstance(outcome, BaseException) or (isinstance(outcome, type) and issubclass(outcome, BaseException)):
            raise outcome
        return outcome


def _load(source: str | Path) -> LoadResult:
    if isinstance(source, str) and ("\n" in source or ": " in source):
        return load_text(source, "<text>")
    path = Path(source)
    return load_file(path, path.parent)


def _folder(source: str | Path | DagSpec) -> Path:
    if isinstance(source, DagSpec) or (isinstance(source, str) and ("\n" in source or ": " in source)):
        return Path.cwd()
    return Path(source).absolute().parent


def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="yarrow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder

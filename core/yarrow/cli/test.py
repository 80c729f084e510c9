"""`yarrow dags test` and `yarrow tasks test`: a DAG, or one task of it, run in this process with no service at all."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import click

from yarrow.approvals import APPROVE, REJECT
from yarrow.cli.arguments import as_utc, json_object, moment
from yarrow.cli.output import duration_text, json_option, print_json, print_table
from yarrow.config import load_config
from yarrow.dag_result import DagResult, Event, Moved, TaskResult
from yarrow.decide import Question
from yarrow.inline import Inline, agreeable
from yarrow.jsontypes import Json
from yarrow.language.spec import TaskSpec
from yarrow.schedules.zones import load_zone
from yarrow.simulation.outcomes import instance_name
from yarrow.states import TaskState
from yarrow.testing import load_dag

COLOURS = {TaskState.SUCCESS: "green", TaskState.FAILED: "red", TaskState.UP_FOR_RETRY: "yellow"}

_file = click.argument("dag_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
_logical_date = click.option(
    "--logical-date",
    type=moment,
    metavar="ISO",
    help="Without an offset in the time zone of the DAG. Default: that of the newest complete data interval, else now.",
)
_params = click.option("--params", type=json_object, metavar="JSON", help="Params of the run, as a JSON object.")
_xcoms = click.option(
    "--xcoms", type=json_object, metavar="JSON", help="XComs of upstream tasks, by task id, for a task on its own."
)
_work = click.option(
    "--work", type=click.Path(path_type=Path, file_okay=False), help="Keep data sets and outputs in this folder."
)


@click.command("test")
@_file
@_logical_date
@_params
@click.option("--task", "task_id", metavar="ID", help="Run this task alone, once, whatever comes before it.")
@_xcoms
@_work
@json_option
def dag_test(
    dag_file: Path,
    logical_date: datetime | None,
    params: Mapping[str, Json] | None,
    task_id: str | None,
    xcoms: Mapping[str, Json] | None,
    work: Path | None,
    as_json: bool,
) -> None:
    """Run a DAG file in this process: no service, no waiting for retries, and `breakpoint()` works.

    An approval asks at the terminal; where there is none it gets its default answer, or is approved.

    Exits with 0 when the run succeeds, else with 1.
    """
    if xcoms is not None and task_id is None:
        raise click.UsageError("--xcoms goes with --task.")
    _test(dag_file, task_id, logical_date, params, xcoms, work, as_json)


@click.command("test")
@_file
@click.argument("task_id")
@_logical_date
@_params
@_xcoms
@_work
@json_option
def task_test(
    dag_file: Path,
    task_id: str,
    logical_date: datetime | None,
    params: Mapping[str, Json] | None,
    xcoms: Mapping[str, Json] | None,
    work: Path | None,
    as_json: bool,
) -> None:
    """Run one task of a DAG file in this process, once. The same as `yarrow dags test DAG_FILE --task TASK_ID`."""
    _test(dag_file, task_id, logical_date, params, xcoms, work, as_json)


def _test(
    dag_file: Path,
    task_id: str | None,
    logical_date: datetime | None,
    params: Mapping[str, Json] | None,
    xcoms: Mapping[str, Json] | None,
    work: Path | None,
    as_json: bool,
) -> None:
    spec = load_dag(dag_file)
    if logical_date is not None:
        logical_date = as_utc(logical_date, load_zone(spec.timezone))
    timing = _Timing(quiet=as_json)
    with _folder(work) as folder:
        inline = Inline(
            work=folder,
            config=load_config(),
            dags_folder=dag_file.absolute().parent,
            echo=not as_json,
            notify=timing.notify,
            answer=_answer,
        )
        if task_id is None:
            result = inline.run(spec, logical_date=logical_date, params=params)
        else:
            result = inline.run_task(spec, task_id, logical_date=logical_date, params=params, xcoms=xcoms)
    _show(result, timing.seconds, as_json)
    raise SystemExit(0 if result.success else 1)


def _answer(task: TaskSpec, question: Question) -> str:
    """The answer of an approval: of whoever sits at the terminal, else its default, else yes."""
    if not sys.stdin.isatty():
        return agreeable(task, question)
    return APPROVE if click.confirm(question.message, default=question.default != REJECT, err=True) else REJECT


class _Timing:
    """Tells which task runs, and measures how long each took over all its tries."""

    def __init__(self, *, quiet: bool, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._quiet = quiet
        self._now = now
        self._started: dict[str, float] = {}

    def notify(self, event: Event) -> None:
        if not isinstance(event, Moved) or event.state is TaskState.SCHEDULED:
            return
        if event.state is TaskState.RUNNING:
            self._started[event.task_id] = self._now()
        elif event.task_id in self._started:
            took = self._now() - self._started.pop(event.task_id)
            self.seconds[event.task_id] = self.seconds.get(event.task_id, 0.0) + took
        if not self._quiet:
            state = click.style(event.state.value, fg=COLOURS.get(event.state, "cyan"))
            tries = f" (try {event.try_number})" if event.try_number > 1 else ""
            reason = f": {event.reason}" if event.reason else ""
            click.echo(f"--- {event.task_id}: {state}{tries}{reason}", err=True)


@contextlib.contextmanager
def _folder(work: Path | None) -> Iterator[Path]:
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="yarrow-test-") as folder:
        yield Path(folder)


def _show(result: DagResult, seconds: Mapping[str, float], as_json: bool) -> None:
    shown = [one for task in result.tasks.values() for one in task.instances or (task,)]
    if as_json:
        tasks = [{**_as_object(task), "seconds": _seconds(task, seconds)} for task in result.tasks.values()]
        print_json({**_as_object(result), "tasks": tasks})
        return
    click.echo()
    rows = [
        (
            _name(one),
            one.state.value,
            one.tries,
            duration_text(seconds[_name(one)]) if _name(one) in seconds else None,
            one.reason,
        )
        for one in shown
    ]
    print_table(("TASK", "STATE", "TRIES", "TOOK", "REASON"), rows, empty="It has no task.")
    state = click.style(result.state.value, fg="green" if result.success else "red")
    reason = f": {result.reason}" if result.reason else ""
    click.echo(f"{result.dag_id} for {result.logical_date:%Y-%m-%d %H:%M:%S} UTC: {state}{reason}")


def _name(one: TaskResult) -> str:
    return instance_name((one.task_id, one.map_index))


def _seconds(task: TaskResult, seconds: Mapping[str, float]) -> float | None:
    """What a task took, all its instances together."""
    known = [seconds[_name(one)] for one in task.instances or (task,) if _name(one) in seconds]
    return sum(known) if known else None


def _as_object(record: DagResult | TaskResult) -> dict[str, object]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}

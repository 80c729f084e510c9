"""`yarrow dags simulate`: how a run would end if its tasks ended as told, without executing any of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import click

from yarrow.cli.arguments import as_utc, json_object, moment
from yarrow.cli.output import json_option, print_json, print_table
from yarrow.errors import UsageError
from yarrow.jsontypes import Json
from yarrow.schedules.zones import load_zone
from yarrow.simulate import Outcome, SimulatedTask, Simulation, instance_name, simulate
from yarrow.states import RunState
from yarrow.testing import load_dag

_COLOURS = {RunState.SUCCESS: "green", RunState.FAILED: "red"}


@click.command("simulate")
@click.argument("dag_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    metavar="TASK=STATE",
    help="How a task ends: failed, skipped or success; again for another task. `choose=success:a,b` is what a branch"
    " chooses, `check=success:` a short circuit that cuts off; `load[2]=failed` is one instance of a mapped task."
    " Tasks without an outcome succeed.",
)
@click.option("--xcoms", type=json_object, metavar="JSON", help="XComs of tasks by task id, as a JSON object.")
@click.option("--params", type=json_object, metavar="JSON", help="Params of the run, as a JSON object.")
@click.option(
    "--logical-date",
    type=moment,
    metavar="ISO",
    help="Without an offset in the time zone of the DAG. Default: that of the newest complete data interval, else now.",
)
@json_option
def dag_simulate(
    dag_file: Path,
    outcomes: tuple[str, ...],
    xcoms: Mapping[str, Json] | None,
    params: Mapping[str, Json] | None,
    logical_date: datetime | None,
    as_json: bool,
) -> None:
    """Tell how a run of a DAG file would end, by the scheduler's own decisions. Nothing is executed.

    Exits with 0 when it could be told, however the run ends. With --json it prints the state of the run and of each
    task as `{"run": STATE, "tasks": {ID: STATE}}`. What had to be assumed stands on stderr.
    """
    spec = load_dag(dag_file)
    if logical_date is not None:
        logical_date = as_utc(logical_date, load_zone(spec.timezone))
    told = _outcomes(outcomes)
    simulation = simulate(spec, outcomes=told, xcoms=xcoms, params=params, logical_date=logical_date)
    if as_json:
        print_json({"run": simulation.state, "tasks": simulation.tasks})
    else:
        _show(simulation)
    for note in simulation.notes:
        click.echo(f"Note: {note}", err=True)


def _outcomes(texts: tuple[str, ...]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for text in texts:
        name, equals, outcome = text.partition("=")
        if not equals:
            raise UsageError(f"`--outcome {text}` is no outcome.", hint="Write it as TASK=STATE, such as load=failed.")
        if name in found:
            raise UsageError(f"There are two outcomes for `{name}`.", hint="Give one; `failed` fails all its tries.")
        found[name] = Outcome.parse(outcome)
    return found


def _show(simulation: Simulation) -> None:
    rows = [(instance_name((one.task_id, one.map_index)), one.state.value, _why(one)) for one in simulation.instances]
    print_table(("TASK", "STATE", "WHY"), rows, empty="It has no task.")
    state = click.style(simulation.state.value, fg=_COLOURS.get(simulation.state))
    reason = f": {simulation.reason}" if simulation.reason else ""
    view = simulation.view
    click.echo(f"{view.dag_id} for {view.logical_date:%Y-%m-%d %H:%M:%S} UTC: {state}{reason}")


def _why(task: SimulatedTask) -> str | None:
    parts = [task.reason] if task.reason else []
    if task.tries > 1:
        parts.append(f"{task.tries} tries")
    if task.follow is not None:
        parts.append(f"follows {', '.join(f'`{name}`' for name in task.follow) or 'nothing'}")
    return ", ".join(parts) or None

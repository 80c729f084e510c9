"""`yarrow dags`: what is scheduled, whether files are right, and runs by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from yarrow.cli.access import open_store, wake_scheduler, who
from yarrow.cli.arguments import as_utc, json_object, moment
from yarrow.cli.lazy import LazyGroup
from yarrow.cli.output import json_option, print_json, print_table
from yarrow.config import Config, load_config
from yarrow.errors import NotFound, StoreError, UsageError
from yarrow.jsontypes import Json
from yarrow.schedules.words import schedule_text
from yarrow.schedules.zones import load_zone

if TYPE_CHECKING:
    from yarrow.language.faults import Fault
    from yarrow.store import Store
    from yarrow.store.records import FileRecord


@click.group(
    cls=LazyGroup,
    lazy={
        "check": ("yarrow.cli.check:dag_check", "Run the tests that stand beside DAG files."),
        "delete": ("yarrow.cli.delete:delete_dag", "Delete a DAG whose file is gone, with all that belongs to it."),
        "diff": ("yarrow.cli.diff:dag_diff_command", "Show what differs between two versions of a DAG."),
        "simulate": ("yarrow.cli.simulate:dag_simulate", "Tell how a run would end under given outcomes."),
        "test": ("yarrow.cli.test:dag_test", "Run a DAG file in this process, with no service."),
        "versions": ("yarrow.cli.versions:dag_versions", "Show the versions of a DAG, and what each one changed."),
    },
)
def dags() -> None:
    """List, check, compare, simulate, test, trigger, pause and delete DAGs."""


@dags.command("list")
@click.option("--all", "with_inactive", is_flag=True, help="Also DAGs whose file is gone.")
@json_option
def list_dags(with_inactive: bool, as_json: bool) -> None:
    """List the DAGs, and the files that have faults."""
    with open_store() as store:
        records = store.catalog.dags(active_only=not with_inactive)
        latest = store.runs.latest([record.dag_id for record in records])
        broken = store.catalog.import_errors()
    if as_json:
        print_json(
            [
                {**record.to_json(), "last_run": last.to_json() if (last := latest.get(record.dag_id)) else None}
                for record in records
            ]
        )
        return
    rows = [
        (
            record.dag_id,
            record.schedule,
            record.next_run_after,
            last.state.value if (last := latest.get(record.dag_id)) else None,
            "paused" if record.is_paused else "active" if record.is_active else "gone",
            record.owner,
            record.tags,
        )
        for record in records
    ]
    columns = ("DAG", "SCHEDULE", "NEXT RUN (UTC)", "LAST RUN", "STATE", "OWNER", "TAGS")
    print_table(columns, rows, empty="There is no DAG yet. Drop a file in the DAG folder.")
    if broken:
        _print_faults(broken)


def _print_faults(broken: list[FileRecord]) -> None:
    click.echo(f"\n{len(broken)} {'file has' if len(broken) == 1 else 'files have'} faults:", err=True)
    for file in broken:
        for fault in file.faults:
            click.echo(f"  {fault}", err=True)


@dags.command()
@json_option
def errors(as_json: bool) -> None:
    """List the faults of the files in the DAG folder, as the scheduler saw them last. Exits with 1 if there are any."""
    with open_store() as store:
        broken = store.catalog.import_errors()
    if as_json:
        print_json([fault.to_json() for file in broken for fault in file.faults])
    elif broken:
        _print_faults(broken)
    else:
        click.echo("No file has a fault.")
    if broken:
        raise SystemExit(1)


@dags.command()
@click.argument("dag_id")
@click.option("--version", metavar="N", help="Another version than the one that new runs get: its number or hash.")
@json_option
def show(dag_id: str, version: str | None, as_json: bool) -> None:
    """Show a DAG: its tasks, its schedule, its versions and what its file says now."""
    with open_store() as store:
        record = store.catalog.dag(dag_id)
        versions = store.catalog.versions(dag_id)
        shown = (
            next(one for one in versions if one.version == record.version)
            if version is None
            else store.versions.find(dag_id, version)
        )
        spec = store.catalog.spec(dag_id, shown.version)
        faults = [fault for file in store.catalog.import_errors() if file.path == record.path for fault in file.faults]
    if as_json:
        print_json(
            {
                **record.to_json(),
                "spec": spec.to_json(),
                "spec_version": shown.number,
                "versions": [version.to_json() for version in versions],
                "faults": [fault.to_json() for fault in faults],
            }
        )
        return
    click.echo(f"{dag_id}: {spec.description or 'no description'}")
    is_deployed = shown.version == record.version
    schedule, due = schedule_text(spec.schedule), record.next_run_after if is_deployed else None
    facts = {
        "file": record.path,
        "version": f"{shown.number} ({shown.version[:12]}){'' if is_deployed else ', which new runs do not get'}",
        "schedule": f"{schedule} ({spec.timezone})" if schedule else "none: runs are started by hand",
        "next run": f"{due:%Y-%m-%d %H:%M:%S} UTC" if due else "-",
        "state": "paused" if record.is_paused else "active" if record.is_active else "its file is gone",
        "owner": spec.owner or "-",
        "tags": ", ".join(spec.tags) or "-",
        "params": ", ".join(f"{name}={schema.get('default')!r}" for name, schema in spec.params.items()) or "-",
    }
    for name, value in facts.items():
        click.echo(f"  {name + ':':<10} {value}")
    click.echo()
    rows = [
        (task.task_id, task.operator, task.upstream, task.trigger_rule, task.retries, task.queue, task.pool)
        for task in spec.tasks.values()
    ]
    columns = ("TASK", "OPERATOR", "UPSTREAM", "TRIGGER RULE", "RETRIES", "QUEUE", "POOL")
    print_table(columns, rows, empty="It has no task.")
    if faults:
        click.echo("\nIts file has faults; the version above keeps running:", err=True)
        for fault in faults:
            click.echo(f"  {fault}", err=True)


@dags.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--against",
    metavar="URL",
    help="Ask the web server of a running deployment what it has: queues that workers serve, pools, past durations.",
)
@json_option
def lint(paths: tuple[Path, ...], against: str | None, as_json: bool) -> None:
    """Check DAG files, and folders of them. Exits with 1 if there is a fault."""
    faults = _lint(paths, against)
    if as_json:
        print_json([fault.to_json() for fault in faults])
    elif faults:
        for fault in faults:
            click.echo(str(fault))
        click.echo(f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'}", err=True)
    else:
        click.echo("No fault.")
    if any(fault.severity == "error" for fault in faults):
        raise SystemExit(1)


def _lint(paths: tuple[Path, ...], against: str | None) -> list[Fault]:
    # The whole language, which no other command of this group needs.
    from yarrow.cli.against import ask
    from yarrow.language.deployment import Known
    from yarrow.language.lint import load_paths

    config = load_config()
    folder = config.dags_folder.resolve()
    root = folder if all(path.resolve().is_relative_to(folder) for path in paths) else None
    known = ask(against) if against is not None else Known(config.queues, config.pools)
    results, faults = load_paths(paths, root=root, known=known)
    deadlines = any(result.spec.has_deadline for result in results if result.spec is not None)
    if against is None and deadlines and (durations := _past_durations(config)):
        faults = load_paths(paths, root=root, known=replace(known, durations=durations))[1]
    return faults


def _past_durations(config: Config) -> Mapping[tuple[str, str], float]:
    """How long tasks took in this deployment; nothing where it has no database."""
    try:
        with open_store(config) as store:
            found = store.history.durations()
    except (UsageError, StoreError):
        return {}
    return {(dag_id, task_id): seconds for dag_id, tasks in found.items() for task_id, seconds in tasks.items()}


@dags.command()
@click.argument("dag_id")
@click.option("--params", type=json_object, metavar="JSON", help="The params of the run, as a JSON object.")
@click.option(
    "--logical-date", type=moment, metavar="ISO", help="Of the run; without an offset in the time zone of the DAG."
)
@click.option("--run-id", help="The run's id, if it is not to be made up.")
@click.option("--wait", is_flag=True, help="Watch the run, and exit with 1 if it fails.")
@json_option
def trigger(
    dag_id: str,
    params: Mapping[str, Json] | None,
    logical_date: datetime | None,
    run_id: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Start a run of a DAG by hand."""
    config = load_config()
    with open_store(config) as store:
        if logical_date is not None:
            logical_date = as_utc(logical_date, load_zone(store.catalog.spec(dag_id).timezone))
        run = store.runs.trigger(dag_id, params=params or {}, logical_date=logical_date, run_id=run_id, who=who())
        wake_scheduler(config)
        if as_json and not wait:
            print_json(run)
            return
        if not as_json:
            click.echo(f"Run {run.run_id} of {dag_id} is {run.state.value}.")
            if store.catalog.dag(dag_id).is_paused:
                click.echo(f"{dag_id} is paused: the run waits until `yarrow dags unpause {dag_id}`.", err=True)
        if wait:
            from yarrow.cli.watch import watch_run  # rich, which triggering alone does not need

            raise SystemExit(watch_run(store, dag_id, run.run_id, as_json=as_json))


@dags.command()
@click.argument("dag_ids", nargs=-1, required=True, metavar="DAG...")
def pause(dag_ids: tuple[str, ...]) -> None:
    """Pause DAGs: no new run starts; what runs goes on."""
    _set_paused(dag_ids, True)


@dags.command()
@click.argument("dag_ids", nargs=-1, required=True, metavar="DAG...")
def unpause(dag_ids: tuple[str, ...]) -> None:
    """Let paused DAGs run again."""
    _set_paused(dag_ids, False)


def _set_paused(dag_ids: tuple[str, ...], paused: bool) -> None:
    config = load_config()
    with open_store(config) as store:
        _check_dags(store, dag_ids)
        for dag_id in dag_ids:
            changed = store.catalog.set_paused(dag_id, paused, who())
            state = "paused" if paused else "not paused"
            click.echo(f"{dag_id} is {state}{' now' if changed else ' already'}.")
    wake_scheduler(config)


def _check_dags(store: Store, dag_ids: tuple[str, ...]) -> None:
    """Raises NotFound for the first unknown one, before anything is changed."""
    for dag_id in dag_ids:
        if not store.catalog.dag(dag_id).is_active:
            raise NotFound(f"The DAG {dag_id!r} has no file any more.")

"""The command line: `yarrow` and its groups, each in a file of its own that is imported when it is used."""

from __future__ import annotations

import os
from pathlib import Path

import click

from yarrow.cli.lazy import RootGroup
from yarrow.version import __version__

COMMANDS = {
    "approvals": ("yarrow.cli.approvals:approvals", "Show what runs ask people, and answer."),
    "backfill": ("yarrow.cli.backfill:backfill", "Make runs of a span of time, and watch over them."),
    "cache": ("yarrow.cli.cache:cache", "List and forget the results of tasks with `cache:`."),
    "config": ("yarrow.cli.config:config", "Show the configuration; make a token for workers."),
    "dags": ("yarrow.cli.dags:dags", "List, check, compare, simulate, test, trigger, pause and delete DAGs."),
    "datasets": ("yarrow.cli.datasets:datasets", "List data sets; publish one by hand."),
    "db": ("yarrow.cli.db:db", "Look after the metadata database."),
    "demo": ("yarrow.cli.demo:demo", "Run twelve months of real flights through Yarrow, on this machine."),
    "explain": ("yarrow.cli.explain:explain", "Tell why a task isn't running: every dependency and limit."),
    "notifications": ("yarrow.cli.notifications:notifications", "List notifications; try whether one arrives."),
    "plan-week": (
        "yarrow.cli.plan_week:plan_week",
        "Show what the schedules of a folder would bring: what waits, what is late, and the slots it takes.",
    ),
    "plans": ("yarrow.cli.plans:plans", "List, show and apply plans to clear, to mark and to backfill."),
    "runs": ("yarrow.cli.runs:runs", "List, show, watch, clear, mark and delete runs."),
    "schedule": ("yarrow.cli.schedule:schedule", "Show when a schedule is due."),
    "schema": ("yarrow.cli.schema:schema", "Print the JSON Schema (2020-12) of a DAG file, for editors."),
    "standalone": (
        "yarrow.cli.standalone:standalone",
        "Run everything on this machine: broker, scheduler, web server and worker.",
    ),
    "tasks": ("yarrow.cli.tasks:tasks", "Show the attempts and logs of tasks; clear and mark them; test one."),
    "version": ("yarrow.cli.version:version", "Print the version of Yarrow and of Python."),
}
WINGS = {
    "scheduler": "Run a scheduler.",
    "webserver": "Run the web server with the Execution API.",
    "worker": "Run a Celery worker.",
}


@click.group(
    cls=RootGroup,
    lazy=COMMANDS,
    entry_point_help=WINGS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="yarrow", message="%(prog)s %(version)s")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file. Default: $YARROW_CONFIG, ./yarrow.yaml or HOME/yarrow.yaml.",
)
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="The same as $YARROW_HOME.")
def main(config: Path | None, home: Path | None) -> None:
    """Yarrow runs batch AI and data pipelines written as static YAML.

    `yarrow standalone --dags DIR` starts everything on this machine; drop a YAML file in DIR.
    """
    # Handed on by the environment, so that every command, and every process it starts, reads the same configuration.
    if config:
        os.environ["YARROW_CONFIG"] = str(config.expanduser().absolute())
    if home:
        os.environ["YARROW_HOME"] = str(home.expanduser().absolute())

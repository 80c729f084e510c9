"""`yarrow standalone`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from yarrow import standalone as deployment
from yarrow.config import load

COLOURS = {"broker": "blue", "scheduler": "magenta", "webserver": "green", "worker": "yellow", "yarrow": "cyan"}


@click.command()
@click.option(
    "--dags",
    "dags_folder",
    type=click.Path(path_type=Path),
    help="The folder of DAG files. Default: the setting `dags_folder`.",
)
@click.option("--host", help="The address to listen on. Default: 127.0.0.1, this machine alone.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port to listen on; 0 takes a free one. Default: 8080.")
def standalone(dags_folder: Path | None, host: str | None, port: int | None) -> None:
    """Run everything on this machine: broker, scheduler, web server and worker.

    Everything they write goes to YARROW_HOME (~/.yarrow). Drop a DAG file in the folder, and within seconds it is
    scheduled. Ctrl-C or SIGTERM stops all of it.
    """
    loaded = load(overrides={"dags_folder": dags_folder, "host": host, "port": port})
    deployment.run(loaded, printer())


def printer() -> Callable[[str, str], None]:
    """A function that prints `name | text`; in colour on a terminal. A reader that went away is no reason to end."""
    colour = sys.stdout.isatty()

    def say(name: str, text: str) -> None:
        prefix = f"{name:>9} |"
        if colour:
            prefix = click.style(prefix, fg=COLOURS.get(name))
        try:
            sys.stdout.write(f"{prefix} {text}\n")
            sys.stdout.flush()
        except (OSError, ValueError):
            return

    return say

"""`yarrow version`."""

from __future__ import annotations

import platform

import click

from yarrow.cli.output import json_option, print_json
from yarrow.version import __version__


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version of Yarrow and of Python."""
    if as_json:
        print_json({"yarrow": __version__, "python": platform.python_version(), "platform": platform.platform()})
    else:
        click.echo(f"yarrow {__version__} (Python {platform.python_version()})")

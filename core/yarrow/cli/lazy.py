"""A click group that imports a command's module only when the command is used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NoReturn

import click

from yarrow.errors import UsageError, YarrowError

ENTRY_POINTS = "yarrow.commands"


class LazyGroup(click.Group):
    """The root of the command line: knows its commands by name and help, and turns errors into one clear line."""

    def __init__(
        self, *args: Any, lazy: Mapping[str, tuple[str, str]], entry_point_help: Mapping[str, str], **kwargs: Any
    ) -> None:
        """Args:
        lazy: Command name -> ("module:attribute", one line of help).
        entry_point_help: One line of help for commands that other packages bring, so that help imports none of them.
        """
        super().__init__(*args, **kwargs)
        self._lazy = lazy
        self._entry_point_help = entry_point_help

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self._lazy, *_entry_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if target := self._lazy.get(cmd_name):
            module, _, attribute = target[0].partition(":")
            return _as_command(cmd_name, getattr(importlib.import_module(module), attribute))
        if entry_point := _entry_points().get(cmd_name):
            return _as_command(cmd_name, _load(entry_point))
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = {name: text for name, (_, text) in self._lazy.items()}
        for name, entry_point in _entry_points().items():
            package = entry_point.dist.name if entry_point.dist else entry_point.module
            rows.setdefault(name, self._entry_point_help.get(name, f"From the package {package}."))
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows.items()))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except YarrowError as error:
            _end_with(error, str(error), error.exit_code)
        except Exception as error:  # noqa: BLE001 - the outermost edge: a person never sees a traceback unasked
            text = f"{type(error).__name__}: {error}"
            hint = "This is a fault in Yarrow or in an extension; YARROW_DEBUG=1 shows where."
            _end_with(error, f"{text}\n{hint}", 1)


def _end_with(error: Exception, text: str, exit_code: int) -> NoReturn:
    if os.environ.get("YARROW_DEBUG") == "1":
        raise error
    click.echo(f"Error: {text}", err=True)
    sys.exit(exit_code)


def _entry_points() -> dict[str, metadata.EntryPoint]:
    return {entry_point.name: entry_point for entry_point in metadata.entry_points(group=ENTRY_POINTS)}


def _load(entry_point: metadata.EntryPoint) -> Any:
    try:
        return entry_point.load()
    except (ImportError, AttributeError) as error:
        if os.environ.get("YARROW_DEBUG") == "1":
            raise
        raise UsageError(
            f"The command `{entry_point.name}` can't be loaded from {entry_point.value}: {error}.",
            hint="Is the package that brings it installed in full?",
        ) from error


def _as_command(name: str, found: Any) -> click.Command:
    if not isinstance(found, click.Command):
        raise UsageError(
            f"The command `{name}` is not a click command: a package brings something else under its name."
        )
    return found

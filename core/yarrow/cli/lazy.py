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
    """A group some of whose commands are named by where they are, with a line of help, and imported when used."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        """Args:
        lazy: Command name -> ("module:attribute", one line of help).
        """
        super().__init__(*args, **kwargs)
        self._lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = self._lazy.get(cmd_name)
        if target is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = target[0].partition(":")
        return _as_command(cmd_name, getattr(importlib.import_module(module), attribute))

    def help_lines(self) -> dict[str, str]:
        """One line of help for each command, without importing any."""
        own = {name: command.get_short_help_str(100) for name, command in self.commands.items() if not command.hidden}
        return own | {name: text for name, (_, text) in self._lazy.items()}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(self.help_lines().items()))


class RootGroup(LazyGroup):
    """The root of the command line: takes in the commands of other packages, and turns errors into one clear line."""

    def __init__(self, *args: Any, entry_point_help: Mapping[str, str], **kwargs: Any) -> None:
        """Args:
        entry_point_help: One line of help for commands that other packages bring, so that help imports none of them.
        """
        super().__init__(*args, **kwargs)
        self._entry_point_help = entry_point_help

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_entry_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None and (entry_point := _entry_points().get(cmd_name)):
            return _as_command(cmd_name, _load(entry_point))
        return command

    def help_lines(self) -> dict[str, str]:
        lines = super().help_lines()
        for name, entry_point in _entry_points().items():
            package = entry_point.dist.name if entry_point.dist else entry_point.module
            lines.setdefault(name, self._entry_point_help.get(name, f"From the package {package}."))
        return lines

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except YarrowError as error:
            _end_with(error, str(error), error.exit_code)
        except Exception as error:  # noqa: BLE001 - the outermost edge: a person never sees a traceback unasked
            if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
                _end_with(error, f"This is not text in UTF-8: {error.object!r:.80}.", UsageError.exit_code)
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

"""`yarrow` itself: help, errors, exit codes, and how little it imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from yarrow.cli import COMMANDS, WINGS, main
from yarrow.cli.lazy import RootGroup
from yarrow.errors import StoreError, UsageError
from yarrow.version import __version__

Yarrow = Callable[..., Any]


def test_help_names_every_command(yarrow: Yarrow) -> None:
    answer = yarrow("--help")
    assert answer.exit_code == 0
    assert all(f"  {name}" in answer.stdout for name in (*COMMANDS, *WINGS))


@pytest.mark.parametrize("name", sorted({*COMMANDS, *WINGS}))
def test_every_command_has_help(yarrow: Yarrow, name: str) -> None:
    answer = yarrow(name, "--help")
    assert answer.exit_code == 0, answer.stderr
    assert f"Usage: main {name}" in answer.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_line_of_help_is_that_of_the_command(name: str) -> None:
    context = click.Context(main)
    command = main.get_command(context, name)
    assert command is not None
    assert command.get_short_help_str(100) == COMMANDS[name][1]


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from yarrow.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = ('sqlalchemy', 'celery', 'flask', 'rich', 'redis', 'yaml', 'jinja2')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_supervisor_imports_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "import yarrow.cli, yarrow.cli.standalone\n"
        "heavy = ('sqlalchemy', 'celery', 'flask', 'rich', 'redis', 'yaml', 'jinja2')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_module_and_script_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "yarrow", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"yarrow {__version__}\n"


def test_version(yarrow: Yarrow) -> None:
    assert yarrow("version").stdout.startswith(f"yarrow {__version__} (Python ")
    assert yarrow("version", "--json").json()["yarrow"] == __version__


def test_an_unknown_command(yarrow: Yarrow) -> None:
    answer = yarrow("nonsense")
    assert answer.exit_code == 2
    assert "No such command 'nonsense'" in answer.stderr


def _root(error: Exception) -> click.Group:
    group = RootGroup("yarrow", entry_point_help={})

    @group.command()
    def fail() -> None:
        raise error

    return group


@pytest.mark.parametrize(
    ("error", "exit_code", "text"),
    [
        (UsageError("That is not right.", hint="Do this."), 2, "Error: That is not right. Do this.\n"),
        (StoreError("It is broken."), 1, "Error: It is broken.\n"),
        (
            UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"),
            2,
            "Error: This is not text in UTF-8: ",
        ),
        (ZeroDivisionError("oops"), 1, "Error: ZeroDivisionError: oops\nThis is a fault in Yarrow"),
    ],
)
def test_an_error_is_one_clear_line(
    error: Exception, exit_code: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("YARROW_DEBUG", raising=False)
    result = CliRunner().invoke(_root(error), ["fail"])
    assert result.exit_code == exit_code
    assert result.stderr.startswith(text)
    assert "Traceback" not in result.output
    monkeypatch.setenv("YARROW_DEBUG", "1")
    assert CliRunner().invoke(_root(error), ["fail"]).exception is error


def test_the_configuration_file_and_the_home_reach_every_command(yarrow: Yarrow, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("port: 1234")
    settings = yarrow("--config", "other.yaml", "--home", tmp_path / "far", "config", "show", "--json").json()
    assert settings["file"] == str(tmp_path / "other.yaml")
    assert settings["settings"]["port"] == {"value": 1234, "source": f"{tmp_path / 'other.yaml'}:1"}
    assert settings["settings"]["home"]["value"] == str(tmp_path / "far")

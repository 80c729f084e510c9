"""Operators of their own for the tests of the language, and one way to load a text."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from yarrow import Context, Operator, param, registry
from yarrow.jsontypes import Json
from yarrow.language.loader import LoadResult, load_file, load_text
from yarrow.operator import ArgumentPath


class Rule(TypedDict, total=False):
    """The checks of one column."""

    min: float
    max: float
    valid_values: list[str | float]
    on_fail: Literal["warn", "fail"]


class Clip(TypedDict):
    """A step that keeps values within bounds."""

    op: Literal["clip"]
    low: float


class Drop(TypedDict):
    """A step that drops columns."""

    op: Literal["drop"]
    columns: list[str]


class Stage(Operator):
    """Does a stage of work."""

    input: dict[str, Json] | str | None = param(default=None, doc="What to read.")
    mode: Literal["fast", "safe"] = param(default="fast", doc="How.")
    rows: int = param(default=1, minimum=1, maximum=1000, doc="How many rows at a time.")
    share: float = param(default=0.5, minimum=0, maximum=1, doc="A share.")
    flag: bool = param(default=False, doc="Whether.")
    columns: dict[str, Rule] = param(default={}, doc="Checks by column.")
    steps: list[dict[str, Json]] = param(default=[], doc="Steps.")
    plan: list[Clip | Drop] = param(default=[], doc="Steps of known kinds.")
    pair: tuple[int, str] | None = param(default=None, doc="A pair.")
    sql: str = param(default="select 1", template=False, doc="SQL; braces are its own.")
    condition: bool | None = param(default=None, expression=True, doc="A condition.")
    conn_id: str | None = param(default=None, doc="A connection.")

    class Outputs(TypedDict):
        rows: int
        valid: dict[str, Json]
        parts: list[str]
        report: Report

    def execute(self, context: Context) -> Outputs:
        raise NotImplementedError


class Report(TypedDict):
    """Part of what Stage returns."""

    passed: bool
    note: NotRequired[str | None]


class Shell(Operator):
    """Runs a command; nothing is known of its output."""

    command: str | list[str] = param(doc="The command.")
    env: dict[str, Json] = param(default={}, doc="Environment.")

    @classmethod
    def advise(cls, arguments: Mapping[str, Any]) -> Iterator[tuple[ArgumentPath, str]]:
        if isinstance(arguments["command"], list):
            for place, word in enumerate(arguments["command"]):
                if isinstance(word, str) and word.startswith("sudo"):
                    yield ("command", place), "Ask for less."

    def execute(self, context: Context) -> Json:
        raise NotImplementedError


class Nothing(Operator):
    """Has no parameters."""

    def execute(self, context: Context) -> None:
        raise NotImplementedError


class Choose(Operator):
    """Chooses among the tasks downstream."""

    follow: list[str] = param(doc="The tasks.")

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        for place, task_id in enumerate(arguments["follow"]):
            if task_id not in downstream:
                yield ("follow", place), f"`{task_id}` is not directly downstream."

    def execute(self, context: Context) -> None:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def operators() -> Iterator[None]:
    with ExitStack() as stack:
        for name, operator in (("stage", Stage), ("shell", Shell), ("nothing", Nothing), ("choose", Choose)):
            stack.enter_context(registry.register(name, operator))
        yield


@pytest.fixture
def load() -> Callable[[str], LoadResult]:
    """Loads a text under the name `my_dag.yaml`."""

    def load(text: str) -> LoadResult:
        return load_text(textwrap.dedent(text), "my_dag.yaml")

    return load


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Mapping[str, str | bytes]], Path]:
    """Writes files into a DAG folder and returns it."""

    def write(files: Mapping[str, str | bytes]) -> Path:
        root = tmp_path / "dags"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else textwrap.dedent(content).encode())
        return root

    return write


@pytest.fixture
def load_in(folder: Callable[[Mapping[str, str | bytes]], Path]) -> Callable[[Mapping[str, str | bytes]], LoadResult]:
    """Writes files and loads the first of them."""

    def load(files: Mapping[str, str | bytes]) -> LoadResult:
        root = folder(files)
        return load_file(root / next(iter(files)), root)

    return load

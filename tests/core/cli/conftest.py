"""What the tests of the command line share: a home with a database, and a way to call `yarrow` in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from yarrow.cli import main
from yarrow.language.loader import load_text
from yarrow.store import Store


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    exit_code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        assert self.exit_code == 0, self.stderr
        return json.loads(self.stdout)


Yarrow = Callable[..., Answer]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, in which the commands of this test live."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    monkeypatch.setenv("YARROW_HOME", str(home))
    for name in ("YARROW_CONFIG", "YARROW_DEBUG"):
        monkeypatch.setenv(name, "")  # so that what a command sets is taken back after the test
    return home


@pytest.fixture
def yarrow(home: Path) -> Yarrow:
    """Calls `yarrow` with these arguments."""

    def call(*arguments: str | Path) -> Answer:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
        return Answer(result.exit_code, result.stdout, result.stderr)

    return call


DAG = """
dag_id: orders
description: Loads orders
owner: sales
tags: [daily, demo]
schedule: "@daily"
start_date: 2026-01-01
params: {limit: {type: integer, default: 10}}
tasks:
  load: {operator: bash, with: {command: "echo {{ params.limit }}"}, retries: 1}
  report: {operator: bash, with: {command: "echo done"}, depends_on: [load]}
"""


@pytest.fixture
def store(home: Path, sqlite_template: Path) -> Iterator[Store]:
    """The database of the home, with one DAG."""
    home.mkdir()
    (home / "yarrow.db").write_bytes(sqlite_template.read_bytes())
    store = Store.open(f"sqlite:///{home / 'yarrow.db'}")
    loaded = load_text(DAG, "orders.yaml")
    assert loaded.spec is not None, loaded.faults
    store.workers.set_pools({"default_pool": 8})
    store.catalog.publish([(loaded.spec, DAG, "orders.yaml")])
    yield store
    store.close()


@pytest.fixture
def day() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)

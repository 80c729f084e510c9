"""Two versions of a DAG for the tests of differences, and a way to compare them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from yarrow.differences.dag_diff import DagDiff, dag_diff
from yarrow.language.loader import load_text
from yarrow.language.spec import DagSpec

EXAMPLES = Path(__file__).parents[3] / "dags"


def spec_of(text: str, name: str = "orders.yaml") -> DagSpec:
    loaded = load_text(text, name, EXAMPLES)
    assert loaded.spec is not None, [str(fault) for fault in loaded.faults]
    return loaded.spec


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 8, 2, 12, tzinfo=UTC)


@pytest.fixture
def load() -> Callable[[str], DagSpec]:
    """Loads a DAG from text."""
    return spec_of


@pytest.fixture
def example() -> Callable[..., DagSpec]:
    """Loads an example DAG with replacements (old text, new text) made in its file; each must apply."""

    def edited(name: str, *edits: tuple[str, str]) -> DagSpec:
        text = (EXAMPLES / f"{name}.yaml").read_text()
        for old, new in edits:
            assert old in text, old
            text = text.replace(old, new)
        return spec_of(text, f"{name}.yaml")

    return edited


@pytest.fixture
def compare(now: datetime) -> Callable[..., DagDiff]:
    """Compares two DAGs, each as a spec or as text."""

    def compared(old: Any, new: Any, **more: Any) -> DagDiff:
        sides = [spec_of(side) if isinstance(side, str) else side for side in (old, new)]
        return dag_diff(sides[0], sides[1], now, **more)

    return compared

"""The language stays light: the scheduler loads it in every process."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "jsonschema",
    "alembic",
    "sqlalchemy",
    "rich",
    "click",
    "celery",
    "flask",
    "duckdb",
    "numpy",
    "onnxruntime",
    "sklearn",
    "pyarrow",
)


@pytest.mark.slow
def test_loading_a_dag_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from yarrow.language import lint, loader, schema\n"
        "result = loader.load_text('tasks: {a: {operator: empty}}', 'a.yaml')\n"
        "schema.dag_schema()\n"
        f"print(*sorted(set(sys.modules) & {set(HEAVY)!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.split() == []

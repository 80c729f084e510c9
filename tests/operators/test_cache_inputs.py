"""What the operators' results depend on besides their parameters: see `Operator.cache_inputs`."""

import sys
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from yarrow.dataset import publish
from yarrow_operators.bash import Bash
from yarrow_operators.fingerprint import fingerprint
from yarrow_operators.infer import Infer
from yarrow_operators.postprocess import Postprocess
from yarrow_operators.preprocess import Preprocess
from yarrow_operators.python import Python
from yarrow_operators.sql import Sql
from yarrow_operators.validate import Validate


def test_a_command_depends_on_nothing_but_the_operator(context: Any) -> None:
    assert set(Bash(command="x").cache_inputs(context)) == {"code"}  # type: ignore[arg-type]  # it is an object


def test_a_function_depends_on_the_file_that_it_is_in(
    context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "cached_code.py").write_text("def run():\n    return 1\n")
    task = Python(callable="cached_code:run")
    before = task.cache_inputs(context)
    assert task.cache_inputs(context) == before
    (tmp_path / "cached_code.py").write_text("def run():\n    return 2\n")
    assert task.cache_inputs(context) != before
    sys.modules.pop("cached_code")


def test_a_query_depends_on_the_files_that_it_reads(context: Any, tmp_path: Path) -> None:
    file, other = tmp_path / "a.csv", tmp_path / "b.csv"
    file.write_text("x\n1\n")
    task = Sql(query="SELECT 1", source=str(tmp_path / "*.csv"), inputs={"again": str(file)})
    before = task.cache_inputs(context)
    other.write_text("x\n1\n")
    added = task.cache_inputs(context)
    file.write_text("x\n2\n")
    assert before != added != task.cache_inputs(context) != before
    with pytest.raises(FileNotFoundError):
        Sql(query="SELECT 1", source=f"{tmp_path}/none.csv").cache_inputs(context)


def test_a_score_depends_on_the_model_and_the_data(context: Any, tmp_path: Path) -> None:
    model, folder = tmp_path / "m.onnx", f"file://{tmp_path}/set/"
    model.write_bytes(b"1")
    publish(folder, [], [("a", "BIGINT")])
    task = Infer(input=folder, model=str(model))
    before = task.cache_inputs(context)
    model.write_bytes(b"2")
    changed = task.cache_inputs(context)
    assert before != changed
    publish(folder, [], [("b", "BIGINT")])
    assert task.cache_inputs(context) not in (before, changed)


@pytest.mark.parametrize("kind", [Preprocess, Postprocess, Validate])
def test_a_stage_depends_on_a_data_set_that_is_named_by_its_address(context: Any, tmp_path: Path, kind: Any) -> None:
    folder = f"file://{tmp_path}/set/"
    publish(folder, [], [("a", "BIGINT")])
    task = kind(input=folder)
    before = task.cache_inputs(context)
    publish(folder, [], [("b", "BIGINT")])
    assert task.cache_inputs(context) != before
    assert kind(input={"kind": "dataset", "digest": "x"}).cache_inputs(context)["datasets"] == {}


def test_remote_files_are_told_apart_without_reading_them(tmp_path: Path) -> None:
    with fsspec.open("memory://cache/a.csv", "wb") as file:
        file.write(b"1")
    before = fingerprint("memory://cache/a.csv")
    with fsspec.open("memory://cache/a.csv", "wb") as file:
        file.write(b"22")
    assert fingerprint("memory://cache/a.csv") != before
    with pytest.raises(FileNotFoundError):
        fingerprint("memory://cache/none.csv")


def test_a_file_in_an_archive_counts_by_the_archive(tmp_path: Path) -> None:
    archive, address = tmp_path / "a.zip", f"zip://a.csv::{tmp_path}/a.zip"

    def write(text: str) -> None:
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("a.csv", text)

    write("1")
    before = fingerprint(address)
    fsspec.filesystem("zip", fo=str(archive)).clear_instance_cache()
    assert fingerprint(address) == before, "as another process sees it, which has opened the archive anew"
    write("2")
    assert fingerprint(address) != before
    archive.unlink()
    with pytest.raises(FileNotFoundError):
        fingerprint(address)


class Server(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Tells of every file what it was told itself."""

    def __init__(self, **told: str) -> None:
        super().__init__()
        self.told = told

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": None, "type": "file", **self.told}

    def ukey(self, path: str) -> str:
        return path  # as that of fsspec: it takes what HTTP serves to be unchanging


def test_what_is_served_over_http_counts_by_its_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(**headers: str) -> Any:
        monkeypatch.setattr("yarrow.urls.remote", lambda address: (Server(**headers), address))
        return fingerprint("https://example.org/a.csv")

    assert told(ETag="1") == told(ETag="1") != told(ETag="2")
    with pytest.raises(OSError, match="a change would not be seen"):
        told()

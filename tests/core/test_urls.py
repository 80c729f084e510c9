"""Addresses of files: told apart, kept in their folder, written whole or not at all."""

import errno
import os
from pathlib import Path

import fsspec
import pytest

from yarrow import urls
from yarrow.errors import Fail


@pytest.fixture
def bucket() -> str:
    """A folder of a store that is not the local disk."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    return "memory://bucket/data"


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/data/a.csv", Path("/data/a.csv")),
        ("data/a.csv", Path("data/a.csv")),
        ("file:///data/a b.csv", Path("/data/a b.csv")),
        ("s3://bucket/a.csv", None),
        ("zip://a.csv::/data/a.zip", None),
        ("file://a.csv::zip:///x", None),
    ],
)
def test_local_path(address: str, path: Path | None) -> None:
    assert urls.local_path(address) == path


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("models/a.onnx", "/dags/models/a.onnx"),
        ("out/", "/dags/out/"),
        ("/models/a.onnx", "/models/a.onnx"),
        ("s3://models/a.onnx", "s3://models/a.onnx"),
    ],
)
def test_resolve(address: str, expected: str) -> None:
    assert urls.resolve(address, "/dags") == expected


@pytest.mark.parametrize("address", ["../a.onnx", "models/../../a.onnx", "", "."])
def test_a_relative_path_stays_in_its_folder(address: str) -> None:
    with pytest.raises(Fail, match="leads out of its folder"):
        urls.resolve(address, "/dags")


def test_write_and_read_bytes(tmp_path: Path, bucket: str) -> None:
    for folder in (str(tmp_path), f"file://{tmp_path}/deeper", bucket):
        address = urls.join(folder, "a/b.bin")
        assert not urls.exists(address)
        urls.write_bytes(address, b"one")
        urls.write_bytes(address, b"two")
        assert urls.read_bytes(address) == b"two"
        assert urls.exists(address)
        assert urls.names(urls.join(folder, "a")) == ["b.bin"]
        urls.remove(address)
        urls.remove(address)
        assert not urls.exists(address)


def test_names_of_no_folder(tmp_path: Path, bucket: str) -> None:
    assert urls.names(str(tmp_path / "none")) == []
    assert urls.names(bucket) == []


def test_put_leaves_the_source_and_nothing_else(tmp_path: Path, bucket: str) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"content")
    for folder in (str(tmp_path / "target"), bucket):
        urls.put(source, urls.join(folder, "a.bin"))
        urls.put(source, urls.join(folder, "a.bin"))
        assert urls.names(folder) == ["a.bin"]
        assert urls.read_bytes(urls.join(folder, "a.bin")) == b"content"
    assert source.exists()


def test_put_across_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"content")

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    urls.put(source, str(tmp_path / "target/a.bin"))
    assert (tmp_path / "target/a.bin").read_bytes() == b"content"


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.bin"
    urls.write_bytes(str(target), b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        urls.write_bytes(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert urls.names(str(tmp_path)) == ["a.bin"]

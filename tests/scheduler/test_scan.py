"""What counts as a DAG file, and what a folder may do to the scan."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yarrow_scheduler.scan import Stamp, is_dag_file_name, scan, stamp_of


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_it_finds_yaml_in_subfolders_in_order(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "team/deep/c.yaml", "notes.txt", "team/query.sql"):
        write(tmp_path / name)
    assert list(scan(tmp_path).files) == ["a.yaml", "b.yml", "team/deep/c.yaml"]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("dag.yaml", True),
        ("dag.yml", True),
        ("tmp.yaml", True),
        ("dag.YAML", False),
        ("dag.json", False),
        ("dag.yaml~", False),
        (".dag.yaml", False),
        (".#dag.yaml", False),
        ("#dag.yaml", False),
        ("~dag.yaml", False),
        ("dag.tmp.yaml", False),
        ("dag~.yml", False),
        ("dag.yaml.swp", False),
        ("dag.yaml.tmp", False),
    ],
)
def test_hidden_and_temporary_names_are_ignored(name: str, counts: bool) -> None:
    assert is_dag_file_name(name) is counts


def test_hidden_folders_are_ignored(tmp_path: Path) -> None:
    write(tmp_path / ".git" / "a.yaml")
    assert scan(tmp_path).files == {}


def test_a_folder_may_be_named_like_a_file(tmp_path: Path) -> None:
    write(tmp_path / "team.yaml" / "a.yaml")
    assert list(scan(tmp_path).files) == ["team.yaml/a.yaml"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path / "dags" / "z" / "a.yaml")
    write(tmp_path / "shared" / "s.yaml")
    (tmp_path / "dags" / "z" / "up").symlink_to(tmp_path / "dags")
    (tmp_path / "dags" / "a_link").symlink_to(tmp_path / "dags" / "z")
    (tmp_path / "dags" / "shared").symlink_to(tmp_path / "shared")
    (tmp_path / "dags" / "file.yaml").symlink_to(tmp_path / "shared" / "s.yaml")
    assert list(scan(tmp_path / "dags").files) == ["file.yaml", "shared/s.yaml", "z/a.yaml"]


def test_dangling_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.yaml").symlink_to(tmp_path / "self.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    found = scan(tmp_path)
    assert (found.files, found.unreadable) == ({}, {})


def test_a_missing_folder_hides_everything(tmp_path: Path) -> None:
    found = scan(tmp_path / "gone")
    assert found.unreadable == {"": "No such file or directory"}
    assert found.hides("any.yaml")
    assert found.hides("team/any.yaml")


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    assert scan(write(tmp_path / "dags")).unreadable == {"": "Not a directory"}


def test_an_unreadable_subfolder_hides_only_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "good.yaml")
    write(tmp_path / "secret" / "a.yaml")
    write(tmp_path / "secrets" / "b.yaml")
    listed = os.scandir

    def deny(path: str) -> object:  # root may read everything, so that permissions would not do
        if path == str(tmp_path / "secret"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", deny)
    found = scan(tmp_path)
    assert list(found.files) == ["good.yaml", "secrets/b.yaml"]
    assert found.unreadable == {"secret": "Permission denied"}
    assert found.hides("secret/a.yaml")
    assert not found.hides("secrets/b.yaml")


def test_names_that_the_store_cannot_keep_are_told(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.yaml"))).write_text("x")
    long = tmp_path.joinpath(*(["d" * 200] * 6))
    write(long / "a.yaml")
    found = scan(tmp_path)
    assert found.files == {}
    assert len(found.misnamed) == 2


def test_a_file_moved_into_place_has_another_stamp(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.yaml", "1"), write(tmp_path / "b.yaml", "2")
    os.utime(one, ns=(0, 10**18))
    os.utime(other, ns=(0, 10**18))
    before = scan(tmp_path).files["a.yaml"]
    os.replace(other, one)
    assert scan(tmp_path).files["a.yaml"] != before


def test_only_regular_files_have_a_stamp(tmp_path: Path) -> None:
    assert stamp_of(tmp_path) is None
    assert stamp_of(tmp_path / "gone") is None
    assert stamp_of("\0") is None
    assert stamp_of(write(tmp_path / "a")) == scan_stamp(tmp_path / "a")


def scan_stamp(path: Path) -> Stamp:
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ino)

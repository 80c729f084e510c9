"""The catalog follows the DAG folder: what is read, published, kept, blamed and taken out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from yarrow.clock import utc_now
from yarrow.config import Config
from yarrow.errors import NotFound, StoreError
from yarrow.store import Store
from yarrow_scheduler.catalog import Catalog, Refresh
from yarrow_scheduler.parsed import Parsed
from yarrow_scheduler.parser import Parser

GOOD = "tasks: {a: {operator: bash, with: {command: 'echo %s'}}}\n"
BROKEN = "tasks: {a: {operator: bash, wiht: {}}}\n"


class CountingParser(Parser):
    """The real parser, which remembers what it was given."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, processes=1)
        self.given: list[str] = []

    def parse(self, paths: Sequence[str]) -> Iterator[Parsed]:
        self.given += paths
        return super().parse(paths)


class Folder:
    """A DAG folder and its catalog."""

    def __init__(self, config: Config, store: Store) -> None:
        self.path = config.dags_folder
        self.config = config
        self.store = store
        self.changes = 0
        self.parser = CountingParser(config)
        self.restart()

    def restart(self) -> None:
        """The scheduler starts again on the same database."""
        self.catalog = Catalog(self.path, self.store.catalog, self.parser, utc_now)

    def write(self, name: str, text: str, *, old: bool = True) -> Path:
        """Writes a file, by default one that has not been touched for a while."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if old:
            self._moment = getattr(self, "_moment", 10**18) + 10**9
            os.utime(path, ns=(self._moment, self._moment))
        return path

    def refresh(self) -> Refresh:
        self.parser.given.clear()
        return self.catalog.refresh(self._on_change)

    def _on_change(self) -> None:
        self.changes += 1

    @property
    def dags(self) -> dict[str, str]:
        """dag_id -> path of the active DAGs."""
        return {dag.dag_id: dag.path for dag in self.store.catalog.dags()}

    @property
    def errors(self) -> dict[str, list[str]]:
        """path -> the codes of its faults."""
        return {file.path: [fault.code for fault in file.faults] for file in self.store.catalog.import_errors()}


@pytest.fixture
def folder(config: Config, sqlite_store: Store) -> Iterator[Folder]:
    folder = Folder(config, sqlite_store)
    yield folder
    folder.parser.close()


def test_a_new_file_becomes_a_dag(folder: Folder) -> None:
    folder.write("team/one.yaml", GOOD % 1)
    assert folder.refresh() == Refresh(files=1, parsed=1, published=1)
    assert folder.dags == {"one": "team/one.yaml"}
    assert folder.changes == 1
    assert folder.store.catalog.source("one") == GOOD % 1
    record = folder.store.catalog.files()["team/one.yaml"]
    assert (record.dag_id, len(record.faults), record.size) == ("one", 0, len(GOOD % 1))


def test_an_unchanged_file_is_not_read_again(folder: Folder) -> None:
    path = folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    stamp = path.stat()
    path.write_text("x" * stamp.st_size)  # the same size and time: nobody could know
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert folder.refresh() == Refresh(files=1)
    assert folder.changes == 1


def test_a_file_changed_a_moment_ago_is_looked_at_once_more(folder: Folder) -> None:
    path = folder.write("one.yaml", GOOD % 1, old=False)
    folder.refresh()
    stamp = path.stat()
    path.write_text(GOOD % 2)  # in the same tick of the file system's clock
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert folder.refresh().published == 1


def test_the_same_content_is_not_parsed_again(folder: Folder) -> None:
    path = folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    folder.write("one.yaml", GOOD % 1)
    assert folder.refresh().parsed == 0
    assert folder.store.catalog.files()["one.yaml"].mtime_ns == path.stat().st_mtime_ns
    assert folder.refresh().parsed == 0


def test_an_edit_makes_a_new_version(folder: Folder) -> None:
    folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    folder.write("one.yaml", GOOD % 2)
    assert folder.refresh().published == 1
    assert [version.number for version in folder.store.catalog.versions("one")] == [2, 1]


def test_many_files_are_published_and_told_in_one_line(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(11):
        folder.write(f"d{number}.yaml", GOOD % number)
    with caplog.at_level(logging.INFO):
        assert folder.refresh().published == 11
    assert [record.getMessage() for record in caplog.records] == ["published 11 DAGs"]


def test_a_comment_makes_no_new_version(folder: Folder) -> None:
    folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    folder.write("one.yaml", "# hello\n" + GOOD % 1)
    assert folder.refresh() == Refresh(files=1, parsed=1)
    assert folder.changes == 1


def test_a_restart_proves_everything_anew_and_publishes_nothing(folder: Folder) -> None:
    folder.write("one.yaml", GOOD % 1)
    folder.write("two.yaml", BROKEN)
    folder.refresh()
    folder.restart()
    assert folder.refresh() == Refresh(files=2, parsed=2)
    assert folder.dags == {"one": "one.yaml"}
    assert folder.errors.keys() == {"two.yaml"}


def test_after_a_restart_what_has_changed_comes_first(folder: Folder) -> None:
    for name in "abc":
        folder.write(f"{name}.yaml", GOOD % name)
    folder.refresh()
    folder.write("c.yaml", GOOD % "other")
    folder.restart()
    folder.refresh()
    assert folder.parser.given == ["c.yaml", "a.yaml", "b.yaml"]


def test_a_broken_file_keeps_its_last_good_version(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    version = folder.store.catalog.dag("one").version
    folder.write("one.yaml", BROKEN)
    with caplog.at_level(logging.WARNING):
        folder.refresh()
    assert folder.store.catalog.dag("one").version == version
    assert folder.dags == {"one": "one.yaml"}
    (file,) = folder.store.catalog.import_errors()
    assert (file.path, file.dag_id) == ("one.yaml", "one")
    assert str(file.faults[0]).startswith("one.yaml:1:")
    assert "one.yaml:1:" in caplog.text
    folder.write("one.yaml", GOOD % 3)
    folder.refresh()
    assert folder.errors == {}
    assert folder.store.catalog.dag("one").version != version


def test_a_file_broken_from_the_start_is_shown(folder: Folder) -> None:
    folder.write("bad.yaml", BROKEN)
    folder.refresh()
    assert folder.dags == {}
    assert folder.errors.keys() == {"bad.yaml"}
    assert folder.refresh().parsed == 0, "it is not parsed again until it changes"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"tasks:\n  a:\n    operator: bash\n    with: {command: 'ech",
        b"\x00\x01\x02\xff" * 1000,
        b"\xff\xfet\x00a\x00",
        "tasks: {a: {operator: bash, with: {command: 'caf\xe9'}}}".encode("latin-1"),
        b"[" * 20_000,
        b"a: &a [" + b"*a," * 10 + b"]",
        b"x: " + b"y" * (2 * 1024 * 1024),
    ],
    ids=["empty", "half", "binary", "utf-16", "latin-1", "deep", "recursive", "large"],
)
def test_hostile_content_is_a_fault_of_its_file_alone(folder: Folder, content: bytes) -> None:
    folder.write("one.yaml", GOOD % 1)
    (folder.path / "bad.yaml").write_bytes(content)
    folder.refresh()
    assert folder.dags == {"one": "one.yaml"}
    assert folder.errors.keys() == {"bad.yaml"}
    folder.write("bad.yaml", GOOD % "mended")
    folder.refresh()
    assert folder.dags.keys() == {"one", "bad"}
    assert folder.errors == {}


def test_a_half_written_file_is_read_again_when_it_is_whole(folder: Folder) -> None:
    whole = GOOD % 1
    folder.write("one.yaml", whole[:20], old=False)
    folder.refresh()
    assert folder.errors.keys() == {"one.yaml"}
    folder.write("one.yaml", whole, old=False)
    folder.refresh()
    assert (folder.dags, folder.errors) == ({"one": "one.yaml"}, {})


def test_an_unreadable_file_is_broken_and_not_gone(folder: Folder) -> None:
    path = folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    path.unlink()
    path.symlink_to("/proc/self/mem")  # not even root can read its beginning
    folder.refresh()
    folder.refresh()
    assert (folder.dags, folder.errors) == ({"one": "one.yaml"}, {"one.yaml": ["YRW001"]})


def test_a_deleted_file_takes_its_dag_out_after_two_scans(folder: Folder) -> None:
    path = folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    path.unlink()
    assert folder.refresh() == Refresh(files=0, look_again=True)
    assert folder.dags == {"one": "one.yaml"}
    assert folder.refresh() == Refresh(files=0, deactivated=1)
    assert folder.dags == {}
    assert folder.changes == 2
    assert not folder.store.catalog.dag("one").is_active, "its history stays"
    assert folder.store.catalog.files() == {}
    assert folder.refresh() == Refresh(files=0)


def test_a_file_that_is_replaced_in_two_steps_loses_nothing(folder: Folder) -> None:
    path = folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    path.unlink()
    folder.refresh()
    folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    path.unlink()
    assert folder.refresh().look_again, "the scans that missed it must follow each other"
    assert folder.dags == {"one": "one.yaml"}


def test_a_broken_file_that_is_deleted_takes_its_dag_along(folder: Folder) -> None:
    path = folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    folder.write("one.yaml", BROKEN)
    folder.refresh()
    path.unlink()
    folder.refresh()
    folder.refresh()
    assert (folder.dags, folder.errors) == ({}, {})


def test_a_dag_comes_back_with_its_file(folder: Folder) -> None:
    path = folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    path.unlink()
    folder.refresh()
    folder.refresh()
    folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    assert folder.dags == {"one": "one.yaml"}
    assert [version.number for version in folder.store.catalog.versions("one")] == [1]


def test_a_file_deleted_while_no_scheduler_ran_is_noticed(folder: Folder) -> None:
    path = folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    path.unlink()
    folder.restart()
    folder.refresh()
    folder.refresh()
    assert folder.dags == {}


def test_a_renamed_file_keeps_its_dag(folder: Folder) -> None:
    path = folder.write("one.yaml", "dag_id: fixed\n" + GOOD % 1)
    folder.refresh()
    path.rename(folder.path / "two.yaml")
    assert folder.refresh().deactivated == 0
    assert folder.dags == {"fixed": "two.yaml"}
    folder.refresh()
    assert folder.dags == {"fixed": "two.yaml"}
    assert folder.store.catalog.files().keys() == {"two.yaml"}


def test_another_dag_id_in_the_same_file_is_another_dag(folder: Folder) -> None:
    folder.write("one.yaml", "dag_id: first\n" + GOOD % 1)
    folder.refresh()
    folder.write("one.yaml", "dag_id: second\n" + GOOD % 1)
    assert folder.refresh().deactivated == 1
    assert folder.dags == {"second": "one.yaml"}


def test_the_file_that_had_a_dag_id_first_keeps_it(folder: Folder) -> None:
    folder.write("z.yaml", "dag_id: same\n" + GOOD % "z")
    folder.refresh()
    version = folder.store.catalog.dag("same").version
    folder.write("a.yaml", "dag_id: same\n" + GOOD % "a")
    folder.refresh()
    assert folder.dags == {"same": "z.yaml"}
    assert folder.store.catalog.dag("same").version == version
    (file,) = folder.store.catalog.import_errors()
    (fault,) = file.faults
    assert (file.path, fault.code, fault.line, fault.column) == ("a.yaml", "YRW080", 1, 9)
    assert "z.yaml" in fault.message
    assert "a.yaml" in fault.message
    folder.restart()
    folder.refresh()
    assert folder.dags == {"same": "z.yaml"}, "also after a restart"


def test_of_two_new_files_the_first_by_name_has_the_dag_id(folder: Folder) -> None:
    folder.write("b.yaml", "dag_id: same\n" + GOOD % "b")
    folder.write("a.yaml", "dag_id: same\n" + GOOD % "a")
    folder.refresh()
    assert folder.dags == {"same": "a.yaml"}
    assert folder.errors == {"b.yaml": ["YRW080"]}


@pytest.mark.parametrize("how", ["delete", "rename"])
def test_a_dag_id_that_becomes_free_goes_to_the_other_file(folder: Folder, how: str) -> None:
    folder.write("a.yaml", "dag_id: same\n" + GOOD % "a")
    folder.write("b.yaml", "dag_id: same\n" + GOOD % "b")
    folder.refresh()
    if how == "delete":
        (folder.path / "a.yaml").unlink()
    else:
        folder.write("a.yaml", "dag_id: other\n" + GOOD % "a")
    for _ in range(3):
        folder.refresh()
    assert folder.dags["same"] == "b.yaml"
    assert folder.errors == {}


def test_a_broken_file_still_holds_its_dag_id(folder: Folder) -> None:
    folder.write("b.yaml", "dag_id: same\n" + GOOD % "b")
    folder.refresh()
    folder.write("b.yaml", BROKEN)
    folder.write("a.yaml", "dag_id: same\n" + GOOD % "a")
    folder.refresh()
    assert folder.dags == {"same": "b.yaml"}
    assert folder.errors.keys() == {"a.yaml", "b.yaml"}


def test_a_change_of_an_included_file_changes_the_dag(folder: Folder) -> None:
    folder.write("sql/q.sql", "select 1")
    folder.write("one.yaml", "tasks: {a: {operator: sql, with: {query: !file sql/q.sql}}}\n")
    folder.refresh()
    assert folder.errors == {}
    assert folder.refresh().parsed == 0
    folder.write("sql/q.sql", "select 2")
    assert folder.refresh() == Refresh(files=1, parsed=1, published=1)
    assert folder.store.catalog.spec("one").tasks["a"].arguments["query"] == "select 2"
    folder.write("sql/q.sql", "select 3", old=False)
    folder.refresh()
    assert folder.refresh().parsed == 1, "it was included a moment after it changed, and may have changed since"


def test_an_included_file_that_is_missing_is_waited_for(folder: Folder) -> None:
    folder.write("one.yaml", "tasks: {a: {operator: sql, with: {query: !file q.sql}}}\n")
    folder.refresh()
    assert folder.errors == {"one.yaml": ["YRW019"]}
    folder.write("q.sql", "select 1")
    folder.refresh()
    assert (folder.dags, folder.errors) == ({"one": "one.yaml"}, {})


def test_a_fragment_is_no_dag_file(folder: Folder) -> None:
    folder.write("parts/arguments.yaml", "command: echo hello\n")
    folder.refresh()
    assert folder.errors.keys() == {"parts/arguments.yaml"}, "nobody could know"
    folder.write("one.yaml", "tasks: {a: {operator: bash, with: !file parts/arguments.yaml}}\n")
    folder.refresh()
    assert (folder.dags, folder.errors) == ({"one": "one.yaml"}, {})
    folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    assert folder.errors.keys() == {"parts/arguments.yaml"}, "it is a part of nothing any more"


def test_a_missing_folder_takes_nothing_out(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.write("one.yaml", GOOD % 1)
    folder.refresh()
    aside = folder.path.with_name("aside")
    folder.path.rename(aside)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert folder.refresh() == Refresh(files=0)
    assert folder.dags == {"one": "one.yaml"}
    assert [record.action for record in caplog.records] == ["dags_folder_unreadable"], "said once"  # type: ignore[attr-defined]
    assert str(folder.path) in caplog.text
    aside.rename(folder.path)
    with caplog.at_level(logging.INFO):
        assert folder.refresh() == Refresh(files=1)
    assert caplog.records[-1].action == "dags_folder_readable"  # type: ignore[attr-defined]


def test_nothing_is_missed_when_the_database_fails_in_the_middle(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("one.yaml", GOOD % 1)

    def fail(*_: Any) -> list[str]:
        raise StoreError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(type(folder.store.catalog), "publish", fail)
        with pytest.raises(StoreError):
            folder.refresh()
    assert folder.dags == {}
    folder.refresh()
    assert folder.dags == {"one": "one.yaml"}


def test_a_warning_is_kept_beside_the_dag(make_config: Callable[..., Config], sqlite_store: Store) -> None:
    folder = Folder(make_config(queues=["default"]), sqlite_store)
    folder.write("one.yaml", "tasks: {a: {operator: bash, queue: gpu, with: {command: x}}}\n")
    folder.refresh()
    folder.parser.close()
    assert folder.dags == {"one": "one.yaml"}
    (fault,) = sqlite_store.catalog.files()["one.yaml"].faults
    assert (fault.code, fault.severity) == ("YRW090", "warning")
    assert folder.errors == {}


def test_an_unknown_dag_is_not_found(folder: Folder) -> None:
    folder.refresh()
    with pytest.raises(NotFound):
        folder.store.catalog.dag("nope")

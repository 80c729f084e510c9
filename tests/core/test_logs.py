"""The log store, in a folder and in an object store."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from yarrow import logs
from yarrow.logs import LogStore, log_path
from yarrow.protocol import LogLine

ATTEMPT = ("dag", "scheduled__2026-01-01T00:00:00+00:00", "group.task", -1, 1)


def line(text: str, stream: str = "stdout", level: str | None = None) -> LogLine:
    return LogLine("2026-01-01T00:00:00.000001+00:00", stream, text, level)


def texts(store: LogStore, limit: int = 1000) -> list[str]:
    return [found.text for found in store.read(*ATTEMPT, limit=limit)[0]]


@pytest.fixture(params=["folder", "objects"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where logs are kept: the test runs once on each kind of place."""
    if request.param == "folder":
        yield f"file://{tmp_path}/logs"
        return
    root = f"memory://logs-{uuid.uuid4().hex}"
    yield root
    filesystem, path = fsspec.core.url_to_fs(root)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


def test_lines_come_back_in_order_with_all_that_is_known_of_them(url: str) -> None:
    store = LogStore(url)
    written = [line("one"), line("ä \N{SNOWMAN} \x1b[31m", "stderr"), line("", "log", "WARNING")]
    store.append(*ATTEMPT, written[:1])
    store.append(*ATTEMPT, written[1:])
    found, offset = store.read(*ATTEMPT)
    assert found == written
    assert store.read(*ATTEMPT, offset=offset) == ([], offset)


def test_a_reader_goes_on_where_it_was(url: str) -> None:
    store = LogStore(url)
    for start in range(0, 100, 10):
        store.append(*ATTEMPT, [line(str(number)) for number in range(start, start + 10)])
    seen: list[str] = []
    offset = 0
    while True:
        found, offset = store.read(*ATTEMPT, offset=offset, limit=7)
        if not found:
            break
        assert len(found) <= 7
        seen += [entry.text for entry in found]
    store.append(*ATTEMPT, [line("100")])
    seen += [entry.text for entry in store.read(*ATTEMPT, offset=offset)[0]]
    assert seen == [str(number) for number in range(101)]


def test_no_log_is_an_empty_log(url: str) -> None:
    assert LogStore(url).read(*ATTEMPT) == ([], 0)


def test_attempts_and_strange_names_do_not_meet(url: str) -> None:
    store = LogStore(url)
    names = ["a", "A", "..", ".", "a/b", "a%2Fb", "a b", "ü", "x" * 250, "x" * 249 + "y", "~", "a+b:c"]
    keys = [(name, "run", name, -1, 1) for name in names]
    keys += [("a", "run", "a", 0, 1), ("a", "run", "a", 1, 1), ("a", "run", "a", -1, 2)]
    for key in keys:
        store.append(*key, [line(repr(key))])
    for key in keys:
        assert [found.text for found in store.read(*key)[0]] == [repr(key)]


def test_a_log_has_a_limit(url: str) -> None:
    store = LogStore(url, limit=2000)
    for number in range(100):
        store.append(*ATTEMPT, [line(f"{number} {'x' * 100}")])
    found = texts(store)
    assert found[-1] == "The log is cut off here: 2,000 bytes."
    assert 5 < len(found) < 20
    LogStore(url, limit=2000).append(*ATTEMPT, [line("from another process")])
    assert "from another process" not in texts(store)


def test_following_ends_some_time_after_the_attempt(url: str) -> None:
    store = LogStore(url)
    store.append(*ATTEMPT, [line("early")])
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            store.append(*ATTEMPT, [line("while it runs")])
        if len(waits) == 4:
            store.append(*ATTEMPT, [line("after its end")])

    found = [entry.text for entry in store.follow(*ATTEMPT, finished=lambda: len(waits) >= 3, wait=wait)]
    assert found == ["early", "while it runs", "after its end"]


def test_paths_stay_inside_the_folder() -> None:
    for name in ("..", "../../etc", "/etc", ".hidden", "a\0b", "con:1"):
        path = log_path(name, name, name, -1, 1)
        assert not any(part.startswith(".") or part == "" or "\0" in part for part in path.split("/"))
    assert log_path("d", "r", "t", 3, 2) == "d/r/t/3/try-2.jsonl"


def test_a_full_disk_is_no_error_and_the_log_tells_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LogStore(str(tmp_path))
    file = tmp_path / log_path(*ATTEMPT)
    file.parent.mkdir(parents=True)
    file.symlink_to("/dev/full")
    store.append(*ATTEMPT, [line("lost"), line("lost as well")])
    store.append(*ATTEMPT, [line("the same")])
    assert len([record for record in caplog.records if "can't be written" in record.message]) == 1
    file.unlink()
    store.append(*ATTEMPT, [line("back again")])
    assert texts(store) == ["3 lines are missing here: the log store could not be written to.", "back again"]


def test_a_batch_that_did_not_fit_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LogStore(str(tmp_path))
    store.append(*ATTEMPT, [line("whole")])
    write = os.write
    left = [10]

    def short_write(descriptor: int, data: bytes) -> int:
        if not left:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: left.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(logs.os, "write", short_write)
        store.append(*ATTEMPT, [line("half")])
    assert (tmp_path / log_path(*ATTEMPT)).read_bytes().endswith(b"\n")
    assert texts(store) == ["whole"]


def test_damaged_lines_are_passed_over_and_a_line_in_the_making_waits(tmp_path: Path) -> None:
    store = LogStore(str(tmp_path))
    store.append(*ATTEMPT, [line("one")])
    file = tmp_path / log_path(*ATTEMPT)
    whole = json.dumps({"at": "", "stream": "stdout", "text": "later", "newer_field": 1})
    with file.open("a") as log:
        log.write('{"at": "x", "te\n[1]\n' + whole)
    found, offset = store.read(*ATTEMPT)
    assert [entry.text for entry in found] == ["one"]
    with file.open("a") as log:
        log.write("\n")
    assert [entry.text for entry in store.read(*ATTEMPT, offset=offset)[0]] == ["later"]


def test_a_line_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    store = LogStore(str(tmp_path))
    store.append(*ATTEMPT, [line("x" * 700_000), line("next")])
    assert [len(text) for text in texts(store)] == [700_000, 4]


def test_threads_do_not_mix_their_batches(tmp_path: Path) -> None:
    store = LogStore(str(tmp_path))

    def write(name: str) -> None:
        for number in range(50):
            store.append(*ATTEMPT, [line(f"{name} {number} {part}") for part in range(3)])

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = texts(store)
    assert len(found) == 600
    assert all(found[at].rpartition(" ")[0] == found[at + 2].rpartition(" ")[0] for at in range(0, 600, 3))


def runs_with_logs(store: LogStore) -> dict[tuple[str, str], int]:
    """How many lines the runs of `log_everywhere` have."""
    return {names: len(store.read(*names, "t", -1, 1)[0]) for names in PLACES}


PLACES = [("d", "r"), ("d", "r1"), ("d", "../r"), ("d2", "r"), ("..", "r"), ("d/r", "r"), ("x" * 250, "y" * 250)]


def log_everywhere(store: LogStore) -> dict[tuple[str, str], int]:
    for names in PLACES:
        store.append(*names, "t", -1, 1, [line("x")])
        store.append(*names, "group.m", 3, 2, [line("x")])
    return dict.fromkeys(PLACES, 1)


@pytest.mark.parametrize("names", PLACES, ids=str)
def test_the_logs_of_a_run_are_deleted_and_no_others(url: str, names: tuple[str, str]) -> None:
    store = LogStore(url)
    expected = log_everywhere(store)
    store.delete_run(*names)
    assert runs_with_logs(store) == expected | {names: 0}
    assert store.read(*names, "group.m", 3, 2) == ([], 0)
    store.delete_run(*names)  # nothing is there any more
    store.delete_run("never", "was")


@pytest.mark.parametrize("dag_id", ["d", "..", "d/r", "x" * 250])
def test_the_logs_of_a_dag_are_deleted_and_no_others(url: str, dag_id: str) -> None:
    store = LogStore(url)
    expected = log_everywhere(store)
    store.delete_dag(dag_id)
    assert runs_with_logs(store) == {names: 0 if names[0] == dag_id else lines for names, lines in expected.items()}
    store.delete_dag(dag_id)


def test_without_a_name_nothing_is_deleted(url: str) -> None:
    store = LogStore(url)
    expected = log_everywhere(store)
    for delete in (lambda: store.delete_run("d", ""), lambda: store.delete_run("", "r"), lambda: store.delete_dag("")):
        with pytest.raises(ValueError, match="without a name"):
            delete()
    assert runs_with_logs(store) == expected


def test_links_lead_no_deleting_out_of_the_folder(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "r").mkdir(parents=True)
    (precious / "r/file").write_text("x")
    folder = tmp_path / "logs"
    store = LogStore(str(folder))
    store.append("d", "kept", "t", -1, 1, [line("x")])
    (folder / "d/r").symlink_to(precious)
    (folder / "d/kept/link").symlink_to(precious)
    (folder / "linked").symlink_to(precious)
    store.delete_run("d", "r")  # the link goes, and what it leads to stays
    store.delete_run("d", "kept")
    with pytest.raises(OSError, match="leads out of the log folder"):
        store.delete_run("linked", "r")
    store.delete_dag("linked")
    assert (precious / "r/file").read_text() == "x"
    assert [path.name for path in folder.iterdir()] == ["d"]
    assert list((folder / "d").iterdir()) == []


def test_the_size_of_the_logs_of_a_run(tmp_path: Path) -> None:
    store = LogStore(str(tmp_path))
    assert store.size_of_run("d", "r") == 0
    log_everywhere(store)
    size = store.size_of_run("d", "r")
    assert size == sum(file.stat().st_size for file in (tmp_path / "d/r").rglob("*.jsonl"))
    assert size
    assert LogStore("memory://logs").size_of_run("d", "r") is None


def test_an_attempt_logs_again_after_its_logs_were_deleted(url: str) -> None:
    store = LogStore(url)
    store.append(*ATTEMPT, [line("before")])
    store.delete_run(ATTEMPT[0], ATTEMPT[1])
    store.append(*ATTEMPT, [line("after")])
    assert texts(store) == ["after"]

"""Reports on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from yarrow.errors import ConfigError
from yarrow.protocol import Report
from yarrow_executor.spool import FOLDER, Envelope, Spool


def envelope(attempt_id: str, **report: object) -> Envelope:
    return Envelope(Report(attempt_id, "success", **report), f"token of {attempt_id}", "worker-1")  # type: ignore[arg-type]


def opened(home: Path, worker_id: str) -> Spool:
    spool = Spool(home, worker_id)
    spool.open()
    return spool


def test_what_is_kept_comes_back_until_it_is_removed(tmp_path: Path) -> None:
    spool = opened(tmp_path, "w1")
    first, second = envelope("a1", xcom={"rows": [1, 2]}, has_xcom=True, metrics={"rows_in": 7}), envelope("a2")
    spool.put(first)
    spool.put(second)
    assert spool.pending() == [first, second]
    spool.remove(first)
    spool.remove(first)
    assert spool.pending() == [second]
    spool.close()
    assert (tmp_path / FOLDER / "w1").is_dir(), "a report that still waits is not thrown away"
    spool.remove(second)
    spool.close()
    assert not (tmp_path / FOLDER / "w1").exists()


def test_reports_are_private(tmp_path: Path) -> None:
    spool = opened(tmp_path, "w1")
    spool.put(envelope("a1"))
    assert (spool.folder / f"{envelope('a1').key}.json").stat().st_mode & 0o077 == 0
    spool.close()


def test_the_reports_of_a_dead_worker_are_adopted_and_those_of_a_living_one_are_not(tmp_path: Path) -> None:
    dead, living, new = (opened(tmp_path, name) for name in ("dead", "living", "new"))
    dead.put(envelope("a1"))
    living.put(envelope("a2"))
    dead.close()  # its process ends and with it its lock
    assert new.adopt() == 1
    assert new.pending() == [envelope("a1")]
    assert living.pending() == [envelope("a2")]
    assert not dead.folder.exists()
    living.close()
    new.close()


def test_damaged_files_are_passed_over(tmp_path: Path) -> None:
    spool = opened(tmp_path, "w1")
    (spool.folder / "half.json").write_text('{"report": {"attempt_id": "x"')
    (spool.folder / "other.json").write_text('{"report": 1, "token": "", "worker_id": ""}')
    spool.put(envelope("a1"))
    assert spool.pending() == [envelope("a1")]
    spool.close()


def test_a_home_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file is in the way")
    with pytest.raises(ConfigError, match="can't write"):
        Spool(tmp_path, "w1").open()


def test_the_reports_of_one_attempt_that_was_put_off_are_several(tmp_path: Path) -> None:
    spool = opened(tmp_path, "w1")
    first = Envelope(Report("a1", "deferred", resume_at="2026-01-01T00:00:00+00:00"), "first token", "w1")
    second = Envelope(Report("a1", "success"), "second token", "w1")
    spool.put(first)
    spool.put(second)
    assert sorted(spool.pending(), key=lambda envelope: envelope.token) == [first, second]
    spool.remove(first)
    assert spool.pending() == [second]
    spool.close()

"""`yarrow plan-week`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yarrow.store import Store

Yarrow = Callable[..., Any]

HOURLY = """
schedule: "@hourly"
deadline: {after: 62m, from: logical_date}
tasks:
  load: {operator: bash, with: {command: echo}}
  check: {operator: bash, depends_on: [load], with: {command: echo}}
"""
WIDE = """
schedule: "0 3 * * *"
tasks:
  a: {operator: bash, pool: gpu, with: {command: echo}}
  b: {operator: bash, pool: gpu, with: {command: echo}}
  c: {operator: bash, pool: gpu, with: {command: echo}}
"""


@pytest.fixture
def plan(yarrow: Yarrow, tmp_path: Path) -> Callable[..., Any]:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "hourly.yaml").write_text(HOURLY)
    (folder / "wide.yaml").write_text(WIDE)
    return lambda *arguments: yarrow(
        "plan-week", "--dags", str(folder), "--from", "2026-01-05", "--no-recorded", *arguments
    )


def test_a_week_as_json(plan: Callable[..., Any]) -> None:
    found = plan("--json").json()
    assert (found["runs"], found["tasks"]) == (24 * 7 + 7, 2 * 24 * 7 + 3 * 7)
    assert (found["peak_slots"], found["slots"], found["slots_wanted"]) == (4, None, 4)
    assert found["peak_at"] == "2026-01-05T03:00:00+00:00"
    assert found["misses"] == [], "the tasks take a minute each: 62 minutes are just enough"
    assert found["guessed_tasks"] == 5


def test_slots_and_pools_make_tasks_wait(plan: Callable[..., Any]) -> None:
    found = plan("--json", "--days", "1", "--slots", "2", "--pool", "gpu=1").json()
    assert (found["peak_slots"], found["slots_wanted"]) == (2, 2)
    by_id = {dag["dag_id"]: dag for dag in found["dags"]}
    assert (by_id["wide"]["longest_wait"], by_id["wide"]["longest_run"]) == (120.0, 180.0)


def test_durations_are_given(plan: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "durations.yaml"
    file.write_text("hourly: {load: 5m}\n")
    found = plan("--json", "--days", "1", "--durations", str(file)).json()
    assert len(found["misses"]) == 24
    assert found["misses"][0]["due_at"] == "2026-01-05T00:02:00+00:00"
    assert found["misses"][0]["ended_at"] == "2026-01-05T00:06:00+00:00"


def test_durations_are_those_of_past_runs(
    yarrow: Yarrow, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yarrow.store.history.History.durations", lambda self: {"hourly": {"load": 1200.0}})
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "hourly.yaml").write_text(HOURLY)
    file = tmp_path / "durations.yaml"
    file.write_text("hourly: {load: 5m}\n")
    day = ("plan-week", "--dags", str(folder), "--from", "2026-01-05", "--days", "1", "--json")

    def longest(*options: str) -> float:
        return yarrow(*day, *options).json()["dags"][0]["longest_run"]

    assert longest() == 21 * 60, "twenty minutes, and the one that is taken for the other task"
    assert yarrow(*day).json()["guessed_tasks"] == 1
    assert longest("--durations", str(file)) == 6 * 60, "what is given comes first"
    assert longest("--no-recorded") == 2 * 60


def test_in_words(plan: Callable[..., Any]) -> None:
    answer = plan("--days", "1", "--default-duration", "2m", "--slots", "1")
    assert answer.exit_code == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0] == "2026-01-05 00:00 to 2026-01-06 00:00 UTC"
    assert "late: hourly for 2026-01-04 23:00, due 2026-01-05 00:02, ends 2026-01-05 00:04" in lines
    assert "late: 4 more" in lines
    assert "At most 4 slots are wanted at once, at 2026-01-05 03:00, of 1 that there are." in lines
    assert lines[-1] == "5 tasks have no known duration: 2m is taken."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pool", "gpu"), "NAME=SLOTS"),
        (("--days", "nan"), "`--days` is a number"),
        (("--from", "0001-01-01"), "`--from` is in the years from 1900 to 9900"),
        (("--from", "9999-12-31"), "`--from` is in the years from 1900 to 9900"),
        (("--default-duration", "soon"), "--default-duration"),
        (("--durations", "DURATIONS"), "has no task 'laod'"),
    ],
)
def test_bad_input_is_a_sentence(
    plan: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    file = tmp_path / "durations.yaml"
    file.write_text("hourly: {laod: 5m}\n")
    answer = plan(*(argument.replace("DURATIONS", str(file)) for argument in arguments))
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_folder_with_faults_is_named(yarrow: Yarrow, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("tasks: 3\n")
    answer = yarrow("plan-week", "--dags", str(tmp_path))
    assert answer.exit_code == 2
    assert "broken.yaml:1:8" in answer.stderr

"""`yarrow dags diff`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from yarrow.language.loader import load_text
from yarrow.store import Store

Yarrow = Callable[..., Any]

TEXT = """
dag_id: orders
description: Loads orders
owner: sales
tags: [daily, demo]
schedule: "@daily"
start_date: 2026-01-01
params: {limit: {type: integer, default: 10}}
tasks:
  load: {operator: bash, with: {command: "echo {{ params.limit }}"}, retries: 1}
  report: {operator: bash, with: {command: "echo done"}, depends_on: [load]}
"""
RETRIES = ("retries: 1", "retries: 2")
OUTLET = ("depends_on: [load]", "depends_on: [load], outlets: [sales]")


def text_of(*edits: tuple[str, str]) -> str:
    text = TEXT
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return text


def publish(store: Store, text: str, path: str = "orders.yaml") -> str:
    spec = load_text(text, path).spec
    assert spec is not None
    store.catalog.publish([(spec, text, path)])
    return spec.version


@pytest.fixture
def file(tmp_path: Path, home: Path) -> Callable[..., str]:
    """Writes a file with edits; its name."""

    def write(name: str, *edits: tuple[str, str]) -> str:
        (tmp_path / name).write_text(text_of(*edits))
        return name

    return write


def test_two_files_need_no_deployment(yarrow: Yarrow, home: Path, file: Callable[..., str]) -> None:
    answer = yarrow("dags", "diff", file("a.yaml"), file("b.yml", RETRIES))
    assert answer.exit_code == 0
    assert not home.exists()
    lines = answer.stdout.splitlines()
    assert lines[0].startswith("a.yaml (")
    assert " -> b.yml (" in lines[0]
    assert lines[1:] == ["1 task changed", "", "Tasks", "  ~ load", "      retries: 1 -> 2"]


def test_a_comment_is_no_difference(yarrow: Yarrow, file: Callable[..., str]) -> None:
    names = file("a.yaml"), file("b.yaml", ("tags: [daily, demo]", "# why\ntags: [demo, daily]"))
    answer = yarrow("dags", "diff", *names, "--exit-code")
    assert answer.exit_code == 0
    assert answer.stdout.endswith("\nno semantic change\n")
    assert yarrow("dags", "diff", *names, "--format", "json").json()["same"] is True


@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_the_exit_code_tells_of_a_difference(yarrow: Yarrow, file: Callable[..., str], form: str) -> None:
    names = file("a.yaml"), file("b.yaml", RETRIES)
    assert yarrow("dags", "diff", *names, "--format", form).exit_code == 0
    answer = yarrow("dags", "diff", *names, "--format", form, "--exit-code")
    assert answer.exit_code == 1
    assert answer.stderr == ""
    if form == "json":
        assert json.loads(answer.stdout)["summary"] == "1 task changed"
    else:
        assert "retries" in answer.stdout


def test_markdown(yarrow: Yarrow, file: Callable[..., str]) -> None:
    written = yarrow("dags", "diff", file("a.yaml"), file("b.yaml", RETRIES), "--format", "markdown").stdout
    assert written.startswith("## `orders`: 1 task changed\n\n`a.yaml` (`")
    assert written.endswith("### Tasks\n\n- **changed** `load`\n  - `retries`: `1` → `2`\n")


def test_a_file_with_faults(yarrow: Yarrow, file: Callable[..., str], store: Store) -> None:
    bad = file("bad.yaml", ("retries: 1", "retires: 1"))
    for arguments in ([bad], [file("a.yaml"), bad], ["orders@1", bad]):
        answer = yarrow("dags", "diff", *arguments)
        assert answer.exit_code == 2
        assert answer.stdout == ""
        assert answer.stderr.startswith("Error: bad.yaml has faults.\n  bad.yaml:10:")
        assert "Did you mean `retries`?" in answer.stderr


def test_a_file_that_there_is_not(yarrow: Yarrow, store: Store) -> None:
    answer = yarrow("dags", "diff", "orders.yaml")
    assert answer.exit_code == 2
    assert answer.stderr == "Error: There is no file orders.yaml. A DAG is named by its dag_id, without `.yaml`.\n"


def test_without_a_database(yarrow: Yarrow, home: Path, file: Callable[..., str]) -> None:
    for arguments in (["orders"], [file("a.yaml")], ["orders@1", file("a.yaml")]):
        answer = yarrow("dags", "diff", *arguments)
        assert answer.exit_code == 2
        assert answer.stderr.startswith(f"Error: There is no database {home}/yarrow.db. Start `yarrow standalone`")
    assert not home.exists()


def test_a_file_alone_is_compared_with_what_is_deployed(yarrow: Yarrow, store: Store, file: Callable[..., str]) -> None:
    data = yarrow("dags", "diff", file("a.yaml", RETRIES), "--format", "json").json()
    assert (data["old"]["number"], data["old"]["file"]) == (1, None)
    assert (data["new"]["number"], data["new"]["file"]) == (None, "a.yaml")
    assert data["tasks"][0]["changes"] == [{"path": "retries", "kind": "changed", "old": 1, "new": 2}]


def test_a_file_of_a_dag_that_is_not_deployed(yarrow: Yarrow, store: Store, file: Callable[..., str]) -> None:
    answer = yarrow("dags", "diff", file("a.yaml", ("dag_id: orders", "dag_id: other")))
    assert answer.exit_code == 2
    assert answer.stderr.startswith("Error: There is no DAG 'other'.")


def test_a_dag_alone_is_compared_with_its_version_before(yarrow: Yarrow, store: Store) -> None:
    answer = yarrow("dags", "diff", "orders")
    assert answer.exit_code == 2
    assert answer.stderr == (
        "Error: Version 1 is the first one of the DAG 'orders': there is none before it. Name two versions or files to "
        "compare.\n"
    )
    for retries in (2, 3):
        publish(store, text_of(("retries: 1", f"retries: {retries}")))
    assert "orders@2 (" in yarrow("dags", "diff", "orders").stdout
    assert "retries: 2 -> 3" in yarrow("dags", "diff", "orders").stdout
    assert "retries: 1 -> 2" in yarrow("dags", "diff", "orders@2").stdout
    publish(store, TEXT)  # changed back
    assert "retries: 3 -> 1" in yarrow("dags", "diff", "orders").stdout


def test_versions_by_number_and_hash(yarrow: Yarrow, store: Store, file: Callable[..., str]) -> None:
    newer = publish(store, text_of(RETRIES))
    assert "retries: 1 -> 2" in yarrow("dags", "diff", "orders@1", f"orders@{newer[:6]}").stdout
    assert "retries: 2 -> 1" in yarrow("dags", "diff", "orders", "orders@1").stdout
    assert "no semantic change" in yarrow("dags", "diff", file("a.yaml"), "orders@1").stdout
    for text, words in (
        ("orders@9", "no version 9"),
        ("orders@12ab", "'12ab' names no version"),
        ("order", "no DAG 'order'"),
    ):
        answer = yarrow("dags", "diff", "orders", text)
        assert answer.exit_code == 2
        assert words in answer.stderr


def test_what_a_change_touches(yarrow: Yarrow, store: Store, file: Callable[..., str]) -> None:
    publish(store, text_of(OUTLET))
    waiting = "dag_id: mails\nschedule: {datasets: [sales]}\ntasks: {a: {operator: empty}}\n"
    publish(store, waiting, "mails.yaml")
    store.runs.trigger("orders", params={}, logical_date=None, run_id="by_hand", who="me")
    data = yarrow("dags", "diff", "orders", file("a.yaml", RETRIES), "--format", "json").json()
    assert data["impact"]["sentences"] == [
        "1 run goes on in version 2 (1 queued): `by_hand`.",
        "The data set `sales` is not published by this DAG any more, and `mails` waits for it.",
        "Deploying reruns nothing: past runs keep their states, and every run keeps its version.",
    ]
    assert data["impact"]["in_flight"][0]["states"] == {"queued": 1}
    assert yarrow("dags", "diff", "orders", file("b.yaml", OUTLET), "--format", "json").json()["impact"] is None


def test_history_touches_nothing(yarrow: Yarrow, store: Store) -> None:
    for retries in (2, 3):
        publish(store, text_of(("retries: 1", f"retries: {retries}")))
    assert yarrow("dags", "diff", "orders@1", "orders@2", "--format", "json").json()["impact"] is None
    assert yarrow("dags", "diff", "orders@1", "orders@3", "--format", "json").json()["impact"] is not None


def test_what_it_does_to_the_next_run(yarrow: Yarrow, store: Store, file: Callable[..., str]) -> None:
    spec = store.catalog.spec("orders")
    day, following, third = (datetime(2026, 1, number, tzinfo=UTC) for number in (1, 2, 3))
    store.runs.create(
        spec,
        spec.version,
        run_id="s",
        run_type="scheduled",
        interval=(day, day, following, following),
        params={},
        advance=(following, third),
    )
    answer = yarrow("dags", "diff", file("a.yaml", ('"@daily"', '"0 6 * * *"')))
    assert "The schedule was `@daily` (UTC) and is `0 6 * * *` (UTC). The runs so far cover the time up to " in (
        answer.stdout
    )


def test_two_dags(yarrow: Yarrow, store: Store) -> None:
    publish(store, text_of(("dag_id: orders", "dag_id: sales")), "sales.yaml")
    answer = yarrow("dags", "diff", "orders", "sales")
    assert "~ dag_id: orders -> sales" in answer.stdout
    assert answer.stdout.endswith("Notes\n  These are two DAGs, `orders` and `sales`: they share no runs.\n")


def test_a_dag_that_starts_no_runs(yarrow: Yarrow, store: Store, file: Callable[..., str]) -> None:
    changed = file("a.yaml", RETRIES)
    store.catalog.set_paused("orders", True, "me")
    assert "`orders` is paused: it starts no runs until it is unpaused." in yarrow("dags", "diff", changed).stdout
    store.catalog.deactivate(["orders"])
    assert "`orders` has no file in the DAG folder any more" in yarrow("dags", "diff", changed).stdout


def test_a_file_includes_others_of_the_dag_folder(yarrow: Yarrow, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dags"
    (folder / "sub").mkdir(parents=True)
    (folder / "run.sh").write_text("echo 1\n")
    dag = "tasks: {a: {operator: bash, with: {command: !file ../run.sh}}}\n"
    for name in ("a.yaml", "b.yaml"):
        (folder / "sub" / name).write_text(f"dag_id: x\n{dag}")
    assert "no semantic change" in yarrow("dags", "diff", folder / "sub" / "a.yaml", folder / "sub" / "b.yaml").stdout

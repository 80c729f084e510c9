"""The documents: what they show is executed, and what they link to is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from yarrow.dag_check import check
from yarrow.language.fixtures import load_tests
from yarrow.language.loader import load_text
from yarrow.registry import register
from yarrow.testing import load_dag, run_dag

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_dag_of_the_tutorial_is_proved_and_runs(tmp_path: Path) -> None:
    [text] = blocks(ROOT / "docs/tutorial.md", "yaml")
    file = tmp_path / "hello.yaml"
    file.write_text(text)
    result = run_dag(file, params={"who": "reader"})
    assert result.state == "success"
    assert result.tasks["shout"].xcom.startswith("HELLO READER, IT IS ")


def test_the_tests_of_the_how_to_pass() -> None:
    [text] = blocks(ROOT / "docs/how-to/test-a-dag.md", "python")
    names: dict[str, object] = {}
    exec(compile(text, "test-a-dag.md", "exec"), names)  # the page's own code
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()  # type: ignore[operator]


def test_the_sensor_of_the_how_to_waits_for_its_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [text] = [text for text in blocks(ROOT / "docs/how-to/write-an-operator.md", "python") if "(Sensor)" in text]
    (tmp_path / "shown_sensor.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    flag = tmp_path / "flag"
    dag = f"tasks: {{wait: {{operator: wait_for_flag, with: {{path: {flag}, poke_interval: 10m, timeout: 1h}}}}}}"
    with register("wait_for_flag", importlib.import_module("shown_sensor").WaitForFlag):
        in_vain = run_dag(dag).tasks["wait"]
        flag.write_text("go")
        found = run_dag(dag).tasks["wait"]
    assert (in_vain.state, in_vain.reason) == ("failed", f"Waited for 1h in vain. There is no flag {flag} yet.")
    assert (found.state, found.xcom) == ("success", {"text": "go"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def dag_blocks() -> list[tuple[str, str]]:
    pages = sorted((ROOT / "docs").glob("**/*.md"))
    pages = [page for page in pages if page.name != "write-an-operator.md"]  # whose operator has to be installed first
    found = [(page.name, text) for page in pages for text in blocks(page, "yaml")]
    return [(name, text) for name, text in found if re.search("^tasks:", text, re.MULTILINE)]


@pytest.mark.parametrize(("page", "text"), dag_blocks(), ids=lambda value: value if value.endswith(".md") else "")
def test_the_dags_that_pages_show_are_right(page: str, text: str) -> None:
    faults = load_text(text, "shown.yaml").faults
    assert [str(fault) for fault in faults] == [], page


def test_the_mapped_dags_that_are_shown_do_what_the_page_says() -> None:
    carriers, months = (run_dag(text) for text in blocks(ROOT / "docs/how-to/map-a-task.md", "yaml"))
    report = carriers.tasks["report"]
    assert [report.instances[0].xcom, report.instances[5].xcom] == ["UA in month 1", "B6 in month 7"]
    assert carriers.tasks["all_of_them"].xcom == 6
    assert months.tasks["month.double"].xcom == ["11", "22", "33"]


def test_the_tests_that_are_shown_pass(tmp_path: Path) -> None:
    [text] = blocks(ROOT / "docs/how-to/ask-first.md", "yaml")
    file = tmp_path / "late_flights.tests.yaml"
    file.write_text(text)
    spec = load_dag(ROOT / "dags/late_flights.yaml")
    tests, faults = load_tests(file, spec)
    assert faults == []
    assert [check(spec, test).problems for test in tests] == [(), ()]


def test_every_schedule_that_is_shown_is_right() -> None:
    [text] = blocks(ROOT / "docs/how-to/schedule.md", "yaml")
    lines = [line for line in text.splitlines() if line.startswith("schedule:")]
    assert len(lines) == 8
    for line in lines:
        loaded = load_text(f"{line}\ntasks: {{a: {{operator: empty}}}}\n", "shown.yaml")
        assert [str(fault) for fault in loaded.faults] == [], line


def test_the_page_of_differences_has_no_empty_cell_where_one_is_owed() -> None:
    for line in (ROOT / "docs/airflow-differences.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| |"):
            topic, airflow, ours, *_ = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert topic
            assert airflow
            assert ours

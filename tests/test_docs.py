"""The documents: what they show is executed, and what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from yarrow.testing import run_dag

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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"

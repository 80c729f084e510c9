from pathlib import Path

import pytest

from yarrow.language.fixtures import Expected, file_of_tests, load_tests
from yarrow.language.loader import load_text
from yarrow.language.spec import DagSpec

DAG = """
params: {limit: {type: integer, default: 3}}
tasks:
  count: {operator: bash, with: {command: echo 4}}
  choose:
    operator: branch
    with: {conditions: [{if: "{{ xcom.count | int > params.limit }}", then: [many]}], otherwise: [few]}
  many: {operator: empty, depends_on: [choose]}
  few: {operator: empty, depends_on: [choose]}
"""


@pytest.fixture
def spec() -> DagSpec:
    loaded = load_text(DAG, "d.yaml")
    assert loaded.spec is not None, loaded.faults
    return loaded.spec


def load(tmp_path: Path, spec: DagSpec, text: str):
    path = tmp_path / "d.tests.yaml"
    path.write_text(text)
    return load_tests(path, spec)


def test_a_file_of_tests_is_read(tmp_path: Path, spec: DagSpec) -> None:
    text = """
tests:
  - name: all of it
    logical_date: 2026-01-01
    params: {limit: 2}
    variables: {v: text}
    outcomes: {count: success, choose: [many]}
    xcoms: {count: "4"}
    expect:
      run: success
      tasks: {few: skipped}
      branches: {choose: [many]}
      order: [count, choose]
      rendered: {count: {command: echo 4}}
  - name: nothing but a state
    expect: {run: failed}
"""
    [first, second], faults = load(tmp_path, spec, text)
    assert faults == []
    assert (first.name, first.line, first.logical_date) == ("all of it", 3, "2026-01-01")
    assert first.outcomes == {"count": "success", "choose": ("many",)}
    assert (first.params, first.variables, first.xcoms) == ({"limit": 2}, {"v": "text"}, {"count": "4"})
    assert first.expect == Expected(
        "success", {"few": "skipped"}, {"choose": ("many",)}, ("count", "choose"), {"count": {"command": "echo 4"}}
    )
    assert (second.line, second.expect) == (15, Expected("failed"))


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", (1, 1), "empty"),
        ("tests: []", (1, 8), "tests"),
        ("- name: x", (1, 1), "must be a mapping"),
        ("tests:\n  - {expect: {run: success}}", (2, 5), "needs the key `name`"),
        ("tests:\n  - {name: x}", (2, 5), "needs the key `expect`"),
        ("tests:\n  - {name: x, expect: {run: done}}", (2, 29), "must be one of"),
        ("tests:\n  - {name: x, expect: {tasks: {cuont: success}}}", (2, 32), "Did you mean `count`?"),
        ("tests:\n  - {name: x, expect: {}}", (2, 23), "expects nothing, so that it always passes"),
        ("tests:\n  - {name: x, outcomes: {nobody: failed}, expect: {}}", (2, 26), "no task `nobody`"),
        ("tests:\n  - {name: x, outcomes: {'nobody[1]': failed}, expect: {}}", (2, 26), "no task `nobody`"),
        ("tests:\n  - {name: x, xcoms: {'count[1]': 2}, expect: {}}", (2, 23), "no task `count[1]`"),
        ("tests:\n  - {name: x, outcomes: {count: broken}, expect: {}}", (2, 33), "outcomes"),
        ("tests:\n  - {name: x, params: {limt: 1}, expect: {}}", (2, 24), "Did you mean `limit`?"),
        ("tests:\n  - {name: x, expect: {order: [count, nobody]}}", (2, 39), "no task `nobody`"),
        ("tests:\n  - {name: x, expect: {rendered: {count: {comand: 1}}}}", (2, 43), "Did you mean `command`?"),
        ("tests:\n  - {name: x, logical_date: soon, expect: {}}", (2, 29), "date"),
        ("tests: {name: [", (2, 1), "not closed"),
    ],
)
def test_a_fault_has_its_place_and_a_sentence(
    tmp_path: Path, spec: DagSpec, text: str, place: tuple[int, int], words: str
) -> None:
    tests, faults = load(tmp_path, spec, text)
    assert tests == []
    assert any((fault.line, fault.column) == place and words in str(fault) for fault in faults), faults


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path, spec: DagSpec) -> None:
    tests, [fault] = load_tests(tmp_path / "none.tests.yaml", spec)
    assert tests == []
    assert "can't be read" in fault.message


def test_the_file_stands_beside_the_dag(tmp_path: Path) -> None:
    assert file_of_tests(tmp_path / "d.yaml") is None
    (tmp_path / "d.tests.yml").touch()
    assert file_of_tests(tmp_path / "d.yaml") == tmp_path / "d.tests.yml"

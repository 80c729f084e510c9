"""`yarrow dags lint`: files and folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from yarrow.language import codes
from yarrow.language.lint import lint_paths

Folder = Callable[[Mapping[str, str | bytes]], Path]
GOOD = "tasks: {a: {operator: nothing}}\n"


def test_a_folder_with_all_its_subfolders(folder: Folder) -> None:
    root = folder(
        {
            "good.yaml": GOOD,
            "sub/bad.yml": "tasks: {a: {operator: nothin}}\n",
            "sub/again.yaml": f"dag_id: good\n{GOOD}",
            "sub/uses.yaml": "tasks: !file ../parts/tasks.yaml\n",
            "parts/tasks.yaml": "a: {operator: nothing}\n",
            "good.tests.yaml": "nonsense",
            "sub/again.tests.yml": "nonsense",
            ".hidden/x.yaml": "nonsense",
            "sub/.x.yaml": "nonsense",
            "notes.txt": "nonsense",
        }
    )
    found = [(Path(fault.file).relative_to(root).as_posix(), fault.code) for fault in lint_paths([root])]
    assert found == [("sub/again.yaml", codes.DUPLICATE_DAG_ID), ("sub/bad.yml", codes.UNKNOWN_OPERATOR)]


def test_files_one_by_one(folder: Folder) -> None:
    root = folder({"a.yaml": "tasks: !file b.yaml\n", "b.yaml": "a: {operator: nothing}\n", "c.yaml": "x: 1\n"})
    # The fragment is judged as a DAG only when nothing that was named includes it.
    assert lint_paths([root / "a.yaml", str(root / "b.yaml")]) == []
    assert {fault.code for fault in lint_paths([root / "b.yaml"])} == {codes.UNKNOWN_KEY, codes.NO_TASKS}
    assert {Path(fault.file).name for fault in lint_paths([root / "c.yaml", root])} == {"c.yaml"}


def test_the_root_bounds_includes(folder: Folder) -> None:
    root = folder({"team/a.yaml": "doc_md: !file ../about.md\n" + GOOD, "about.md": "x"})
    assert [fault.code for fault in lint_paths([root / "team/a.yaml"])] == [codes.FILE_REFERENCE]
    assert lint_paths([root / "team/a.yaml"], root=root) == []


def test_paths_that_can_not_be_linted(folder: Folder) -> None:
    root = folder({"notes.txt": "x", "image.yaml": b"\x89PNG\x00"})
    faults = lint_paths([root / "missing", root / "notes.txt", root / "image.yaml", Path("a\0b")])
    assert sorted((Path(fault.file).name, fault.code) for fault in faults) == [
        ("a\0b", codes.UNREADABLE),
        ("image.yaml", codes.NOT_TEXT),
        ("missing", codes.UNREADABLE),
        ("notes.txt", codes.UNREADABLE),
    ]


def test_what_the_deployment_has(folder: Folder) -> None:
    root = folder({"a.yaml": "tasks: {a: {operator: nothing, queue: gpu, pool: small}}\n"})
    assert lint_paths([root]) == []
    faults = lint_paths([root], known_queues=["default"], known_pools={"default_pool": 1})
    assert [(fault.code, fault.severity) for fault in faults] == [
        (codes.UNKNOWN_QUEUE, "warning"),
        (codes.UNKNOWN_POOL, "warning"),
    ]


def test_a_fault_as_a_line_and_as_json(folder: Folder) -> None:
    root = folder({"a.yaml": "retires: 1\n" + GOOD})
    fault = lint_paths([root])[0]
    assert str(fault).startswith(f"{root}/a.yaml:1:1: error YRW012: Unknown key `retires`.")
    assert set(fault.to_json()) == {"file", "line", "column", "code", "severity", "message", "hint"}

"""Mapped tasks: the values of their instances, and the XComs that each instance sees."""

from __future__ import annotations

from typing import Any

import pytest

from deciding import dag, task
from yarrow.errors import TemplateError
from yarrow.mapping import Instance, Xcoms, expand, names_map, visible_xcoms

NAMES = {"params": {"list": [1, 2], "empty": [], "table": {"a": 1, "b": [2]}}, "ds": "2026-01-01"}


def values(expansion: dict[str, Any], **fields: Any) -> list[Any]:
    return expand(task("m", expand=expansion, **fields), NAMES)


def test_the_first_name_changes_slowest() -> None:
    assert [tuple(one.values()) for one in values({"x": [1, 2], "y": "{{ params.list }}", "z": ["c"]})] == [
        (1, 1, "c"),
        (1, 2, "c"),
        (2, 1, "c"),
        (2, 2, "c"),
    ]


def test_an_empty_list_makes_the_product_empty() -> None:
    assert values({"x": [1, 2], "y": "{{ params.empty }}"}) == []


def test_a_mapping_is_the_list_of_its_entries() -> None:
    assert values({"x": "{{ params.table }}"}) == [
        {"x": {"key": "a", "value": 1}},
        {"x": {"key": "b", "value": [2]}},
    ]


def test_templates_within_a_list_are_rendered_and_what_they_insert_is_not() -> None:
    names = {"params": {"text": "{{ ds }}", "list": ["{{ ds }}"]}, "ds": "2026-01-01"}
    found = expand(task("m", expand={"x": ["{{ ds }}", "{{ params.text }}"], "y": "{{ params.list }}"}), names)
    assert found == [{"x": "2026-01-01", "y": "{{ ds }}"}, {"x": "{{ ds }}", "y": "{{ ds }}"}]


@pytest.mark.parametrize("value", ["text", "{{ ds }}", "{{ 5 }}", "{{ none }}"])
def test_what_is_no_list_is_refused(value: str) -> None:
    with pytest.raises(TemplateError, match=r"`expand\.x` is .*, which is no list\."):
        values({"x": value})


def test_the_number_of_instances_is_bounded_before_they_are_made() -> None:
    billion = {name: list(range(1000)) for name in "xyz"}
    with pytest.raises(
        TemplateError, match=r"gives 1,000,000,000 task instances, more than `max_map_length` \(1,024\)"
    ):
        values(billion)
    endless = {f"n{number}": list(range(10)) for number in range(5000)}  # more digits than Python prints
    with pytest.raises(TemplateError, match="gives over a trillion task instances"):
        values(endless)
    assert len(values({"x": [1, 2], "y": [1, 2]}, max_map_length=4)) == 4
    with pytest.raises(TemplateError):
        values({"x": [1, 2], "y": [1, 2]}, max_map_length=3)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("map.x > 1", True),
        ("params.a == map.x.y", True),
        ("params.map == 1", False),
        ("xcom.map.rows > 1", False),
        ("1 == 1", False),
    ],
)
def test_whether_an_expression_names_map(when: str, expected: bool) -> None:
    assert names_map(when) is expected


SPEC = dag(
    task("a"),
    task("m", expand={"x": [1]}),
    task("g.p", expand={"x": [1]}, map_group="g"),
    task("g.q", expand={"x": [1]}, map_group="g"),
    task("h.r", expand={"x": [1]}, map_group="h"),
    task("none", expand={"x": [1]}),
    task("z"),
)
FOUND: dict[Instance, Any] = {
    ("m", 10): "m10",
    ("m", 2): "m2",
    ("a", -1): {"rows": 1},
    ("g.p", 1): "p1",
    ("g.p", 0): "p0",
    ("g.q", 0): None,
    ("h.r", 0): "r0",
}


def test_the_xcom_of_a_mapped_task_is_a_list_outside_and_a_value_within_its_group() -> None:
    assert Xcoms(SPEC, FOUND).seen_by(SPEC.tasks["z"], -1) == {
        "a": {"rows": 1},
        "m": ["m2", "m10"],
        "g.p": ["p0", "p1"],
        "g.q": [None],
        "h.r": ["r0"],
        "none": [],
    }
    inside = Xcoms(SPEC, FOUND)
    outside = {"a": {"rows": 1}, "m": ["m2", "m10"], "h.r": ["r0"], "none": []}
    assert inside.seen_by(SPEC.tasks["g.q"], 0) == {**outside, "g.p": "p0", "g.q": None}
    assert inside.seen_by(SPEC.tasks["g.q"], 1) == {**outside, "g.p": "p1"}


def test_what_is_prepared_for_many_readers_is_what_each_of_them_would_see() -> None:
    xcoms = Xcoms(SPEC, FOUND)
    for task_id, spec in SPEC.tasks.items():
        for index in (-1, 0, 1, 2):
            assert xcoms.seen_by(spec, index) == visible_xcoms(SPEC, (task_id, index), list(SPEC.tasks), FOUND)

"""What counts as the priority weight of a task, by its `weight_rule`."""

from __future__ import annotations

import pytest

from yarrow.language.spec import DagSpec, TaskSpec


def weights(rule: str, **own: int) -> dict[str, int]:
    """The weights of `a -> (b, c) -> d`, in which there are two ways from `a` to `d`."""
    upstream = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    tasks = {
        task_id: TaskSpec(task_id, "empty", {}, upstream=before, weight_rule=rule, priority_weight=own.get(task_id, 1))
        for task_id, before in upstream.items()
    }
    return dict(DagSpec("d", tasks).weights)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("downstream", {"a": 1111, "b": 1010, "c": 1100, "d": 1000}),
        ("upstream", {"a": 1, "b": 11, "c": 101, "d": 1111}),
        ("absolute", {"a": 1, "b": 10, "c": 100, "d": 1000}),
    ],
)
def test_each_other_task_counts_once(rule: str, expected: dict[str, int]) -> None:
    assert weights(rule, a=1, b=10, c=100, d=1000) == expected


def test_each_task_goes_by_its_own_rule() -> None:
    tasks = {
        "a": TaskSpec("a", "empty", {}, priority_weight=2),
        "b": TaskSpec("b", "empty", {}, upstream=("a",), priority_weight=3, weight_rule="upstream"),
        "c": TaskSpec("c", "empty", {}, upstream=("b",), priority_weight=4, weight_rule="absolute"),
    }
    assert DagSpec("d", tasks).weights == {"a": 9, "b": 5, "c": 4}


def test_they_stay_within_what_a_database_holds() -> None:
    highest = 2**31 - 1
    assert weights("downstream", a=highest, d=5)["a"] == highest
    assert weights("downstream", a=-highest, d=-5)["a"] == -highest

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from deciding import dag, task
from yarrow.language.spec import DagSpec
from yarrow.plans.partial import cut_out

DIAMOND = dag(task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c"), task("e", "d"))


def upstream(spec: DagSpec) -> dict[str, tuple[str, ...]]:
    return {task_id: one.upstream for task_id, one in spec.tasks.items()}


def test_keeps_the_order_through_what_is_left_out() -> None:
    assert upstream(cut_out(DIAMOND, ["a", "d", "e"])) == {"a": (), "d": ("a",), "e": ("d",)}
    assert upstream(cut_out(DIAMOND, ["e", "b"])) == {"b": (), "e": ("b",)}


def test_all_tasks_are_the_dag_itself() -> None:
    assert cut_out(DIAMOND, list("edcba")) is DIAMOND


def test_what_is_cut_out_is_another_version_that_can_be_written_down() -> None:
    cut = cut_out(DIAMOND, ["b"])
    assert cut.version != DIAMOND.version
    assert DagSpec.from_json(cut.to_json()) == cut
    assert cut_out(DIAMOND, ["b"]).version == cut.version


def ancestors(spec: DagSpec, task_id: str) -> set[str]:
    found: set[str] = set()
    for one in spec.tasks[task_id].upstream:
        found |= {one} | ancestors(spec, one)
    return found


@given(st.integers(0, 2**32))
def test_who_comes_before_whom_stays(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"t{index}" for index in range(rng.randint(1, 8))]
    spec = dag(*(task(name, *sorted(n for n in names[:i] if rng.random() < 0.4)) for i, name in enumerate(names)))
    chosen = [name for name in names if rng.random() < 0.5]
    cut = cut_out(spec, chosen)
    assert list(cut.tasks) == chosen or cut is spec
    for name in chosen:
        assert ancestors(cut, name) == ancestors(spec, name).intersection(chosen)

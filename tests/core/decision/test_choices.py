"""Which tasks a choice skips, told by the graph alone."""

from __future__ import annotations

from collections.abc import Collection

from deciding import dag, task
from yarrow.decision.choices import unwanted
from yarrow.language.spec import DagSpec, TaskSpec

SPEC = dag(
    task("choose", operator="branch"),
    task("gate", operator="short_circuit"),
    task("x", "choose", "gate"),
    task("y", "choose", "gate"),
    task("after_x", "x", "choose"),
    task("clean", "after_x", "choose", teardown=True),
    task("end", "clean"),
)


def skipped(spec: DagSpec, task_id: str, follow: Collection[str], started: Collection[str] = ()) -> set[str]:
    found, _ = unwanted(spec, task_id, follow, lambda child: child not in started)
    assert len(found) == len(set(found))
    return set(found)


def test_a_branch_skips_the_direct_ones_that_are_neither_chosen_nor_after_a_chosen_one() -> None:
    assert skipped(SPEC, "choose", ("x",)) == {"y"}
    assert skipped(SPEC, "choose", ("y",)) == {"x", "after_x"}
    assert skipped(SPEC, "choose", ()) == {"x", "y", "after_x"}
    assert skipped(SPEC, "choose", ("x", "y")) == set()


def test_a_short_circuit_skips_all_or_nothing() -> None:
    assert skipped(SPEC, "gate", ()) == {"x", "y", "after_x", "end"}
    assert skipped(SPEC, "gate", ("x",)) == set()


def test_what_has_started_is_not_skipped() -> None:
    assert skipped(SPEC, "choose", (), started=("y", "x")) == {"after_x"}
    assert skipped(SPEC, "choose", (), started=("x", "y", "after_x", "clean")) == set()
    assert skipped(SPEC, "gate", (), started=("x", "after_x")) == {"y", "end"}


def test_a_choice_within_a_mapped_group_stays_in_it() -> None:
    def member(task_id: str, *upstream: str, operator: str = "python") -> TaskSpec:
        return task(task_id, *upstream, operator=operator, expand={"i": [1, 2]}, map_group="g")

    spec = dag(
        member("g.b", operator="short_circuit"), member("g.x", "g.b"), task("out", "g.b", "g.x"), task("z", "out")
    )
    assert skipped(spec, "g.b", ()) == {"g.x"}


def test_work_is_bounded_by_what_still_waits() -> None:
    spec = dag(task("b", operator="branch"), *(task(f"t{n}", "b") for n in range(3)), task("far", "t0"))
    asked: list[str] = []

    def waits(child: str) -> bool:
        asked.append(child)
        return False

    assert unwanted(spec, "b", ("t0",), waits)[0] == []
    assert asked == ["t1", "t2"], "what was chosen, and what comes after it, is not even looked at"

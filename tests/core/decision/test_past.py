"""The sentence about what a task waits for in the run before."""

from __future__ import annotations

from deciding import RUNNING, F, N, S, task
from yarrow.decide import PastView
from yarrow.decision.past import unmet


def test_the_first_that_holds_it_up_is_named() -> None:
    past = PastView("scheduled__1", {"a": [S], "b": [S, F], "c": [N]})
    waits = task("a", wait_for_downstream=True)
    assert unmet(waits, ("b", "c"), past) == "`b` of the run before, scheduled__1, has not succeeded: it is failed"
    assert unmet(waits, ("c",), past) == "`c` of the run before, scheduled__1, has not succeeded: it is waiting"
    assert unmet(waits, ("gone",), past) is None


def test_nothing_is_unmet_for_a_task_that_does_not_look_back() -> None:
    assert unmet(task("a"), (), PastView("r", {"a": [RUNNING]})) is None
    assert unmet(task("a", depends_on_past=True), (), None) is None

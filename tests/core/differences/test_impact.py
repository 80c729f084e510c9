"""What a change touches where it is deployed."""

from __future__ import annotations

import pytest

from yarrow.differences.impact import ActiveBackfill, Dataset, RunsInFlight, Standing, impact, named_datasets
from yarrow.language.spec import DagSpec, ScheduleSpec, TaskSpec

LAST = "Deploying reruns nothing: past runs keep their states, and every run keeps its version."


def dag(*outlets: str, awaits: tuple[str, ...] = ()) -> DagSpec:
    schedule = ScheduleSpec(datasets=awaits) if awaits else None
    return DagSpec("d", {"a": TaskSpec("a", "bash", {}, outlets=outlets)}, schedule=schedule)


def test_runs_in_flight_go_on_in_their_version() -> None:
    old, new = dag(), dag("x")
    mine = RunsInFlight(new.version, 2, {"running": 1}, ("r2",))
    other = RunsInFlight(old.version, 1, {"queued": 1, "running": 6}, ("r1", "r0"))
    found = impact(old, new, Standing((mine, other)))
    assert found.in_flight == (other,)
    assert found.sentences[0] == "7 runs go on in version 1 (6 running, 1 queued): `r1`, `r0` and 5 more."
    assert found.sentences[-1] == LAST


def test_backfills_go_on() -> None:
    found = impact(dag(), dag(), Standing(backfills=(ActiveBackfill(3, 1, 0), ActiveBackfill(4, 1200, 2))))
    assert found.sentences == [
        "Backfill 3 has 1 run left (1 queued), which keeps its version.",
        "Backfill 4 has 1,202 runs left (1,200 queued), which keep their versions.",
        LAST,
    ]


@pytest.mark.parametrize(
    ("old", "new", "known", "sentence"),
    [
        (dag("x"), dag(), Dataset(), "The data set `x` is not published any more: nobody waits for it."),
        (
            dag("x"),
            dag(),
            Dataset(("w", "v")),
            "The data set `x` is not published by this DAG any more, and `w` and `v` wait for it.",
        ),
        (
            dag("x"),
            dag(),
            Dataset(("w",), ("p",)),
            "The data set `x` is not published by this DAG any more, and `w` waits for it; `p` still publishes it.",
        ),
        (dag(), dag("x"), Dataset(), "The data set `x` is published now: nobody waits for it."),
        (dag(), dag("x"), Dataset(("w",)), "The data set `x` is published now: `w` waits for it."),
        (dag(), dag(awaits=("x",)), Dataset(), "The data set `x` is waited for now, and no other DAG publishes it."),
        (dag(), dag(awaits=("x",)), Dataset((), ("p",)), None),
        (dag(awaits=("x",)), dag(), Dataset(), None),
    ],
)
def test_data_sets(old: DagSpec, new: DagSpec, known: Dataset, sentence: str | None) -> None:
    assert named_datasets(old, new) == {"x"}
    found = impact(old, new, Standing(datasets={"x": known}))
    assert len(found.datasets) == 1
    assert found.sentences == ([sentence] if sentence else []) + [LAST]


def test_an_outlet_that_moves_to_another_task_stays() -> None:
    old = DagSpec("d", {"a": TaskSpec("a", "bash", {}, outlets=("x",)), "b": TaskSpec("b", "bash", {})})
    new = DagSpec("d", {"a": TaskSpec("a", "bash", {}), "b": TaskSpec("b", "bash", {}, outlets=("x",))})
    assert impact(old, new, Standing()).datasets == ()

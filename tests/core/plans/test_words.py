"""Requests and plans in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from yarrow.language.spec import CacheSpec, DagSpec, TaskSpec
from yarrow.plans.marking import plan_mark
from yarrow.plans.plan import Need, RunAction, RunChange, TaskAction, TaskChange
from yarrow.plans.requests import BackfillRequest, ClearRequest, MarkRequest, Request
from yarrow.plans.situation import RunFacts, Situation, TaskFacts
from yarrow.plans.words import notes_of, request_text
from yarrow.states import RunState, TaskState

DAY = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (ClearRequest(dag_id="d", run_ids=("r1",)), "clear all tasks of r1"),
        (
            ClearRequest(dag_id="d", run_ids=("r1",), tasks="load", map_index=3, downstream=True, upstream=True),
            "clear load[3] with upstream and downstream of r1",
        ),
        (
            ClearRequest(dag_id="d", run_ids=("r1", "r2"), past=True, only_failed=True, latest_version=True),
            "clear what is failed of all tasks of r1 and r2 and all before, in the newest version of the DAG",
        ),
        (
            ClearRequest(dag_id="d", from_date=DAY, to_date=END, tasks="a,b", only_running=True, reason="bad input"),
            "clear what is running of a,b of the runs from 2026-01-01 00:00 to 2026-01-31 23:59:59 UTC: bad input",
        ),
        (ClearRequest(dag_id="d", run_ids=tuple("abcdef"), future=True), "clear all tasks of 6 runs and all after"),
        (
            MarkRequest(dag_id="d", run_ids=("r1",), tasks="load", state="skipped"),
            "mark load of r1 as skipped",
        ),
        (MarkRequest(dag_id="d", run_ids=("r1", "r2"), runs=True, state="failed"), "mark r1 and r2 as failed"),
        (
            BackfillRequest(dag_id="d", from_date=DAY, to_date=END),
            "backfill 2026-01-01 00:00 to 2026-01-31 23:59:59 UTC, 10 at a time",
        ),
        (
            BackfillRequest(
                dag_id="d",
                from_date=DAY,
                to_date=END,
                reprocess="failed",
                whole_runs=True,
                tasks="load+",
                max_active_runs=3,
                run_backwards=True,
                params={"limit": 5},
                reason="new prices",
            ),
            "backfill 2026-01-01 00:00 to 2026-01-31 23:59:59 UTC, reprocess failed as whole runs, tasks load+, "
            '3 at a time, latest first, params {"limit": 5}: new prices',
        ),
    ],
)
def test_a_request_in_a_line(request_: Request, text: str) -> None:
    assert request_text(request_) == text


LOAD = TaskSpec("load", "bash", {"command": "true"})
REPORT = TaskSpec("report", "bash", {"command": "true"}, upstream=("load",))
OLD = DagSpec("orders", {"load": LOAD, "report": REPORT})
NEW = DagSpec("orders", {"load": LOAD, "report": REPORT, "check": TaskSpec("check", "bash", {"command": "true"})})
BACKFILL = BackfillRequest(dag_id="orders", from_date=DAY, to_date=END, reprocess="failed")
CLEAR = ClearRequest(dag_id="orders", run_ids=("r0",))


def situation(spec: DagSpec = OLD, newest: DagSpec | None = None, **fields: Any) -> Situation:
    """Three runs of a DAG."""
    runs = tuple(
        RunFacts(
            id=day,
            run_id=f"r{day}",
            run_type="scheduled",
            state=RunState.SUCCESS,
            logical_date=DAY + timedelta(days=day),
            data_interval_start=DAY + timedelta(days=day),
            data_interval_end=DAY + timedelta(days=day + 1),
            spec=spec,
            version=spec.version,
        )
        for day in range(3)
    )
    numbers = {OLD.version: 1, NEW.version: 2}
    values: dict[str, Any] = {
        "now": DAY,
        "dag_id": "orders",
        "is_paused": False,
        "is_active": True,
        "created_at": DAY,
        "newest": newest or spec,
        "runs": runs,
        "numbers": numbers,
    }
    return Situation(**values | fields)


def cleared(*task_ids: str, day: int = 0, loses: bool = False, version: str | None = None, **fields: Any) -> RunChange:
    tasks = tuple(
        TaskChange(task_id, -1, TaskAction.CLEAR, "success", "none", "selected", 1, "f" * 32, loses_xcom=loses)
        for task_id in task_ids
    )
    values = {"from_state": "success", "to_state": "queued", "tasks": tasks, "version": version or OLD.version}
    return RunChange(f"r{day}", DAY + timedelta(days=day), RunAction.CLEAR, **values | fields)


SKIPPED = RunChange("r2", DAY, RunAction.SKIP, "nothing of it is selected", "success")


def test_a_plan_that_does_nothing_needs_no_word() -> None:
    assert notes_of(CLEAR, [SKIPPED], situation(is_paused=True)) == []


def test_a_paused_dag_is_told() -> None:
    words = "orders is paused: runs wait until `yarrow dags unpause orders`."
    assert words in notes_of(CLEAR, [cleared("load")], situation(is_paused=True))
    assert not any("paused" in note for note in notes_of(CLEAR, [cleared("load")], situation()))


def made(hours: float) -> RunChange:
    """A run that a backfill makes, of a day that begins so many hours after the first run of the situation."""
    start = DAY + timedelta(hours=hours)
    return RunChange(
        "new", start, RunAction.CREATE, data_interval_start=start, data_interval_end=start + timedelta(days=1)
    )


def test_time_that_runs_of_an_earlier_schedule_have_covered_is_told() -> None:
    def notes(*runs: RunChange) -> list[str]:
        return notes_of(BACKFILL, runs, situation())

    assert notes(made(-30), made(72)) == []
    assert notes(made(-18)) == [
        "r0 is there at another time than the schedule has now: that time is covered once more."
    ]
    assert notes(made(30), made(6)) == [
        "3 runs, from r0 on, are there at another time than the schedule has now: that time is covered once more."
    ]
    by_hand = [replace(run, run_type="manual") for run in situation().runs]
    assert notes_of(BACKFILL, [made(6)], situation(runs=by_hand)) == []


def test_of_what_only_ends_nothing_is_said_about_the_pause() -> None:
    request = MarkRequest(dag_id="orders", run_ids=("r0",), state="failed", runs=True)
    marked = RunChange("r0", DAY, RunAction.MARK, from_state="running", to_state="failed")
    assert notes_of(request, [marked], situation(is_paused=True, is_active=False)) == []


def test_a_file_that_is_gone_is_told() -> None:
    words = "orders has no file any more: the runs go on all the same, each in its own version."
    assert words in notes_of(CLEAR, [cleared("load")], situation(is_active=False))


def test_lost_xcoms_are_counted_and_what_is_kept_is_told() -> None:
    lost = [cleared("load", "report", loses=True), cleared("load", day=1, loses=True)]
    assert notes_of(CLEAR, lost, situation()) == [
        "3 XComs are lost: of load and report. Every attempt stays, with its log."
    ]
    [one] = notes_of(CLEAR, [cleared("load", loses=True)], situation())
    assert one == "An XCom is lost: of load. Every attempt stays, with its log."
    assert notes_of(CLEAR, [cleared("load")], situation()) == ["No XCom is lost. Every attempt stays, with its log."]


def test_many_tasks_are_not_all_named() -> None:
    names = [f"t{number}" for number in range(9)]
    [note] = notes_of(CLEAR, [cleared(*names, loses=True)], situation())
    assert note.startswith("9 XComs are lost: of t0, t1, t2, t3 and 5 more.")


def test_what_the_newest_version_brings_is_told_once_for_all_runs() -> None:
    request = ClearRequest(dag_id="orders", run_ids=("r0", "r1"), latest_version=True)
    runs = [cleared("load", day=day, version=NEW.version) for day in (0, 1)]
    notes = notes_of(request, runs, situation(newest=NEW))
    assert "2 runs go on in version 2 instead of 1: `check` is new in it: it runs too, selected or not." in notes
    [first, *_] = notes_of(request, runs[:1], situation(newest=NEW))
    assert first.startswith("r0 goes on in version 2 instead of 1: ")


def test_a_version_that_a_backfill_cut_out_is_told_without_its_number() -> None:
    request = ClearRequest(dag_id="orders", run_ids=("r0",), latest_version=True)
    seen = situation(newest=NEW, numbers={OLD.version: -1, NEW.version: 2})
    [first, *_] = notes_of(request, [cleared("load", version=NEW.version)], seen)
    assert first.startswith("r0 goes on in version 2 instead of a part of the DAG: ")


def test_a_newest_version_that_does_not_matter_is_told_too() -> None:
    request = ClearRequest(dag_id="orders", run_ids=("r0",), latest_version=True)
    described = DagSpec("orders", OLD.tasks, description="Loads orders")
    runs = [cleared("load", version=described.version)]
    [first, *_] = notes_of(request, runs, situation(newest=described, numbers={}))
    assert first == "r0 goes on in the newest version: nothing that matters to it is another way."
    [same, *_] = notes_of(request, [cleared("load")], situation())
    assert same == "The runs are of the newest version of the DAG already."


@pytest.mark.parametrize(("task_ids", "told"), [(("load", "report"), False), (("report",), True)])
def test_a_changed_task_that_runs_again_leaves_nothing_old(task_ids: tuple[str, ...], told: bool) -> None:
    reads = replace(REPORT, xcoms=("load",))
    spec = DagSpec("orders", {"load": LOAD, "report": reads})
    newest = DagSpec("orders", {"load": replace(LOAD, arguments={"command": "date"}), "report": reads})
    tasks = (TaskFacts(1, "load", -1, TaskState.SUCCESS), TaskFacts(2, "report", -1, TaskState.SUCCESS))
    seen = situation(spec, newest, numbers={})
    seen = replace(seen, runs=(replace(seen.runs[0], tasks=tasks),))
    request = ClearRequest(dag_id="orders", run_ids=("r0",), latest_version=True)
    notes = notes_of(request, [cleared(*task_ids, version=newest.version)], seen)
    assert any("`load` does something else in it" in note for note in notes)
    assert any("`report` takes the XCom of `load`, which changed" in note for note in notes) == told


def test_params_that_do_not_fit_the_newest_version_are_told() -> None:
    request = ClearRequest(dag_id="orders", run_ids=("r0",), latest_version=True)
    newest = DagSpec("orders", OLD.tasks, params={"day": {"type": "string"}})
    notes = notes_of(request, [cleared("load", version=newest.version)], situation(newest=newest))
    assert any("param `day` is new in it" in note for note in notes)


def test_needed_outputs_are_told_with_whether_they_are_there() -> None:
    there, missing = (Need("report", "load", "xcom", known) for known in (True, False))
    runs = [cleared("report", day=0, needs=(there,)), *(cleared("report", day=day, needs=(missing,)) for day in (1, 2))]
    notes = notes_of(replace(BACKFILL, tasks="report"), runs, situation())
    assert "report takes the XCom of load, which is not selected, and it is not there in 2 runs." in notes
    assert "report takes the XCom of load, which is not selected; it is there in 1 run." in notes
    notes = notes_of(BACKFILL, runs[:1], situation())
    assert "report takes the XCom of load, which does not run again; it is there in 1 run." in notes
    late = cleared("report", needs=(Need("report", "load", "state", False),))
    [*_, note] = notes_of(BACKFILL, [late], situation())
    assert note == "report comes after load, which is not selected and has not run in 1 run: it does not wait for it."


@pytest.mark.parametrize(
    ("state", "has_xcom", "told"),
    [
        (TaskState.SUCCESS, True, False),
        (TaskState.SUCCESS, False, True),
        (TaskState.SKIPPED, False, True),
        (TaskState.RUNNING, False, False),  # it may still leave one
    ],
)
def test_an_output_that_a_cleared_task_takes_in_vain_is_told(state: TaskState, has_xcom: bool, told: bool) -> None:
    reads = TaskSpec("report", "bash", {"command": "true"}, upstream=("load",), xcoms=("load",))
    spec = DagSpec("orders", {"load": LOAD, "report": reads})
    seen = situation(spec)
    tasks = (TaskFacts(1, "load", -1, state, has_xcom=has_xcom), TaskFacts(2, "report", -1, TaskState.FAILED))
    runs = (replace(seen.runs[0], tasks=tasks),)
    notes = notes_of(CLEAR, [cleared("report", version=spec.version)], replace(seen, runs=runs))
    words = "report takes the XCom of load, which is not selected, and it is not there in 1 run."
    assert (words in notes) == told


@pytest.mark.parametrize(
    ("state", "to_state", "told"),
    [
        (TaskState.NONE, "success", True),
        (TaskState.RUNNING, "success", True),  # a template may be rendered anew in its next try
        (TaskState.UPSTREAM_FAILED, "success", True),  # it is cleared by the mark
        (TaskState.SUCCESS, "success", False),
        (TaskState.FAILED, "success", True),
        (TaskState.NONE, "skipped", False),
    ],
)
def test_an_xcom_that_a_mark_does_not_give_is_told(state: TaskState, to_state: str, told: bool) -> None:
    reads = TaskSpec("report", "bash", {"command": "true"}, upstream=("load",), xcoms=("load",))
    spec = DagSpec("orders", {"load": LOAD, "report": reads, "other": TaskSpec("other", "bash", {}, ("load",))})
    seen = situation(spec)
    tasks = (
        TaskFacts(1, "load", -1, TaskState.FAILED),
        TaskFacts(2, "report", -1, state),
        TaskFacts(3, "other", -1, TaskState.NONE),
    )
    seen = replace(seen, runs=(replace(seen.runs[0], state=RunState.FAILED, tasks=tasks),))
    request = MarkRequest(dag_id="orders", run_ids=("r0",), tasks="load", state=to_state)
    notes = notes_of(request, plan_mark(request, seen), seen)
    words = "report takes the XCom of load, which a mark does not give it."
    assert [note for note in notes if "takes" in note] == ([words] if told else [])


def test_a_run_that_is_marked_as_a_whole_has_nobody_left_who_takes_an_xcom() -> None:
    reads = TaskSpec("report", "bash", {"command": "true"}, upstream=("load",), xcoms=("load",))
    spec = DagSpec("orders", {"load": LOAD, "report": reads})
    tasks = (TaskFacts(1, "load", -1, TaskState.RUNNING), TaskFacts(2, "report", -1, TaskState.NONE))
    seen = situation(spec)
    seen = replace(seen, runs=(replace(seen.runs[0], state=RunState.RUNNING, tasks=tasks),))
    request = MarkRequest(dag_id="orders", run_ids=("r0",), state="success", runs=True)
    assert not any("takes" in note for note in notes_of(request, plan_mark(request, seen), seen))


def test_cached_results_are_told_not_to_count() -> None:
    cached = DagSpec(
        "orders", {"load": TaskSpec("load", "bash", {"command": "true"}, cache=CacheSpec()), "report": REPORT}
    )
    words = "The cached results of load are not used: what is cleared is executed, and its new result is kept."
    assert words in notes_of(CLEAR, [cleared("load", version=cached.version)], situation(cached))
    assert not any("cache" in note for note in notes_of(CLEAR, [cleared("report")], situation(cached)))

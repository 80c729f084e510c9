"""How plans are printed: hand-made ones, so that every kind of row is seen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from yarrow.cli.plan_text import WIDTH, local_text, outcome_lines, plan_lines
from yarrow.plans.plan import Estimate, Plan, PoolUse, RunAction, RunChange, TaskAction, TaskChange
from yarrow.plans.requests import BackfillRequest, ClearRequest, MarkRequest, Request

NEW_YORK = ZoneInfo("America/New_York")
START = datetime(2016, 1, 1, 5, tzinfo=UTC)
BACKFILL = BackfillRequest(dag_id="orders", from_date=START, to_date=START + timedelta(days=3649))
CLEAR = ClearRequest(dag_id="orders", run_ids=("r1",), tasks="load+")


def plan(request: Request, runs: Sequence[RunChange], **fields: Any) -> Plan:
    return Plan("3f2a9c11d0b4", request, tuple(runs), START, "cli:ada", **fields)


def lines(plan: Plan, zone: Any = UTC, *, everything: bool = False) -> list[str]:
    return list(plan_lines(plan, zone, everything=everything))


def created(day: int) -> RunChange:
    at = START + timedelta(days=day)
    return RunChange(f"backfill__{at.isoformat()}", at, RunAction.CREATE, to_state="queued", task_count=3)


def skipped(day: int, reason: str) -> RunChange:
    at = START + timedelta(days=day)
    return RunChange(f"scheduled__{at.isoformat()}", at, RunAction.SKIP, reason, "success", "success")


def change(task_id: str, index: int = -1, action: TaskAction = TaskAction.CLEAR, **fields: Any) -> TaskChange:
    values = {"from_state": "success", "to_state": "none", "why": "selected"} | fields
    return TaskChange(task_id, index, action, **values)


def cleared(tasks: Sequence[TaskChange], name: str = "r1", **fields: Any) -> RunChange:
    values = {"from_state": "failed", "to_state": "queued", "version": "v"} | fields
    return RunChange(name, START, RunAction.CLEAR, tasks=tuple(tasks), **values)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-01-01T05:00:00+00:00", "2026-01-01 00:00 (05:00 UTC)"),
        ("2026-01-02T01:00:00+00:00", "2026-01-01 20:00 (01-02 01:00 UTC)"),
        ("2026-11-01T05:30:00+00:00", "2026-11-01 01:30 (05:30 UTC)"),  # the same local time twice: UTC tells
        ("2026-11-01T06:30:00+00:00", "2026-11-01 01:30 (06:30 UTC)"),
        ("2026-01-01T05:00:07+00:00", "2026-01-01 00:00:07 (05:00:07 UTC)"),
    ],
)
def test_a_logical_date_is_local_and_utc(moment: str, text: str) -> None:
    assert local_text(datetime.fromisoformat(moment), NEW_YORK) == text


def test_where_local_time_is_utc_it_stands_once() -> None:
    assert local_text(START, UTC) == "2016-01-01 05:00"
    assert local_text(datetime(2026, 1, 1, tzinfo=UTC), ZoneInfo("Europe/London")) == "2026-01-01 00:00"


def test_a_long_backfill_is_shortened_in_the_middle() -> None:
    runs = [created(day) for day in range(3650)]
    shown = lines(plan(BACKFILL, runs), NEW_YORK)
    assert shown[:4] == [
        "Plan 3f2a9c11d0b4 of orders: backfill 2016-01-01 05:00 to 2025-12-28 05:00 UTC, 10 at a time",
        "",
        "LOGICAL DATE                  RUN                                  ACTION",
        "2016-01-01 00:00 (05:00 UTC)  backfill__2016-01-01T05:00:00+00:00  create 3 tasks",
    ]
    assert shown[23] == "... 3,625 more; --json or `yarrow plans show 3f2a9c11d0b4 --all` lists all"
    assert len([line for line in shown if "backfill__" in line]) == 25
    assert "backfill__2025-12-28T05:00:00+00:00" in shown[28]
    assert "3,650 runs: 3,650 to create." in shown
    assert all(len(line) <= WIDTH for line in shown)


def test_all_of_a_long_backfill_can_be_seen() -> None:
    shown = lines(plan(BACKFILL, [created(day) for day in range(100)]), everything=True)
    assert len([line for line in shown if "backfill__" in line]) == 100
    assert not any("more" in line for line in shown)


@pytest.mark.parametrize(("count", "rows"), [(26, 26), (27, 25)])
def test_a_row_is_not_left_out_where_its_own_line_would_be_as_long(count: int, rows: int) -> None:
    shown = lines(plan(BACKFILL, [created(day) for day in range(count)]))
    assert len([line for line in shown if "backfill__" in line]) == rows


def test_skips_say_why_and_are_summed_up() -> None:
    long = "blocked by depends_on_past: load failed in the run before, and looks back at it"
    runs = [skipped(0, "exists"), skipped(1, "exists"), skipped(2, "in flight: it runs"), created(3), skipped(4, long)]
    shown = lines(plan(BACKFILL, runs), NEW_YORK)
    assert shown[3].endswith("skip: exists")
    assert shown[7].endswith("  skip")
    assert shown[8] == f"    {long}"
    place = shown.index("5 runs: 1 to create; 4 to skip:")
    assert shown[place + 1 :][:3] == ["    2: exists", "    1: in flight: it runs", f"    1: {long}"]


def test_many_reasons_are_not_all_repeated() -> None:
    shown = lines(plan(BACKFILL, [skipped(day, f"reason {day}") for day in range(6)]))
    [line] = [line for line in shown if "to skip" in line]
    assert line == "6 runs: 6 to skip (1: reason 0, 1: reason 1, 1: reason 2, 1: reason 3, and others)."


def test_what_it_takes_is_told() -> None:
    pools = (PoolUse("default_pool", 128, 3, 10920, 36000.0), PoolUse("gpu", 0, 0, 1, None))
    estimate = Estimate(10920, 5400.0, 2, 3, pools, "the oldest first, 10 runs at a time")
    shown = lines(plan(BACKFILL, [created(0)], estimate=estimate, notes=("orders is paused.",)))
    assert shown[-5:] == [
        "10,920 task instances will run, in at least 1 h 30 m by the past durations of 2 of 3 tasks.",
        "Order: the oldest first, 10 runs at a time.",
        "Pool default_pool: 10,920 task instances, 10 h 00 m of slots; 3 of 128 slots are in use now.",
        "Pool gpu: there is none, so 1 task instance would wait.",
        "Note: orders is paused.",
    ]
    unknown = lines(plan(BACKFILL, [created(0)], estimate=Estimate(1)))
    assert unknown[-1] == "1 task instance will run; how long that takes is not known."


def test_the_task_instances_of_a_clear() -> None:
    tasks = [
        change("load", from_state="failed", try_number=3, attempt_id="a" * 32),
        change("score", from_state="upstream_failed", why="downstream of load"),
        *(change("m", index, attempt_id="b" * 32, try_number=1, loses_xcom=True) for index in range(200)),
        change("slow", action=TaskAction.STOP_AND_CLEAR, from_state="running", try_number=1, attempt_id="c" * 32),
    ]
    nothing = RunChange("r2", START, RunAction.SKIP, "nothing of it is selected", "success", "success")
    shown = lines(plan(CLEAR, [cleared(tasks), nothing], notes=("200 XComs are lost: of m.",)), NEW_YORK)
    assert shown == [
        "Plan 3f2a9c11d0b4 of orders: clear load+ of r1",
        "",
        "r1 of 2016-01-01 00:00 (05:00 UTC): failed -> queued",
        "  load         failed -> none           clear           selected            try 3 is kept",
        "  score        upstream_failed -> none  clear           downstream of load",
        "  m[0 to 199]  success -> none          clear           selected            try 1 is kept  its XCom is lost",
        "  slow         running -> none          stop and clear  selected            try 1 is kept",
        "r2 of 2016-01-01 00:00 (05:00 UTC): skip, nothing of it is selected",
        "",
        "2 runs: 1 to clear; 1 to skip (1: nothing of it is selected).",
        "203 task instances: 202 to clear, 1 to stop and clear.",
        "Note: 200 XComs are lost: of m.",
    ]


def test_instances_that_differ_are_told_apart() -> None:
    tasks = [change("m", 0), change("m", 1, from_state="failed"), change("m", 2, from_state="failed")]
    shown = lines(plan(CLEAR, [cleared(tasks, from_state="running", to_state="running")]))
    assert shown[2] == "r1 of 2016-01-01 05:00 UTC: stays running"
    assert [line.split("  ")[1] for line in shown[3:5]] == ["m[0]", "m[1 to 2]"]


def test_many_tasks_and_many_runs_are_shortened() -> None:
    tasks = [change(f"t{number}") for number in range(60)]
    runs = [cleared(tasks, f"run{number}") for number in range(40)]
    shown = lines(plan(CLEAR, runs))
    assert "  ... 35 more" in shown
    assert "... 15 more runs; --json or `yarrow plans show 3f2a9c11d0b4 --all` lists all" in shown
    assert len([line for line in shown if line.startswith("run")]) == 25
    everything = lines(plan(CLEAR, runs), everything=True)
    assert len([line for line in everything if line.startswith("  t")]) == 60 * 40


def test_what_a_name_holds_can_not_draw_on_the_terminal() -> None:
    sly = ClearRequest(dag_id="orders", run_ids=("r\x1b[2K1",), tasks="load")
    shown = lines(plan(sly, [cleared([change("load", why="x\x1b[1A")], "r\x1b[2K1")], notes=("n\r\n",)))
    assert all(line.isprintable() for line in shown)


def test_an_applied_plan_says_so() -> None:
    done = plan(BACKFILL, [created(0)], applied_at=START, applied_by="cli:eve", result={"backfill_id": 3})
    assert lines(done)[1] == "Applied at 2016-01-01 05:00:00 UTC by cli:eve as the backfill 3."


def outcome(request: Request, runs: Sequence[RunChange], *, is_paused: bool = False, **result: int) -> list[str]:
    return list(outcome_lines(plan(request, runs, result=result), is_paused=is_paused))


def test_what_was_done_and_what_comes_next() -> None:
    assert outcome(BACKFILL, [created(0), skipped(1, "exists")], backfill_id=3) == [
        "The backfill 3 of orders has begun: 1 run.",
        "`yarrow backfill watch 3` shows how it goes.",
    ]
    paused = outcome(BACKFILL, [created(0), created(1)], backfill_id=3, is_paused=True)
    assert paused == [
        "The backfill 3 of orders has begun: 2 runs.",
        "orders is paused: runs wait until `yarrow dags unpause orders`.",
    ]
    running = change("slow", action=TaskAction.STOP_AND_CLEAR)
    assert outcome(CLEAR, [cleared([change("load"), running])]) == [
        "Cleared 2 task instances in 1 run of orders.",
        "1 of these is still running: its worker is told to stop.",
    ]


def test_what_marking_did() -> None:
    marks = [change("load", action=TaskAction.STOP_AND_MARK), change("score", action=TaskAction.STOP_AND_MARK)]
    run = RunChange("r1", START, RunAction.MARK, from_state="running", to_state="failed", tasks=tuple(marks))
    whole = MarkRequest(dag_id="orders", run_ids=("r1",), state="failed", runs=True)
    stopped = "2 of these are still running: their workers are told to stop."
    assert outcome(whole, [run], is_paused=True) == ["Marked 1 run of orders as failed.", stopped]
    one = MarkRequest(dag_id="orders", run_ids=("r1",), state="failed", tasks="load score")
    assert outcome(one, [run]) == ["Marked 2 task instances in 1 run of orders as failed.", stopped]

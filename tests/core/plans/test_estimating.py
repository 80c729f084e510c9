from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from deciding import dag, task
from planning import FIRST, facts, situation
from yarrow.language.spec import DagSpec, ScheduleSpec
from yarrow.plans.backfilling import plan_backfill
from yarrow.plans.clearing import plan_clear
from yarrow.plans.estimating import estimate
from yarrow.plans.plan import Estimate, PoolUse
from yarrow.plans.requests import BackfillRequest, ClearRequest
from yarrow.states import RunState, TaskState

START = {"schedule": ScheduleSpec(cron="@daily"), "start_date": datetime(2025, 1, 1, tzinfo=UTC)}
CHAIN = dag(task("a"), task("b", "a"), max_active_tasks=1000, **START)
TIMES = {"a": 10.0, "b": 20.0}
ROOMY = {"default_pool": (1000, 3)}


def backfill(
    spec: DagSpec,
    days: int,
    *,
    durations: dict[str, float] = TIMES,
    pools: dict[str, tuple[int, int]] = ROOMY,
    parallelism: int | None = None,
    **fields: Any,
) -> Estimate:
    request = BackfillRequest(dag_id="d", from_date=FIRST, to_date=FIRST.replace(day=days), **fields)
    world = situation(newest=spec, durations=durations, pools=pools, parallelism=parallelism)
    return estimate(request, plan_backfill(request, world), world)


@pytest.mark.parametrize(("days", "at_once", "seconds"), [(1, 1, 30), (4, 2, 60), (5, 2, 90), (3, 10, 30)])
def test_runs_go_in_turn_each_as_long_as_its_longest_chain(days: int, at_once: int, seconds: float) -> None:
    found = backfill(CHAIN, days, max_active_runs=at_once)
    assert (found.seconds, found.task_instances, found.known_tasks, found.tasks) == (seconds, 2 * days, 2, 2)


def test_tasks_beside_one_another_count_once() -> None:
    spec = dag(task("a"), task("b"), max_active_tasks=1000, **START)
    assert backfill(spec, 1).seconds == 20


def test_pools_parallelism_and_the_limit_of_the_dag_bound_it() -> None:
    narrow = backfill(CHAIN, 10, pools={"default_pool": (2, 1)})
    assert narrow.seconds == 10 * 30 / 2
    assert narrow.pools == (PoolUse("default_pool", 2, 1, 20, 300.0),)
    assert backfill(CHAIN, 10, parallelism=4).seconds == 10 * 30 / 4
    assert backfill(dag(*CHAIN.tasks.values(), max_active_tasks=1, **START), 10).seconds == 300


def test_slots_of_a_task_count_in_its_pool() -> None:
    spec = dag(task("a", pool="gpu", pool_slots=2), task("b", "a"), max_active_tasks=1000, **START)
    found = backfill(spec, 10, pools={"gpu": (2, 0)})
    assert found.seconds == 100
    assert found.pools == (PoolUse("default_pool", 0, 0, 10, 200.0), PoolUse("gpu", 2, 0, 10, 200.0))


def test_what_waits_for_the_run_before_goes_one_after_another() -> None:
    spec = dag(task("a"), task("b", "a", depends_on_past=True), max_active_tasks=1000, **START)
    assert backfill(spec, 10).seconds == 200


def test_with_too_little_known_nothing_is_estimated() -> None:
    found = backfill(CHAIN, 2, durations={})
    assert (found.seconds, found.known_tasks, found.tasks) == (None, 0, 2)
    assert found.pools[0].busy_seconds is None
    three = dag(task("a"), task("b"), task("c"), **START)
    assert backfill(three, 1, durations={"a": 1.0}).seconds is None


def test_a_task_of_unknown_duration_counts_as_the_mean_of_the_others() -> None:
    found = backfill(CHAIN, 1, durations={"a": 10.0})
    assert (found.seconds, found.known_tasks) == (20, 1)


def test_nothing_to_do_takes_no_time() -> None:
    run = facts(CHAIN, state=RunState.SUCCESS)
    request = BackfillRequest(dag_id="d", from_date=FIRST, to_date=FIRST)
    world = situation(run, newest=CHAIN, durations=TIMES, pools=ROOMY)
    assert estimate(request, plan_backfill(request, world), world) == Estimate(0)


@pytest.mark.parametrize(
    ("days", "fields", "order"),
    [
        (3, {"max_active_runs": 2}, "oldest first, 2 at once"),
        (3, {"run_backwards": True}, "newest first, 3 at once"),
        (1, {}, ""),
    ],
)
def test_tells_the_order(days: int, fields: dict[str, Any], order: str) -> None:
    assert backfill(CHAIN, days, **fields).order == order


def test_of_a_clear_only_what_is_cleared_counts() -> None:
    run = facts(CHAIN, a=TaskState.SUCCESS, b=TaskState.FAILED)
    request = ClearRequest(dag_id="d", run_ids=("r0",), tasks="b")
    world = situation(run, durations=TIMES, pools=ROOMY)
    found = estimate(request, plan_clear(request, world), world)
    assert (found.task_instances, found.seconds, found.tasks) == (1, 20, 1)


def test_only_the_selected_tasks_of_new_runs_count() -> None:
    found = backfill(CHAIN, 4, tasks="a", max_active_runs=2)
    assert (found.task_instances, found.seconds) == (4, 20)


def test_many_runs_are_estimated_quickly_and_soundly() -> None:
    request = BackfillRequest(
        dag_id="d", from_date=datetime(2025, 1, 1, tzinfo=UTC), to_date=datetime(2025, 12, 31, tzinfo=UTC)
    )
    world = situation(newest=CHAIN, durations=TIMES, pools=ROOMY)
    found = estimate(request, plan_backfill(request, world), world)
    assert found.seconds == 37 * 30  # 365 runs, 10 at once

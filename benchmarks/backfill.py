"""Backfills: planning and applying ten years of days, throughput, and what the loop has of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from sqlalchemy import insert

from benchmarks import raw_celery
from benchmarks.deployment import Deployment, environment
from benchmarks.figure import Figure
from benchmarks.runs import gaps_of, percentile, run_once, task_lines, wake
from yarrow.clock import utc_now
from yarrow.config import load_config
from yarrow.executor import Wakeup
from yarrow.language.spec import DagSpec, ScheduleSpec, TaskSpec
from yarrow.plans.requests import BackfillRequest
from yarrow.protocol import Heartbeat, Report
from yarrow.store import Store
from yarrow.store.database import Database
from yarrow.store.tables import dag_run
from yarrow.timetable import Timetable
from yarrow_scheduler.loop import Scheduler

YEARS = 3650
DAYS = 100
TASKS = 3
TICKS = 200
_FIRST = datetime(2013, 1, 1, tzinfo=UTC)


def write_dags(folder: Path) -> None:
    """Writes the DAG that is backfilled: a chain of three tasks, each day."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["dag_id: days", 'schedule: "@daily"', "start_date: 2013-01-01", "max_active_tasks: 1000", "tasks:"]
    for number in range(TASKS):
        lines += task_lines(f"t{number}", [f"t{number - 1}"] if number else [])
    (folder / "days.yaml").write_text("\n".join(lines) + "\n")


def _request(first: int, days: int, **fields: int) -> BackfillRequest:
    from_date = _FIRST + timedelta(days=first)
    return BackfillRequest(dag_id="days", from_date=from_date, to_date=from_date + timedelta(days=days - 1), **fields)


# In this process


def measure_plans() -> list[Figure]:
    """Planning and applying, and the passes of a scheduler with a long queue beside those with a short one."""
    with tempfile.TemporaryDirectory(prefix="yarrow-bench-") as folder:
        store = _store(Path(folder))
        request = _request(0, YEARS)
        plans, times = [], []
        for _ in range(3):
            started = time.perf_counter()
            plans.append(store.plans.draw(request, who="bench"))
            times.append(time.perf_counter() - started)
        assert len(plans[-1].effective) == YEARS
        started = time.perf_counter()
        store.plans.apply(plans[-1].id, who="bench")
        applied = time.perf_counter() - started
        rows = _bare_insert(store, Path(folder))
        store.close()
    planned, walk = median(times), _walk()
    short, long = _passes(100, YEARS)
    return [
        Figure(f"plan a backfill of {YEARS:,} days", planned, "s", 2.0, note=f"{planned / walk:.1f} x a bare walk"),
        Figure(
            f"apply a plan of {YEARS:,} days", applied, "s", note=f"{applied / rows:.1f} x a bare insert of its rows"
        ),
        Figure(f"a pass of the scheduler, {YEARS:,} runs queued, median", median(long) * 1000, "ms"),
        Figure(f"a pass, {YEARS:,} runs queued, 95th percentile", percentile(long, 0.95) * 1000, "ms"),
        Figure(
            f"a pass, {YEARS:,} runs queued / 100 runs queued",
            median(long) / median(short),
            "ratio",
            1.5,
            note=f"with 100: {median(short) * 1000:.1f} ms, 95th percentile {percentile(short, 0.95) * 1000:.1f} ms",
        ),
    ]


def _walk() -> float:
    """Seconds of going through as many data intervals and doing nothing with them."""
    timetable = Timetable.of(ScheduleSpec(cron="@daily"), _FIRST)
    started = time.perf_counter()
    assert len(timetable.intervals(None, YEARS)) == YEARS
    return time.perf_counter() - started


def _bare_insert(store: Store, folder: Path) -> float:
    """Seconds of writing as many rows of runs of another DAG in one transaction."""
    database = Database(f"sqlite:///{folder / 'yarrow.db'}")
    rows = [
        {
            "dag_id": "other",
            "run_id": f"r{number}",
            "run_type": "manual",
            "version": "v",
            "state": "queued",
            **dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end"), _FIRST),
            **dict.fromkeys(("run_after", "queued_at"), _FIRST + timedelta(days=number)),
            "params": {},
        }
        for number in range(YEARS)
    ]
    started = time.perf_counter()
    database.write(lambda connection: connection.execute(insert(dag_run), rows))
    seconds = time.perf_counter() - started
    database.close()
    return seconds


def _store(folder: Path) -> Store:
    tasks = [
        TaskSpec(f"t{number}", "bash", {"command": "true"}, (f"t{number - 1}",) if number else ())
        for number in range(TASKS)
    ]
    spec = DagSpec(
        "days",
        {task.task_id: task for task in tasks},
        schedule=ScheduleSpec(cron="@daily"),
        start_date=_FIRST,
        max_active_tasks=1000,
    )
    store = Store.open(f"sqlite:///{folder / 'yarrow.db'}")
    store.workers.set_pools({"default_pool": 128})
    store.catalog.publish([(spec, "", "days.yaml")])
    return store


class _Nowhere:
    """An executor whose messages nobody reads."""

    error: str | None = None

    def publish(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        return wakeups

    def close(self) -> None:
        pass


class _Loop:
    """A scheduler that has so many runs of a backfill before it, and a worker that ends a task between two passes."""

    def __init__(self, folder: Path, days: int) -> None:
        folder.mkdir()
        self.store = _store(folder)
        self.store.plans.carry_out(_request(0, days, max_active_runs=16), who="bench")
        config = load_config(env=environment(folder / "home"), overrides={"parallelism": 32})
        self.scheduler = Scheduler(config, self.store, _Nowhere(), b"k" * 64)
        self.store.workers.register_scheduler(self.scheduler.scheduler_id, "host", 1)
        self.taken: list[float] = []  # seconds of each pass

    def turn(self) -> None:
        self.store.attempts.heartbeat(Heartbeat("w", "host", 1, ("*",), 4, "0", ()), 60)
        started = time.perf_counter()
        self.scheduler.tick(utc_now())
        self.taken.append(time.perf_counter() - started)
        if (claimed := self.store.attempts.next_for("default", "w", 60)) is not None:
            self.store.attempts.finish(Report(claimed.attempt_id, "success"), claimed.nonce, "w")

    def close(self) -> None:
        self.scheduler.publisher.close()
        self.store.close()


def _passes(*days: int) -> list[list[float]]:
    """Seconds of the passes of schedulers with backfills of so many days, which take turns on the same machine."""
    with tempfile.TemporaryDirectory(prefix="yarrow-bench-") as folder:
        loops = [_Loop(Path(folder) / str(count), count) for count in days]
        for _ in range(TICKS):
            for loop in loops:
                loop.turn()
        for loop in loops:
            loop.close()
    return [loop.taken[5:] for loop in loops]


# In a deployment


def measure(deployment: Deployment, *, concurrency: int, repeats: int) -> list[Figure]:
    """Throughput of a backfill of a hundred days, and a chain of another DAG while one of ten years goes on."""
    broker_url = (deployment.home / "broker.url").read_text().strip()
    run_once(deployment, "chain")
    store = deployment.store()
    try:
        store.catalog.set_paused("days", False, who="bench")
        rates = [_throughput(deployment, store, number * DAYS) for number in range(repeats)]
        celery_rate = raw_celery.tasks_per_second(broker_url, concurrency=concurrency)
        alone = [gap for _ in range(repeats) for gap in gaps_of(run_once(deployment, "chain"))]
        beside, done = _chain_beside_backfill(deployment, store, repeats)
    finally:
        store.close()
    rate, ratio = median(rates), median(beside) / median(alone)
    note = f"{min(rates):.1f} to {max(rates):.1f} over {len(rates)} backfills"
    return [
        Figure(f"backfill of {DAYS} days, a chain of {TASKS} no-op tasks", rate, "runs/s", note=note),
        Figure("backfill, no-op tasks / plain Celery", rate * TASKS / celery_rate, "ratio"),
        Figure("chain of 50: end to next start, nothing else, median", median(alone) * 1000, "ms"),
        Figure("chain of 50 beside a backfill, median", median(beside) * 1000, "ms"),
        Figure("chain of 50 beside a backfill, 95th percentile", percentile(beside, 0.95) * 1000, "ms"),
        Figure("chain of 50 beside a backfill / alone", ratio, "ratio", note=f"{done} runs of it ended meanwhile"),
    ]


def _throughput(deployment: Deployment, store: Store, first: int) -> float:
    """Runs a second, from when the backfill was asked for until its last run has ended."""
    started = time.monotonic()
    plan = store.plans.carry_out(_request(first, DAYS, max_active_runs=16), who="bench")
    wake(deployment)
    _wait_until_over(store, {run.run_id for run in plan.effective}, started + 300)
    return DAYS / (time.monotonic() - started)


def _wait_until_over(store: Store, run_ids: set[str], deadline: float) -> None:
    while True:
        left = [run for state in ("queued", "running") for run in store.runs.list("days", state, limit=DAYS)]
        if not run_ids & {run.run_id for run in left}:
            break
        if time.monotonic() > deadline:
            raise RuntimeError("the backfill did not finish")
        time.sleep(0.1)
    bad = [run for run in store.runs.list("days", "failed", limit=1) if run.run_id in run_ids]
    if bad:
        raise RuntimeError(f"{bad[0].run_id} ended as failed: {bad[0].reason}")


def _chain_beside_backfill(deployment: Deployment, store: Store, repeats: int) -> tuple[list[float], int]:
    """The gaps of a chain while a backfill of ten years is under way, and how many of its runs ended meanwhile."""
    plan = store.plans.carry_out(_request(repeats * DAYS, YEARS, max_active_runs=16), who="bench")
    wake(deployment)
    before = store.runs.state_counts(["days"])["days"].get("success", 0)
    gaps = [gap for _ in range(repeats) for gap in gaps_of(run_once(deployment, "chain"))]
    counts = store.runs.state_counts(["days"])["days"]
    if not counts.get("queued"):
        raise RuntimeError("the backfill was over too early to tell anything")
    store.backfills.cancel(int(str(plan.result["backfill_id"])), who="bench")
    return gaps, counts.get("success", 0) - before

"""What is asked before it happens, and what catching up costs the loop."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from benchmarks.figure import Figure
from yarrow.clock import utc_now
from yarrow.decide import RunView, TaskView, decide
from yarrow.forecast import Capacity, forecast
from yarrow.language.spec import DagSpec, ScheduleSpec, TaskSpec
from yarrow.simulate import Outcome, simulate
from yarrow.states import RunState, TaskState
from yarrow.store import Store
from yarrow_scheduler.plan import Planner

_YEAR = timedelta(days=365)
_START = datetime(2026, 1, 1, tzinfo=UTC)


def measure() -> list[Figure]:
    """Everything here runs in this process."""
    return [_decide(), _simulate(), _year(), _catchup()]


def _best(work: Callable[[], object], repeats: int = 7) -> float:
    """The median of seconds that it takes."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return median(taken)


def _task(task_id: str, *upstream: str) -> TaskSpec:
    return TaskSpec(task_id, "bash", {"command": "true"}, upstream=upstream)


def _dag(*tasks: TaskSpec, **fields: object) -> DagSpec:
    return DagSpec("d", {task.task_id: task for task in tasks}, **fields)  # type: ignore[arg-type]


def _decide() -> Figure:
    """One task of a thousand side by side has ended: as many times a bare look at each state as deciding takes."""
    middle = [f"t{number}" for number in range(1000)]
    spec = _dag(_task("first"), *(_task(name, "first") for name in middle), _task("last", *middle))
    views = [TaskView(task_id, TaskState.RUNNING) for task_id in spec.tasks]
    views[0] = TaskView("first", TaskState.SUCCESS)
    views[1] = TaskView("t0", TaskState.SUCCESS)
    views[-1] = TaskView("last", TaskState.NONE)
    run = RunView("d", "r", RunState.RUNNING, _START, _START, _START, {}, _START)
    ceiling = _best(lambda: sum(view.state is TaskState.RUNNING for view in views), 50)
    taken = _best(lambda: decide(spec, run, views, _START, {}), 50)
    return Figure(
        "decide on 1,000 tasks", taken * 1000, "ms", 5.0, False, f"{taken / ceiling:.0f} x a look at each state"
    )


def _simulate() -> Figure:
    chain = _dag(_task("t0"), *(_task(f"t{number}", f"t{number - 1}") for number in range(1, 100)))
    taken = _best(lambda: simulate(chain, outcomes={"t50": Outcome(TaskState.FAILED)}, now=_START))
    return Figure("simulate 100 tasks", taken * 1000, "ms", 100.0, False, "one of them fails")


def _year() -> Figure:
    tasks = (_task("a"), _task("b", "a"), _task("c", "a"), _task("d", "b", "c"))
    spec = _dag(*tasks, schedule=ScheduleSpec(cron="@hourly"))
    taken = _best(
        lambda: forecast([spec], _START, _START + _YEAR, durations=lambda dag_id, task_id: 60.0, capacity=Capacity(4)),
        3,
    )
    return Figure("plan a year of an hourly DAG", taken, "s", 10.0, False, "8,760 runs, 35,040 task instances")


def _catchup() -> Figure:
    """A pass of the planner over a DAG that is 25 years of minutes behind, against one that is a minute behind."""
    behind, level = (_planning(timedelta(days=days)) for days in (25 * 365, 1))
    note = f"{behind / level:.2f} x that of a DAG one day behind"
    return Figure("plan a minute cron 25 years behind", behind * 1000, "ms", 50.0, False, note)


def _planning(behind: timedelta) -> float:
    """Seconds that the planner takes to look at the DAG and to make the runs that may start."""
    now = utc_now().replace(second=30, microsecond=0)
    schedule = ScheduleSpec(cron="* * * * *")
    spec = _dag(_task("a"), schedule=schedule, start_date=now - behind, catchup=True, max_active_runs=4)
    taken = []
    for _ in range(5):
        with tempfile.TemporaryDirectory(prefix="yarrow-bench-") as folder:
            store = Store.open(f"sqlite:///{Path(folder) / 'yarrow.db'}")
            store.catalog.publish([(spec, "", "d.yaml")])
            planner = Planner(store)
            started = time.perf_counter()
            planner.plan(now)
            taken.append(time.perf_counter() - started)
            assert len(store.runs.list("d")) == 4
            store.close()
    return median(taken)

"""Throughput and latency: a wide DAG and a chain, run by an embedded deployment, beside plain Celery."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import raw_celery
from benchmarks.deployment import Deployment
from benchmarks.figure import Figure

WIDE = 200
CHAIN = 50


def write_dags(folder: Path) -> None:
    """Writes the two measured DAGs."""
    folder.mkdir(parents=True, exist_ok=True)
    middle = [f"t{number:03}" for number in range(WIDE)]
    lines = ["dag_id: wide", "schedule: null", "max_active_tasks: 1000", "tasks:", *task_lines("first", [])]
    for name in middle:
        lines += task_lines(name, ["first"])
    lines += task_lines("last", middle)
    (folder / "wide.yaml").write_text("\n".join(lines) + "\n")
    lines = ["dag_id: chain", "schedule: null", "tasks:"]
    for number in range(CHAIN):
        lines += task_lines(f"t{number:03}", [f"t{number - 1:03}"] if number else [])
    (folder / "chain.yaml").write_text("\n".join(lines) + "\n")


def task_lines(name: str, upstream: list[str]) -> Iterator[str]:
    """The lines of a DAG file for a task that does nothing."""
    yield f"  {name}:"
    yield "    operator: python"
    yield f"    depends_on: [{', '.join(upstream)}]"
    yield "    with: {callable: 'noop:noop'}"


def measure(deployment: Deployment, *, concurrency: int, repeats: int) -> list[Figure]:
    """Runs both DAGs and plain Celery in turn."""
    broker_url = (deployment.home / "broker.url").read_text().strip()
    run_once(deployment, "chain")  # the first run of a worker pays for its imports
    run_once(deployment, "wide")
    rates, celery_rates, gaps = [], [], []
    for _ in range(repeats):
        rates.append((WIDE + 2) / _seconds(run_once(deployment, "wide")))
        celery_rates.append(raw_celery.tasks_per_second(broker_url, concurrency=concurrency))
        gaps += gaps_of(run_once(deployment, "chain"))
    rate, celery_rate = statistics.median(rates), statistics.median(celery_rates)
    return [
        Figure("wide: 1 -> 200 -> 1 no-op tasks", rate, "tasks/s", 150, at_least=True, note=_spread(rates)),
        Figure("plain Celery, no-op tasks", celery_rate, "tasks/s", note=_spread(celery_rates)),
        Figure("wide / plain Celery", rate / celery_rate, "ratio", 0.25, at_least=True),
        Figure("chain of 50: end to next start, median", statistics.median(gaps) * 1000, "ms", 30),
        Figure("chain of 50: end to next start, 95th percentile", percentile(gaps, 0.95) * 1000, "ms"),
    ]


def run_once(deployment: Deployment, dag_id: str) -> list[tuple[float, float]]:
    """Runs a DAG to its end; returns (started, ended) of each task instance, sorted."""
    store = deployment.store()
    try:
        deadline = time.monotonic() + 120
        while dag_id not in {dag.dag_id for dag in store.catalog.dags()}:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{dag_id} did not appear")
            time.sleep(0.05)
        run = store.runs.trigger(dag_id, params={}, who="bench")
        wake(deployment)
        while True:
            record = store.runs.get(dag_id, run.run_id)
            if record.state.finished:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{dag_id} did not finish")
            time.sleep(0.05)
        if record.state != "success":
            raise RuntimeError(f"{dag_id} ended as {record.state}: {record.reason}")
        instances = store.runs.task_instances(record.id)
    finally:
        store.close()
    times = [(i.started_at.timestamp(), i.ended_at.timestamp()) for i in instances if i.started_at and i.ended_at]
    return sorted(times)


def wake(deployment: Deployment) -> None:
    """Has the scheduler look at once, as the CLI does."""
    from yarrow.wakeup import Notifier

    notifier = Notifier((deployment.home / "broker.url").read_text().strip())
    notifier.notify()
    notifier.close()


def _seconds(times: list[tuple[float, float]]) -> float:
    return max(ended for _, ended in times) - min(started for started, _ in times)


def gaps_of(times: list[tuple[float, float]]) -> list[float]:
    """Seconds from the end of each task to the start of the next one."""
    return [following[0] - before[1] for before, following in itertools.pairwise(times)]


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of all values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _spread(values: list[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f} over {len(values)} runs"

"""The DAG folder: 1,000 files of 5 tasks from a cold start, and a pass over them when nothing has changed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.deployment import cpu_seconds, environment
from benchmarks.figure import Figure
from yarrow.clock import utc_now
from yarrow.config import load_config
from yarrow.store import Store
from yarrow_scheduler.catalog import Catalog
from yarrow_scheduler.parser import Parser

FILES = 1000


def write_dags(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(FILES):
        (folder / f"etl_{number:04}.yaml").write_text(_dag(number))


def _dag(number: int) -> str:
    return f"""\
dag_id: etl_{number:04}
description: Loads and scores part {number}
schedule: "{number % 60} {number % 24} * * *"
start_date: 2099-01-01
tags: [part{number % 10}]
params:
  threshold: {{type: number, default: 0.5}}
default_args: {{retries: 2, retry_delay: 10s}}
tasks:
  extract:
    operator: bash
    with: {{command: "echo {{{{ ds }}}}"}}
  check:
    operator: bash
    with: {{command: ["test", "-n", "{{{{ xcom.extract }}}}"]}}
  transform:
    operator: python
    depends_on: [check]
    with: {{callable: "noop:noop"}}
  load:
    operator: bash
    depends_on: [transform]
    with: {{command: "true", env: {{THRESHOLD: "{{{{ params.threshold }}}}"}}}}
  report:
    operator: empty
    depends_on: [load]
    trigger_rule: all_done
"""


def measure(home: Path, folder: Path) -> list[Figure]:
    """Starts a scheduler on a fresh database and waits until every DAG can be seen; then watches it do nothing."""
    home.mkdir(parents=True, exist_ok=True)
    config = load_config(env=environment(home))
    log = (home / "scheduler.log").open("wb")
    started = time.monotonic()
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "yarrow", "scheduler", "--dags", str(folder)],
        env={**environment(home), "YARROW_BROKER_URL": "redis://127.0.0.1:1/0"},
        stdout=log,
        stderr=log,
    )
    try:
        _wait_for_dags(config.database_url, deadline=started + 120)
        visible_after = time.monotonic() - started
        time.sleep(8)
        before, watched = cpu_seconds([scheduler.pid]), time.monotonic()
        time.sleep(15)
        share = (cpu_seconds([scheduler.pid]) - before) / (time.monotonic() - watched)
    finally:
        scheduler.terminate()
        scheduler.wait(timeout=30)
        log.close()
    return [
        Figure(f"{FILES} DAG files of 5 tasks: cold start to visible", visible_after, "s", 5),
        Figure(f"{FILES} DAG files: an unchanged pass", _unchanged_pass(home, folder) * 1000, "ms", 100),
        Figure(f"{FILES} DAG files: idle scheduler", share * 100, "% of a core"),
    ]


def _wait_for_dags(database_url: str, *, deadline: float) -> None:
    path = Path(database_url.removeprefix("sqlite:///"))
    while not (path.exists() and path.stat().st_size > 0):
        _check(deadline)
        time.sleep(0.05)
    time.sleep(0.5)  # lets the scheduler finish its migration, which a reader must not disturb
    store = Store.open(database_url, upgrade=False)
    try:
        while len(store.catalog.dags()) < FILES:
            _check(deadline)
            time.sleep(0.05)
    finally:
        store.close()


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise RuntimeError("the DAG files did not appear")


def _unchanged_pass(home: Path, folder: Path) -> float:
    """Seconds of a pass over the folder in which no file has changed; the best of three."""
    config = load_config(env={**environment(home), "YARROW_DAGS_FOLDER": str(folder)})
    store, parser = Store.open(config.database_url), Parser(config)
    try:
        catalog = Catalog(folder, store.catalog, parser, utc_now)
        catalog.refresh(lambda: None)
        times = []
        for _ in range(3):
            started = time.monotonic()
            catalog.refresh(lambda: None)
            times.append(time.monotonic() - started)
        return min(times)
    finally:
        parser.close()
        store.close()

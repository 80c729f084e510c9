"""A deployment to measure: `yarrow standalone` as its own processes, in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from yarrow.config import load_config
from yarrow.store import Store

WORKLOAD = Path(__file__).parent / "workload"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running `yarrow standalone`."""

    process: subprocess.Popen[bytes]
    home: Path
    url: str
    ready_after: float  # seconds from its start until /health/ready was green

    def store(self) -> Store:
        return Store.open(load_config(env=environment(self.home)).database_url)

    def processes(self) -> list[int]:
        """The process ids of the whole deployment."""
        return [self.process.pid, *descendants(self.process.pid)]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "YARROW_HOME": str(home), "YARROW_WORKER_PYTHON_PATH": str(WORKLOAD)}


@contextmanager
def standalone(home: Path, dags: Path, *, concurrency: int) -> Iterator[Deployment]:
    """Starts a deployment over the DAG folder, and stops it at the end."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    started = time.monotonic()
    with (home / "bench.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "yarrow", "standalone", "--dags", str(dags), "--port", str(port)],
            env={**environment(home), "YARROW_WORKER_CONCURRENCY": str(concurrency)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_ready(url, process, deadline=started + 60)
            yield Deployment(process, home, url, time.monotonic() - started)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def wait_ready(url: str, process: subprocess.Popen[bytes], *, deadline: float) -> None:
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the deployment ended with exit code {process.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.02)
    raise RuntimeError("the deployment was not ready in time")


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """The process ids below `pid`, read from /proc."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def pss_mib(pids: list[int]) -> float:
    """Proportional set size of the processes together, in MiB: shared pages are counted once."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that the processes have used so far."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")

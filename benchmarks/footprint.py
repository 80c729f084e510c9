"""What a deployment costs before it does anything: time to ready, memory and processor time when idle."""

from __future__ import annotations

import time

from benchmarks.deployment import Deployment, cpu_seconds, pss_mib
from benchmarks.figure import Figure


def measure(deployment: Deployment, *, seconds: float) -> list[Figure]:
    """Watches an idle deployment for `seconds`, after letting it settle."""
    time.sleep(8)
    pids = deployment.processes()
    memory = pss_mib(pids)
    before, started = cpu_seconds(pids), time.monotonic()
    time.sleep(seconds)
    share = (cpu_seconds(pids) - before) / (time.monotonic() - started)
    return [
        Figure("standalone: start to ready", deployment.ready_after, "s", 4),
        Figure("standalone: idle memory", memory, "MiB PSS", 350, note=f"{len(pids)} processes"),
        Figure("standalone: idle processor time", share * 100, "% of a core", 2),
    ]

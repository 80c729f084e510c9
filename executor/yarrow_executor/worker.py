"""A worker host: forks the minder, then runs a Celery prefork worker whose children execute attempts."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import os
import signal
import socket
import time
import uuid
import warnings
from importlib.metadata import entry_points
from typing import Any

from yarrow import registry
from yarrow.attempt import Surroundings
from yarrow.config import Config
from yarrow.errors import ConfigError
from yarrow.protocol import ALL_QUEUES
from yarrow.tokens import load_or_create_key, worker_token
from yarrow_executor import leftovers
from yarrow_executor.attempt import Attempts, Work
from yarrow_executor.child import Child
from yarrow_executor.client import ApiClient
from yarrow_executor.heart import Identity
from yarrow_executor.inherited import let_go_of_sockets
from yarrow_executor.minder import EXIT_REJECTED, Minder, Settings
from yarrow_executor.output import Pipes
from yarrow_executor.slots import SlotTable
from yarrow_executor.spool import Spool

_MINDER_PATIENCE = 10.0  # seconds for the minder's last logs and reports

_log = logging.getLogger("yarrow.worker")


def run(config: Config, queues: tuple[str, ...], slots: int) -> int:
    """Runs a worker until it is told to stop.

    Args:
        queues: The queues to serve; "*" stands for every queue that has no worker of its own.
        slots: How many attempts it executes at a time.

    Returns:
        The exit code.

    Raises:
        ConfigError: No broker is set, or HOME can't be written.
    """
    host = _Host(config, queues, slots)
    minder = host.fork_minder()
    code = host.run_celery()
    return host.wait_for_minder(minder) or code


class _Host:
    """What the processes of one worker share. Made before any of them is forked."""

    def __init__(self, config: Config, queues: tuple[str, ...], slots: int) -> None:
        self._config = config
        self._broker_url = config.require_broker_url()
        self._token = config.worker_token or worker_token(load_or_create_key(config.signing_key_file))
        self._identity = Identity(uuid.uuid4().hex, socket.gethostname(), os.getpid(), queues)
        self._cpus = max(1, (os.cpu_count() or 1) // slots)
        self._table = SlotTable(slots)
        self._pipes = Pipes.make(slots)
        self._spool = Spool(config.home, self._identity.worker_id)
        self._spool.open()
        self._work = Work(
            worker_id=self._identity.worker_id,
            surroundings=Surroundings(
                work_root=config.home / "work",
                objects_url=config.objects_url,
                xcom_inline_limit=config.xcom_inline_limit,
                cpus=self._cpus,
                dags_folder=config.dags_folder,
            ),
            slot_hold=config.slot_hold,
        )
        self._control, self._minder_end = socket.socketpair()
        self._attempts: Attempts | None = None

    # The minder.

    def fork_minder(self) -> int:
        """Starts the minder while this process is still small and has neither threads nor sockets."""
        gc.freeze()
        pid = os.fork()
        if pid:
            self._minder_end.close()
            self._pipes.close_readers()
            return pid
        code = 1
        try:
            self._control.close()
            self._pipes.close_writers()
            settings = Settings(
                api_url=self._config.api_url,
                worker_token=self._token,
                heartbeat_interval=self._config.heartbeat_interval,
                log_limit=self._config.log_limit,
                worker_grace=self._config.worker_grace,
            )
            code = Minder(self._identity, settings, self._table, self._pipes, self._minder_end, self._spool).run()
        except BaseException:  # noqa: BLE001 - the outermost edge of a process
            _log.exception("The minder failed")
        finally:
            logging.shutdown()
            os._exit(code)

    def wait_for_minder(self, pid: int) -> int:
        """Lets the minder deliver what is left. Returns its exit code."""
        self._tell({"kind": "bye"})
        deadline = time.monotonic() + _MINDER_PATIENCE
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return 0

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:  # the minder is gone: see _minder_gone
            return

    # The main process.

    def run_celery(self) -> int:
        """Runs the Celery worker. Returns its exit code."""
        from celery import signals
        from celery.exceptions import CPendingDeprecationWarning

        from yarrow_executor.app import ANY, make_app
        from yarrow_executor.pool import slot_pool
        from yarrow_executor.transport import TASK

        app = make_app(self._broker_url, [ANY if name == ALL_QUEUES else name for name in self._identity.queues])
        app.task(name=TASK, ignore_result=True)(self._attempt)
        _quiet_celery()
        _load_operators()
        connections = (
            (signals.setup_logging, lambda **_: None),  # connected at all: Celery leaves logging alone
            (signals.worker_process_init, lambda **_: self._init_child()),
            # Billiard would let every child that ends sleep for a second here.
            (signals.worker_process_shutdown, lambda exitcode, **_: os._exit(exitcode)),
            (signals.worker_shutting_down, lambda **_: self._stopping()),
        )
        for celery_signal, receiver in connections:
            celery_signal.connect(receiver, weak=False)
        worker = app.Worker(
            hostname=f"yarrow-{self._identity.worker_id}@{self._identity.hostname}",
            concurrency=self._table.size,
            pool_cls=slot_pool(self._down),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            task_events=False,
            quiet=True,
            loglevel=logging.getLogger().level,
        )
        # About late acknowledgement, which is off. Not sooner: the worker that was just made wants to see it.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        signals.worker_ready.connect(lambda sender, **_: self._on_ready(sender.hub), weak=False)
        gc.collect()
        gc.freeze()
        _log.info(
            "worker %s: %d slots, queues %s, Execution API %s",
            self._identity.worker_id,
            self._table.size,
            ", ".join(self._identity.queues),
            self._config.api_url,
        )
        worker.start()
        return int(worker.exitcode or 0)

    def _on_ready(self, hub: Any) -> None:
        """Called when the worker consumes, at the start and after each reconnection to the broker."""
        hub.add_reader(self._control, self._minder_gone)
        signal.signal(signal.SIGQUIT, self._stop_now)
        self._tell({"kind": "ready"})

    def _stopping(self) -> None:
        """SIGTERM or a first Ctrl-C: Celery takes no more messages, and the minder waits for the tasks' grace."""
        self._table.stop()
        self._tell({"kind": "stopping", "warm": True})
        signal.signal(signal.SIGINT, self._stop_now)

    def _stop_now(self, *_: object) -> None:
        """SIGQUIT or a second Ctrl-C: no grace. Celery's own way would wait for the tasks at this point."""
        self._tell({"kind": "stopping", "warm": False})
        if not self._table.stopping:
            os.kill(os.getpid(), signal.SIGTERM)

    def _down(self, slot: int, pid: int, exitcode: int) -> None:
        occupant = self._table.slots[slot].read()
        if occupant.pid == pid:
            self._tell({"kind": "down", "occupant": dataclasses.asdict(occupant), "exitcode": exitcode})

    def _minder_gone(self) -> None:
        """Without its minder a worker is blind: it ends at once, and its tasks with it."""
        _log.error("The minder has ended: the worker ends as well.")
        for occupant in self._table.occupants():
            leftovers.signal_group(occupant.pid, signal.SIGKILL)
            if occupant.attempt_id:
                leftovers.kill_all(leftovers.marked(occupant.attempt_id))
        os._exit(EXIT_REJECTED)

    # A pool child.

    def _init_child(self) -> None:
        from billiard.process import current_process

        self._control.close()
        let_go_of_sockets()
        child = Child(
            self._table,
            current_process().index,
            self._pipes,
            cpus=self._cpus,
            level=self._config.log_level,
            python_path=self._config.worker_python_path,
        )
        client = ApiClient(self._config.api_url, self._token)
        self._attempts = Attempts(self._work, self._table, child, client, self._spool)

    def _attempt(self, *args: object, **_: object) -> None:
        """The Celery task. Its message comes from a broker, and may be anything."""
        match args:
            case [str(attempt_id), str(token)] if len(attempt_id) <= 64 and len(token) <= 192:
                assert self._attempts is not None
                self._attempts.run(attempt_id, token)
            case _:
                _log.warning("dropping a message that is not a wake-up")


def _quiet_celery() -> None:
    """Leaves Celery's warnings and errors, without those that the minder tells in better words."""
    from celery.platforms import SecurityWarning

    for name in ("celery", "kombu", "billiard"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("celery.worker.request", "celery.app.trace", "billiard", "celery.pool", "multiprocessing"):
        logging.getLogger(name).addFilter(lambda record: "exited" not in record.getMessage())
    logging.getLogger("celery.worker.request").addFilter(told_briefly)
    warnings.filterwarnings("ignore", category=SecurityWarning)  # only JSON is accepted, so root is no risk by itself


def told_briefly(record: logging.LogRecord) -> bool:
    """A filter: a wake-up that can't be acknowledged, for the broker is away, is no news that wants a traceback."""
    if record.getMessage().startswith(("Couldn't ack", "Couldn't reject")):
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def _load_operators() -> None:
    """Loads Yarrow's own operators once for all children. Others may be heavy: they are loaded where they are used."""
    for entry in entry_points(group=registry.GROUP):
        if entry.module.startswith("yarrow_operators."):
            registry.operator_class(entry.name)


def check_queues(queues: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raises ConfigError for a queue that the deployment does not have: its tasks would never come."""
    unknown = [queue for queue in queues if queue != ALL_QUEUES and queue not in known]
    if unknown:
        listed = ", ".join(f"`{queue}`" for queue in unknown)
        raise ConfigError(
            f"There is no queue {listed} in this deployment.",
            hint=f"The setting `queues` has {', '.join(known)}; `*` serves those without a worker of their own.",
        )

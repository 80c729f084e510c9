"""`yarrow webserver`: runs the web application under gunicorn."""

from __future__ import annotations

import errno
import gc
import ipaddress
import logging
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from gunicorn.app.base import BaseApplication

from yarrow.config import Config, load_config, reachable
from yarrow.errors import UsageError
from yarrow.processes import die_with_parent
from yarrow.store import Store
from yarrow_webserver.app import create_app

if TYPE_CHECKING:
    from flask import Flask

THREADS = 16
"""Requests answered at once. Each is one short transaction, and SQLite writes one at a time anyway."""

KEEP_ALIVE = 75
"""Seconds an idle connection stays open. Workers keep theirs, and send a heartbeat more often than that."""

PATIENCE = 5
"""Seconds that a request may pause in the middle. Without an end to it, a few slow clients could hold every thread."""

BACKLOG = 512  # connections waiting to be accepted
_CONNECTIONS = 2000  # open at once
_GRACE = 10  # seconds that requests under way may take at the end
_STUCK = 120  # seconds without a sign of life after which gunicorn replaces the process


@click.command()
@click.option("--host", help="The address to listen on. Default: 127.0.0.1, this machine alone.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port to listen on; 0 takes a free one. Default: 8080.")
def webserver(host: str | None, port: int | None) -> None:
    """Run the web server: the pages, the health checks and the Execution API that workers talk to.

    SIGTERM or Ctrl-C lets the requests under way finish and stops it.
    """
    config = load_config(overrides={"host": host, "port": port})
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with listen(config.host, config.port) as listener:
        Store.open(config.database_url).close()  # what is wrong with it is told here, before anything forks
        address = f"http://{reachable(config.host)}:{listener.getsockname()[1]}"
        if not _is_loopback(listener.getsockname()[0]):
            logging.getLogger(__name__).warning(
                "the pages have no login yet: whoever reaches %s can read them", address, extra={"action": "no_login"}
            )
        click.echo(f"listening on {address}")
        gc.collect()
        gc.freeze()  # the collector leaves alone what is there, so that the process forked next shares its memory
        Server(config, listener.detach()).run()


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Raises UsageError when it is not to be had."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except socket.gaierror as error:
        raise UsageError(f"There is no address {host!r} to listen on.") from error
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it. gunicorn itself waits without end for the rest of a request.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", PATIENCE, 0))
        listener.bind(address)
        # Here and not only in gunicorn: on Linux the second of two servers that bind at once finds out by it.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"Port {port} of {host} is in use by another program.", hint="Choose another with --port."
            ) from error
        raise UsageError(f"The web server can't listen on {host}:{port}: {error.strerror}.") from error
    return listener


class Server(BaseApplication):  # type: ignore[misc] # gunicorn is not annotated
    """gunicorn with one process of several threads, which share the store's connections."""

    def __init__(self, config: Config, listener: int) -> None:
        """`listener` is the descriptor of a bound socket, which becomes gunicorn's to close."""
        self._config = config
        self._listener = listener
        super().__init__()

    def load_config(self) -> None:
        """gunicorn's own settings; it reads no file, no environment and no command line."""
        settings: dict[str, Any] = {
            "bind": f"fd://{self._listener}",
            "backlog": BACKLOG,
            "worker_class": "gthread",
            "workers": 1,
            "threads": THREADS,
            "worker_connections": _CONNECTIONS,
            "keepalive": KEEP_ALIVE,
            "timeout": _STUCK,
            "graceful_timeout": _GRACE,
            "accesslog": None,
            "loglevel": "warning",
            "proc_name": "yarrow webserver",
            "control_socket_disable": True,
            "post_fork": _die_with_arbiter(),
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """The application, made in the process that serves it: connections don't survive a fork."""
        return create_app(self._config, Store.open(self._config.database_url))


def _die_with_arbiter() -> Callable[[Any, Any], None]:
    """A hook by which the process that serves ends with gunicorn's own: left alone it would hold the port on."""
    set_death_signal = die_with_parent()

    def after_fork(_arbiter: Any, _worker: Any) -> None:
        if set_death_signal is not None:
            set_death_signal()

    return after_fork


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback

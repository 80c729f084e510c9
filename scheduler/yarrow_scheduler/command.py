"""The command `yarrow scheduler`."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType

import click

from yarrow.config import Config, load_config
from yarrow.errors import ConfigError
from yarrow.executor import Executor
from yarrow.store import Store
from yarrow.tokens import load_or_create_key
from yarrow_scheduler.loop import Scheduler

EXECUTORS = "yarrow.executors"
"""The entry-point group of executors: classes that are made with the broker's URL."""
EXECUTOR = "celery"


@click.command()
@click.option(
    "--dags", "dags_folder", type=click.Path(path_type=Path, file_okay=False), help="The folder of DAG files."
)
def scheduler(dags_folder: Path | None) -> None:
    """Run a scheduler: it looks after the DAG folder, creates runs and wakes workers.

    SIGTERM and Ctrl-C end it after the pass under way. On PostgreSQL several may run, on SQLite one.
    """
    config = load_config(overrides={"dags_folder": dags_folder})
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it would list its plugins
    executor = open_executor(config)
    try:
        store = Store.open(config.database_url)
        try:
            running = Scheduler(config, store, executor, load_or_create_key(config.signing_key_file))
            with stopped_by_signals(running.stop):
                running.run()
        finally:
            store.close()
    finally:
        executor.close()


def open_executor(config: Config) -> Executor:
    """The executor that is installed. Raises ConfigError when there is none, or no broker."""
    broker_url = config.require_broker_url()
    for entry_point in metadata.entry_points(group=EXECUTORS, name=EXECUTOR):
        make: Callable[[str], Executor] = entry_point.load()
        return make(broker_url)
    raise ConfigError(f"The executor `{EXECUTOR}` is not installed.", hint="Install Yarrow as a whole.")


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Calls `stop` on SIGTERM and SIGINT."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

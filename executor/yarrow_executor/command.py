"""`yarrow worker`."""

from __future__ import annotations

import logging
import os
import sys

import click

from yarrow.config import load_config


@click.command()
@click.option(
    "-q",
    "--queues",
    default="*",
    help="The queues to serve, with commas; * serves those without a worker of their own.",
)
@click.option("-c", "--concurrency", type=click.IntRange(1, 1024), help="Slots. Default: the number of cores.")
def worker(queues: str, concurrency: int | None) -> None:
    """Run a Celery worker: it executes the tasks of its queues, each slot one at a time.

    SIGTERM lets running tasks finish for `worker_grace` seconds; those that are stopped then run again elsewhere.
    """
    from yarrow_executor.worker import check_queues, run

    config = load_config(overrides={"worker_concurrency": concurrency})
    names = tuple(dict.fromkeys(name.strip() for name in queues.split(",") if name.strip()))
    check_queues(names, config.queues)
    logging.basicConfig(
        level=config.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    sys.exit(run(config, names or ("*",), config.worker_concurrency or os.cpu_count() or 1))

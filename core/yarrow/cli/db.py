"""`yarrow db`: the metadata database."""

from __future__ import annotations

import click

from yarrow.cli.lazy import LazyGroup
from yarrow.config import load_config
from yarrow.store import Store


@click.group(
    cls=LazyGroup,
    lazy={"prune": ("yarrow.cli.prune:prune", "Delete what ended long ago.")},
)
def db() -> None:
    """Look after the metadata database."""


@db.command()
def upgrade() -> None:
    """Make the database, or bring its schema up to date. `yarrow standalone` does that by itself."""
    config = load_config()
    if config.database_url.startswith("sqlite"):
        config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    before, now = Store.upgrade_database(config.database_url)
    if before == now:
        click.echo(f"The database is up to date (revision {now}).")
    else:
        click.echo(f"The database was upgraded from {f'revision {before}' if before else 'nothing'} to revision {now}.")

"""`yarrow notifications`: what people were told, and whether it arrives."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import click

from yarrow.cli.access import open_store
from yarrow.cli.arguments import LIMIT
from yarrow.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from yarrow.store.records import NotificationRecord


@click.group()
def notifications() -> None:
    """List notifications; try whether one arrives."""


@notifications.command("list")
@click.argument("dag_id", required=False)
@click.option("--failed", is_flag=True, help="Only those that were tried and have not arrived.")
@click.option("--limit", type=LIMIT, default=50, show_default=True, help="How many at most.")
@json_option
def list_notifications(dag_id: str | None, failed: bool, limit: int, as_json: bool) -> None:
    """List the notifications of a DAG, or of all of them, the newest first."""
    from yarrow.notify import shown_target

    with open_store() as store:
        if dag_id:
            store.catalog.dag(dag_id)  # a typo is told, instead of an empty list
        records = store.notifications.list(failed=failed, dag_id=dag_id, limit=limit)
    shown = [(record, shown_target(record.target)) for record in records]
    if as_json:
        print_json([{**record.to_json(), "target": to, "delivery": delivery_of(record)} for record, to in shown])
        return
    rows = [
        (record.id, record.created_at, record.payload["title"], to, delivery_of(record), record.tries, record.error)
        for record, to in shown
    ]
    columns = ("ID", "AT (UTC)", "NOTIFICATION", "TO", "DELIVERY", "TRIES", "ERROR")
    print_table(columns, rows, empty="There is no notification.")


@notifications.command()
@click.argument("target")
@json_option
def test(target: str, as_json: bool) -> None:
    """Send one message to TARGET now: `log`, the id of a connection, or a URL. Exits with 1 if it does not arrive."""
    from yarrow.clock import utc_now
    from yarrow.config import load_config
    from yarrow.errors import Undelivered
    from yarrow.notify import LOG, Sender, shown_target, trial_payload

    error: Undelivered | None = None
    try:
        if target != LOG:
            Sender(load_config(), os.environ).send(f"test-{uuid.uuid4().hex}", target, trial_payload(utc_now()))
    except Undelivered as undelivered:
        error = undelivered
    if as_json:
        print_json({"target": shown_target(target), "delivered": error is None, "error": str(error) if error else None})
        raise SystemExit(0 if error is None else 1)
    if error is not None:
        raise error
    if target == LOG:
        click.echo("`log` is the scheduler's own log: what goes there arrives.")
    else:
        click.echo(f"{shown_target(target)} took the message.")


def delivery_of(record: NotificationRecord) -> str:
    """How far the delivery is, in a word or two."""
    if record.delivered_at is not None:
        return "delivered"
    return "given up" if record.given_up else "waiting"

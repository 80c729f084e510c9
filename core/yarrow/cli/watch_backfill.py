"""Watches a backfill: a bar on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import json
import sys
import time

import click

from yarrow.cli.plan_text import progress_text
from yarrow.clock import utc_now
from yarrow.store import Store
from yarrow.store.records import BackfillRecord

INTERVAL = 0.5
"""Seconds between two looks at the database."""

_OVER = ("completed", "cancelled")


def watch_backfill(store: Store, backfill_id: int, *, as_json: bool) -> int:
    """Shows how a backfill goes until it is over.

    Returns:
        The exit code: 0; 1 when a run failed or it was cancelled; 130 after Ctrl-C, which does not touch the backfill.

    Raises:
        NotFound: There is no such backfill.
    """
    live = sys.stdout.isatty() and not as_json
    try:
        record = _watch_live(store, backfill_id) if live else _watch_lines(store, backfill_id, as_json)
    except KeyboardInterrupt:
        again = f"`yarrow backfill watch {backfill_id}` watches it again, and `cancel` ends it."
        click.echo(f"The backfill {backfill_id} goes on; {again}", err=True)
        return 130
    return 0 if record.state == "completed" and not record.counts.get("failed") else 1


def _watch_lines(store: Store, backfill_id: int, as_json: bool) -> BackfillRecord:
    seen: tuple[object, ...] = ()
    while True:
        record = store.backfills.get(backfill_id)
        now = (record.state, record.left, dict(record.counts))  # without the time to go, which changes all the time
        if now != seen:
            seen = now
            line = f"{utc_now():%H:%M:%S} {progress_text(record)}"
            click.echo(json.dumps(record.to_json()) if as_json else line)
        if record.state in _OVER:
            return record
        time.sleep(INTERVAL)


def _watch_live(store: Store, backfill_id: int) -> BackfillRecord:
    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    def picture(record: BackfillRecord) -> RenderableType:
        bar = ProgressBar(total=1.0, completed=record.progress, width=60)
        return Group(Text(f"Backfill {record.id} of {record.dag_id}: {progress_text(record)}"), bar)

    with Live(refresh_per_second=4) as live:
        while True:
            record = store.backfills.get(backfill_id)
            live.update(picture(record))
            if record.state in _OVER:
                return record
            time.sleep(INTERVAL)

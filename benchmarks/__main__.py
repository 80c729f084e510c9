"""Runs every benchmark and prints the figures as a table, and as JSON with --json FILE."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import backfill, catalog, footprint, runs, semantics
from benchmarks.deployment import standalone
from benchmarks.figure import Figure
from yarrow.version import __version__


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--repeats", type=int, default=5, help="how often throughput and latency are measured")
    parts = ["runs", "backfill", "catalog", "footprint", "semantics"]
    parser.add_argument("--only", choices=parts, help="measure this part alone")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    concurrency = os.cpu_count() or 2
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="yarrow-bench-") as scratch:
        root = Path(scratch)
        if arguments.only in (None, "footprint", "runs", "backfill"):
            console.print("[dim]an embedded deployment: start, idle, wide, chain, plain Celery, backfills ...")
            runs.write_dags(root / "dags")
            backfill.write_dags(root / "dags")
            with standalone(root / "home", root / "dags", concurrency=concurrency) as deployment:
                if arguments.only in (None, "footprint"):
                    figures += footprint.measure(deployment, seconds=20)
                if arguments.only in (None, "runs"):
                    figures += runs.measure(deployment, concurrency=concurrency, repeats=arguments.repeats)
                if arguments.only in (None, "backfill"):
                    figures += backfill.measure(deployment, concurrency=concurrency, repeats=arguments.repeats)
        if arguments.only in (None, "catalog"):
            console.print(f"[dim]{catalog.FILES} DAG files ...")
            catalog.write_dags(root / "many")
            figures += catalog.measure(root / "home-many", root / "many")
    if arguments.only in (None, "backfill"):
        console.print("[dim]ten years of days ...")
        figures += backfill.measure_plans()
    if arguments.only in (None, "semantics"):
        console.print("[dim]simulations, forecasts and catching up ...")
        figures += semantics.measure()
    report = {
        "version": __version__,
        "machine": {"cores": concurrency, "python": platform.python_version(), "system": platform.platform()},
        "figures": [figure.to_json() for figure in figures],
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    Console(width=120).print(table(figures))
    print(json.dumps(report))
    return 0 if all(figure.reached is not False for figure in figures) else 1


def table(figures: list[Figure]) -> Table:
    drawn = Table(title="Yarrow benchmarks", title_justify="left")
    for heading, justify in (("figure", "left"), ("measured", "right"), ("unit", "left"), ("goal", "right")):
        drawn.add_column(heading, justify=justify)  # type: ignore[arg-type]
    drawn.add_column("")
    drawn.add_column("note", style="dim")
    for figure in figures:
        goal = "" if figure.goal is None else f"{'>=' if figure.at_least else '<='} {figure.goal:g}"
        mark = {True: "[green]reached", False: "[red]missed", None: ""}[figure.reached]
        drawn.add_row(figure.name, f"{figure.value:,.2f}", figure.unit, goal, mark, figure.note)
    return drawn


if __name__ == "__main__":
    sys.exit(main())

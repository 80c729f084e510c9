"""`yarrow dags check`: the tests beside DAG files, run by the scheduler's own decisions with no service."""

from __future__ import annotations

import time
from pathlib import Path

import click

from yarrow.cli.output import json_option, print_json
from yarrow.config import load_config
from yarrow.dag_check import CheckResult, check
from yarrow.errors import UsageError
from yarrow.language.faults import Fault
from yarrow.language.fixtures import file_of_tests, load_tests
from yarrow.language.lint import load_paths
from yarrow.language.loader import LoadResult


@click.command("check")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--all", "want_all", is_flag=True, help="A DAG file without tests is a failure.")
@json_option
def dag_check(paths: tuple[Path, ...], want_all: bool, as_json: bool) -> None:
    """Run the tests beside DAG files: `late_flights.tests.yaml` beside `late_flights.yaml`.

    PATHS are DAG files and folders; by default the DAG folder. Nothing is executed, so it takes milliseconds. Exits
    with 1 when a test fails, and with 2 when a file has faults or there is no test.
    """
    results, faults = load_paths(paths or [load_config().dags_folder])
    errors = [fault for fault in faults if fault.severity == "error"]
    found: list[tuple[CheckResult, float]] = []
    untested: list[str] = []
    for result in results:
        checked = _check_file(result, errors)
        found += checked
        if not checked and result.spec is not None:
            untested.append(result.file)
    if errors:
        raise UsageError("\n  ".join(["There are faults:", *(str(fault) for fault in errors)]))
    if not found:
        raise UsageError(
            "There are no tests.", hint="Those of `dag.yaml` stand beside it in `dag.tests.yaml`, under `tests:`."
        )
    failed = [checked for checked, _ in found if not checked.passed]
    if as_json:
        print_json([_as_object(checked, seconds) for checked, seconds in found])
    else:
        _show(found, untested, len(failed))
    raise SystemExit(1 if failed or (want_all and untested) else 0)


def _check_file(result: LoadResult, errors: list[Fault]) -> list[tuple[CheckResult, float]]:
    """The results of the tests beside a DAG file, each with its seconds; faults are added to `errors`."""
    path = file_of_tests(Path(result.file))
    if path is None or result.spec is None:
        return []
    tests, faults = load_tests(path, result.spec)
    errors += faults
    found = []
    for test in tests:
        started = time.perf_counter()
        checked = check(result.spec, test)
        found.append((checked, time.perf_counter() - started))
    return found


def _show(found: list[tuple[CheckResult, float]], untested: list[str], failed: int) -> None:
    for checked, seconds in found:
        test = checked.test
        word = click.style("ok  ", fg="green") if checked.passed else click.style("FAIL", fg="red")
        click.echo(f"{word} {test.file}:{test.line} {test.name} ({seconds * 1000:.0f} ms)")
        for problem in checked.problems:
            click.echo(f"       {problem}")
        for note in checked.notes if checked.problems else ():
            click.echo(f"       note: {note}")
    for file in untested:
        click.echo(f"no tests: {file}", err=True)
    click.echo(f"{len(found) - failed} passed, {failed} failed")


def _as_object(checked: CheckResult, seconds: float) -> dict[str, object]:
    test = checked.test
    return {
        "file": test.file,
        "line": test.line,
        "name": test.name,
        "passed": checked.passed,
        "problems": checked.problems,
        "notes": checked.notes,
        "seconds": seconds,
    }

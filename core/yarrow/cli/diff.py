"""`yarrow dags diff`: what differs by meaning between two versions of a DAG, in files or deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from yarrow.cli.access import open_store
from yarrow.cli.output import print_json
from yarrow.clock import utc_now
from yarrow.config import load_config
from yarrow.differences.dag_diff import dag_diff
from yarrow.differences.impact import impact, named_datasets
from yarrow.differences.markdown import as_markdown
from yarrow.differences.report import Report, Side
from yarrow.differences.text import as_text
from yarrow.errors import NotFound, UsageError
from yarrow.language.files import is_dag_file
from yarrow.language.lint import load_paths

if TYPE_CHECKING:
    from yarrow.store import Store
    from yarrow.store.records import DagRecord, VersionRecord


@click.command("diff")
@click.argument("a")
@click.argument("b", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="How to write it: for a terminal, for a code review, or for a program.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there is a difference.")
def dag_diff_command(a: str, b: str | None, form: str, exit_code: bool) -> None:
    """Show what differs between two versions of a DAG: its tasks, params, settings and schedule, not its text.

    A and B are each a DAG (`late_flights`: the version that new runs get), one of its versions by number or by the
    beginning of its hash (`late_flights@3`, `late_flights@9f3a12`), or a DAG file. A file alone is compared with what
    is deployed under its dag_id, a DAG alone with the version before. Two files need no deployment.

    Comments, the order of keys, and that of tasks and of lists that are sets make no difference. Where a deployment is
    at hand, it also tells which runs and which other DAGs a change touches.
    """
    report = _report(a, b)
    if form == "json":
        print_json(report.to_json())
    else:
        click.echo(as_text(report) if form == "text" else as_markdown(report), nl=False)
    if exit_code and not report.diff.empty:
        raise SystemExit(1)


def _report(a: str, b: str | None) -> Report:
    now = utc_now()
    files = {text: _of_file(text) for text in (a, b) if text is not None and _is_file(text)}
    if b is not None and a in files and b in files:
        old, new = files[a], files[b]
        return Report(old, new, dag_diff(old.spec, new.spec, now), now, notes=_notes(old, new))
    with open_store() as store:
        found = _Sides(store, files)
        old, new = (found.before(a), found.of(a)) if b is None else (found.of(a), found.of(b))
        return _compared(store, old, new, now)


def _compared(store: Store, old: Side, new: Side, now: datetime) -> Report:
    """The comparison, with what it means to the deployment if the new side is what new runs get, or may get."""
    notes, dag_id = _notes(old, new), new.spec.dag_id
    deployed = _record(store, dag_id)
    is_history = new.file is None and deployed is not None and deployed.version != new.spec.version
    if deployed is None or is_history or old.spec.dag_id != dag_id:
        return Report(old, new, dag_diff(old.spec, new.spec, now), now, notes=notes)
    standing, progress = store.versions.standing(dag_id, named_datasets(old.spec, new.spec))
    diff = dag_diff(old.spec, new.spec, now, progress)
    touched = None if diff.empty else impact(old.spec, new.spec, standing)
    return Report(old, new, diff, now, touched, (*notes, *_state_notes(deployed)))


def _record(store: Store, dag_id: str) -> DagRecord | None:
    try:
        return store.catalog.dag(dag_id)
    except NotFound:
        return None


@dataclass(frozen=True, slots=True)
class _Sides:
    """Finds what the arguments name."""

    store: Store
    files: Mapping[str, Side]

    def of(self, text: str) -> Side:
        """What an argument names. Raises NotFound and UsageError."""
        if text in self.files:
            return self.files[text]
        dag_id, at, version = text.partition("@")
        return self._version(self.store.versions.find(dag_id, version)) if at else self._deployed(dag_id)

    def before(self, text: str) -> Side:
        """What a single argument is compared with: a file with what is deployed, a version with the one before.

        After a file was changed back, new runs get an old version again: the newest one was before it.
        """
        side = self.of(text)
        dag_id = side.spec.dag_id
        if side.number is None:
            return self._deployed(dag_id)
        versions = self.store.catalog.versions(dag_id)
        others = [one for one in versions if one.version != side.spec.version]
        older = [one for one in others if one.number < side.number]
        is_back = "@" not in text and versions[0].number != side.number
        if not older and not is_back:
            raise UsageError(
                f"Version {side.number} is the first one of the DAG {dag_id!r}: there is none before it.",
                hint="Name two versions or files to compare.",
            )
        return self._version(others[0] if is_back else older[0])

    def _deployed(self, dag_id: str) -> Side:
        version = self.store.catalog.dag(dag_id).version
        return self._version(next(one for one in self.store.catalog.versions(dag_id) if one.version == version))

    def _version(self, record: VersionRecord) -> Side:
        return Side(self.store.catalog.spec(record.dag_id, record.version), record.number)


def _is_file(text: str) -> bool:
    """Whether an argument is a DAG file. Raises UsageError when it is one by its name, and there is none."""
    path = Path(text)
    if not is_dag_file(path):
        return False
    if not path.is_file():
        raise UsageError(f"There is no file {text}.", hint="A DAG is named by its dag_id, without `.yaml`.")
    return True


def _of_file(text: str) -> Side:
    path, folder = Path(text), load_config().dags_folder.resolve()
    root = folder if path.resolve().is_relative_to(folder) else None
    results, faults = load_paths([path], root=root)
    spec = next((result.spec for result in results), None)
    if spec is None:
        errors = [str(fault) for fault in faults if fault.severity == "error"]
        raise UsageError("\n  ".join([f"{text} has faults.", *errors]))
    return Side(spec, file=text)


def _notes(old: Side, new: Side) -> tuple[str, ...]:
    if old.spec.dag_id == new.spec.dag_id:
        return ()
    return (f"These are two DAGs, `{old.spec.dag_id}` and `{new.spec.dag_id}`: they share no runs.",)


def _state_notes(deployed: DagRecord) -> Iterator[str]:
    if not deployed.is_active:
        yield f"`{deployed.dag_id}` has no file in the DAG folder any more: it starts no runs."
    elif deployed.is_paused:
        yield f"`{deployed.dag_id}` is paused: it starts no runs until it is unpaused."

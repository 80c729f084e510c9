"""Lints DAG files and folders of them, as `yarrow dags lint` does."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from yarrow.language import codes
from yarrow.language.deployment import Known
from yarrow.language.faults import Fault
from yarrow.language.files import dag_files, is_dag_file, shown_path
from yarrow.language.loader import LoadResult, load_file


def lint_paths(
    paths: Iterable[Path | str],
    *,
    root: Path | None = None,
    known_queues: Collection[str] | None = None,
    known_pools: Mapping[str, int] | None = None,
) -> list[Fault]:
    """Returns every fault of the DAG files named, sorted by file and place.

    A YAML file that another one includes with `!file` is a fragment and not judged as a DAG.

    Args:
        paths: Files, and folders that are looked through with their subfolders. One that does not exist is a fault.
        root: The DAG folder, which `!file` may not leave. By default the folder named, or the one that a file is in.
        known_queues, known_pools: What the deployment has; a task that needs another one gets a warning.
    """
    return load_paths(paths, root=root, known=Known(known_queues, known_pools))[1]


def load_paths(
    paths: Iterable[Path | str], *, root: Path | None = None, known: Known | None = None
) -> tuple[list[LoadResult], list[Fault]]:
    """Returns the DAG files named, loaded, and every fault of them, sorted by file and place; `paths` as for lint."""
    faults: list[Fault] = []
    results: dict[str, tuple[LoadResult, str]] = {}  # by real path, with the real path of its root
    for path in map(Path, paths):
        for file, base in _files(path, root, faults):
            real = os.path.realpath(file)
            if real not in results:
                results[real] = load_file(file, base, known=known), os.path.realpath(base)
    fragments = {os.path.join(base, name) for result, base in results.values() for name in result.included}
    kept = [result for real, (result, _) in results.items() if real not in fragments]
    for result in kept:
        faults.extend(result.faults)
    faults.extend(_duplicates(kept))
    return kept, sorted(set(faults))


def _duplicates(results: Iterable[LoadResult]) -> list[Fault]:
    """Returns a fault for each file whose dag_id another file has already, the first by name being in the right."""
    first: dict[str, LoadResult] = {}
    faults: list[Fault] = []
    for result in sorted(results, key=lambda result: result.file):
        if result.dag_id is None:
            continue
        holder = first.setdefault(result.dag_id, result)
        if holder is not result:
            message = f"The dag_id `{result.dag_id}` is used by two files: {holder.file} and {result.file}."
            hint = "Give one of them another `dag_id`."
            faults.append(Fault(result.file, *result.dag_id_place, codes.DUPLICATE_DAG_ID, message, hint))
    return faults


def _files(path: Path, root: Path | None, faults: list[Fault]) -> list[tuple[Path, Path]]:
    """The DAG files that one argument stands for, each with its root."""
    shown = shown_path(path)
    try:
        if path.is_dir():
            return [(file, root or path) for file in dag_files(path, faults)]
        exists = path.exists()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        faults.append(Fault(shown, 1, 1, codes.UNREADABLE, f"The path can't be read: {reason}."))
        return []
    if not exists:
        faults.append(Fault(shown, 1, 1, codes.UNREADABLE, "There is no such file or folder."))
        return []
    if not is_dag_file(path):
        message, hint = "It is not a DAG file by its name.", "DAG files end in `.yaml` or `.yml`."
        faults.append(Fault(shown, 1, 1, codes.UNREADABLE, message, hint))
        return []
    return [(path, root or path.parent)]

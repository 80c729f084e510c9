"""Loads one DAG file: read, check, prove, compile. Every fault of the file is found at once, and nothing is raised."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from yarrow.language import codes
from yarrow.language.deployment import Known
from yarrow.language.drafts import draft_dag
from yarrow.language.faults import Fault, TooManyFaults
from yarrow.language.files import MAX_FILE, Includes, decode, read_bytes, shown_path
from yarrow.language.grammar import DAG_ID_TEXT, ID_RULE
from yarrow.language.nodes import MappingNode, Node, ScalarNode, describe
from yarrow.language.prove import prove_dag
from yarrow.language.reader import read
from yarrow.language.shape import Findings
from yarrow.language.source import Source
from yarrow.language.spec import DagSpec


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What became of one DAG file."""

    file: str  # as it is shown to people
    spec: DagSpec | None  # None when there is an error among the faults
    faults: list[Fault]  # in the order of the file; warnings too
    source: str
    content_hash: str  # SHA-256, hexadecimal, of the file and of all that it includes
    path: str = ""  # relative to the DAG folder
    included: tuple[str, ...] = ()  # the files that `!file` names, there or not, sorted, relative to the DAG folder
    dag_id: str | None = None  # known even when there are faults, if the file is YAML at all
    dag_id_place: tuple[int, int] = (1, 1)


def load_file(path: Path, root: Path, *, known: Known | None = None) -> LoadResult:
    """Loads a DAG file.

    Args:
        path: The file. Faults name it as it is given here.
        root: The DAG folder: `!file` may not leave it.
        known: What the deployment has; tasks that need something else get a warning.
    """
    file = shown_path(path)
    try:
        content = read_bytes(path)
    except ValueError as error:
        return _failed(file, codes.TOO_LARGE, f"The file can't be read: {error}.")
    except FileNotFoundError:
        return _failed(file, codes.UNREADABLE, "There is no such file.")
    except OSError as error:
        return _failed(file, codes.UNREADABLE, f"The file can't be read: {error.strerror or error}.")
    source = decode(content, file)
    if isinstance(source, Fault):
        return LoadResult(file, None, [source], "", hashlib.sha256(content).hexdigest())
    includes = Includes(root, path, file)
    return _load(source, content, includes, os.path.relpath(includes.path, includes.root), known)


def load_text(text: str, file: str, root: Path | None = None, *, known: Known | None = None) -> LoadResult:
    """Loads a DAG from text.

    Args:
        text: The YAML.
        file: What to call it in faults; its stem is the default dag_id.
        root: The DAG folder that `!file` is relative to; without it `!file` is a fault.
    """
    content = text.encode("utf-8", "surrogatepass")
    if len(content) > MAX_FILE:
        return _failed(file, codes.TOO_LARGE, f"The file is larger than {MAX_FILE // 1024 // 1024} MiB.")
    includes = None if root is None else Includes(root, root / file, file)
    return _load(Source(file, text.removeprefix("\ufeff")), content, includes, file, known)


def _load(source: Source, content: bytes, includes: Includes | None, path: str, known: Known | None) -> LoadResult:
    found = Findings()
    spec, dag_id, place = None, None, (1, 1)
    with contextlib.suppress(TooManyFaults):
        tree = read(source, found.faults, includes.follow if includes is not None else None)
        if isinstance(tree, MappingNode):
            dag_id, place = _dag_id(tree, source, found)
            draft = draft_dag(tree, found)
            spec = prove_dag(draft, dag_id or "", known or Known(), found.faults)
        elif not found.faults:
            found.faults.append(_not_a_mapping(tree, source))
    digest = hashlib.sha256(content)
    included: tuple[str, ...] = ()
    if includes is not None:
        for name in sorted(includes.contents):
            digest.update(hashlib.sha256(includes.contents[name]).digest())
        included = tuple(sorted(os.path.relpath(name, includes.root) for name in includes.named))
    faults = sorted(set(found.faults), key=lambda fault: (fault.file != source.file, fault))
    return LoadResult(source.file, spec, faults, source.text, digest.hexdigest(), path, included, dag_id, place)


def _dag_id(tree: MappingNode, source: Source, found: Findings) -> tuple[str | None, tuple[int, int]]:
    """The dag_id and its place: the key's, or the file's stem. A wrong key has its fault already."""
    given = tree.entries.get("dag_id")
    if given is not None:
        quiet = Findings()
        value = DAG_ID_TEXT.check(given, quiet)
        return (value if not quiet.faults and isinstance(value, str) else None), (given.line, given.column)
    stem = Path(source.file).stem.strip("<>")  # a text that is no file is called `<text>`
    if DAG_ID_TEXT.problem(stem) is not None:
        message = f"The name of the file, {describe(stem)}, can't be a dag_id."
        found.faults.append(source.fault((1, 1), codes.BAD_ID, message, f"Add `dag_id:`; it {ID_RULE}."))
        return None, (1, 1)
    return stem, (1, 1)


def _not_a_mapping(tree: Node | None, source: Source) -> Fault:
    if tree is None or (isinstance(tree, ScalarNode) and tree.value is None):
        return source.fault((1, 1), codes.EMPTY, "The file is empty.", "A DAG needs at least `tasks:`.")
    return tree.fault(codes.WRONG_TYPE, f"A DAG file is a mapping of keys such as `tasks:`, not {describe(tree)}.")


def _failed(file: str, code: str, message: str) -> LoadResult:
    return LoadResult(file, None, [Fault(file, 1, 1, code, message)], "", hashlib.sha256(b"").hexdigest())

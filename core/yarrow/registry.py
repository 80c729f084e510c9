"""Finds operators by the name that a DAG file uses: the entry points of group `yarrow.operators`, loaded on demand."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points

from yarrow.errors import BrokenOperator, NotFound
from yarrow.operator import Operator

GROUP = "yarrow.operators"
DISTRIBUTION = "yarrow"

_loaded: dict[str, type[Operator]] = {}
_broken: dict[str, BrokenOperator] = {}


def operator_names() -> list[str]:
    """Returns the names of all operators, sorted. Nothing is imported for it."""
    return sorted({*_entry_points()[0], *_loaded})


def operator_class(name: str) -> type[Operator]:
    """Returns the operator of that name; it is imported when it is asked for the first time.

    Raises:
        NotFound: There is none; the hint names the nearest.
        BrokenOperator: It is installed, but its module can't be imported or is not an operator.
    """
    found = _loaded.get(name)
    if found is not None:
        return found
    if name in _broken:
        raise _broken[name]
    entry_point = _entry_points()[0].get(name)
    if entry_point is None:
        raise NotFound(f"There is no operator `{name}`.", hint=_nearest(name))
    try:
        loaded = _load(entry_point)
    except BrokenOperator as error:
        _broken[name] = error
        raise
    return _loaded.setdefault(name, loaded)


def operator_version(name: str) -> str:
    """Returns the version of the package that an operator comes from; empty when it was registered without one."""
    entry_point = _entry_points()[0].get(name)
    return entry_point.dist.version if entry_point is not None and entry_point.dist is not None else ""


def problems() -> list[str]:
    """Returns a sentence for each name that was refused and for each operator that could not be loaded so far."""
    return [*_entry_points()[1], *(error.message for error in _broken.values())]


@contextmanager
def register(name: str, operator: type[Operator]) -> Iterator[None]:
    """Makes an operator known under a name for a while, above any other of that name: for tests."""
    before = _loaded.get(name)
    _loaded[name] = operator
    try:
        yield
    finally:
        if before is None:
            _loaded.pop(name, None)
        else:
            _loaded[name] = before


def refresh() -> None:
    """Forgets what was found, so that packages installed since are seen."""
    _entry_points.cache_clear()
    _loaded.clear()
    _broken.clear()


@functools.cache
def _entry_points() -> tuple[dict[str, EntryPoint], list[str]]:
    return _choose(list(entry_points(group=GROUP)))


def _choose(candidates: list[EntryPoint]) -> tuple[dict[str, EntryPoint], list[str]]:
    """One entry point a name: Yarrow's own first, then by the distribution's name, the same on every machine."""
    candidates.sort(
        key=lambda entry: (entry.name, _distribution(entry) != DISTRIBUTION, _distribution(entry), entry.value)
    )
    chosen: dict[str, EntryPoint] = {}
    refused: list[str] = []
    for entry in candidates:
        first = chosen.setdefault(entry.name, entry)
        if first.value != entry.value:
            refused.append(
                f"The operator `{entry.name}` of package `{_distribution(entry)}` is ignored: "
                f"`{_distribution(first)}` already has one of that name."
            )
    return chosen, refused


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else ""


def _load(entry: EntryPoint) -> type[Operator]:
    where = f"The operator `{entry.name}` of package `{_distribution(entry)}`"
    try:
        loaded = entry.load()
    except Exception as error:  # a third party's module may raise anything, and must not stop the others
        raise BrokenOperator(f"{where} can't be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Operator)):
        raise BrokenOperator(f"{where} can't be used: `{entry.value}` is not a subclass of yarrow.Operator.")
    return loaded


def _nearest(name: str) -> str:
    names = operator_names()
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"There are: {', '.join(names)}." if names else "No operator is installed."

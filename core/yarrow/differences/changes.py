"""What changed between two JSON values, path by path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

from yarrow.differences.values import json_text, same_json
from yarrow.jsontypes import Json

_SHORT: Final = 200
"""Characters, as JSON, of a list of plain values that is told as a whole."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value that is another one, at the path to it: `retries`, `with.steps[2].name`."""

    path: str
    kind: str  # added, removed or changed
    old: Json = None  # of an added one nothing
    new: Json = None  # of a removed one nothing

    def to_json(self) -> dict[str, Any]:
        """`{path, kind, old, new}`; an added value has no `old`, a removed one no `new`."""
        data: dict[str, Any] = {"path": self.path, "kind": self.kind}
        if self.kind != "added":
            data["old"] = self.old
        if self.kind != "removed":
            data["new"] = self.new
        return data


def changes(path: str, old: Any, new: Any) -> Iterator[Change]:
    """What changed from one JSON value to another; nothing when they are the same."""
    if same_json(old, new):
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _of_mappings(path, old, new)
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and not (_short(old) and _short(new)):
        yield from _of_lists(path, old, new)
    else:
        yield Change(path, "changed", old, new)


def _of_mappings(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for key in [*old, *(key for key in new if key not in old)]:
        inside = _join(path, key)
        if key not in new:
            yield Change(inside, "removed", old=old[key])
        elif key not in old:
            yield Change(inside, "added", new=new[key])
        else:
            yield from changes(inside, old[key], new[key])


def _of_lists(path: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[Change]:
    if len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from changes(f"{path}[{place}]", one, other)
        return
    for gone, come in _blocks([json_text(item) for item in old], [json_text(item) for item in new]):
        yield from (Change(f"{path}[{place}]", "removed", old=old[place]) for place in gone)
        yield from (Change(f"{path}[{place}]", "added", new=new[place]) for place in come)


def _blocks(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[range, range]]:
    """The places that differ, always compared from the shorter list to the longer one: the same both ways."""
    swapped = len(old) > len(new)
    first, second = (new, old) if swapped else (old, new)
    for tag, i, j, k, m in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if tag != "equal":
            yield (range(k, m), range(i, j)) if swapped else (range(i, j), range(k, m))


def _short(value: Sequence[Any]) -> bool:
    return not any(isinstance(item, Mapping | list | tuple) for item in value) and len(json_text(value)) <= _SHORT


def _join(path: str, key: str) -> str:
    plain = key.replace("_", "").replace("-", "").isalnum()
    if not plain:
        return f"{path}[{json_text(key)}]"
    return f"{path}.{key}" if path else key

"""Mapped tasks: which values a task is mapped over, and which XComs each of its instances sees."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import TypeAlias

from yarrow.errors import TemplateError
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.language.template import compile_expression, render_value

Instance: TypeAlias = tuple[str, int]
"""A task instance within its run: the id of its task and its map index, -1 when the task is not mapped."""


def expand(task: TaskSpec, names: Mapping[str, object]) -> list[Mapping[str, Json]]:
    """Returns what `map` stands for in each instance of a mapped task: the cross product of its `expand`.

    The first name changes slowest. A mapping counts as the list of its entries, `{"key":, "value":}` each.

    Args:
        task: A mapped task.
        names: What the templates of `expand` may name.

    Raises:
        TemplateError: A value can't be rendered or is no list, or there are more than `max_map_length`.
    """
    assert task.expand is not None
    lists = {name: _list(name, value, names) for name, value in task.expand.items()}
    count = math.prod(len(values) for values in lists.values())
    if count > task.max_map_length:
        raise TemplateError(
            f"`expand` gives {count_in_words(count)} task instances, "
            f"more than `max_map_length` ({task.max_map_length:,}) allows."
        )
    return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]


def _list(name: str, value: Json, names: Mapping[str, object]) -> Sequence[Json]:
    try:
        rendered: object = render_value(value, names)
    except TemplateError as error:
        raise TemplateError(f"`expand.{name}` can't be evaluated: {error}") from None
    if isinstance(rendered, Mapping):
        return [{"key": key, "value": item} for key, item in rendered.items()]
    if isinstance(rendered, Sequence) and not isinstance(rendered, str):
        return rendered
    raise TemplateError(f"`expand.{name}` is {rendered!r:.80}, which is no list.")


def count_in_words(count: int) -> str:
    """A number of instances, for a sentence; a cross product may be longer than any sentence."""
    return f"{count:,}" if count < 10**12 else "over a trillion"


def names_map(expression: str) -> bool:
    """Whether an expression such as `when` names `map`, so that it has a value for each instance of its own."""
    return any(path[0] == "map" for path in compile_expression(expression).names)


def decided_by_value(task: TaskSpec) -> bool:
    """Whether what becomes of an instance of a mapped task, before it begins, may depend on what `map` stands for."""
    return task.operator == "approval" or (task.when is not None and names_map(task.when))


def visible_xcoms(
    spec: DagSpec, reader: Instance, task_ids: Collection[str], found: Mapping[Instance, Json]
) -> dict[str, Json]:
    """Returns the XComs as one task instance sees them; a task that has none is absent.

    The XCom of a mapped task is the list of those of its instances, in the order of their indexes, without those that
    have none. Within a mapped group an instance sees those of its own index alone.

    Args:
        reader: The instance that names them.
        task_ids: The tasks that it names.
        found: The XComs of instances that succeeded.
    """
    task_id, map_index = reader
    visible: dict[str, Json] = {}
    for name in task_ids:
        upstream = spec.tasks[name]
        if not upstream.mapped:
            index: int | None = -1
        elif upstream.map_group is not None and upstream.map_group == spec.tasks[task_id].map_group:
            index = map_index
        else:
            index = None
        if index is not None:
            if (name, index) in found:
                visible[name] = found[name, index]
            continue
        places = sorted(place for other, place in found if other == name and place >= 0)
        visible[name] = [found[name, place] for place in places]
    return visible


class Xcoms:
    """All XComs of a run, as its task instances see them; what `visible_xcoms` tells of one is prepared for many."""

    def __init__(self, spec: DagSpec, found: Mapping[Instance, Json]) -> None:
        self._spec = spec
        self._found = found
        self._outside: dict[str, Json] | None = None
        self._beside_group: dict[str, dict[str, Json]] = {}

    def seen_by(self, task: TaskSpec, map_index: int) -> Mapping[str, Json]:
        """What an instance of a task sees, of every task that there is an XCom of."""
        if self._outside is None:
            self._outside = self._seen_from_outside()
        group_id = task.map_group
        if group_id is None:
            return self._outside
        members = self._spec.map_groups[group_id]
        if group_id not in self._beside_group:
            self._beside_group[group_id] = {k: v for k, v in self._outside.items() if k not in members}
        own = {name: self._found[name, map_index] for name in members if (name, map_index) in self._found}
        return {**self._beside_group[group_id], **own}

    def _seen_from_outside(self) -> dict[str, Json]:
        mapped = self._spec.mapped_tasks
        if not mapped:
            return {name: value for (name, _), value in self._found.items()}
        lists: dict[str, list[Json]] = {name: [] for name in mapped}
        seen: dict[str, Json] = {}
        for name, index in sorted(self._found):
            if name not in lists:
                seen[name] = self._found[name, index]
            elif index >= 0:
                lists[name].append(self._found[name, index])
        return {**seen, **lists}

"""Mapped tasks: which values a task is mapped over, and which XComs each of its instances sees."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import TypeAlias

from yarrow.errors import TemplateError
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.language.template import compile_template

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
            f"`expand` gives {count:,} task instances, more than `max_map_length` ({task.max_map_length:,}) allows."
        )
    return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]


def _list(name: str, value: Json, names: Mapping[str, object]) -> Sequence[Json]:
    rendered: object = compile_template(value).render(names) if isinstance(value, str) else value
    if isinstance(rendered, Mapping):
        return [{"key": key, "value": item} for key, item in rendered.items()]
    if isinstance(rendered, Sequence) and not isinstance(rendered, str):
        return rendered
    raise TemplateError(f"`expand.{name}` is {rendered!r:.80}, which is no list.")


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

"""Shapes of what a task or a DAG says about its runs: whom to tell, deadlines, kinds of errors, what to map over."""

from __future__ import annotations

import re
from typing import Any, Final

from yarrow.language import codes
from yarrow.language.containers import Field, ListOf, Record, Union
from yarrow.language.nodes import BrokenNode, MappingNode, Node, ScalarNode, SequenceNode, data, describe
from yarrow.language.scalars import Boolean, Duration, Enum, Text
from yarrow.language.shape import FRAGMENT_PATTERN, INVALID, Findings, Problem, Schema, Shape

MAP_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]{0,99}"

DATASET: Final = Text(
    pattern=r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,249}",
    rule="has up to 250 letters, digits, `_`, `-`, `.`, `/` and `:`, and begins with a letter, a digit or `_`",
)
"""The name of a data set."""

ERROR_KINDS: Final = ListOf(
    Text(
        pattern=r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*",
        rule="names a class of errors, such as `TimeoutError`, or `Timeout`, `ExitCode.99` or `HttpStatus.503`",
    )
)

_TARGET: Final = Text(
    pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}|[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#]\S{0,1999}",
    rule="is `log`, the id of a connection, or a URL such as `https://example.org/hook`",
)
TARGETS: Final = Union([_TARGET, ListOf(_TARGET)])
"""Whom to tell: one or several."""

DEADLINE: Final = Union(
    [
        Duration(seconds=True),
        Record(
            {
                "after": Field(Duration(seconds=True), required=True, doc="How long after that."),
                "from": Field(
                    Enum(("logical_date", "data_interval_end", "queued_at", "average")),
                    default="logical_date",
                    doc="What it is counted from: the logical date, the end of the data interval or the moment when the"
                    " run was queued; `average`: from when the run was queued, over the mean time of past runs.",
                ),
            }
        ),
    ]
)

CACHE: Final = Union(
    [
        Boolean(),
        Record(
            {
                "ttl": Field(
                    Duration(seconds=True, positive=True), doc="How old a result may be; without it, any age."
                ),
                "key": Field(
                    Text(nonempty=True, template=True),
                    doc="A template that stands for the inputs of the task in place of its rendered parameters.",
                ),
            }
        ),
    ]
)


class Expansion(Shape):
    """What a task is mapped over: names, and a list or a template of one for each."""

    __slots__ = ()
    words = "a mapping of names to lists"

    def takes_braces(self) -> bool:
        return True  # as a whole it is no text at all, which is told

    def problem(self, value: Any) -> Problem | None:
        return None if isinstance(value, dict) else self.wrong_type(value)

    def type_hint(self, value: Any) -> str | None:
        if isinstance(value, str) and "{{" in value:
            return 'Give the list a name: `expand: {item: "{{ ... }}"}`. The templates of the task then say `map.item`.'
        return "Give the list a name: `expand: {item: [...]}`. The templates of the task then say `map.item`."

    def check_node(self, node: Node, found: Findings, name: str) -> Any:
        if not isinstance(node, MappingNode):
            return super().check_node(node, found, name)
        if not node.entries:
            found.faults.append(node.fault(codes.BAD_VALUE, f"{name} must not be empty.", self.type_hint(node)))
            return INVALID
        values = {key: self._check_item(node, key, found) for key in node.entries}
        return INVALID if any(value is INVALID for value in values.values()) else values

    def _check_item(self, node: MappingNode, key: str, found: Findings) -> Any:
        item = node.entries[key]
        if isinstance(item, BrokenNode):
            return INVALID
        if re.fullmatch(MAP_NAME, key) is None:
            message = f"`expand`: the name `{key[:100]}` is not allowed."
            hint = "Use letters, digits and `_`: templates say `map.name`."
            found.faults.append(node.keys[key].fault(codes.BAD_ID, message, hint))
            return INVALID
        if isinstance(item, ScalarNode):
            if isinstance(item.value, str) and "{{" in item.value:
                return item.value  # looked at with the other templates
            found.faults.append(_no_list(item, key))
            return INVALID
        template = _template_within(item)
        if template is not None:
            message = f"`expand.{key}`: in a list that is written out nothing is rendered."
            hint = 'Make the whole value one template, such as "{{ [params.a, params.b] }}".'
            found.faults.append(template.fault(codes.NO_TEMPLATE_HERE, message, hint))
            return INVALID
        return data(item)

    def json_schema(self) -> Schema:
        value: Schema = {"anyOf": [{"type": ["array", "object"]}, {"type": "string", "pattern": FRAGMENT_PATTERN}]}
        return {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": f"^(?:{MAP_NAME})$"},
            "additionalProperties": value,
        }


EXPANSION: Final = Expansion()


def _no_list(item: ScalarNode, key: str) -> Any:
    message = f"`expand.{key}` is never a list: it is {describe(item)}."
    hint = None
    if isinstance(item.value, str):
        hint = f'If it is an expression, put it in braces: "{{{{ {item.value[:40]} }}}}".'
    return item.fault(codes.NEVER_A_LIST, message, hint)


def _template_within(node: Node) -> ScalarNode | None:
    """The first text with braces in a list or mapping."""
    if isinstance(node, ScalarNode):
        return node if isinstance(node.value, str) and "{{" in node.value else None
    items: list[Node] = []
    if isinstance(node, SequenceNode):
        items = node.items
    elif isinstance(node, MappingNode):
        items = list(node.entries.values())
    return next((found for item in items if (found := _template_within(item)) is not None), None)

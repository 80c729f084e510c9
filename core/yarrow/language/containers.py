"""Shapes of lists and mappings, of any data, and of unions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yarrow.language import codes
from yarrow.language.faults import Fault, TooManyFaults
from yarrow.language.nodes import BrokenNode, MappingNode, Node, ScalarNode, SequenceNode, data
from yarrow.language.scalars import Enum
from yarrow.language.shape import (
    FRAGMENT_PATTERN,
    INVALID,
    Findings,
    Problem,
    Schema,
    Shape,
    Site,
    check_keys_are_plain,
    note_connection,
    unknown_key,
)


class AnyJson(Shape):
    """Any data."""

    __slots__ = ()
    words = "anything"

    def takes_braces(self) -> bool:
        return True

    def check_node(self, node: Node, found: Findings, name: str) -> Any:
        if self.template:
            self._collect(node, found)
        return data(node)

    def _collect(self, node: Node, found: Findings) -> None:
        if isinstance(node, ScalarNode):
            if isinstance(node.value, str) and ("{{" in node.value or "{%" in node.value):
                found.sites.append(Site(node, "template"))
        elif isinstance(node, SequenceNode):
            for item in node.items:
                self._collect(item, found)
        elif isinstance(node, MappingNode):
            check_keys_are_plain(node, found)
            for value in node.entries.values():
                self._collect(value, found)

    def field(self, name: str) -> Shape | None:
        return None

    def json_schema(self) -> Schema:
        return {}


class ListOf(Shape):
    """A list, each item of one shape."""

    __slots__ = ("item", "minimum")
    words = "a list"

    def __init__(self, item: Shape, *, template: bool = False, minimum: int = 0) -> None:
        super().__init__(template)
        self.item = item
        self.minimum = minimum

    def check_node(self, node: Node, found: Findings, name: str) -> Any:
        if not isinstance(node, SequenceNode):
            return super().check_node(node, found, name)
        if len(node.items) < self.minimum:
            found.faults.append(node.fault(codes.BAD_VALUE, f"{name} must not be empty."))
            return INVALID
        values = [self.item.check(item, found, f"{name}[{place}]") for place, item in enumerate(node.items)]
        return INVALID if any(value is INVALID for value in values) else values

    def check_value(self, value: Any, name: str = "the value") -> list[str]:
        if not isinstance(value, list | tuple):
            return super().check_value(value, name)
        return [text for place, item in enumerate(value) for text in self.item.check_value(item, f"{name}[{place}]")]

    def problem(self, value: Any) -> Problem | None:
        return None if isinstance(value, list | tuple) and len(value) >= self.minimum else self.wrong_type(value)

    def type_hint(self, value: Any) -> str | None:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return f"Write a list of one: [{value}]." if len(str(value)) <= 40 else "Write a list of one."
        return None

    def field(self, name: str) -> Shape | None:
        if re.fullmatch(r"-?\d+", name, re.ASCII):
            return self.item
        raise KeyError(name)

    def json_schema(self) -> Schema:
        schema: Schema = {"type": "array", "items": self.item.json_schema()}
        if self.minimum:
            schema["minItems"] = self.minimum
        return self.or_template(schema, FRAGMENT_PATTERN)


class TupleOf(Shape):
    """A list of so many items, each with its own shape."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[Shape], *, template: bool = False) -> None:
        super().__init__(template)
        self.items = tuple(items)

    def expects(self) -> str:
        return f"a list of {len(self.items)} items"

    def check_node(self, node: Node, found: Findings, name: str) -> Any:
        if not isinstance(node, SequenceNode) or len(node.items) != len(self.items):
            found.faults.append(node.fault(*_with_name(name, self.wrong_type(data(node)))))
            return INVALID
        values = [
            shape.check(item, found, f"{name}[{place}]")
            for place, (shape, item) in enumerate(zip(self.items, node.items, strict=True))
        ]
        return INVALID if any(value is INVALID for value in values) else values

    def check_value(self, value: Any, name: str = "the value") -> list[str]:
        problem = self.problem(value)
        if problem is not None:
            return [f"{name} {problem[1]}"]
        pairs = enumerate(zip(self.items, value, strict=True))
        return [text for place, (shape, item) in pairs for text in shape.check_value(item, f"{name}[{place}]")]

    def problem(self, value: Any) -> Problem | None:
        return None if isinstance(value, list | tuple) and len(value) == len(self.items) else self.wrong_type(value)

    def field(self, name: str) -> Shape | None:
        if name.isdecimal() and int(name) < len(self.items):
            return self.items[int(name)]
        raise KeyError(name)

    def json_schema(self) -> Schema:
        items = [shape.json_schema() for shape in self.items]
        schema: Schema = {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
        return self.or_template(schema, FRAGMENT_PATTERN)


class MapOf(Shape):
    """A mapping with any keys, each value of one shape."""

    __slots__ = ("value",)
    words = "a mapping"

    def __init__(self, value: Shape, *, template: bool = False) -> None:
        super().__init__(template)
        self.value = value

    def check_node(self, node: Node, found: Findings, name: str) -> Any:
        if not isinstance(node, MappingNode):
            return super().check_node(node, found, name)
        check_keys_are_plain(node, found)
        values = {key: self.value.check(item, found, f"{name}.{key}") for key, item in node.entries.items()}
        return INVALID if any(value is INVALID for value in values.values()) else values

    def check_value(self, value: Any, name: str = "the value") -> list[str]:
        if not isinstance(value, Mapping):
            return super().check_value(value, name)
        return [text for key, item in value.items() for text in self.value.check_value(item, f"{name}.{key}")]

    def problem(self, value: Any) -> Problem | None:
        return None if isinstance(value, Mapping) else self.wrong_type(value)

    def field(self, name: str) -> Shape | None:
        return self.value

    def json_schema(self) -> Schema:
        schema = {"type": "object", "additionalProperties": self.value.json_schema()}
        return self.or_template(schema, FRAGMENT_PATTERN)


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a record."""

    shape: Shape
    required: bool = False
    doc: str | None = None
    default: Any = None
    examples: tuple[Any, ...] = ()


class Record(Shape):
    """A mapping with known keys."""

    __slots__ = ("fields",)
    words = "a mapping"

    def __init__(self, fields: Mapping[str, Field], *, template: bool = False) -> None:
        super().__init__(template)
        self.fields = fields

    def check_node(self, node: Node, found: Findings, name: str) -> Any:
        if not isinstance(node, MappingNode):
            return super().check_node(node, found, name)
        before = len(found.faults)
        values: dict[str, Any] = {}
        for key, item in node.entries.items():
            known = self.fields.get(key)
            if known is None:
                found.faults.append(unknown_key(node, key, self.fields))
                continue
            values[key] = known.shape.check(item, found, f"{name}.{key}")
            note_connection(key, item, found)
        for key, known in self.fields.items():
            if known.required and key not in node.entries:
                found.faults.append(node.fault(codes.MISSING_KEY, f"{name} needs the key `{key}`."))
        return INVALID if len(found.faults) > before or INVALID in values.values() else values

    def check_value(self, value: Any, name: str = "the value") -> list[str]:
        if not isinstance(value, Mapping):
            return super().check_value(value, name)
        problems = [f"{name} has no key `{key}`" for key in value if key not in self.fields]
        for key, known in self.fields.items():
            if key in value:
                problems += known.shape.check_value(value[key], f"{name}.{key}")
            elif known.required:
                problems.append(f"{name} needs the key `{key}`")
        return problems

    def problem(self, value: Any) -> Problem | None:
        return None if isinstance(value, Mapping) else self.wrong_type(value)

    def field(self, name: str) -> Shape | None:
        return self.fields[name].shape

    def json_schema(self) -> Schema:
        return self.or_template(record_schema(self.fields), FRAGMENT_PATTERN)


class Union(Shape):
    """A value of one of several shapes; the first that fits is taken."""

    __slots__ = ("options", "tag")

    def __init__(self, options: Sequence[Shape], *, template: bool = False) -> None:
        super().__init__(template)
        self.options = tuple(options)
        self.tag = _tag(self.options)  # the key that tells which of several records is meant

    def expects(self) -> str:
        words = list(dict.fromkeys(option.expects() for option in self.options))
        return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]

    def takes_braces(self) -> bool:
        return any(option.takes_braces() for option in self.options)

    def check_node(self, node: Node, found: Findings, name: str) -> Any:
        if self.tag is not None and isinstance(node, MappingNode) and self.tag in node.entries:
            return self._check_tagged(node, self.tag, found, name)
        best: tuple[int, Findings] | None = None
        for option in self.options:
            trial = Findings()
            try:
                value = option.check_node(node, trial, name)
            except TooManyFaults:  # of this option; whether they are the file's is not decided yet
                value = INVALID
            if value is not INVALID:
                found.sites.extend(trial.sites)
                return value
            # An option of the right kind tells what is wrong inside; one of another kind only that it is another.
            inside = [item for item in trial.faults if item.code != codes.WRONG_TYPE or _is_inside(item, node)]
            if inside and (best is None or len(trial.faults) < best[0]):
                best = len(trial.faults), trial
        if best is not None:
            found.faults.extend(best[1].faults)
        elif not _has_broken(node):
            value = node.value if isinstance(node, ScalarNode) else data(node)
            found.faults.append(node.fault(*_with_name(name, self.wrong_type(value))))
        return INVALID

    def _check_tagged(self, node: MappingNode, tag: str, found: Findings, name: str) -> Any:
        records = [option for option in self.options if isinstance(option, Record)]
        chosen = node.entries[tag]
        if isinstance(chosen, ScalarNode):
            for record in records:
                if record.fields[tag].shape.problem(chosen.value) is None:
                    return record.check_node(node, found, name)
        return Enum(_tag_values(records, tag)).check(chosen, found, f"{name}.{tag}")

    def check_value(self, value: Any, name: str = "the value") -> list[str]:
        if self.tag is not None and isinstance(value, Mapping) and self.tag in value:
            records = [option for option in self.options if isinstance(option, Record)]
            for record in records:
                if record.fields[self.tag].shape.problem(value[self.tag]) is None:
                    return record.check_value(value, name)
            return Enum(_tag_values(records, self.tag)).check_value(value[self.tag], f"{name}.{self.tag}")
        trials = [option.check_value(value, name) for option in self.options]
        if [] in trials:
            return []
        inside = [trial for option, trial in zip(self.options, trials, strict=True) if option.problem(value) is None]
        return min(inside, key=len) if inside else [f"{name} {self.wrong_type(value)[1]}"]

    def problem(self, value: Any) -> Problem | None:
        return None if any(option.problem(value) is None for option in self.options) else self.wrong_type(value)

    def type_hint(self, value: Any) -> str | None:
        return next((hint for option in self.options if (hint := option.type_hint(value)) is not None), None)

    def field(self, name: str) -> Shape | None:
        found: list[Shape] = []
        for option in self.options:
            try:
                inner = option.field(name)
            except KeyError:
                continue
            if inner is None:
                return None
            found.append(inner)
        if not found:
            raise KeyError(name)
        return found[0] if len(found) == 1 else Union(found)

    def json_schema(self) -> Schema:
        return {"anyOf": [option.json_schema() for option in self.options]}


def record_schema(fields: Mapping[str, Field]) -> Schema:
    """The JSON Schema of a mapping with these keys and no others."""
    properties: Schema = {}
    for name, known in fields.items():
        schema = dict(known.shape.json_schema())
        if known.doc is not None:
            schema["description"] = known.doc
        if known.default is not None:
            schema["default"] = known.default
        if known.examples:
            schema["examples"] = list(known.examples)
        properties[name] = schema
    result: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [name for name, known in fields.items() if known.required]
    if required:
        result["required"] = required
    return result


def _tag(options: Sequence[Shape]) -> str | None:
    """The key that all the records among the options have as an enumeration, with different values."""
    records = [option for option in options if isinstance(option, Record)]
    for name in records[0].fields if len(records) > 1 else ():
        shapes = [record.fields[name].shape if name in record.fields else None for record in records]
        if all(isinstance(shape, Enum) for shape in shapes):
            values = _tag_values(records, name)
            if len(set(values)) == len(values):
                return name
    return None


def _tag_values(records: Sequence[Record], tag: str) -> list[str | int | bool | None]:
    return [
        value for record in records if isinstance(shape := record.fields[tag].shape, Enum) for value in shape.values
    ]


def _with_name(name: str, problem: Problem) -> tuple[str, str, str | None]:
    code, sentence, hint = problem
    return code, f"{name} {sentence}", hint


def _is_inside(fault: Fault, node: Node) -> bool:
    return (fault.file, fault.line, fault.column) != (node.source.file, node.line, node.column)


def _has_broken(node: Node) -> bool:
    if isinstance(node, SequenceNode):
        return any(_has_broken(item) for item in node.items)
    if isinstance(node, MappingNode):
        return any(_has_broken(item) for item in node.entries.values())
    return isinstance(node, BrokenNode)

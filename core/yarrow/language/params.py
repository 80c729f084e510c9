"""The params of a DAG: each is a piece of JSON Schema with a default, out of a safe part of that language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from yarrow.jsontypes import Json
from yarrow.language import codes
from yarrow.language.containers import AnyJson, Field, ListOf, MapOf, Union, record_schema
from yarrow.language.nodes import MappingNode, Node, describe
from yarrow.language.scalars import Boolean, Enum, Number, Text
from yarrow.language.shape import INVALID, Findings, Schema, Shape, did_you_mean, unknown_key

PARAM_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_TYPES: Final = ("string", "number", "integer", "boolean", "array", "object", "null")
_REFUSED: Final[Mapping[str, str]] = {
    "pattern": "A regular expression can be made to run for hours; use `enum`, `format` or length limits.",
    "patternProperties": "A regular expression can be made to run for hours; use `properties`.",
    "$ref": "Write the schema out.",
    "uniqueItems": "It takes too long on large lists.",
    "not": "Say what is allowed instead.",
}


class ParamSchema(Shape):
    """One JSON Schema."""

    __slots__ = ()
    words = "a JSON Schema, such as `{type: number, default: 0.5}`"

    def check_node(self, node: Node, found: Findings, name: str) -> Any:
        if not isinstance(node, MappingNode):
            hint = "Write `{default: ...}`."
            message = f"{name} must be {self.words}, not {describe(node)}."
            found.faults.append(node.fault(codes.WRONG_TYPE, message, hint))
            return INVALID
        before = len(found.faults)
        values: dict[str, Any] = {}
        for key, item in node.entries.items():
            known = _KEYWORDS.get(key)
            if known is None:
                found.faults.append(_unknown_keyword(node, key))
            else:
                values[key] = known.shape.check(item, found, f"{name}.{key}")
        return INVALID if len(found.faults) > before or INVALID in values.values() else values

    def json_schema(self) -> Schema:
        return {"$ref": "#/$defs/param"}


_SUBSCHEMA: Final = ParamSchema()
_COUNT: Final = Number(integer=True, minimum=0)
_KEYWORDS: Final[Mapping[str, Field]] = {
    "type": Field(Union([Enum(_TYPES), ListOf(Enum(_TYPES), minimum=1)]), doc="The type, or a list of types."),
    "default": Field(AnyJson(), doc="The value when a run does not give one."),
    "title": Field(Text(literal=True), doc="The label in the trigger form."),
    "description": Field(Text(literal=True), doc="What it is for, shown in the trigger form."),
    "examples": Field(ListOf(AnyJson()), doc="Values to show."),
    "enum": Field(ListOf(AnyJson(), minimum=1), doc="The allowed values."),
    "const": Field(AnyJson(), doc="The only allowed value."),
    "format": Field(Enum(("date", "date-time", "time", "email", "uri", "multiline")), doc="What a text holds."),
    "minimum": Field(Number(), doc="The lowest number."),
    "maximum": Field(Number(), doc="The highest number."),
    "exclusiveMinimum": Field(Number(), doc="The number must be above it."),
    "exclusiveMaximum": Field(Number(), doc="The number must be below it."),
    "minLength": Field(_COUNT, doc="The fewest characters."),
    "maxLength": Field(_COUNT, doc="The most characters."),
    "items": Field(_SUBSCHEMA, doc="The schema of each item of a list."),
    "minItems": Field(_COUNT, doc="The fewest items."),
    "maxItems": Field(_COUNT, doc="The most items."),
    "properties": Field(MapOf(_SUBSCHEMA), doc="The schema of each field of a mapping."),
    "required": Field(ListOf(Text(literal=True)), doc="The fields that must be given."),
    "additionalProperties": Field(Union([Boolean(), _SUBSCHEMA]), doc="Whether there may be other fields."),
    "anyOf": Field(ListOf(_SUBSCHEMA, minimum=1), doc="Schemas of which one must fit."),
    "oneOf": Field(ListOf(_SUBSCHEMA, minimum=1), doc="Schemas of which exactly one must fit."),
}
PARAMS: Final = MapOf(_SUBSCHEMA)


def params_definition() -> Schema:
    """The `$defs/param` that the JSON Schema of DAG files refers to."""
    return record_schema(_KEYWORDS)


def check_params(node: Node, found: Findings) -> dict[str, Mapping[str, Json]]:
    """Returns the params that a DAG declares; faults are added, defaults included."""
    if not isinstance(node, MappingNode):
        PARAMS.check(node, found, "`params`")
        return {}
    declared: dict[str, Mapping[str, Json]] = {}
    for name, item in node.entries.items():
        if PARAM_NAME.fullmatch(name) is None:
            message = f"The param name `{name[:100]}` is not allowed."
            hint = "Use letters, digits and `_`, and begin with a letter."
            found.faults.append(node.keys[name].fault(codes.BAD_ID, message, hint))
            continue
        schema = _SUBSCHEMA.check(item, found, f"`params.{name}`")
        if schema is INVALID:
            declared[name] = {}  # it exists: a template that names it is not a fault of its own
            continue
        declared[name] = schema
        if "default" in schema:
            assert isinstance(item, MappingNode)
            for problem in param_problems(schema, schema["default"]):
                message = f"The default of the param `{name}` does not fit its own schema: {problem}."
                found.faults.append(item.entries["default"].fault(codes.BAD_PARAM_DEFAULT, message))
    return declared


def param_problems(schema: Mapping[str, Json], value: Json) -> list[str]:
    """Returns what is wrong with a value of a param, without an end stop."""
    from jsonschema import Draft202012Validator  # slow to import, and most DAGs have no params

    checker = Draft202012Validator.FORMAT_CHECKER
    errors = Draft202012Validator(dict(schema), format_checker=checker).iter_errors(value)
    return [f"{_where(error.absolute_path)}{error.message[:300]}" for error in errors]


def _where(path: Any) -> str:
    steps = ".".join(str(step) for step in path)
    return f"`{steps}`: " if steps else ""


def _unknown_keyword(node: MappingNode, key: str) -> Any:
    if key in _REFUSED:
        message = f"`{key}` is not available in params."
        return node.keys[key].fault(codes.NOT_AVAILABLE, message, _REFUSED[key])
    return unknown_key(node, key, _KEYWORDS, did_you_mean(key, _KEYWORDS) or "It is not a keyword of JSON Schema here.")

"""Writes the JSON Schema (2020-12) of a DAG file, for editors, out of the declarations that the loader checks with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from yarrow import registry
from yarrow.errors import BrokenOperator
from yarrow.language import grammar
from yarrow.language.containers import Field, record_schema
from yarrow.language.parameters import Parameters, parameters
from yarrow.language.params import PARAM_NAME, params_definition
from yarrow.language.shape import Schema

SCHEMA_ID: Final = "urn:yarrow:schema:dag"
_FRAGMENT: Final[Schema] = {"$ref": "#/$defs/fragment"}


def dag_schema() -> Schema:
    """Returns the schema of a DAG file with all the operators that are installed here.

    An editor sees `!file path` as the text `path`, so the path of a YAML fragment is allowed for a list or mapping.
    """
    names = registry.operator_names()
    declared = {name: found for name in names if (found := _declaration(name)) is not None}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Yarrow DAG",
        "description": "A DAG file of Yarrow: one file, one DAG.",
        **_record(
            grammar.DAG,
            {
                "params": _or_fragment(
                    {
                        "type": "object",
                        "description": "The params of a run: name -> JSON Schema with a default.",
                        "propertyNames": {"pattern": f"^(?:{PARAM_NAME.pattern})$"},
                        "additionalProperties": {"$ref": "#/$defs/param"},
                    }
                ),
                "default_args": {"$ref": "#/$defs/default_args"},
                "tasks": {"$ref": "#/$defs/tasks"},
            },
            required=("tasks",),
        ),
        "$defs": {
            "fragment": {
                "type": "string",
                "pattern": r"\.ya?ml$",
                "description": "The path of a YAML file, after the tag `!file`.",
            },
            "param": _or_fragment(params_definition()),
            "default_args": _or_fragment(
                {"description": "Keys that every task below starts with.", **record_schema(grammar.DEFAULT_ARGS)}
            ),
            "tasks": _or_fragment(
                {
                    "type": "object",
                    "description": "Task id -> task or task group.",
                    "minProperties": 1,
                    "propertyNames": {"pattern": f"^(?:{grammar.TASK_ID})$"},
                    "additionalProperties": _or_fragment(
                        {
                            "if": {"type": "object", "required": ["tasks"]},
                            "then": {"$ref": "#/$defs/group"},
                            "else": {"$ref": "#/$defs/task"},
                        }
                    ),
                }
            ),
            "group": _group(),
            "task": _task(names, declared),
            **{f"operator-{name}": _with(found) for name, found in declared.items()},
        },
    }


def _declaration(name: str) -> Parameters | None:
    try:
        return parameters(registry.operator_class(name))
    except BrokenOperator:
        return None  # any `with:` is allowed for it; the loader tells what is the matter


def _group() -> Schema:
    also = {"tasks": {"$ref": "#/$defs/tasks"}, "default_args": {"$ref": "#/$defs/default_args"}}
    return {"title": "Task group", **_record(grammar.GROUP, also, required=("tasks",))}


def _task(names: list[str], declared: Mapping[str, Parameters]) -> Schema:
    schema = _record(grammar.TASK, {"with": {"description": "The operator's parameters."}}, required=("operator",))
    schema["properties"]["operator"] = {
        "enum": names,
        "description": "What the task does.",
    }
    schema["allOf"] = [
        {
            "if": {"properties": {"operator": {"const": name}}, "required": ["operator"]},
            "then": {
                "properties": {"with": {"$ref": f"#/$defs/operator-{name}"}},
                **({"required": ["with"]} if any(item.required for item in found.fields.values()) else {}),
            },
        }
        for name, found in declared.items()
    ]
    return {"title": "Task", **schema}


def _with(declared: Parameters) -> Schema:
    fields: dict[str, Field] = dict(declared.fields)
    schema = record_schema(fields)
    for name, parameter in declared.fields.items():
        if parameter.expression:
            described = schema["properties"][name].get("description")
            schema["properties"][name] = {
                "anyOf": [parameter.shape.json_schema(), {"type": "string", "description": "An expression."}]
            } | ({"description": described} if described else {})
    if declared.doc:
        schema["description"] = declared.doc.strip()
    return _or_fragment(schema)


def _record(fields: Mapping[str, Field], also: Mapping[str, Any], *, required: tuple[str, ...]) -> Schema:
    schema = record_schema(fields)
    schema["properties"] |= also
    schema["required"] = list(required)
    return schema


def _or_fragment(schema: Schema) -> Schema:
    return {"anyOf": [schema, _FRAGMENT]}

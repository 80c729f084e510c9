"""The params of a run: the given ones checked against what the DAG declares, the others at their default."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from yarrow.errors import InvalidParams
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec


def run_params(spec: DagSpec, given: Mapping[str, Json]) -> dict[str, Json]:
    """The params of a run of `spec`. Raises InvalidParams that names everything that is wrong with them."""
    faults = [_unknown(name, spec) for name in given if name not in spec.params]
    params: dict[str, Json] = {}
    for name, schema in spec.params.items():
        if name in given:
            params[name] = given[name]
        elif "default" in schema:
            params[name] = schema["default"]
        else:
            faults.append(f"`{name}` must be given: it has no default.")
            continue
        if name in given:
            faults += violations(name, params[name], schema)
    if faults:
        raise InvalidParams(f"The params don't fit the DAG {spec.dag_id!r}: {' '.join(faults)}")
    return params


def _unknown(name: str, spec: DagSpec) -> str:
    near = difflib.get_close_matches(name, spec.params, n=1)
    if near:
        return f"It has no param `{name}`, did you mean `{near[0]}`?"
    known = ", ".join(f"`{known}`" for known in spec.params)
    return f"It has no param `{name}`, only {known}." if known else f"It has no param `{name}`, nor any other."


def violations(name: str, value: Json, schema: Mapping[str, Any]) -> list[str]:
    """What keeps a value from being that of a param, in a sentence; nothing when it fits."""
    # jsonschema takes a tenth of a second to import; most runs are scheduled ones, with defaults only.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    error = best_match(validator.iter_errors(value))
    if error is None:
        return []
    place = "".join(f"[{part!r}]" for part in error.absolute_path)
    return [f"`{name}{place}`: {error.message}."]

"""The result cache as a worker sees it: the key of a result, and whether a result that was found still stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from yarrow import urls, xcom
from yarrow.connections import Connection
from yarrow.dataset import read_manifest
from yarrow.errors import YarrowError
from yarrow.jsontypes import Json
from yarrow.operator import Context, Operator
from yarrow.protocol import Assignment
from yarrow.registry import operator_version


def result_key(
    assignment: Assignment, operator: Operator, rendered: Mapping[str, Json], own_key: Json, context: Context
) -> str:
    """Returns the key of the result that an attempt will come to: SHA-256, hexadecimal.

    It is made of the DAG, the task, the operator with the version of its package and its `cache_inputs`, and of what
    the result is for: `own_key`, or else the parameters and where the connections lead (not as whom). A data set counts
    by its digest, wherever it lies. A secret in a parameter is in the key as all else is, and can't be read from it.

    Args:
        rendered: The parameters.
        own_key: What `cache: {key: ...}` was rendered to; None when the task has none.

    Raises:
        Exception: The operator can't tell its inputs.
    """
    # A key that forgets `map` must not give one task instance the result of another.
    wanted: Any = [own_key, _by_digest(assignment.map_value)]
    if own_key is None:
        places = {name: _place(name, uri) for name, uri in assignment.connections.items()}
        wanted = {"parameters": _by_digest(dict(rendered)), "connections": places}
    parts = {
        "dag": assignment.dag_id,
        "task": assignment.task_id,
        "operator": [assignment.operator, operator_version(assignment.operator)],
        "inputs": operator.cache_inputs(context),
        "own" if own_key is not None else "with": wanted,
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def still_there(value: Json) -> bool:
    """Whether the data sets that a result names are there with the content that they had then."""
    try:
        return all(read_manifest(uri).digest == digest for uri, digest in _datasets(xcom.resolve(value)))
    except (YarrowError, OSError):
        return False


def _place(conn_id: str, uri: str) -> str:
    connection = Connection.from_uri(conn_id, uri)
    return f"{connection.type}://{connection.host or ''}:{connection.port or ''}/{connection.schema or ''}"


def _is_dataset(value: Json) -> bool:
    return isinstance(value, Mapping) and value.get("kind") == "dataset" and isinstance(value.get("digest"), str)


def _by_digest(value: Any) -> Any:
    """The value with the digest of each data set in place of its manifest."""
    if isinstance(value, Mapping):
        if _is_dataset(value):
            return {"dataset": value["digest"]}
        return {key: _by_digest(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_by_digest(item) for item in value]
    return value


def _datasets(value: Any) -> Iterator[tuple[str, str]]:
    """The address and the digest of each data set in a value."""
    if isinstance(value, Mapping):
        if _is_dataset(value):
            yield urls.join(str(value.get("uri"))), value["digest"]
            return
        for item in value.values():
            yield from _datasets(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _datasets(item)

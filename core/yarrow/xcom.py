"""XCom values that are too large for the database: kept in the object store and passed on by reference."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping

from yarrow import urls
from yarrow.errors import Fail
from yarrow.jsontypes import Json

REFERENCE = "$ref"
_FOLDER = "xcom"
LARGEST = 64 * 1024 * 1024
"""Bytes of JSON beyond which a value is refused: it belongs into a data set."""


def spill(value: Json, objects_url: str, key: str, inline_limit: int) -> Json:
    """The value itself while its JSON is at most `inline_limit` bytes, otherwise a reference to where it was put.

    Args:
        value: What the operator returned.
        objects_url: fsspec URL of the object store.
        key: A relative path that no other value has; it names the value in errors.
        inline_limit: Bytes.

    Raises:
        Fail: The value is not JSON, or larger than `LARGEST`.
    """
    try:
        content = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Fail(
            f"The XCom `{key}` is not JSON: {error}.", hint="Return text, numbers, lists and objects."
        ) from error
    if len(content) > LARGEST:
        raise Fail(
            f"The XCom `{key}` is {len(content):,} bytes of JSON; at most {LARGEST:,} are kept.",
            hint="Write the rows as a data set and return its manifest.",
        )
    # A value that looks like a reference is spilled whatever its size, so that a reference is always one of ours.
    if len(content) <= inline_limit and not is_reference(value):
        return value
    address = urls.resolve(f"{_FOLDER}/{key}.json", objects_url)
    urls.write_bytes(address, content)
    return {REFERENCE: address}


def resolve(value: Json) -> Json:
    """The value that a reference stands for; every other value is returned as it is.

    Raises:
        Fail: The object store no longer has it.
    """
    if not is_reference(value):
        return value
    assert isinstance(value, Mapping)
    address = str(value[REFERENCE])
    try:
        content = urls.read_bytes(address)
    except FileNotFoundError as error:
        raise Fail(f"The XCom at {address} is gone from the object store.") from error
    loaded: Json = json.loads(content)
    return loaded


def discard(address: str, objects_url: str) -> None:
    """Removes a value that was put into the object store, if it is there.

    Raises:
        Fail: It does not lie where values are put: nothing is removed that a worker has only claimed to be one.
        OSError: It can't be removed. An object store may raise something else.
    """
    folder = urls.join(objects_url, _FOLDER) + "/"
    names = address.removeprefix(folder).split("/")
    if not address.startswith(folder) or not {"", ".", ".."}.isdisjoint(names) or not address.endswith(".json"):
        raise Fail(f"{address} is no XCom in the object store of this deployment, so it stays.")
    urls.remove(address)
    path = urls.local_path(address)
    if path is not None:
        with contextlib.suppress(OSError):  # another attempt of the task instance has its value there
            path.parent.rmdir()


def is_reference(value: Json) -> bool:
    """Whether it is an object with the one key `$ref`."""
    return isinstance(value, Mapping) and set(value) == {REFERENCE}

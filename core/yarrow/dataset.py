"""A data set: Parquet or CSV parts in one folder, and the manifest that is written last and alone is trusted.

What tasks pass to each other is the manifest, as the XCom; the rows stay where they are. A folder without a manifest is
a data set that was never finished, whatever files lie in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, cast

from yarrow import urls
from yarrow.errors import Fail
from yarrow.jsontypes import Json

MANIFEST = "_manifest.json"


class DatasetError(Fail):
    """The value is not a data set, or its files are not what its manifest says."""


class DatasetXCom(TypedDict):
    """The manifest as JSON: what `{{ xcom.<task>.<field> }}` finds."""

    kind: Literal["dataset"]
    uri: str
    format: str
    rows: int
    bytes: int
    parts: list[str]
    schema: list[list[str]]
    digest: str


class Part(NamedTuple):
    """A finished local file that is to become a part of a data set."""

    path: Path
    rows: int


@dataclass(frozen=True, slots=True)
class DatasetManifest:
    """What a data set consists of. `schema` is a list of (column, DuckDB type)."""

    uri: str  # of the folder, ending in a slash
    rows: int
    bytes: int
    parts: tuple[str, ...]  # file names, in the order of the rows
    schema: tuple[tuple[str, str], ...]
    digest: str  # sha256 over (name, size, rows, content hash) of every part
    format: str = "parquet"  # or csv

    @property
    def part_urls(self) -> tuple[str, ...]:
        """The addresses of the parts, in the order of the rows."""
        return tuple(urls.join(self.uri, part) for part in self.parts)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name for name, _ in self.schema)

    def to_json(self) -> DatasetXCom:
        """The XCom of the data set."""
        data = dataclasses.asdict(self)
        data["parts"] = list(self.parts)
        data["schema"] = [list(column) for column in self.schema]
        return cast(DatasetXCom, {"kind": "dataset", **data})

    @classmethod
    def from_json(cls, data: object) -> DatasetManifest:
        """The inverse of `to_json`; fields that it does not know are passed over.

        Raises:
            DatasetError: The value is not the manifest of a data set.
        """
        if not isinstance(data, Mapping) or data.get("kind") != "dataset":
            raise DatasetError(
                f"Expected a data set, got {_shown(data)}.",
                hint="Name the XCom of a task that returns one, such as `{{ xcom.ingest }}`.",
            )
        try:
            return cls(
                uri=_text(data["uri"]),
                rows=int(data["rows"]),
                bytes=int(data["bytes"]),
                parts=tuple(_text(part) for part in data["parts"]),
                schema=tuple((_text(name), _text(kind)) for name, kind in data["schema"]),
                digest=_text(data["digest"]),
                format=_text(data.get("format", "parquet")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"The manifest of a data set is not complete: {error!r} in {_shown(data)}.") from error


def read_manifest(uri: str) -> DatasetManifest:
    """Reads the manifest of the data set in a folder.

    Raises:
        DatasetError: There is none, or it can't be understood.
    """
    address = urls.join(uri, MANIFEST)
    try:
        content = urls.read_bytes(address)
    except FileNotFoundError as error:
        raise DatasetError(f"There is no finished data set at {uri}: it has no {MANIFEST}.") from error
    try:
        manifest = DatasetManifest.from_json(json.loads(content))
    except ValueError as error:
        raise DatasetError(f"{address} is not JSON: {error}.") from error
    # A folder that was moved or copied is still whole: its own address counts.
    return dataclasses.replace(manifest, uri=urls.join(uri) + "/")


def open_dataset(value: Json) -> DatasetManifest:
    """The data set that a parameter names: its manifest (an XCom) or the address of its folder."""
    return read_manifest(value) if isinstance(value, str) else DatasetManifest.from_json(value)


def describe(
    uri: str, names: Sequence[str], parts: Sequence[Part], schema: Sequence[tuple[str, str]], format: str
) -> DatasetManifest:
    """The manifest of parts that lie, or are about to lie, in the folder `uri` under these names."""
    digest = hashlib.sha256()
    size = 0
    for name, part in zip(names, parts, strict=True):
        with part.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        part_size = part.path.stat().st_size
        size += part_size
        digest.update(f"{name}\0{part_size}\0{part.rows}\0{content}\n".encode())
    return DatasetManifest(
        uri=urls.join(uri) + "/",
        rows=sum(part.rows for part in parts),
        bytes=size,
        parts=tuple(names),
        schema=tuple((name, kind) for name, kind in schema),
        digest=f"sha256:{digest.hexdigest()}",
        format=format,
    )


def publish(
    uri: str, parts: Sequence[Part], schema: Sequence[tuple[str, str]], *, format: str = "parquet"
) -> DatasetManifest:
    """Publishes local files as the data set in the folder `uri`: parts first, the manifest last.

    Publishing the same content again changes nothing. Other content takes the place of the old: the old manifest goes
    first, so that at no moment a manifest names parts that are not its own. The local files stay.
    """
    names = [f"part-{number:06d}.{format}" for number in range(len(parts))]
    manifest = describe(uri, names, parts, schema, format)
    present = set(urls.names(uri))
    if MANIFEST in present:
        if _published(uri, manifest, present):
            return manifest
        urls.remove(urls.join(uri, MANIFEST))
    for part, address in zip(parts, manifest.part_urls, strict=True):
        urls.put(part.path, address)
    urls.write_bytes(urls.join(uri, MANIFEST), json.dumps(manifest.to_json(), indent=1).encode())
    for name in present - {MANIFEST, *names}:
        urls.remove(urls.join(uri, name))
    return manifest


def _published(uri: str, manifest: DatasetManifest, present: set[str]) -> bool:
    try:
        return read_manifest(uri) == manifest and present.issuperset(manifest.parts)
    except DatasetError:
        return False


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

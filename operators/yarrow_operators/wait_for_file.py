"""Waits for files."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TypedDict

from yarrow import Context, NotYet, Sensor, param, urls


class WaitForFile(Sensor):
    """Waits until a file is there, or one that fits a pattern.

    A file that is still being written is there too: let its writer rename it when it is complete, or wait for a marker
    file that is written last.
    """

    path: str = param(
        doc="The file as a path or fsspec URL; `*`, `?`, `[abc]` and `**` make it a pattern. A relative path is taken "
        "below the DAG folder.",
        examples=("/data/in/{{ ds }}/*.csv", "s3://lake/orders/day={{ ds }}/_SUCCESS"),
    )
    min_size: int = param(default=0, minimum=0, doc="Files of fewer bytes do not count.")

    class Outputs(TypedDict):
        paths: list[str]
        count: int

    def poke(self, context: Context) -> Outputs | NotYet:
        address = urls.resolve(self.path, str(context.dags_folder))
        files = _local(address) if urls.local_path(address) is not None else _remote(address)
        paths = sorted(path for path, size in files.items() if size >= self.min_size)
        if not paths:
            small = f" Of the {len(files)} there none has {self.min_size:,} bytes." if files else ""
            return NotYet(f"There is no file `{address}` yet.{small}")
        return {"paths": paths, "count": len(paths)}


def _local(address: str) -> dict[str, int]:
    """The files that there are, with their sizes."""
    path = urls.local_path(address)
    assert path is not None
    found: dict[str, int] = {}
    for candidate in [path, *map(Path, glob.glob(str(path), recursive=True))]:
        try:
            if candidate.is_file():
                found[str(candidate)] = candidate.stat().st_size
        except FileNotFoundError:
            continue  # it went away between the two looks
    return found


def _remote(address: str) -> dict[str, int]:
    outer = address.partition("::")[2]
    try:
        filesystem, key = urls.remote(address)
        entries = filesystem.glob(key, detail=True)
    except FileNotFoundError:  # of the archive that it would be in
        return {}
    chain = f"::{outer}" if outer else ""
    return {
        f"{filesystem.unstrip_protocol(name)}{chain}": int(entry.get("size") or 0)
        for name, entry in entries.items()
        if entry.get("type") == "file"
    }

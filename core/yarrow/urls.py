"""The addresses of files: local paths and fsspec URLs, told apart, joined and kept inside a folder.

Local files are handled with the standard library, so that a step of one machine never waits for fsspec to be imported
and a file appears whole (`os.replace`) or not at all. Everything else goes through fsspec, whose stores put an object
whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from yarrow.errors import Fail

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_LOCAL = ("file", "local")


def is_url(address: str) -> bool:
    """Whether it names its protocol (`s3://bucket/key`, `file:///x`, `zip://a.csv::/x.zip`) and is no plain path."""
    return _SCHEME.match(address) is not None


def local_path(address: str) -> Path | None:
    """The path of a local file; None for an address that only fsspec can open."""
    match = _SCHEME.match(address)
    if match is None:
        return Path(address)
    if match[1].lower() not in _LOCAL or "::" in address:
        return None
    return Path(address[match.end() :])


def join(base: str, *names: str) -> str:
    """The address of something below a folder."""
    return "/".join([base.rstrip("/"), *(name.strip("/") for name in names)])


def resolve(address: str, base: str) -> str:
    """The full address: one that is absolute or a URL stays as it is, a relative one is taken below `base`.

    Raises:
        Fail: The relative path leads out of `base`.
    """
    if is_url(address) or address.startswith("/"):
        return address
    path = PurePosixPath(address)
    if ".." in path.parts or not path.parts:
        raise Fail(f"The path `{address}` leads out of its folder.", hint="Use a path inside it, or an absolute one.")
    folder = join(base, str(path))
    return folder + "/" if address.endswith("/") else folder


@contextlib.contextmanager
def open_read(address: str) -> Iterator[IO[bytes]]:
    """Opens a file or an object for reading bytes. Raises `FileNotFoundError` when there is none."""
    path = local_path(address)
    if path is not None:
        with path.open("rb") as file:
            yield file
        return
    import fsspec

    with fsspec.open(address, "rb") as file:
        yield file


def read_bytes(address: str) -> bytes:
    """The content of a file or an object. Raises `FileNotFoundError` when there is none."""
    with open_read(address) as file:
        return file.read()


def write_bytes(address: str, content: bytes) -> None:
    """Writes a file or an object: others see it whole or not at all."""
    path = local_path(address)
    if path is None:
        filesystem, key = remote(address)
        filesystem.pipe_file(key, content)
        return
    with _replacing(path) as temporary:
        temporary.write_bytes(content)


def put(source: Path, address: str) -> None:
    """Publishes a finished local file under an address: others see it whole or not at all.

    The source stays. On one file system no byte is copied: both names are the same file, so neither may be written
    to afterwards.
    """
    path = local_path(address)
    if path is None:
        filesystem, key = remote(address)
        filesystem.put_file(str(source), key)
        return
    with _replacing(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            shutil.copyfile(source, temporary)


def remove(address: str) -> None:
    """Removes a file or an object if it is there."""
    path = local_path(address)
    if path is not None:
        path.unlink(missing_ok=True)
        return
    filesystem, key = remote(address)
    with contextlib.suppress(FileNotFoundError):
        filesystem.rm_file(key)


def exists(address: str) -> bool:
    """Whether there is a file or an object."""
    path = local_path(address)
    if path is not None:
        return path.is_file()
    filesystem, key = remote(address)
    return bool(filesystem.isfile(key))


def names(folder: str) -> list[str]:
    """The names of the files right inside a folder, sorted; empty when there is no such folder."""
    path = local_path(folder)
    if path is not None:
        return sorted(entry.name for entry in path.iterdir() if entry.is_file()) if path.is_dir() else []
    filesystem, key = remote(folder)
    try:
        entries = filesystem.ls(key, detail=True)
    except FileNotFoundError:
        return []
    return sorted(PurePosixPath(entry["name"]).name for entry in entries if entry["type"] == "file")


def remote(address: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it."""
    import fsspec

    filesystem, key = fsspec.core.url_to_fs(address)
    # Some stores keep listings; what another worker wrote a moment ago must be seen.
    filesystem.invalidate_cache()
    return filesystem, str(key)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place, durably, when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

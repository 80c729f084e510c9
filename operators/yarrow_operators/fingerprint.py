"""What tells one content of a file from another, for the keys of cached results."""

from __future__ import annotations

import glob
import hashlib
import re
from pathlib import Path

from yarrow import urls
from yarrow.dataset import MANIFEST
from yarrow.jsontypes import Json

_MARKS = ("ETag", "Content-MD5", "Digest", "Last-Modified")
"""Of the headers of an HTTP answer those that tell one content from another."""


def fingerprint(address: str) -> Json:
    """Returns something that changes with the content of a file, of the files of a local pattern, or of a data set.

    For a local file it is the SHA-256 of its content; for a remote one what the store tells of it (size, ETag, time
    of change), which costs no transfer. A file in an archive counts by the archive.

    Raises:
        OSError: There is no such file, or its server tells nothing by which a change would be seen.
    """
    path = urls.local_path(address)
    if path is None:
        outer = address.partition("::")[2]
        return fingerprint(outer) if outer else _told(address)
    if path.is_dir():
        path /= MANIFEST
    if not path.exists() and re.search(r"[*?\[]", str(path)):
        return {found: _digest(Path(found)) for found in sorted(glob.glob(str(path), recursive=True))}
    return _digest(path)


def fingerprints(*datasets: Json) -> dict[str, Json]:
    """The fingerprint of each data set that is given by its address; one that is given as an XCom has a digest."""
    return {address: fingerprint(urls.join(address, MANIFEST)) for address in datasets if isinstance(address, str)}


def _told(address: str) -> str:
    """The digest of what a store tells of a file, or of the manifest of a data set."""
    filesystem, key = urls.remote(address.rstrip("/") + f"/{MANIFEST}" if address.endswith("/") else address)
    told = filesystem.info(key)
    if address.lower().startswith(("http://", "https://")) and not any(told.get(name) for name in _MARKS):
        raise OSError(f"The server of {address} sends none of {', '.join(_MARKS)}: a change would not be seen.")
    return hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

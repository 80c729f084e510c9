"""What tells one content of a file from another, for the keys of cached results."""

from __future__ import annotations

import glob
import hashlib
import re
from pathlib import Path

from yarrow import urls
from yarrow.dataset import MANIFEST
from yarrow.jsontypes import Json


def fingerprint(address: str) -> Json:
    """Returns something that changes with the content of a file, of the files of a local pattern, or of a data set.

    For a local file it is the SHA-256 of its content; for a remote one what the store tells of it (size, ETag, time
    of change), which costs no transfer.

    Raises:
        OSError: There is no such file.
    """
    path = urls.local_path(address)
    if path is None:
        filesystem, key = urls.remote(address.rstrip("/") + f"/{MANIFEST}" if address.endswith("/") else address)
        return str(filesystem.ukey(key))
    if path.is_dir():
        path /= MANIFEST
    if not path.exists() and re.search(r"[*?\[]", str(path)):
        return {found: _digest(Path(found)) for found in sorted(glob.glob(str(path), recursive=True))}
    return _digest(path)


def fingerprints(*datasets: Json) -> dict[str, Json]:
    """The fingerprint of each data set that is given by its address; one that is given as an XCom has a digest."""
    return {address: fingerprint(urls.join(address, MANIFEST)) for address in datasets if isinstance(address, str)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

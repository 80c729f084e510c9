"""The digest of a module's source file: by it a cached result is told from one of other code."""

from __future__ import annotations

import hashlib
import sys


def source_digest(module_name: str) -> str | None:
    """SHA-256 of the file of a loaded module, hexadecimal; None when it has none, as what was typed in has not."""
    path = getattr(sys.modules.get(module_name), "__file__", None)
    if path is None:
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

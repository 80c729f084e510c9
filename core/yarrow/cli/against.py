"""Asks a running deployment what it has, so that DAG files can be checked against it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import urlsplit

from yarrow.errors import UsageError
from yarrow.language.deployment import Known

TIMEOUT: Final = 10.0  # seconds
_LARGEST: Final = 64 * 1024 * 1024  # bytes of an answer


def ask(url: str) -> Known:
    """Returns what the deployment has whose web server answers at a URL.

    Raises:
        UsageError: Nobody answers there, or not a web server of Yarrow.
    """
    if not _is_http(url):
        raise UsageError(f"`{url}` is not the URL of a web server.", hint="Write it as `http://localhost:8080`.")
    address = f"{url.rstrip('/')}/api/v1/deployment"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310 - the scheme is checked above
            body = answer.read(_LARGEST)
    except urllib.error.HTTPError as error:
        raise _strange(address, f"it answered with status {error.code}") from None
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UsageError(f"The deployment at {url} can't be asked: {reason}.", hint="Is its web server up?") from None
    try:
        return _known(json.loads(body))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _strange(address, "its answer can't be read") from None


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is no port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _known(data: Any) -> Known:
    return Known(
        pools={str(name): int(slots) for name, slots in data["pools"].items()},
        served=frozenset(str(queue) for queue in data["queues"]),
        durations={
            (str(dag_id), str(task_id)): float(seconds)
            for dag_id, tasks in data["durations"].items()
            for task_id, seconds in tasks.items()
        },
    )


def _strange(address: str, why: str) -> UsageError:
    return UsageError(f"{address} is not the web server of a Yarrow that can be asked: {why}.")

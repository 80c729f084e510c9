"""What an error is called: the names that `retry_on` and `no_retry_on` compare with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from yarrow.errors import YarrowError

_MOST = 64
_DEEPEST = 10  # causes behind one another
_EVERY_ERRORS = (object, BaseException)  # they tell nothing apart


def error_kinds(error: BaseException) -> list[str]:
    """Returns the names of an error, the closest first.

    They are what it has in an attribute `kinds` (such as `HttpStatus.503`), and the names of its class and of those
    above it, also with their module. A YarrowError often stands for the error of a library: that one's names follow.
    """
    found: dict[str, None] = {}
    link: BaseException | None = error
    for _ in range(_DEEPEST):
        if link is None:
            break
        found |= dict.fromkeys(_names(link))
        link = link.__cause__ if isinstance(link, YarrowError) else None
    return list(found)[:_MOST]


def _names(error: BaseException) -> Iterator[str]:
    own = getattr(error, "kinds", ())
    if isinstance(own, Sequence) and not isinstance(own, str):
        yield from (kind for kind in own if isinstance(kind, str))
    for base in type(error).__mro__:
        if base not in _EVERY_ERRORS:
            yield base.__name__
            if base.__module__ != "builtins":
                yield f"{base.__module__}.{base.__qualname__}"

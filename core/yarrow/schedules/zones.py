"""Finds time zones by their IANA names."""

from __future__ import annotations

import difflib
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

_OF_THE_MACHINE = frozenset({"localtime", "posixrules"})
"""Names that mean something else on every machine."""


@lru_cache(maxsize=256)
def load_zone(name: str) -> ZoneInfo:
    """Returns the zone of an IANA name such as `Europe/London`. Raises ValueError with a sentence."""
    try:
        if name in _OF_THE_MACHINE:
            raise KeyError(name)
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: the name is that of a folder, such as `Europe`
        raise ValueError(f"There is no time zone `{name}`.{_suggestion(name)}") from None


def zone_names() -> list[str]:
    """The names of all zones that this machine knows, sorted."""
    return sorted(available_timezones() - _OF_THE_MACHINE)


def _suggestion(name: str) -> str:
    known = {zone.lower(): zone for zone in zone_names()}
    close = difflib.get_close_matches(name.lower().replace(" ", "_"), known, n=1)
    return f" Did you mean `{known[close[0]]}`?" if close else " Use an IANA name such as `Europe/London` or `UTC`."

"""What people ask for: to clear, to mark or to backfill."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from yarrow.errors import UsageError
from yarrow.jsontypes import Json

REPROCESS = ("none", "failed", "completed")
MARKS = ("success", "failed", "skipped")

_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Task instances of runs of one DAG.

    The runs are named, or those of a span of logical dates, or both `past` and `future` of the named ones. The tasks
    are those that a selector names, in each of the runs.
    """

    dag_id: str
    run_ids: tuple[str, ...] = ()
    from_date: datetime | None = None  # logical dates, both inclusive, in place of run_ids
    to_date: datetime | None = None
    tasks: str | None = None  # a selector; None: all tasks
    map_index: int | None = None  # only this instance of a mapped task
    upstream: bool = False  # also all tasks upstream of the selected ones
    downstream: bool = False
    past: bool = False  # also in all runs with an earlier logical date
    future: bool = False
    only_failed: bool = False  # of those, the task instances that failed or could not run
    only_running: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearRequest(Scope):
    """To have task instances run again."""

    kind: ClassVar[str] = "clear"
    latest_version: bool = False  # in the newest version of the DAG, instead of that of their run
    while_paused: bool = False  # also when the DAG is paused: runs wait until it is not
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRequest(Scope):
    """To have task instances, or whole runs, count as ended."""

    kind: ClassVar[str] = "mark"
    state: str  # success, failed or skipped; of a run success or failed
    runs: bool = False  # the runs themselves, with all that has not ended in them
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillRequest:
    """To have a run for each data interval of a span of time."""

    kind: ClassVar[str] = "backfill"
    dag_id: str
    from_date: datetime  # logical dates, both inclusive
    to_date: datetime
    reprocess: str = "none"  # of runs that there are: none, failed or completed
    whole_runs: bool = False  # with `failed`: all tasks of a failed run, as Airflow does, not only what failed
    tasks: str | None = None  # a selector; None: all tasks
    max_active_runs: int = 10
    run_backwards: bool = False
    params: Mapping[str, Json] = field(default_factory=dict)  # of the runs that it makes
    priority_class: int = -1  # of its task instances; those of other runs are of class 0, and a higher one goes first
    while_paused: bool = False  # also when the DAG is paused: runs wait until it is not
    reason: str | None = None


Request = ClearRequest | MarkRequest | BackfillRequest

_KINDS: Mapping[str, type[Request]] = {one.kind: one for one in (ClearRequest, MarkRequest, BackfillRequest)}


def check_text(request: Request) -> None:
    """Refuses a request with text that no database takes. Raises UsageError."""
    for one in dataclasses.fields(request):
        value = getattr(request, one.name)
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                _text(one.name, text)


def request_to_json(request: Request) -> dict[str, Any]:
    """Plain data that `request_from_json` turns back into an equal request. Fields at their default are left out."""
    data: dict[str, Any] = {"kind": request.kind}
    for one in dataclasses.fields(request):
        value = getattr(request, one.name)
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        if value != default:
            value = list(value) if isinstance(value, tuple) else value
            data[one.name] = value.isoformat() if isinstance(value, datetime) else value
    return data


def request_from_json(data: Mapping[str, Any]) -> Request:
    """The request that stands in JSON data.

    Raises:
        UsageError: It is none; the sentence says which field is wrong.
    """
    values = dict(data)
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UsageError(f"`kind` is one of {', '.join(_KINDS)}, not {kind!r:.80}.")
    cls = _KINDS[kind]
    fields = {one.name: one for one in dataclasses.fields(cls)}
    if strange := sorted(set(values) - set(fields)):
        raise UsageError(f"A request to {kind} has no field {strange[0]!r}.", hint=f"It has {', '.join(fields)}.")
    for name, value in values.items():
        values[name] = _read(name, value, str(fields[name].type))
    needed = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in needed if name not in values]:
        raise UsageError(f"A request to {kind} needs `{missing[0]}`.")
    return cls(**values)


def _read(name: str, value: Any, type_: str) -> Any:
    """A value of a field. Raises UsageError."""
    if value is None and "None" in type_:
        return None
    kind = type_.removesuffix(" | None")
    if kind == "datetime" and isinstance(value, str):
        return _moment(name, value)
    if kind == "str" and isinstance(value, str):
        return _text(name, value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > _LARGEST:
            raise UsageError(f"`{name}` is too large a number.")
        return value
    if kind.startswith("tuple") and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(_text(name, one) for one in value)
    if kind.startswith("Mapping") and isinstance(value, Mapping):
        return dict(value)
    words = {"datetime": "a moment", "str": "text", "bool": "true or false", "int": "a whole number"}
    word = next((word for start, word in words.items() if kind == start), "a list of texts")
    raise UsageError(f"`{name}` is {'an object' if kind.startswith('Mapping') else word}, not {value!r:.80}.")


def _moment(name: str, value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise UsageError(f"`{name}` is a moment in ISO 8601, not {value!r:.80}.") from None
    if moment.tzinfo is None:
        raise UsageError(f"`{name}` needs an offset from UTC, such as {moment.isoformat()}+00:00.")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise UsageError(f"`{name}` is out of the range of dates: {value}.") from None


LONGEST_TEXT = 10_000
"""Characters of a text in a request: of a selector, a reason, a name."""


def _text(name: str, value: str) -> str:
    """Text as every database takes it, and people may read."""
    if len(value) > LONGEST_TEXT:
        raise UsageError(f"`{name}` is {len(value):,} characters long; {LONGEST_TEXT:,} are the most.")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise UsageError(f"`{name}` holds a character that is none: {value!r:.80}.")
    return value

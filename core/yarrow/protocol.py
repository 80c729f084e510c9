"""The worker protocol: what a worker and the Execution API say to each other, as JSON over HTTP.

    POST /execution/v1/claim      Bearer <attempt token>  {"attempt_id", "worker_id"}
                                  -> 200 Assignment | 409 {"error"}      409: it is not (any more) to be had
    POST /execution/v1/finish     Bearer <attempt token>  {"worker_id", "report": Report, "next": queue | null}
                                  -> 200 {"next": Assignment | null} | 409 {"error"}   409: fenced, drop it
    POST /execution/v1/logs       Bearer <worker token>   {"batches": [{"token": <attempt token>, "lines": [LogLine]}]}
                                  -> 200 {"refused"}     how many batches are of attempts that are not this worker's
    POST /execution/v1/cache      Bearer <attempt token>  {"key"}
                                  -> 200 {"hit", "has_xcom", "xcom", "attempt_id", "run_id"}
    POST /execution/v1/task-state Bearer <attempt token>  {"dag_id", "task_id", "logical_date"}
                                  -> 200 {"state", "run_id"}     null: there is no such run; task_id null: the run
    POST /execution/v1/trigger    Bearer <attempt token>  {"dag_id", "params", "logical_date"}       -> 200 {"run_id"}
    POST /execution/v1/heartbeat  Bearer <worker token>   Heartbeat  -> 200 HeartbeatReply

200 means committed. Anything but 200, 400, 401, 403, 404, 409 and 413 means "unknown": the worker repeats the request.
Every request carries `X-Yarrow-Protocol: 1`; another version is refused with 426 and a sentence that says which side
is older.
A finish with `next` takes the next attempt of that queue along. A repeated one is answered 200 again, without a next
attempt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from yarrow.jsontypes import Json

VERSION = 1
VERSION_HEADER = "X-Yarrow-Protocol"

ALL_QUEUES = "*"
"""What a worker that serves every queue says of itself, in the place of their names."""


@dataclass(frozen=True, slots=True)
class Message:
    """Base of the messages: plain fields, to and from JSON; unknown fields of a newer peer are ignored."""

    def to_json(self) -> dict[str, Any]:
        # Not `asdict`: it copies every value in depth, and these are on the way of each task.
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in names})


@dataclass(frozen=True, slots=True)
class Assignment(Message):
    """All that a worker needs to execute one attempt: the spec and only those values that the task names."""

    attempt_id: str
    token: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    max_tries: int
    identity: str  # of the task instance, the same for every try; safe as a folder name
    operator: str
    arguments: Mapping[str, Json]
    queue: str
    execution_timeout: float | None
    logical_date: str  # ISO 8601, UTC
    data_interval_start: str
    data_interval_end: str
    timezone: str
    params: Mapping[str, Json]
    xcoms: Mapping[str, Json]  # task_id -> value, or {"$ref": url} for one in the object store
    variables: Mapping[str, str]
    connections: Mapping[str, str]  # conn_id -> URI
    lease: float  # seconds; the worker stops the task when it could not renew it for that long, less a margin
    dag_tasks: Sequence[str] = ()  # the ids of direct downstream tasks, for `branch`
    map_value: Mapping[str, Json] | None = None  # of a mapped task instance: what `map.name` stands for
    mapped_xcoms: Sequence[str] = ()  # of `xcoms`, those of mapped tasks: lists of values, each its own
    cache: Mapping[str, Json] | None = None  # {"ttl": seconds or null, "key": a template or null}: ask the cache first
    first_started_at: str | None = None  # ISO 8601: when this try began, however often it was put off since


@dataclass(frozen=True, slots=True)
class Report(Message):
    """How an attempt ended. Sent until it is accepted or refused."""

    attempt_id: str
    state: str  # AttemptState: success, failed, skipped, lost, cancelled, or deferred: it goes on at `resume_at`
    xcom: Json = None  # the value, or {"$ref": url}
    has_xcom: bool = False
    reason: str | None = None  # a sentence for a person; for `failed` the error
    retryable: bool = True
    follow: Sequence[str] | None = None  # branch: the chosen direct downstream tasks; short_circuit: [] to skip all
    metrics: Mapping[str, Json] = field(default_factory=dict)
    started_at: str | None = None
    ended_at: str | None = None
    kinds: Sequence[str] = field(default_factory=list)  # of `failed`: names of the error, for `retry_on`
    resume_at: str | None = None  # of `deferred`: ISO 8601
    cache_key: str | None = None  # of `success`: keep the result under this key; with `cached` where it came from
    cached: bool = False  # the result is an earlier attempt's


@dataclass(frozen=True, slots=True)
class LogLine(Message):
    """One line of a task's output."""

    at: str  # ISO 8601, UTC, microseconds
    stream: str  # stdout, stderr or log
    text: str
    level: str | None = None  # of a logging record


@dataclass(frozen=True, slots=True)
class RunningAttempt(Message):
    """What a heartbeat says of one attempt."""

    attempt_id: str
    done: float | None = None
    total: float | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat(Message):
    """One request a worker, however many attempts it executes."""

    worker_id: str  # new at every start of the worker
    hostname: str
    pid: int
    queues: Sequence[str]  # "*" serves every queue that has no worker of its own
    slots: int
    version: str
    attempts: Sequence[RunningAttempt] = ()
    stopping: bool = False  # the worker takes no more work

    def to_json(self) -> dict[str, Any]:
        return {**super(Heartbeat, self).to_json(), "attempts": [attempt.to_json() for attempt in self.attempts]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Heartbeat:
        fields = {f.name for f in dataclasses.fields(cls)}
        known = {name: value for name, value in data.items() if name in fields}
        known["attempts"] = tuple(RunningAttempt.from_json(item) for item in known.get("attempts", ()))
        return cls(**known)


@dataclass(frozen=True, slots=True)
class HeartbeatReply(Message):
    """The answer: which attempts are not this worker's any more, and how soon to ask again."""

    stop: Mapping[str, str]  # attempt_id -> the reason to show
    interval: float  # seconds until the next heartbeat

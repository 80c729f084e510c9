"""Notifications: what they say, and how one is sent to a webhook, through Apprise or into the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from yarrow.config import Config
from yarrow.connections import CONNECTION_PREFIX, environment_name, resolve_connections
from yarrow.errors import NotFound, Undelivered
from yarrow.jsontypes import Json
from yarrow.language.durations import format_duration
from yarrow.secrets import Masker
from yarrow.version import __version__

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

LOG = "log"
"""The target that is the scheduler's own log."""

_LONGEST_REASON = 1000  # characters: phones and chats take no more
_LONGEST_SHOWN = 200  # characters of what Apprise says of a failure

_log = logging.getLogger("yarrow.notifications")


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """What people are told of."""

    kind: str  # success, failure, retry or deadline
    dag_id: str
    run_id: str
    state: str  # of the run or the task instance; of a run that is not there yet: missing
    at: datetime
    task_id: str | None = None  # None: it happened to the run
    map_index: int = -1
    dag_run_id: int | None = None  # the row id of the run, if there is one
    logical_date: datetime | None = None
    try_number: int | None = None
    max_tries: int | None = None
    next_try_at: datetime | None = None  # of a retry
    due_at: datetime | None = None  # of a missed deadline
    reason: str | None = None

    @property
    def event(self) -> str:
        """The name for programs: `task.failure`, `run.deadline`, ..."""
        return f"{'run' if self.task_id is None else 'task'}.{self.kind}"

    @property
    def subject(self) -> str:
        """What it happened to, for people: `run r1` or `task load[3]`."""
        if self.task_id is None:
            return f"run {self.run_id}"
        return f"task {self.task_id}" + (f"[{self.map_index}]" if self.map_index >= 0 else "")

    @property
    def path(self) -> str:
        """Where the web server shows it."""
        if self.dag_run_id is None:
            return f"/dags/{self.dag_id}"
        if self.task_id is None:
            return f"/runs/{self.dag_run_id}"
        instance = f"?map_index={self.map_index}" if self.map_index >= 0 else ""
        return f"/runs/{self.dag_run_id}/tasks/{self.task_id}{instance}"


def payload_of(happening: Happening) -> dict[str, Json]:
    """The message as JSON: `title` and `body` in words, and every fact under a name of its own."""
    return {
        "event": happening.event,
        "title": f"{happening.dag_id}: {happening.subject} {_verb(happening)}",
        "body": _body(happening),
        "dag_id": happening.dag_id,
        "run_id": happening.run_id,
        "task_id": happening.task_id,
        "map_index": happening.map_index if happening.task_id is not None else None,
        "try_number": happening.try_number,
        "max_tries": happening.max_tries,
        "state": happening.state,
        "reason": happening.reason,
        "logical_date": _iso(happening.logical_date),
        "next_try_at": _iso(happening.next_try_at),
        "due_at": _iso(happening.due_at),
        "at": _iso(happening.at),
        "path": happening.path,
    }


def trial_payload(at: datetime) -> dict[str, Json]:
    """A message that only says that messages arrive."""
    return {
        "event": "test",
        "title": "Yarrow: a test",
        "body": f"Somebody tries whether notifications of Yarrow arrive here, at {_moment(at)}.",
        "at": at.isoformat(),
        "path": "/",
    }


def linked(payload: Mapping[str, Json], base_url: str) -> dict[str, Json]:
    """The payload with the address of its page: as `url`, and at the end of its `body`. An empty one adds none."""
    full = {name: value for name, value in payload.items() if name != "path"}
    if base_url:
        full["url"] = base_url.rstrip("/") + str(payload["path"])
        full["body"] = f"{payload['body']}\n{full['url']}"
    return full


def shown_target(target: str) -> str:
    """The target without what may be a secret: of a URL only where it leads to, if that is certain to be none."""
    if "://" not in target:
        return target
    scheme, _, rest = target.partition("://")
    if scheme.lower() not in ("http", "https"):
        return f"{scheme}://..."  # many services have their token where other URLs have the host
    host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    return f"{scheme}://{host}/..."


class Sender:
    """Sends notifications. Safe to use from several threads."""

    def __init__(self, config: Config, env: Mapping[str, str]) -> None:
        """Args:
        env: Where connections may be set, as `YARROW_CONN_<ID>`.
        """
        self._config = config
        self._env = env

    def send(self, id: str, target: str, payload: Mapping[str, Json]) -> None:
        """Sends one notification, within `notification_timeout`.

        Args:
            id: The same whenever it is sent again: receivers can tell it by that.
            target: `log`, the id of a connection, or a URL.

        Raises:
            Undelivered: Nothing says that it has arrived. The message holds no secret.
        """
        message = linked(payload, self._config.base_url)
        if target == LOG:
            _log.warning("%s\n%s", message["title"], message["body"], extra={"action": "notification"})
            return
        url = target if "://" in target else self._uri(target)
        if url.partition("://")[0].lower() in ("http", "https"):
            _post(url, id, message, self._config.notification_timeout)
        else:
            _apprise(url, message, self._config.notification_timeout)

    def _uri(self, conn_id: str) -> str:
        try:
            return resolve_connections(self._config, self._env, [conn_id])[conn_id]
        except NotFound:
            raise Undelivered(
                f"The connection `{conn_id}` is not set.",
                hint=f"Set {environment_name(CONNECTION_PREFIX, conn_id)} in the environment of the scheduler, "
                "or `connections:` in yarrow.yaml.",
            ) from None


# Words


def _verb(happening: Happening) -> str:
    if happening.kind == "retry":
        return "failed and will be tried again"
    return {"success": "succeeded", "failure": "failed", "deadline": "missed its deadline"}[happening.kind]


def _body(happening: Happening) -> str:
    lines = [_sentence(happening)]
    if happening.reason:
        # On one line, without control characters: it may be what somebody wrote, and must not pass for a line of ours.
        reason = " ".join("".join(c if c.isprintable() else " " for c in happening.reason).split())
        lines.append(f"Reason: {reason[:_LONGEST_REASON]}{'...' if len(reason) > _LONGEST_REASON else ''}")
    if happening.next_try_at is not None:
        lines.append(f"Next try: {_moment(happening.next_try_at)}")
    lines.append(f"DAG: {happening.dag_id}")
    lines.append(f"Run: {happening.run_id}")
    if happening.logical_date is not None:
        lines.append(f"Logical date: {_moment(happening.logical_date)}")
    return "\n".join(lines)


def _sentence(happening: Happening) -> str:
    subject = f"The {happening.subject}"
    if happening.kind == "deadline":
        assert happening.due_at is not None
        now = _NOW.get(happening.state, f"is {happening.state}")
        return f"{subject} should have succeeded by {_moment(happening.due_at)}{_late(happening)}. It {now}."
    tries = ""
    if happening.try_number:
        tries = f" in try {happening.try_number} of {happening.max_tries or happening.try_number}"
    return f"{subject} {_verb(happening)}{tries} at {_moment(happening.at)}."


_NOW = {
    "missing": "is not there yet",
    "none": "has not begun",
    "success": "has succeeded since",
    "failed": "has failed",
    "upstream_failed": "can't run, because a task before it has failed",
}
"""How people say of a run or a task instance what state it is in."""


def _late(happening: Happening) -> str:
    assert happening.due_at is not None
    seconds = round((happening.at - happening.due_at).total_seconds())
    return f", {format_duration(seconds)} ago" if seconds >= 1 else ""


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


# Ways to send


def _post(url: str, id: str, message: Mapping[str, Json], timeout: float) -> None:
    """Posts to a webhook. Whatever is not a status of 200 to 299 is a failure; redirects are not followed."""
    import urllib3

    shown = shown_target(url)
    pool = urllib3.PoolManager(num_pools=1)
    try:
        address, login = _split_login(url)
        headers = {
            "User-Agent": f"yarrow/{__version__}",
            "X-Yarrow-Event": str(message["event"]),
            "Idempotency-Key": id,
            **(urllib3.make_headers(basic_auth=login) if login else {}),
        }
        response: BaseHTTPResponse = pool.request(
            "POST",
            address,
            json={"id": id, **message},
            headers=headers,
            timeout=urllib3.Timeout(total=timeout),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        response.close()
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        # `from None`: these errors quote the address.
        raise Undelivered(f"{shown} {_why_unreachable(error, timeout)}.") from None
    finally:
        pool.clear()
    if not 200 <= response.status < 300:
        raise Undelivered(f"{shown} answered {response.status} {response.reason or ''}".rstrip() + ".")


def _split_login(url: str) -> tuple[str, str | None]:
    """The URL without login, and `login:password` if it has one."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)), unquote(login) if at else None


def _why_unreachable(error: Exception, timeout: float) -> str:
    import urllib3

    if isinstance(error, urllib3.exceptions.NewConnectionError):  # which is a kind of timeout for urllib3
        name = isinstance(error, urllib3.exceptions.NameResolutionError)
        return "can't be found: no such host" if name else "can't be reached: the connection was refused or is cut"
    if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError):
        return f"did not answer within {timeout:g} seconds"
    if isinstance(error, urllib3.exceptions.SSLError):
        return "has no certificate that can be trusted, or speaks no TLS"
    if isinstance(error, urllib3.exceptions.LocationValueError | ValueError):
        return "is not a URL that can be called"
    return "broke the connection off"


def _apprise(url: str, message: Mapping[str, Json], timeout: float) -> None:
    """Sends through Apprise, which knows some hundred services by their URLs."""
    try:
        import apprise
    except ImportError as error:
        raise Undelivered(
            f"{shown_target(url)} needs Apprise, which is not installed.", hint="pip install 'yarrow[notify]'"
        ) from error
    asset = apprise.AppriseAsset(app_id="Yarrow", app_desc="Yarrow")
    service = apprise.Apprise.instantiate(_with_timeouts(url, timeout), asset=asset)
    if service is None:
        raise Undelivered(
            f"{shown_target(url)} is not a complete URL of a service that Apprise knows.",
            hint="https://appriseit.com/services/ shows how each is written.",
        )
    caller = apprise.Apprise(asset=asset)
    caller.add(service)
    try:
        result = caller.notify(
            body=str(message["body"]),
            title=str(message["title"]),
            notify_type=_TYPES.get(str(message["event"]).partition(".")[2], apprise.NotifyType.INFO.value),
            body_format=apprise.NotifyFormat.TEXT,
            timeout=timeout,
        )
    except Exception as error:  # noqa: BLE001 - plugins of a hundred services: whatever they raise, it did not arrive
        raise Undelivered(f"{shown_target(url)}: Apprise failed with {type(error).__name__}.") from None
    if not result:
        raise Undelivered(f"{shown_target(url)}: {_why_undelivered(result, url)}")


_TYPES = {"success": "success", "failure": "failure", "retry": "warning", "deadline": "warning"}


def _with_timeouts(url: str, timeout: float) -> str:
    """The URL with the timeouts of connecting and reading that Apprise's services take, unless it has its own."""
    wanted = {name: f"{name}={timeout:g}" for name in ("cto", "rto")}
    given = {pair.partition("=")[0] for pair in url.partition("?")[2].split("&")}
    added = "&".join(pair for name, pair in wanted.items() if name not in given)
    return url + ("&" if "?" in url else "?") + added if added else url


def _why_undelivered(result: Any, url: str) -> str:
    """What Apprise says last of it, without whatever stands in the URL after its scheme."""
    parts = urlsplit(url)
    secrets = [
        parts.username,
        parts.password,
        parts.hostname,
        *parts.path.split("/"),
        *parts.query.split("&"),
        *(pair.partition("=")[2] for pair in parts.query.split("&")),
        parts.fragment,
    ]
    secrets += [unquote(value) for value in secrets if value]  # as the services get them
    said = [entry.message for entry in result.logs()]
    if not said:
        return "Apprise could not deliver it."
    return Masker(value for value in secrets if value).mask(" ".join(said[-1].split()))[:_LONGEST_SHOWN]

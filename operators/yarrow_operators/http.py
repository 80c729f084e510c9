"""Makes one HTTP request."""

from __future__ import annotations

import base64
import codecs
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from urllib.parse import urlencode

from yarrow import Context, Fail, Operator, YarrowError, param
from yarrow.connections import Connection
from yarrow.jsontypes import Json
from yarrow.operator import ArgumentPath
from yarrow.version import __version__

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

MAX_RESPONSE = 32 * 1024 * 1024
"""Bytes of a response that are read at most."""

_SHOWN = 500  # characters of an error's response that are shown
_CHUNK = 64 * 1024


class HttpStatus(YarrowError):
    """The server answered with a status that is no success."""

    def __init__(self, status: int, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"The server answered {status} {reason}".rstrip() + ".", hint=hint)
        self.status = status
        self.kinds = (f"HttpStatus.{status}",)


class FinalHttpStatus(HttpStatus, Fail):
    """The server answered with a status that another try would not change."""


class Http(Operator):
    """Makes one HTTP request; the response is the XCom.

    A response whose status is not among `ok_status` is an error. It is retried, as the task's `retries` say, for the
    statuses of `retry_on`, a timeout or a broken connection, and not retried otherwise. Redirects are followed for GET
    and HEAD only, without the login of the connection when they lead to another host.

    A connection gives the beginning of the URL and the login: its login and password as Basic authorization, or its
    extra `token` as a bearer token.

    For the task's own `retry_on` and `no_retry_on` such a response is an `HttpStatus`, and one of 503 an
    `HttpStatus.503`.
    """

    url: str | None = param(default=None, doc="The whole URL. Either this or `conn_id`.", pattern=r"https?://.+")
    conn_id: str | None = param(default=None, doc="The connection, whose URI is `https://login:password@host/path`.")
    path: str = param(default="", doc="What follows the connection's URI.", examples=("/v1/jobs/{{ ds }}",))
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = param(default="GET", doc="The method.")
    headers: dict[str, str] = param(default={}, doc="Request headers.")
    params: dict[str, Json] = param(
        default={}, doc="What follows the `?`. A list gives one parameter for each item; null leaves one out."
    )
    json: Json = param(default=None, doc="The body, sent as JSON.")
    data: str | None = param(default=None, doc="The body as text, sent in UTF-8. Not together with `json`.")
    ok_status: list[int] = param(default=[], doc="The statuses that are a success. By default 200 to 299.")
    retry_on: list[int] = param(
        default=[408, 425, 429, 500, 502, 503, 504], doc="The statuses after which another try may help."
    )
    response_type: Literal["json", "text", "none"] = param(
        default="json", doc="How the body is read into the XCom's `body`; with `none` it is not read."
    )
    timeout: float = param(
        default=60.0, minimum=0.1, maximum=3600, doc="Seconds to wait for the connection, and between two pieces of it."
    )

    class Outputs(TypedDict):
        status: int
        headers: dict[str, str]
        body: Json

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """Two addresses or none, two bodies, a path that nothing is before."""
        given = {name for name in ("url", "conn_id", "path", "json", "data") if arguments.get(name) is not None}
        if not {"url", "conn_id"} & given:
            yield (), "Give either `url` or `conn_id`."
        elif {"url", "conn_id"} <= given:
            yield ("url",), "Give either `url` or `conn_id`; what follows the connection's URI is its `path`."
        elif {"url", "path"} <= given and arguments["path"]:
            yield ("path",), "`path` follows the URI of a connection; `url` is the whole address."
        if {"json", "data"} <= given:
            yield ("data",), "Give either `json` or `data`."

    def execute(self, context: Context) -> Outputs:
        return self.request(context, logging.INFO)

    def request(self, context: Context, level: int) -> Outputs:
        """Makes the request, and tells of the response in a line of the log of this level."""
        import urllib3

        for _, problem in self.check(vars(self), ()):
            raise Fail(problem)
        url, headers, body = self._request(context)
        shown = re.sub(r"//[^/]*@", "//", url.partition("?")[0])  # without what may be secret
        pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=self.timeout, read=self.timeout))
        redirects = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)
        try:
            response = pool.request(
                self.method,
                url,
                headers=headers,
                body=body,
                preload_content=False,
                redirect=self.method in ("GET", "HEAD"),
                retries=redirects,
            )
            with response:
                context.log.log(level, "%s %s: %d %s", self.method, shown, response.status, response.reason or "")
                text = self._read(response, context)
        except urllib3.exceptions.LocationValueError as error:
            raise Fail(f"{shown} is not a URL: {error}") from error
        except urllib3.exceptions.MaxRetryError as error:
            reason = error.reason or "too many redirects"
            raise YarrowError(f"{self.method} {shown} failed: {reason}") from (error.reason or error)
        except urllib3.exceptions.HTTPError as error:
            raise YarrowError(f"{self.method} {shown} failed: {error}") from error
        finally:
            pool.clear()
        return {
            "status": response.status,
            "headers": {name.lower(): value for name, value in response.headers.items() if name.lower() in _KEPT},
            "body": self._body(text, shown),
        }

    def _request(self, context: Context) -> tuple[str, dict[str, str], bytes | None]:
        headers = {"User-Agent": f"yarrow/{__version__}"}
        if self.conn_id is not None:
            connection = context.connection(self.conn_id)
            url = connection.http_base() + ("/" + self.path.lstrip("/") if self.path else "")
            headers |= _authorization(connection)
        else:
            assert self.url is not None
            url = self.url
        query = urlencode([(name, _query_text(item)) for name, value in self.params.items() for item in _items(value)])
        if query:
            url += ("&" if "?" in url else "?") + query
        body = self.data
        if self.json is not None:
            body = json.dumps(self.json)
            headers["Content-Type"] = "application/json"
        return url, headers | self.headers, body.encode() if body is not None else None

    def _read(self, response: BaseHTTPResponse, context: Context) -> str:
        """The body, if the status is a success. Raises for every other status."""
        ok = response.status in self.ok_status if self.ok_status else 200 <= response.status < 300
        wanted = self.response_type != "none" or not ok
        content = bytearray()
        for chunk in response.stream(_CHUNK, decode_content=True) if wanted else ():
            context.check_interrupted()
            content += chunk
            if len(content) > MAX_RESPONSE:
                raise Fail(f"The response is larger than {MAX_RESPONSE // 1024 // 1024} MiB.")
            if not ok and len(content) > 4 * _SHOWN:
                break
        text = content.decode(_charset(response.headers.get("content-type", "")), errors="replace")
        if ok:
            return text
        shown = " ".join(text.split())[:_SHOWN]
        kind = HttpStatus if response.status in self.retry_on else FinalHttpStatus
        raise kind(response.status, response.reason or "", hint=shown or None)

    def _body(self, text: str, shown: str) -> Json:
        if self.response_type == "none":
            return None
        if self.response_type == "text":
            return text
        if not text.strip():
            return None
        try:
            body: Json = json.loads(text)
        except ValueError as error:
            raise Fail(
                f"The response of {shown} is not JSON: {error}.", hint="Set `response_type: text` or `none`."
            ) from error
        return body


_KEPT = frozenset({"content-type", "content-length", "etag", "last-modified", "link", "location", "retry-after"})
"""The response headers that go into the XCom. Others may carry cookies."""


def _authorization(connection: Connection) -> dict[str, str]:
    if token := connection.extra.get("token"):
        return {"Authorization": f"Bearer {token}"}
    if connection.login or connection.password:
        basic = f"{connection.login or ''}:{connection.password or ''}".encode()
        return {"Authorization": f"Basic {base64.b64encode(basic).decode()}"}
    return {}


def _items(value: Json) -> list[Json]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _query_text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _charset(content_type: str) -> str:
    """The character set that a response names, UTF-8 when it names none that Python knows."""
    _, _, name = content_type.lower().partition("charset=")
    try:
        return codecs.lookup(name.split(";")[0].strip(" \"'")).name
    except LookupError:
        return "utf-8"

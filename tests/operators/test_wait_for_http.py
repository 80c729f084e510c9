"""Waiting for the answer of a real server."""

import base64
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from yarrow import Fail, NotYet
from yarrow.error_kinds import error_kinds
from yarrow_operators.wait_for_http import WaitForHttp


class Server(ThreadingHTTPServer):
    """Answers with what it was told."""

    daemon_threads = True
    status = 200
    body: Any = None
    asked: list[tuple[str, str, str | None]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        self.send_response(self.server.status)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(json.dumps(self.server.body).encode())

    do_HEAD = do_GET  # noqa: N815 - a name of http.server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def missing(task: WaitForHttp, context: Any) -> str:
    answer = task.poke(context)
    assert isinstance(answer, NotYet)
    return answer.reason


@pytest.mark.parametrize("status", [404, 408, 409, 425, 429, 500, 502, 503, 504])
def test_statuses_that_mean_not_yet(context: Any, server: Server, status: int) -> None:
    server.status = status
    assert missing(WaitForHttp(url=server.url), context).startswith(f"The server answered {status}")
    server.status = 204
    found: Any = WaitForHttp(url=server.url).poke(context)
    assert found["status"] == 204


@pytest.mark.parametrize("status", [400, 401, 403, 410, 501])
def test_statuses_that_will_not_mend_themselves(context: Any, server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(Fail, match=f"answered {status}") as caught:
        WaitForHttp(url=server.url).poke(context)
    assert error_kinds(caught.value)[0] == f"HttpStatus.{status}"


def test_statuses_of_ones_own(context: Any, server: Server) -> None:
    server.status = 302
    assert WaitForHttp(url=server.url, ok_status=[302]).poke(context)
    server.status = 403
    missing(WaitForHttp(url=server.url, not_yet=[403]), context)
    server.status = 404
    with pytest.raises(Fail):
        WaitForHttp(url=server.url, not_yet=[403]).poke(context)


def test_a_server_that_is_not_there(context: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        assert "Connection refused" in missing(WaitForHttp(url=url), context)


def test_a_server_that_hangs(context: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        task = WaitForHttp(url=f"http://127.0.0.1:{silent.getsockname()[1]}/", request_timeout=0.1)
        assert "timed out" in missing(task, context)


@pytest.mark.parametrize(
    ("body", "fields", "there"),
    [
        ({"job": {"state": "done"}}, {"field": "job.state", "equals": "done"}, True),
        ({"job": {"state": "running"}}, {"field": "job.state", "equals": "done"}, False),
        ({"job": {"state": "done"}}, {"field": "job.state", "equals": ["done", "archived"]}, True),
        ({"items": [{"ready": True}]}, {"field": "items.0.ready"}, True),
        ({"items": [{"ready": True}]}, {"field": "items.1.ready"}, False),
        ({"count": 0}, {"field": "count"}, False),
        ({"count": 0}, {"field": "count", "equals": 0}, True),
        ({"count": 1}, {"field": "count", "equals": True}, False),
        ({}, {"field": "count"}, False),
        ([1, 2], {"field": "1", "equals": 2}, True),
        ("text", {"field": "a"}, False),
        (None, {"field": "a"}, False),
    ],
)
def test_a_value_in_the_body(context: Any, server: Server, body: Any, fields: dict[str, Any], there: bool) -> None:
    server.body = body
    answer: Any = WaitForHttp(url=server.url, **fields).poke(context)
    assert bool(answer) is there
    if there:
        assert answer == {"status": 200, "body": body}


def test_without_a_field_the_body_is_a_text(context: Any, server: Server) -> None:
    server.body = {"a": 1}
    assert WaitForHttp(url=server.url).poke(context) == {"status": 200, "body": '{"a": 1}'}
    assert WaitForHttp(url=server.url, method="HEAD").poke(context) == {"status": 200, "body": ""}


def test_a_connection(context: Any, server: Server) -> None:
    context.connections = {"api": f"http://me:secret@127.0.0.1:{server.server_port}/v1"}
    assert WaitForHttp(conn_id="api", path="/jobs", params={"day": "1"}).poke(context)
    basic = "Basic " + base64.b64encode(b"me:secret").decode()
    assert server.asked == [("GET", "/v1/jobs?day=1", basic)]


def test_a_look_prints_nothing(context: Any, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    WaitForHttp(url=server.url).poke(context)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({}, ()),
        ({"url": "http://h", "conn_id": "api"}, ("url",)),
        ({"url": "http://h", "equals": 1}, ("equals",)),
        ({"url": "http://h", "field": "a", "method": "HEAD"}, ("field",)),
    ],
)
def test_it_is_checked_when_its_file_is_loaded(arguments: dict[str, Any], path: tuple[str, ...]) -> None:
    assert [place for place, _ in WaitForHttp.check(arguments, ())] == [path]

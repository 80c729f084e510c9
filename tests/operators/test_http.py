"""The http operator, against a real server."""

import base64
import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from yarrow.error_kinds import error_kinds
from yarrow.errors import Fail, Interrupted, YarrowError
from yarrow_operators import http
from yarrow_operators.http import Http


class Server(ThreadingHTTPServer):
    """Answers with the status that the path names, and with what it was asked."""

    daemon_threads = True
    asked: list[dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        asked = {"method": self.command, "path": url.path, "query": parse_qsl(url.query), "body": body}
        self.server.asked.append(asked | {"headers": {name.lower(): text for name, text in self.headers.items()}})
        kind = url.path.rsplit("/", 1)[-1]
        if kind == "hang-up":
            self.close_connection = True
            return
        self.send_response(302 if kind == "loop" else int(kind) if kind.isdecimal() else 200)
        content = json.dumps(asked).encode()
        if kind == "302":
            self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere")
        if kind == "loop":
            self.send_header("Location", "/loop")
        if kind == "gzip":
            content = gzip.compress(content)
            self.send_header("Content-Encoding", "gzip")
        if kind == "latin":
            content = "Ærø".encode("latin-1")
            self.send_header("Content-Type", "text/plain; charset=ISO-8859-1")
        if kind == "huge":
            content = b"x" * (http.MAX_RESPONSE + 1)
        if kind in ("204", "304") or self.command == "HEAD":
            content = b""
        self.send_header("Set-Cookie", "session=hunter22")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        try:
            self.wfile.write(content)
        except ConnectionError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - names of http.server


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running: Server) -> Server:
    running.asked = []
    return running


@pytest.fixture
def base(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_get_answers_with_status_headers_and_body(context: Any, base: str) -> None:
    value = Http(url=f"{base}/v1/jobs?x=1", params={"y": [1, "a b"], "z": None, "w": True}).execute(context)

    assert value["status"] == 200
    assert value["headers"]["etag"] == '"1"'
    assert "set-cookie" not in value["headers"]
    assert value["body"] == {
        "method": "GET",
        "path": "/v1/jobs",
        "query": [["x", "1"], ["y", "1"], ["y", "a b"], ["w", "true"]],
        "body": "",
    }


def test_bodies(context: Any, base: str, server: Server) -> None:
    sent = Http(url=base, method="POST", json={"a": ["ü"]}).execute(context)
    assert json.loads(sent["body"]["body"]) == {"a": ["ü"]}  # type: ignore[call-overload,index] # JSON of the server
    assert server.asked[0]["headers"]["content-type"] == "application/json"

    Http(url=base, method="PUT", data="a=ü", headers={"Content-Type": "text/plain"}).execute(context)
    assert server.asked[1]["body"] == "a=ü"
    assert server.asked[1]["headers"]["content-type"] == "text/plain"


def test_response_types(context: Any, base: str) -> None:
    assert Http(url=f"{base}/latin", response_type="text").execute(context)["body"] == "Ærø"
    assert Http(url=f"{base}/none", response_type="none").execute(context)["body"] is None
    assert Http(url=f"{base}/204").execute(context) == {
        "status": 204,
        "headers": {"etag": '"1"', "content-length": "0"},
        "body": None,
    }
    assert Http(url=f"{base}/gzip").execute(context)["status"] == 200
    assert Http(url=f"{base}/x", method="HEAD").execute(context)["body"] is None
    with pytest.raises(Fail, match="is not JSON"):
        Http(url=f"{base}/latin").execute(context)


def test_a_connection_gives_the_beginning_of_the_url_and_the_login(context: Any, base: str, server: Server) -> None:
    host = base.removeprefix("http://")
    context.connections = {"basic": f"http://me:p%C3%BC@{host}/api/", "bearer": f"http://{host}?token=t0ken"}

    Http(conn_id="basic", path="/v1/x").execute(context)
    Http(conn_id="bearer").execute(context)

    assert server.asked[0]["path"] == "/api/v1/x"
    assert server.asked[0]["headers"]["authorization"] == "Basic " + base64.b64encode("me:pü".encode()).decode()
    assert server.asked[1]["headers"]["authorization"] == "Bearer t0ken"


def test_a_redirect_to_another_host_does_not_carry_the_login(context: Any, base: str, server: Server) -> None:
    context.connections = {"api": base.replace("http://", "http://me:hunter22@")}

    value = Http(conn_id="api", path="302").execute(context)

    assert value["status"] == 200
    assert [asked["path"] for asked in server.asked] == ["/302", "/elsewhere"]
    assert "authorization" in server.asked[0]["headers"]
    assert "authorization" not in server.asked[1]["headers"]


def test_a_redirect_of_a_post_is_not_followed(context: Any, base: str, server: Server) -> None:
    with pytest.raises(Fail, match="answered 302"):
        Http(url=f"{base}/302", method="POST").execute(context)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_statuses_that_another_try_may_mend(context: Any, base: str, status: int) -> None:
    with pytest.raises(YarrowError, match=f"answered {status}") as caught:
        Http(url=f"{base}/{status}").execute(context)

    assert not isinstance(caught.value, Fail)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 501])
def test_statuses_that_it_would_not(context: Any, base: str, status: int) -> None:
    with pytest.raises(Fail, match=f'answered {status} .*"path": "/{status}"'):
        Http(url=f"{base}/{status}").execute(context)


def test_statuses_can_be_chosen(context: Any, base: str) -> None:
    assert Http(url=f"{base}/404", ok_status=[200, 404]).execute(context)["status"] == 404
    with pytest.raises(Fail, match="answered 200"):
        Http(url=base, ok_status=[201]).execute(context)
    with pytest.raises(YarrowError) as caught:
        Http(url=f"{base}/404", retry_on=[404]).execute(context)
    assert not isinstance(caught.value, Fail)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x?key=hunter22", "{base}/hang-up", "{base}/loop"])
def test_no_answer_may_be_tried_again(context: Any, base: str, url: str) -> None:
    with pytest.raises(YarrowError, match=r"GET http.* failed") as caught:
        Http(url=url.format(base=base), timeout=5).execute(context)

    assert not isinstance(caught.value, Fail)
    assert "hunter22" not in str(caught.value)


def test_a_server_that_is_silent_is_given_up(context: Any) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(YarrowError, match=r"failed: .*timed out"):
        Http(url=f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.1).execute(context)


def test_a_response_that_is_too_large(context: Any, base: str) -> None:
    with pytest.raises(Fail, match="larger than 32 MiB"):
        Http(url=f"{base}/huge", response_type="text").execute(context)


def test_an_interruption_stops_the_reading(context: Any, base: str) -> None:
    context.interrupt = lambda: True

    with pytest.raises(Interrupted):
        Http(url=f"{base}/huge").execute(context)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Http(), "either `url` or `conn_id`"),
        (Http(url="http://h", conn_id="c"), "either `url` or `conn_id`"),
        (Http(url="http://h", json={}, data="x"), "either `json` or `data`"),
        (Http(url="http://h", path="/x"), "`url` is the whole address"),
        (Http(url="http://[::1/"), "is not a URL"),
        (Http(url="http:///x"), "is not a URL"),
    ],
)
def test_a_mistake_is_explained_and_not_retried(context: Any, task: Http, message: str) -> None:
    with pytest.raises(Fail, match=message):
        task.execute(context)


@pytest.mark.parametrize(("status", "final"), [(503, False), (404, True)])
def test_an_error_is_called_by_its_status(context: Any, base: str, status: int, final: bool) -> None:
    with pytest.raises(YarrowError) as caught:
        Http(url=f"{base}/{status}").execute(context)
    assert isinstance(caught.value, Fail) is final
    assert {f"HttpStatus.{status}", "HttpStatus", "yarrow_operators.http.HttpStatus"} <= set(error_kinds(caught.value))


def test_a_broken_connection_is_called_by_its_cause(context: Any) -> None:
    with pytest.raises(YarrowError) as caught:
        Http(url="http://127.0.0.1:1/").execute(context)
    assert "NewConnectionError" in error_kinds(caught.value)

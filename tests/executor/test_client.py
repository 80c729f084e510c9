"""What the client makes of the answers of a web server, also of strange ones."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from yarrow.errors import Refused
from yarrow.protocol import Heartbeat, LogLine, Report
from yarrow_executor.client import ApiClient, Rejected, Unreachable

HEARTBEAT = Heartbeat("w1", "host", 1, ("*",), 1, "0.1.0")


class Server:
    """Answers each request with the next of the prepared bytes; None closes the connection without an answer."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/below"
        self.answers: list[bytes | None] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while request := connection.recv(1 << 20):
                    self.requests.append(request)
                    answer = self.answers.pop(0)
                    if answer is None:
                        break
                    connection.sendall(answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def answer(status: int, body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), headers, body)


OK = answer(200, b'{"stop": {}, "interval": 5.0}')


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def client(server: Server) -> Iterator[ApiClient]:
    client = ApiClient(server.url, "worker-token", timeout=5)
    yield client
    client.close()


def test_a_request_says_who_and_in_which_version_and_the_connection_is_kept(client: ApiClient, server: Server) -> None:
    server.answers = [
        OK,
        answer(200, b'{"refused": 0}'),
        answer(200, b'{"run_id": "r"}'),
        answer(200, b'{"next": null}'),
    ]
    assert client.heartbeat(HEARTBEAT).interval == 5.0
    client.logs([("attempt-token", [LogLine("now", "stdout", "ä")])])
    assert client.trigger("attempt-token", "dag", {}, None) == "r"
    assert client.finish(Report("a", "success"), "attempt-token", "w1", following_of="default") is None
    assert server.connections == 1
    head = server.requests[0].split(b"\r\n\r\n")[0].decode()
    assert head.startswith("POST /below/execution/v1/heartbeat HTTP/1.1\r\n")
    assert "Authorization: Bearer worker-token" in head
    assert "X-Yarrow-Protocol: 1" in head
    assert b"Bearer attempt-token" in server.requests[3]
    assert b'"next":"default"' in server.requests[3]


def test_an_attempt_asks_for_its_cache_and_for_other_tasks(client: ApiClient, server: Server) -> None:
    server.answers = [
        answer(200, b'{"hit": true, "has_xcom": true, "xcom": 5, "attempt_id": "a0", "run_id": "r"}'),
        answer(200, b'{"state": null, "run_id": null}'),
    ]
    assert client.cache("attempt-token", "k")["xcom"] == 5
    assert client.task_state("attempt-token", "dag", None, "2026-01-01T00:00:00+00:00") == {
        "state": None,
        "run_id": None,
    }
    assert server.requests[0].endswith(b'{"key":"k"}')
    assert server.requests[1].startswith(b"POST /below/execution/v1/task-state ")
    assert server.requests[1].endswith(b'{"dag_id":"dag","task_id":null,"logical_date":"2026-01-01T00:00:00+00:00"}')


def test_a_connection_that_the_server_has_closed_is_opened_again(client: ApiClient, server: Server) -> None:
    server.answers = [answer(200, b'{"stop": {}, "interval": 5.0}', b"Connection: close\r\n"), OK]
    client.heartbeat(HEARTBEAT)
    client.heartbeat(HEARTBEAT)
    assert server.connections == 2


@pytest.mark.parametrize(
    ("sent", "error", "words"),
    [
        (None, Unreachable, "does not answer"),
        (b"nonsense\r\n\r\n", Unreachable, "does not answer"),
        (answer(500, b'{"error": "oops"}'), Unreachable, "oops"),
        (answer(503, b"<html>"), Unreachable, "503"),
        (answer(302, b""), Unreachable, "302"),
        (answer(200, b"<html>hello"), Unreachable, "is this the web server of Yarrow"),
        (answer(200, b"[]"), Unreachable, "is this the web server of Yarrow"),
        (answer(404, b"<html>"), Rejected, "is this the web server of Yarrow"),
        (answer(426, b'{"error": "update it"}'), Rejected, "update it"),
        (answer(409, b'{"error": "taken"}'), Refused, "taken"),
    ],
)
def test_errors_say_whether_to_try_again(
    client: ApiClient, server: Server, sent: bytes | None, error: type[Exception], words: str
) -> None:
    server.answers = [sent, OK]
    with pytest.raises(error, match=words):
        client.heartbeat(HEARTBEAT)
    assert client.heartbeat(HEARTBEAT).interval == 5.0, "the client is as good as new"


def test_nobody_there() -> None:
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    with pytest.raises(Unreachable, match="connection refused"):
        ApiClient(f"http://127.0.0.1:{port}", "token").heartbeat(HEARTBEAT)


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "ä", "", "a b"])
def test_a_forged_token_writes_no_headers(
    server: Server, token: str, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: client.claim("a", token, "w1"),
        lambda: ApiClient(server.url, token).heartbeat(HEARTBEAT),
    ]
    for call in calls:
        with pytest.raises(Rejected):
            call()
    assert server.requests == []

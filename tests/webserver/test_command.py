"""`yarrow webserver` as a real process."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from yarrow.errors import UsageError
from yarrow_webserver import command


def environment(config: Any, **changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("YARROW_")}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "YARROW_HOME": str(config.home),
        "YARROW_DAGS_FOLDER": str(config.dags_folder),
        "YARROW_DATABASE_URL": config.database_url,
        **changes,
    }


@contextmanager
def running(config: Any, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", "from yarrow_webserver.command import webserver; webserver()", *arguments],
        env=environment(config),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "listening on http://127.0.0.1:" in line, line + process.stdout.read()
        yield process, int(line.rsplit(":", 1)[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.slow
def test_it_serves_keeps_connections_and_stops_at_sigterm(config: Any) -> None:
    with running(config, "--port", "0") as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        assert get(connection, "/health/live")[0] == 200
        first = connection.sock
        assert get(connection, "/")[0] == 200
        assert connection.sock is first
        status, body = get(connection, "/health/ready")
        assert status == 503
        assert json.loads(body)["parts"]["database"]["ok"]

        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        assert process.wait(timeout=10) == 0
        assert time.monotonic() - begin < 5
        assert process.stdout is not None
        assert process.stdout.read() == ""
        connection.close()


@pytest.mark.slow
def test_nothing_is_left_when_it_stops(config: Any) -> None:
    with running(config, "--port", "0") as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        assert get(connection, "/health/live")[0] == 200
        connection.close()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
        assert not any(Path(f"/proc/{child}").exists() for child in children)
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can end a process with its parent")
def test_a_killed_server_gives_its_port_back_at_once(config: Any) -> None:
    with running(config, "--port", "0") as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        assert get(connection, "/health/live")[0] == 200
        process.kill()
        process.wait(timeout=10)
        deadline = time.monotonic() + 0.5  # the process that serves would notice by itself after a second or more
        while True:
            try:
                command.listen("127.0.0.1", port).close()
                break
            except UsageError:
                assert time.monotonic() < deadline, "the port is still taken"
                time.sleep(0.01)
        connection.close()


@pytest.mark.slow
def test_slow_clients_do_not_keep_others_waiting_for_ever(config: Any) -> None:
    with running(config, "--port", "0") as (_, port):
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(command.THREADS)]
        try:
            for connection in slow:
                connection.sendall(b"GET / HT")
            quick = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            assert get(quick, "/health/live")[0] == 200
            quick.close()
        finally:
            for connection in slow:
                connection.close()


def test_a_port_in_use_is_told_in_one_sentence() -> None:
    with command.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"Port {port} of 127.0.0.1 is in use by another program. Choose another"):
            command.listen("127.0.0.1", port)


def test_an_address_that_is_not_here() -> None:
    with pytest.raises(UsageError, match=r"no address 'no.such.host.invalid'"):
        command.listen("no.such.host.invalid", 0)
    with pytest.raises(UsageError, match=r"can't listen on 192.0.2.1"):
        command.listen("192.0.2.1", 0)


def test_a_broken_database_is_told_before_anything_starts(config: Any, tmp_path: Path, monkeypatch: Any) -> None:
    broken = tmp_path / "broken.db"
    broken.write_text("this is no database" * 100)
    for name, value in environment(config, YARROW_DATABASE_URL=f"sqlite:///{broken}").items():
        monkeypatch.setenv(name, value)

    result = CliRunner().invoke(command.webserver, ["--port", "0"])

    assert result.exit_code == 1
    assert "listening" not in result.output
    assert "database" in str(result.exception)


@pytest.mark.parametrize(("address", "loopback"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False)])
def test_loopback(address: str, loopback: bool) -> None:
    assert command._is_loopback(address) is loopback

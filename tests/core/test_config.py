"""The configuration: where settings come from, how they are read and what is said when they are wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from yarrow.config import SETTINGS, Config, load, load_config
from yarrow.errors import ConfigError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(tmp_path: Path, text: str = "", env: Mapping[str, str] | None = None, **overrides: Any) -> Config:
    file = tmp_path / "given.yaml"
    file.write_text(text)
    return load_config(file, {"YARROW_HOME": str(tmp_path / "home"), **(env or {})}, overrides)


def fault(tmp_path: Path, text: str = "", env: Mapping[str, str] | None = None, **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, env, **overrides)
    return str(caught.value)


def test_defaults_follow_from_home_host_and_port(tmp_path: Path) -> None:
    home = tmp_path / "home"
    config = load_config(env={"YARROW_HOME": str(home)})
    assert config.home == home
    assert config.database_url == f"sqlite:///{home}/yarrow.db"
    assert config.objects_url == f"file://{home}/objects"
    assert config.logs_url == f"file://{home}/logs"
    assert config.api_url == "http://127.0.0.1:8080"
    assert config.broker_url == ""
    assert config.dags_folder == tmp_path / "dags"
    assert config.signing_key_file == home / "signing.key"
    assert not home.exists()  # reading the configuration writes nothing


def test_home_is_in_the_users_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config(env={}).home == tmp_path / ".yarrow"


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:9"), ("::", "http://[::1]:9"), ("10.1.2.3", "http://10.1.2.3:9")],
)
def test_workers_reach_a_server_that_listens_everywhere(tmp_path: Path, host: str, url: str) -> None:
    assert read(tmp_path, host=host, port=9).api_url == url


def test_the_running_embedded_broker_is_found(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "broker.url").write_text("redis://:secret@127.0.0.1:7/0\n")
    assert read(tmp_path).broker_url == "redis://:secret@127.0.0.1:7/0"
    assert read(tmp_path, "broker_url: redis://elsewhere/1").broker_url == "redis://elsewhere/1"


def test_the_running_embedded_broker_is_found_in_the_default_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".yarrow").mkdir()
    (tmp_path / ".yarrow/broker.url").write_text("redis://:secret@127.0.0.1:7/0\n")
    assert load_config(env={}).broker_url == "redis://:secret@127.0.0.1:7/0"


def test_a_missing_broker_is_told_when_it_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="yarrow standalone"):
        read(tmp_path).require_broker_url()


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    text = "port: 1\nparallelism: 1\nlog_level: debug\n"
    env = {"YARROW_PORT": "2", "YARROW_PARALLELISM": "2"}
    file = tmp_path / "given.yaml"
    file.write_text(text)
    loaded = load(file, env, {"port": 3, "host": None})
    assert (loaded.config.port, loaded.config.parallelism, loaded.config.log_level) == (3, 2, "DEBUG")
    assert loaded.sources["port"] == "the command line"
    assert loaded.sources["parallelism"] == "the environment (YARROW_PARALLELISM)"
    assert loaded.sources["log_level"] == f"{file}:3"
    assert loaded.sources["host"] == "default"


def test_the_file_is_looked_for_in_order(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    env = {"YARROW_HOME": str(tmp_path / "home")}
    (tmp_path / "home" / "yarrow.yaml").write_text("port: 1")
    assert load_config(env=env).port == 1
    (tmp_path / "yarrow.yaml").write_text("port: 2")
    assert load_config(env=env).port == 2
    (tmp_path / "named.yaml").write_text("port: 3")
    assert load_config(env={**env, "YARROW_CONFIG": "named.yaml"}).port == 3
    (tmp_path / "given.yaml").write_text("port: 4")
    assert load_config("given.yaml", {**env, "YARROW_CONFIG": "named.yaml"}).port == 4


def test_a_path_in_the_file_is_seen_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "yarrow.yaml").write_text("dags_folder: pipelines\nworker_python_path: [lib, /abs]\n")
    config = load_config("conf/yarrow.yaml", {"YARROW_HOME": "state"})
    assert config.dags_folder == tmp_path / "conf" / "pipelines"
    assert config.worker_python_path == (str(tmp_path / "conf" / "lib"), "/abs")
    assert config.home == tmp_path / "state"


EXAMPLES: dict[str, tuple[str, Any]] = {
    "home": ("/h", Path("/h")),
    "dags_folder": ("/d", Path("/d")),
    "database_url": ("postgresql://h/db", "postgresql://h/db"),
    "broker_url": ("rediss://h", "rediss://h"),
    "api_url": ("https://h/", "https://h"),
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "objects_url": ("s3://bucket/objects", "s3://bucket/objects"),
    "logs_url": ("memory://logs", "memory://logs"),
    "parse_interval": ("500ms", 0.5),
    "parallelism": ("7", 7),
    "pools": ("gpu=2, default_pool=9", {"default_pool": 9, "gpu": 2}),
    "queues": ("default,gpu", ("default", "gpu")),
    "worker_concurrency": ("3", 3),
    "worker_python_path": ("/a,/b", ("/a", "/b")),
    "worker_grace": ("90s", 90.0),
    "worker_token": ("w1.x", "w1.x"),
    "lease": ("2m", 120.0),
    "heartbeat_interval": ("1.5", 1.5),
    "dispatch_timeout": ("1h", 3600.0),
    "queued_timeout": ("1d", 86400.0),
    "backfill_priority": ("5", 5),
    "retention": ("90d", 7776000.0),
    "infra_budget": ("0", 0),
    "slot_hold": ("0", 0.0),
    "xcom_inline_limit": ("1024", 1024),
    "log_limit": ("4096", 4096),
    "variables": ('{"a": "x", "b": 2}', {"a": "x", "b": "2"}),
    "connections": ("db=postgresql://h/d", {"db": "postgresql://h/d"}),
    "base_url": ("https://h", "https://h"),
    "notification_timeout": ("5s", 5.0),
    "notification_give_up": ("2d", 172800.0),
    "log_level": ("warning", "WARNING"),
}


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_is_read_from_the_environment(tmp_path: Path, key: str) -> None:
    text, value = EXAMPLES[key]
    assert getattr(read(tmp_path, env={f"YARROW_{key.upper()}": text}), key) == value


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_is_read_from_the_file(tmp_path: Path, key: str) -> None:
    _, value = EXAMPLES[key]
    plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
    file = tmp_path / "yarrow.yaml"
    file.write_text(json.dumps({key: plain}))
    assert getattr(load_config(file, {}), key) == value


def test_a_mapping_and_a_list_may_be_json_in_the_environment(tmp_path: Path) -> None:
    config = read(tmp_path, env={"YARROW_POOLS": '{"a": 1}', "YARROW_QUEUES": '["default", "b"]'})
    assert config.pools == {"default_pool": 128, "a": 1}
    assert config.queues == ("default", "b")


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert read(tmp_path, env={"YARROW_PORT": "", "YARROW_BROKER_URL": ""}).port == 8080


def test_a_variable_is_the_text_that_was_written(tmp_path: Path) -> None:
    config = read(tmp_path, "variables: {country: no, at: 22:22, mode: 010, ratio: 0.5, deep: {a: [1]}}")
    assert config.variables == {"country": "no", "at": "22:22", "mode": "010", "ratio": "0.5", "deep": '{"a": [1]}'}


def test_an_empty_file_is_a_configuration(tmp_path: Path) -> None:
    assert read(tmp_path, "# nothing\n").port == 8080


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# no\nport: 70000", "`port`, set in {file}:2, must be a whole number from 0 to 65535, not 70000."),
        ("port: true", "must be a whole number from 0 to 65535, not True"),
        ("parallelism: 0", "must be a whole number of at least 1, not 0"),
        ("parallelism: 1.5", "must be a whole number of at least 1, not 1.5"),
        ("parse_interval: soon", "a number of seconds from 0.1 to 3600, or a duration such as `90s` or `5m`"),
        ("queues: {a: 1}", "must be a list of texts"),
        ("queues: [1]", "must be a list of texts"),
        ("pools: [a]", "must be a mapping of names to whole numbers"),
        ("pools: {a: -1}", "must be a mapping of names to whole numbers"),
        ("variables: text", "must be a mapping"),
        ("log_level: LOUD", "must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, not 'LOUD'"),
        ("host: 5", "must be text (put it in quotes), not 5"),
        ("home: 5", "must be the path of a folder"),
        ("heartbeat_interval: 20", "must be at most a fifth of `lease` (60 s)"),
        ("queues: [gpu]", "`queues` must contain `default`"),
        ("queues: [default, '*']", "'*' is not a name"),
        ("pools: {'a b': 1}", "'a b' is not a name"),
        ("database_url: mysql://h/d", "`database_url` must begin with one of sqlite://, postgresql://"),
        ("broker_url: amqp://h", "`broker_url` must begin with one of redis://, rediss://"),
        ("paralelism: 3", "there is no setting `paralelism`. Did you mean `parallelism`?"),
        ("colour: red", "there is no setting `colour`. `yarrow config show` lists the settings."),
        ("5: red", "there is no setting `5`."),
        ("variables: {country: !tag x}", "{file}:1:"),
        ("- port", "must be a mapping of settings"),
        ("port: [", "{file}:2:1: "),
        ("port: 1\nport: 2", "{file}:2:1: "),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    assert message.replace("{file}", str(tmp_path / "given.yaml")) in fault(tmp_path, text)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    told = fault(tmp_path, "port: x\ncolour: red\n", {"YARROW_LEASE": "never"})
    assert "`port`, set in" in told
    assert "`colour`" in told
    assert "`lease`, set in the environment (YARROW_LEASE), must be a number of seconds" in told


def test_a_misspelt_variable_is_told_and_a_strange_one_is_left_alone(tmp_path: Path) -> None:
    assert "YARROW_PARALELISM is not a setting. Did you mean YARROW_PARALLELISM?" in fault(
        tmp_path, env={"YARROW_PARALELISM": "3"}
    )
    read(
        tmp_path,
        env={"YARROW_SOMEBODY_ELSE": "1", "YARROW_VAR_PORTS": "1", "YARROW_CONN_HOST": "x", "YARROW_DEBUG": "1"},
    )


def test_a_secret_is_not_repeated_in_an_error(tmp_path: Path) -> None:
    assert "hunter2" not in fault(tmp_path, "connections: [hunter2]")


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file .*nowhere\.yaml\.$"):
        load_config("nowhere.yaml", {})
    with pytest.raises(ConfigError, match="named by YARROW_CONFIG"):
        load_config(None, {"YARROW_CONFIG": "nowhere.yaml"})


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "given.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "given.yaml", {})


def test_a_configuration_can_not_be_changed(tmp_path: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read(tmp_path).port = 3  # type: ignore[misc]  # that is the point


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.metadata["doc"].endswith(".") for field in SETTINGS.values())

"""The configuration: one frozen object, made once at start from `yarrow.yaml`, `YARROW_*` and command-line flags.

A flag wins over the environment, the environment over the file, the file over the default. Everything is checked
here, and all that is wrong is told at once: which setting, where it was set and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarrow.errors import ConfigError
from yarrow.language.faults import Fault
from yarrow.setting import absolute, read_value, setting, shown

FILE_NAME = "yarrow.yaml"
DEFAULT_HOME = "~/.yarrow"
DEFAULT_POOL = "default_pool"
DEFAULT_POOL_SLOTS = 128
DEFAULT_QUEUE = "default"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# Variables of the environment that begin with YARROW_ and are not settings.
_OTHER_ENVIRONMENT = ("YARROW_CONFIG", "YARROW_DEBUG")
_OTHER_PREFIXES = ("YARROW_VAR_", "YARROW_CONN_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting, with its default. Times are in seconds."""

    home: Path = setting(Path(DEFAULT_HOME), "Holds everything the embedded deployment writes.")
    dags_folder: Path = setting(Path("dags"), "The folder of DAG files.")
    database_url: str = setting("", "SQLAlchemy URL; empty: SQLite in `home`.", secret=True)
    broker_url: str = setting("", "Redis or Valkey URL; empty: the embedded one of `home`.", secret=True)
    api_url: str = setting("", "Where workers find the Execution API; empty: `host` and `port`.")
    host: str = setting("127.0.0.1", "The address the web server listens on.")
    port: int = setting(8080, "The port the web server listens on.", minimum=0, maximum=65535)
    objects_url: str = setting("", "fsspec URL for data sets and large XComs; empty: in `home`.", secret=True)
    logs_url: str = setting("", "fsspec URL of the task logs; empty: in `home`.", secret=True)
    parse_interval: float = setting(
        5.0, "How often the DAG folder is looked through.", minimum=0.1, maximum=3600, seconds=True
    )
    parallelism: int = setting(32, "Task instances queued or running at once, in all.", minimum=1)
    pools: Mapping[str, int] = setting(
        {DEFAULT_POOL: DEFAULT_POOL_SLOTS}, "Pools and their slots; `default_pool` is always there.", minimum=0
    )
    queues: tuple[str, ...] = setting((DEFAULT_QUEUE, "inference"), "The queues of this deployment.")
    worker_concurrency: int = setting(0, "Slots of a worker; 0: the number of cores.", minimum=0, maximum=1024)
    worker_python_path: tuple[str, ...] = setting((), "Folders where workers find `callable:` modules.")
    worker_grace: float = setting(
        30.0, "How long a stopping worker lets its tasks finish before it stops them.", minimum=0, seconds=True
    )
    worker_token: str = setting("", "The token of remote workers (`yarrow config worker-token`).", secret=True)
    lease: float = setting(
        60.0, "How long a worker may be silent before its attempts are lost.", minimum=1, seconds=True
    )
    heartbeat_interval: float = setting(
        5.0, "How often a worker reports; at most a fifth of the lease.", minimum=0.1, seconds=True
    )
    dispatch_timeout: float = setting(
        60.0, "A wake-up that nobody claimed by then is sent again.", minimum=1, seconds=True
    )
    queued_timeout: float = setting(
        3600.0, "A task that no worker or pool can take fails after it.", minimum=1, seconds=True
    )
    backfill_priority: int = setting(
        -1, "Priority class of backfills; other runs have 0, and a higher class goes first.", minimum=-100, maximum=100
    )
    retention: float = setting(
        0.0, "How long ended runs are kept with all that belongs to them; 0: for ever.", minimum=0, seconds=True
    )
    infra_budget: int = setting(3, "How often the infrastructure may lose a task instance.", minimum=0)
    slot_hold: float = setting(
        10.0, "How long a slot goes on with the next attempt before it gives way.", minimum=0, seconds=True
    )
    xcom_inline_limit: int = setting(
        48 * 1024, "Bytes of JSON kept in the database; larger goes to objects.", minimum=0, maximum=1024 * 1024
    )
    log_limit: int = setting(50 * 1024 * 1024, "Bytes of log kept for an attempt.", minimum=1024)
    variables: Mapping[str, str] = setting({}, "Variables; `YARROW_VAR_NAME` wins.", secret=True)
    connections: Mapping[str, str] = setting({}, "Connections as URIs; `YARROW_CONN_NAME` wins.", secret=True)
    base_url: str = setting("", "Where people find the web server: for links in notifications; empty: no links.")
    notification_timeout: float = setting(
        10.0, "How long a receiver of notifications may take to answer.", minimum=0.1, maximum=60, seconds=True
    )
    notification_give_up: float = setting(
        86400.0, "A notification that could not be delivered by then is given up.", minimum=1, seconds=True
    )
    log_level: str = setting("INFO", "The level of the services' own log.", choices=LOG_LEVELS)

    @property
    def signing_key_file(self) -> Path:
        """Where the key lies that signs the tokens of attempts and workers."""
        return self.home / "signing.key"

    @property
    def broker_url_file(self) -> Path:
        """Where the embedded broker says how to reach it."""
        return self.home / "broker.url"

    def require_broker_url(self) -> str:
        """The broker's URL. Raises ConfigError when none is set and the embedded one is not running."""
        if not self.broker_url:
            raise ConfigError(
                f"There is no broker: `broker_url` is not set, and {self.broker_url_file} does not exist.",
                hint="Start `yarrow standalone`, or set `broker_url` to a Redis or Valkey.",
            )
        return self.broker_url


SETTINGS: Mapping[str, dataclasses.Field[Any]] = {field.name: field for field in dataclasses.fields(Config)}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and where each of its settings comes from."""

    config: Config
    sources: Mapping[str, str]
    file: Path | None


def load_config(
    path: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration of this process. See `load`."""
    return load(path, env, overrides).config


def load(
    path: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Loaded:
    """Reads the configuration, fills in what follows from `home`, `host` and `port`, and remembers every source.

    Args:
        path: The configuration file; None looks at `YARROW_CONFIG`, `./yarrow.yaml` and `HOME/yarrow.yaml`.
        env: The environment; None is the process's own.
        overrides: Command-line flags by the setting's name; None values are ignored.

    Raises:
        ConfigError: It names everything that is wrong.
    """
    env = os.environ if env is None else env
    file = _find_file(path, env)
    faults: list[str] = []
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for base, raw in (
        (file.parent if file else Path.cwd(), _read_file(file, faults) if file else {}),
        (Path.cwd(), _read_environment(env, faults)),
        (Path.cwd(), _read_flags(overrides or {})),
    ):
        for key, (value, source) in raw.items():
            try:
                values[key] = read_value(SETTINGS[key], value, base)
                sources[key] = source
            except ValueError as error:
                found = "" if SETTINGS[key].metadata["secret"] else f", not {shown(value)}"
                faults.append(f"`{key}`, set in {source}, must be {error}{found}.")
    if not faults:
        config = _resolve(Config(**values))
        faults = _inconsistencies(config)
    if faults:
        raise ConfigError(faults[0] if len(faults) == 1 else "\n  ".join(["The configuration has faults.", *faults]))
    return Loaded(config, {key: sources.get(key, "default") for key in SETTINGS}, file)


def _find_file(path: Path | str | None, env: Mapping[str, str]) -> Path | None:
    named = path or env.get("YARROW_CONFIG")
    if named:
        file = Path(named).expanduser().absolute()
        if not file.is_file():
            origin = "" if path else " (named by YARROW_CONFIG)"
            raise ConfigError(f"There is no configuration file {file}{origin}.")
        return file
    home = Path(env.get("YARROW_HOME") or DEFAULT_HOME).expanduser()
    for candidate in (Path.cwd() / FILE_NAME, home / FILE_NAME):
        if candidate.is_file():
            return candidate.absolute()
    return None


def _read_file(file: Path, faults: list[str]) -> dict[str, tuple[Any, str]]:
    """The settings of a file, each with its place. A file is written in the YAML of DAG files."""
    from yarrow.language.nodes import MappingNode, data  # most commands have no file to read
    from yarrow.language.reader import read
    from yarrow.language.source import Source

    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The configuration file {file} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The configuration file {file} is not UTF-8 text.") from error
    if not text.strip():
        return {}
    found: list[Fault] = []
    tree = read(Source(str(file), text), found)
    if any(fault.severity == "error" for fault in found):
        faults += [_words(fault) for fault in found if fault.severity == "error"]
        return {}
    values = data(tree) if tree else None
    if values is None:
        return {}
    if not isinstance(tree, MappingNode) or not isinstance(values, Mapping):
        faults.append(f"{file} must be a mapping of settings, such as `parallelism: 16`.")
        return {}
    places = {key: f"{file}:{node.line}" for key, node in tree.keys.items()}
    faults += [
        f"{places[key]}: there is no setting `{key}`.{_did_you_mean(key)}" for key in values if key not in SETTINGS
    ]
    return {key: (value, places[key]) for key, value in values.items() if key in SETTINGS and value is not None}


def _words(fault: Fault) -> str:
    text = f"{fault.file}:{fault.line}:{fault.column}: {fault.message}"
    return f"{text} {fault.hint}" if fault.hint else text


def _read_flags(overrides: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    return {key: (value, "the command line") for key, value in overrides.items() if value is not None}


def _read_environment(env: Mapping[str, str], faults: list[str]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for name, text in env.items():
        if not name.startswith("YARROW_") or name in _OTHER_ENVIRONMENT or name.startswith(_OTHER_PREFIXES):
            continue
        key = name.removeprefix("YARROW_").lower()
        if key in SETTINGS:
            if text:  # an empty variable is how a compose file says "not set"
                found[key] = (text, f"the environment ({name})")
        elif hint := _did_you_mean(key, env=True):
            # Anything less like a setting may belong to somebody else's tool.
            faults.append(f"The environment variable {name} is not a setting.{hint}")
    return found


def _did_you_mean(key: str, *, env: bool = False) -> str:
    close = difflib.get_close_matches(key, SETTINGS, n=1, cutoff=0.85 if env else 0.6)
    if not close:
        return "" if env else " `yarrow config show` lists the settings."
    return f" Did you mean {f'YARROW_{close[0].upper()}' if env else f'`{close[0]}`'}?"


# What follows from other settings, and what they must be to each other.


def _resolve(config: Config) -> Config:
    config = dataclasses.replace(config, home=absolute(config.home))
    home = config.home
    return dataclasses.replace(
        config,
        dags_folder=absolute(config.dags_folder),
        pools={DEFAULT_POOL: DEFAULT_POOL_SLOTS, **config.pools},
        database_url=config.database_url or f"sqlite:///{home / 'yarrow.db'}",
        broker_url=config.broker_url or _embedded_broker_url(config.broker_url_file),
        api_url=(config.api_url or f"http://{reachable(config.host)}:{config.port}").rstrip("/"),
        objects_url=config.objects_url or f"file://{home / 'objects'}",
        logs_url=config.logs_url or f"file://{home / 'logs'}",
    )


def _embedded_broker_url(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise ConfigError(f"{file} can't be read: {error.strerror}.") from error


def reachable(host: str) -> str:
    """The host to put into a URL for an address that a server listens on."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]" if ":" in host else host


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def _inconsistencies(config: Config) -> list[str]:
    faults = []
    if config.heartbeat_interval > config.lease / 5:
        faults.append(
            f"`heartbeat_interval` ({config.heartbeat_interval:g} s) must be at most a fifth of `lease` "
            f"({config.lease:g} s): a worker may miss a few heartbeats before it counts as lost."
        )
    if DEFAULT_QUEUE not in config.queues:
        faults.append(f"`queues` must contain `{DEFAULT_QUEUE}`: a task without `queue:` goes there.")
    for kind, names in (("queues", config.queues), ("pools", config.pools)):
        faults += [
            f"`{kind}`: {name!r} is not a name; letters, digits, `_`, `.` and `-` make one."
            for name in names
            if not _NAME.fullmatch(name)
        ]
    for key, schemes in _SCHEMES.items():
        url = getattr(config, key)
        if url and not url.startswith(schemes):
            faults.append(f"`{key}` must begin with one of {', '.join(schemes)}.")
    return faults


_SCHEMES = {
    "database_url": ("sqlite://", "postgresql://", "postgresql+psycopg://"),
    "broker_url": ("redis://", "rediss://"),
    "api_url": ("http://", "https://"),
    "base_url": ("http://", "https://"),
}

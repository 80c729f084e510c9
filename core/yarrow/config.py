"""The configuration: one frozen object, made once at start from `yarrow.yaml`, `YARROW_*` and command-line flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting, with its default. Times are in seconds."""

    home: Path = field(default=Path("~/.yarrow"), metadata={"doc": "Holds everything the embedded deployment writes."})
    dags_folder: Path = field(default=Path("dags"), metadata={"doc": "The folder of DAG files."})
    database_url: str = field(default="", metadata={"doc": "SQLAlchemy URL; empty: SQLite in `home`."})
    broker_url: str = field(default="", metadata={"doc": "Redis or Valkey URL; empty: the embedded one of `home`."})
    api_url: str = field(default="", metadata={"doc": "Where workers find the Execution API; empty: host and port."})
    host: str = field(default="127.0.0.1", metadata={"doc": "The address the web server listens on."})
    port: int = field(default=8080, metadata={"doc": "The port the web server listens on."})
    objects_url: str = field(
        default="", metadata={"doc": "fsspec URL for data sets and large XComs; empty: in `home`."}
    )
    logs_url: str = field(default="", metadata={"doc": "fsspec URL of the task logs; empty: in `home`."})
    parse_interval: float = field(default=5.0, metadata={"doc": "How often the DAG folder is looked through."})
    parallelism: int = field(default=32, metadata={"doc": "Task instances queued or running at once, in all."})
    pools: Mapping[str, int] = field(
        default_factory=lambda: {"default_pool": 128}, metadata={"doc": "Pools and their slots."}
    )
    queues: tuple[str, ...] = field(
        default=("default", "inference"), metadata={"doc": "The queues of this deployment."}
    )
    worker_concurrency: int = field(default=0, metadata={"doc": "Slots of a worker; 0: the number of cores."})
    worker_python_path: tuple[str, ...] = field(default=(), metadata={"doc": "Where workers find `callable:` modules."})
    worker_token: str = field(
        default="", metadata={"doc": "The token of remote workers (`yarrow config worker-token`)."}
    )
    lease: float = field(
        default=60.0, metadata={"doc": "How long a worker may be silent before its attempts are lost."}
    )
    heartbeat_interval: float = field(
        default=5.0, metadata={"doc": "How often a worker reports; at most a fifth of the lease."}
    )
    dispatch_timeout: float = field(default=60.0, metadata={"doc": "A wake-up not claimed by then is sent again."})
    queued_timeout: float = field(
        default=3600.0, metadata={"doc": "A task that no worker or pool can take fails after it."}
    )
    infra_budget: int = field(default=3, metadata={"doc": "How often the infrastructure may lose a task instance."})
    slot_hold: float = field(
        default=10.0, metadata={"doc": "How long a slot goes on with the next attempt before it gives way."}
    )
    xcom_inline_limit: int = field(
        default=48 * 1024, metadata={"doc": "Bytes of JSON kept in the database; larger goes to objects."}
    )
    log_limit: int = field(default=50 * 1024 * 1024, metadata={"doc": "Bytes of log kept for an attempt."})
    variables: Mapping[str, str] = field(default_factory=dict, metadata={"doc": "Variables; `YARROW_VAR_NAME` wins."})
    connections: Mapping[str, str] = field(
        default_factory=dict, metadata={"doc": "Connections as URIs; `YARROW_CONN_NAME` wins."}
    )
    log_level: str = field(default="INFO", metadata={"doc": "The level of the services' own log."})

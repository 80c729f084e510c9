"""How commands reach the deployment: its store, and a wake-up for its scheduler.

SQLAlchemy and the broker's client are imported when they are used: half of the commands of a group need neither.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from yarrow.config import Config, load_config
from yarrow.errors import UsageError

if TYPE_CHECKING:
    from yarrow.store import Store


@contextmanager
def open_store(config: Config | None = None) -> Iterator[Store]:
    """The store of the deployment that the configuration names. It is never made or upgraded by this.

    Raises:
        UsageError: There is no SQLite database yet.
        StoreError: The database can't be used.
    """
    from yarrow.store import Store

    config = config or load_config()
    _check_sqlite_file(config.database_url)
    store = Store.open(config.database_url, upgrade=False)
    try:
        yield store
    finally:
        store.close()


def wake_scheduler(config: Config) -> None:
    """Asks the scheduler to look at the database now; without a broker it sees the change a little later by itself."""
    from yarrow.wakeup import Notifier

    if config.broker_url:
        with Notifier(config.broker_url) as notifier:
            notifier.notify()


def who() -> str:
    """The name under which the history records what a command did."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user id without a name, as containers have it
        return "cli"


def _check_sqlite_file(database_url: str) -> None:
    scheme, _, rest = database_url.partition(":///")
    path = rest.partition("?")[0]
    if scheme.startswith("sqlite") and path and path != ":memory:" and not Path(path).exists():
        raise UsageError(
            f"There is no database {path}.",
            hint="Start `yarrow standalone`, run `yarrow db upgrade`, or name another home with YARROW_HOME.",
        )

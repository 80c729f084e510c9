"""The store: opens the database, and groups what can be asked of it by noun."""

from __future__ import annotations

from typing import Self

from sqlalchemy import text

from yarrow.clock import Clock, utc_now
from yarrow.store import schema
from yarrow.store.approvals import Approvals
from yarrow.store.attempts import Attempts
from yarrow.store.backfills import Backfills
from yarrow.store.cache import ResultCache
from yarrow.store.catalog import Catalog
from yarrow.store.database import Database
from yarrow.store.datasets import Datasets
from yarrow.store.deadlines import Deadlines
from yarrow.store.deleting import Deletions
from yarrow.store.explaining import Explanations
from yarrow.store.history import History
from yarrow.store.notifications import Notifications
from yarrow.store.plans import Plans
from yarrow.store.pruning import Pruning
from yarrow.store.runs import Runs
from yarrow.store.specs import Specs
from yarrow.store.versions import Versions
from yarrow.store.workers import Workers


class Store:
    """The metadata store. Threads may share one; a process that forks opens its own."""

    def __init__(self, database: Database) -> None:
        """Use `Store.open`, which also sees to the schema."""
        specs = Specs()
        self._database = database
        self.catalog = Catalog(database, specs)
        self.versions = Versions(database)
        self.runs = Runs(database, specs)
        self.datasets = Datasets(database, self.runs)
        self.attempts = Attempts(database, specs)
        self.approvals = Approvals(database, specs)
        self.workers = Workers(database)
        self.cache = ResultCache(database)
        self.deadlines = Deadlines(database, specs)
        self.notifications = Notifications(database)
        self.history = History(database)
        self.plans = Plans(database, specs)
        self.explanations = Explanations(database, specs)
        self.backfills = Backfills(database)
        self.deletions = Deletions(database)
        self.pruning = Pruning(database, specs)

    @classmethod
    def open(cls, database_url: str, *, clock: Clock = utc_now, upgrade: bool = True) -> Self:
        """Opens the database and brings its schema up to date.

        Args:
            clock: Where `now` comes from. On PostgreSQL leases are judged by the database's clock, unless another
                clock than the default is given.
            upgrade: False refuses a schema that is not up to date.

        Raises:
            StoreError: It can't be reached, written or understood.
            DatabaseTooNew: A newer Yarrow made it.
        """
        database = Database(database_url, clock)
        try:
            schema.prepare(database, upgrade)
        except BaseException:
            database.close()
            raise
        return cls(database)

    @staticmethod
    def upgrade_database(database_url: str) -> tuple[str | None, str]:
        """Brings the schema up to date. Returns (revision before, revision now). Raises as `open` does."""
        database = Database(database_url)
        try:
            return schema.migrate(database)
        finally:
            database.close()

    @property
    def dialect(self) -> str:
        """sqlite or postgresql."""
        return self._database.dialect

    def ping(self) -> None:
        """Raises StoreError unless the database answers."""
        self._database.read(lambda connection: connection.execute(text("SELECT 1")).scalar())

    def close(self) -> None:
        """Gives back connections."""
        self._database.close()

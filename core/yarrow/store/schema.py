"""The schema of the database: finds out its revision, and upgrades it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from yarrow.errors import DatabaseTooNew, StoreError
from yarrow.store.database import Database
from yarrow.version import __version__

REVISIONS = ("0001", "0002", "0003")
"""Every revision this Yarrow knows, oldest first."""

HEAD = REVISIONS[-1]

_UPGRADE_LOCK = 0x7961_7272_6F77  # any number that all Yarrow processes agree on


def prepare(database: Database, upgrade: bool) -> None:
    """Sees to it that the schema is the one this Yarrow works with.

    Raises:
        DatabaseTooNew: A newer Yarrow made it.
        StoreError: It is older and `upgrade` is False.
    """
    found = database.read(revision)
    if found == HEAD:
        return
    _check(found, database)
    if not upgrade:
        state = "has no tables yet" if found is None else f"is of schema revision {found}"
        raise StoreError(f"The database {state}, this Yarrow needs {HEAD}.", hint="Run `yarrow db upgrade`.")
    migrate(database)


def migrate(database: Database) -> tuple[str | None, str]:
    """Runs the migrations that are missing. Returns (revision before, revision now).

    One transaction: a crash leaves the schema as it was. Processes that start together wait for the first of them, for
    SQLite's write lock or for an advisory lock.
    """

    def work(connection: Connection) -> str | None:
        if database.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        found = revision(connection)
        _check(found, database)
        if found != HEAD:
            _run_migrations(connection)
        return found

    return database.write(work), HEAD


def revision(connection: Connection) -> str | None:
    """The revision of the schema; None when there are no tables yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _check(found: str | None, database: Database) -> None:
    if found is not None and found not in REVISIONS:
        shown = database.url.render_as_string(hide_password=True)
        raise DatabaseTooNew(
            f"The database {shown} has schema revision {found}, which Yarrow {__version__} does not know: "
            f"a newer Yarrow made it.",
            hint="Install that version, or use another database.",
        )


def _run_migrations(connection: Connection) -> None:
    # Alembic takes a third of a second to import, and nearly every start finds the schema up to date.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import String, text

import yarrow.store
from yarrow.errors import DatabaseTooNew, StoreError
from yarrow.store import Store
from yarrow.store.database import Database
from yarrow.store.schema import HEAD, REVISIONS
from yarrow.store.tables import metadata


def compare_type(context, inspected_column, metadata_column, inspected_type, metadata_type) -> bool | None:
    """SQLite holds no text to the length that a column says, so the migrations leave the lengths there as they are."""
    texts = isinstance(inspected_type, String) and isinstance(getattr(metadata_type, "impl", metadata_type), String)
    return False if context.dialect.name == "sqlite" and texts else None


def test_the_migrations_make_the_tables(database_url) -> None:
    database = Database(database_url)

    def differences(connection):
        options = {"compare_type": compare_type, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    assert database.read(differences) == []
    database.close()


def test_the_migrations_make_every_index_and_constraint_that_the_tables_declare(scratch_url) -> None:
    """Alembic compares neither the conditions of indexes nor their order: this does."""
    database = Database(scratch_url)
    if database.dialect == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'"
    else:
        query = (
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        )

    def definitions():
        rows = database.read(lambda connection: connection.execute(text(query)).all())
        return {name: sorted(parts(sql)) for name, sql in rows}

    def parts(sql):
        """What a definition lists, however its lines are broken: an added column stands behind the others."""
        inside = sql[sql.index("(") + 1 : sql.rindex(")")] if sql.startswith("CREATE TABLE") else sql
        lines = [line.strip() for line in re.split(r",(?![^()]*\))", inside)]
        return [re.sub(r"VARCHAR\(\d+\)", "VARCHAR", line) for line in lines]

    migrated = definitions()
    database.write(metadata.drop_all)
    database.write(metadata.create_all)
    assert definitions() == migrated
    database.close()


def test_every_revision_is_known() -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(yarrow.store.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == REVISIONS
    assert scripts.get_heads() == [HEAD]


def test_a_database_of_a_newer_yarrow_is_refused(scratch_url) -> None:
    database = Database(scratch_url)
    database.write(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '0999'")))
    database.close()
    for work in (Store.open, Store.upgrade_database):
        with pytest.raises(DatabaseTooNew, match=r"has schema revision 0999, which Yarrow .* does not know"):
            work(scratch_url)


def test_an_upgrade_happens_once_and_only_when_asked_for(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/new/folder/yarrow.db"
    with pytest.raises(StoreError, match=r"has no tables yet, this Yarrow needs .*yarrow db upgrade"):
        Store.open(url, upgrade=False)
    assert Store.upgrade_database(url) == (None, HEAD)
    assert Store.upgrade_database(url) == (HEAD, HEAD)
    Store.open(url, upgrade=False).close()


@pytest.mark.slow
def test_an_up_to_date_database_is_opened_without_alembic(sqlite_url) -> None:
    code = f"""
import sys
from yarrow.store import Store
store = Store.open({sqlite_url!r})
store.ping()
store.close()
assert not [name for name in sys.modules if name.startswith(("alembic", "mako", "jsonschema"))]
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.slow
def test_processes_that_start_together_upgrade_once(tmp_path) -> None:
    code = f"""
from yarrow.store import Store
store = Store.open("sqlite:///{tmp_path}/yarrow.db")
store.workers.set_pools({{"default_pool": 1}})
store.close()
"""
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert errors == [""] * 4

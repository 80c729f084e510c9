"""`yarrow datasets`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yarrow.language.loader import load_text
from yarrow.store import Store

Yarrow = Callable[..., Any]

READER = "dag_id: reader\nschedule: {datasets: [orders/daily]}\ntasks: {a: {operator: empty}}\n"


def test_a_data_set_is_published_and_listed(yarrow: Yarrow, store: Store) -> None:
    assert yarrow("datasets", "list").stdout.startswith("There is no data set")
    loaded = load_text(READER, "reader.yaml")
    assert loaded.spec is not None
    store.catalog.publish([(loaded.spec, READER, "reader.yaml")])
    assert yarrow("datasets", "publish", "orders/daily").stdout == "orders/daily is published; waiting: reader.\n"
    assert yarrow("datasets", "publish", "other").stdout == "other is published; no DAG waits for it.\n"
    first, second = yarrow("datasets", "list", "--json").json()
    assert first["dataset"] == "orders/daily"
    assert first["published_by"].startswith("cli")
    assert first["waiting"] == [{"dag_id": "reader", "mode": "all", "pending": 1}]
    assert second["waiting"] == []
    lines = yarrow("datasets", "list").stdout.splitlines()
    assert lines[0].split()[0] == "DATASET"
    assert lines[1].endswith("reader (1 pending)")


def test_a_name_that_is_none(yarrow: Yarrow, store: Store) -> None:
    answer = yarrow("datasets", "publish", "orders daily")
    assert answer.exit_code == 2
    assert "'orders daily' is not the name of a data set. A name has up to 250" in answer.stderr

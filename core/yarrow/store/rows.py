"""How rows become records: a record's fields are columns of the same name."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

from sqlalchemy import Column, Row, Table

from yarrow.store.records import Record

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row whose columns are known by their names alone."""


def columns_of(record: type[Record], *tables: Table) -> list[Column[Any]]:
    """The columns that `record(*row)` takes, each from the first of `tables` that has it.

    A field with a default and without a column is left to its default; such fields stand last.
    """
    columns: list[Column[Any]] = []
    for field in dataclasses.fields(record):
        table = next((table for table in tables if field.name in table.c), None)
        if table is not None:
            columns.append(table.c[field.name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise TypeError(f"no table has a column for {record.__name__}.{field.name}")
    return columns

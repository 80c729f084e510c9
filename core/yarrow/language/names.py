"""The names that templates may use, what they stand for, and what to write for those of Airflow that are gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RUN_NAMES: Final[Mapping[str, str]] = {
    "dag_id": "The id of the DAG.",
    "run_id": "The id of the run.",
    "logical_date": "The logical date of the run, in the DAG's time zone; prints as ISO 8601.",
    "data_interval_start": "The start of the data interval.",
    "data_interval_end": "The end of the data interval, exclusive.",
    "ds": "The logical date as YYYY-MM-DD, in the DAG's time zone.",
    "ds_nodash": "The logical date as YYYYMMDD.",
    "ts": "The logical date and time in ISO 8601.",
    "ts_nodash": "The logical date and time as YYYYMMDDTHHMMSS.",
}
"""Known as soon as the run exists: in `with:`, `when:` and `expand:`."""

DATES: Final = ("logical_date", "data_interval_start", "data_interval_end")
"""Those of them that are dates; the others are texts."""

TASK_NAMES: Final[Mapping[str, str]] = {
    "task_id": "The id of the task.",
    "try_number": "The number of the try, from 1.",
    "map_index": "The index of the mapped task instance; -1 when the task is not mapped.",
}
"""Known only to an attempt: in `with:`."""

SPACES: Final[Mapping[str, str]] = {
    "params": "The params of the run: `params.name`.",
    "xcom": "The result of an upstream task: `xcom.task_id.field`.",
    "map": "A value of this instance of a mapped task or group: `map.name`, where `expand` has `name`.",
    "var": "A variable of the deployment, a text: `var.name`. In `with:` only.",
    "conn": "A field of a connection: `conn.conn_id.host`. In `with:` only.",
}

CONNECTION_FIELDS: Final = ("host", "port", "login", "password", "schema", "uri", "extra")

REPLACED: Final[Mapping[str, str]] = {
    "execution_date": "Write `logical_date`.",
    "next_execution_date": "Write `data_interval_end`.",
    "prev_execution_date": "Write `macros.ds_add(ds, -1)` or another date.",
    "next_ds": "Write `data_interval_end | ds`.",
    "next_ds_nodash": "Write `data_interval_end | ds_nodash`.",
    "prev_ds": "Write `macros.ds_add(ds, -1)`.",
    "prev_ds_nodash": "Write `macros.ds_add(ds, -1) | ds_nodash`.",
    "yesterday_ds": "Write `macros.ds_add(ds, -1)`.",
    "yesterday_ds_nodash": "Write `macros.ds_add(ds, -1) | ds_nodash`.",
    "tomorrow_ds": "Write `macros.ds_add(ds, 1)`.",
    "tomorrow_ds_nodash": "Write `macros.ds_add(ds, 1) | ds_nodash`.",
    "ti": "Write `xcom.task_id.field`, `task_id`, `try_number` or `map_index`.",
    "task_instance": "Write `xcom.task_id.field`, `task_id`, `try_number` or `map_index`.",
    "dag_run": "Write `params.name`, `run_id` or `logical_date`.",
    "dag": "Write `dag_id`.",
    "task": "Write `task_id`.",
    "conf": "Write `params.name` or `var.name`.",
    "True": "Write `true`.",
    "env": "Write `var.name`: a task gets only the variables that it names.",
    "secrets": "Write `conn.conn_id.password` or `var.name`.",
    "inputs": "Write `params.name` or `xcom.task_id.field`.",
    "outputs": "Write `xcom.task_id.field`.",
    "tasks": "Write `xcom.task_id.field`.",
    "vars": "Write `var.name`.",
    "item": "Write `map.name`, where `expand` of the task has `name`.",
    "items": "Write `map.name`, where `expand` of the task has `name`.",
    "each": "Write `map.name`, where `expand` of the task has `name`.",
    "matrix": "Write `map.name`, where `expand` of the task has `name`.",
    "map_value": "Write `map.name`, where `expand` of the task has `name`.",
}
"""Names that people bring from Airflow and elsewhere -> what to write."""

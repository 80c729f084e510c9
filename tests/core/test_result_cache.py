"""What the key of a cached result depends on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from yarrow import Context, Operator
from yarrow.jsontypes import Json
from yarrow.protocol import Assignment
from yarrow.registry import operator_version
from yarrow.result_cache import result_key
from yarrow.source_digest import source_digest
from yarrow.version import __version__

ASSIGNMENT = Assignment(
    attempt_id="a1",
    token="t",
    dag_id="flights",
    run_id="r1",
    task_id="score",
    map_index=-1,
    try_number=1,
    max_tries=1,
    identity="f00d",
    operator="bash",
    arguments={},
    queue="default",
    execution_timeout=None,
    logical_date="2026-01-01T00:00:00+00:00",
    data_interval_start="2026-01-01T00:00:00+00:00",
    data_interval_end="2026-01-02T00:00:00+00:00",
    timezone="UTC",
    params={},
    xcoms={},
    variables={},
    connections={"db": "postgresql://me:hunter2@h:5432/sales"},
    lease=1.0,
)


class Plain(Operator):
    def execute(self, context: Context) -> None:
        pass


class Reading(Plain):
    content: Json

    def cache_inputs(self, context: Context) -> Json:
        return {"operator": super().cache_inputs(context), "file": self.content}


def key(given: Json = None, *, own: Json = None, operator: Operator | None = None, of: Assignment = ASSIGNMENT) -> str:
    return result_key(of, operator or Plain(), {"value": given}, own, cast(Context, None))


def manifest(**fields: Any) -> dict[str, Json]:
    known: dict[str, Json] = {"kind": "dataset", "uri": "file:///one/", "digest": "sha256:1", "rows": 5}
    return {**known, **fields}


def test_the_same_inputs_have_the_same_key() -> None:
    assert key({"a": 1, "b": [2]}) == key({"b": [2], "a": 1})
    assert len(key()) == 64
    another_run = replace(ASSIGNMENT, run_id="r2", attempt_id="a2", identity="beef", try_number=2, token="u")
    assert key(of=another_run) == key()


@pytest.mark.parametrize("fields", [{"dag_id": "x"}, {"task_id": "x"}, {"operator": "sql"}])
def test_another_task_has_another_key(fields: dict[str, str]) -> None:
    assert key(of=replace(ASSIGNMENT, **fields)) != key()


def test_a_data_set_counts_by_its_content() -> None:
    first = key({"inputs": [manifest()]})
    assert key({"inputs": [manifest(uri="s3://elsewhere/")]}) == first
    assert key({"inputs": [manifest(digest="sha256:2")]}) != first


def test_a_connection_counts_by_where_it_leads() -> None:
    def connected(uri: str) -> str:
        return key(of=replace(ASSIGNMENT, connections={"db": uri}))

    assert connected("postgresql://you:other@h:5432/sales") == key()
    assert connected("postgresql://me:hunter2@h:5432/tests") != key()
    assert key(own="x", of=replace(ASSIGNMENT, connections={})) == key(own="x"), "a key of the author's says it all"


def test_a_key_of_the_author_takes_the_place_of_the_parameters() -> None:
    assert key(1, own="2026-01-01") == key(2, own="2026-01-01") != key(2, own="2026-01-02")
    assert key("x", own="x") != key("x")


def test_mapped_task_instances_do_not_share_a_key() -> None:
    def mapped(**value: Json) -> str:
        return key(own="2026-01-01", of=replace(ASSIGNMENT, map_value=value, map_index=len(value)))

    assert mapped(day="mon") == mapped(day="mon") != mapped(day="tue")


def test_what_the_operator_reads_and_its_code_count() -> None:
    assert key(operator=Reading(content="1")) != key(operator=Reading(content="2"))
    assert key(operator=Reading(content="1")) != key()
    assert Plain().cache_inputs(cast(Context, None)) == {"code": source_digest(__name__)}
    assert len(source_digest(__name__) or "") == 64
    assert source_digest("not.loaded") is None


def test_the_version_of_an_operators_package() -> None:
    assert operator_version("bash") == __version__
    assert operator_version("nowhere") == ""

"""The result cache: kept with the success that came to it, found by its key, forgotten when it is too old."""

from datetime import timedelta
from typing import Any

import pytest

from yarrow.language.spec import CacheSpec
from yarrow.states import TaskState

KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def cached(stage: Any) -> Any:
    """A run of a DAG with one task whose result is kept for an hour."""
    return stage.begin(stage.dag(tasks=[stage.task("a", cache=CacheSpec(3600.0), retries=1)]))


def test_a_result_is_kept_with_its_success_and_found_until_it_is_too_old(stage: Any, cached: Any) -> None:
    cache = stage.store.cache
    claimed = stage.claim()
    assert cache.get(KEY, "d", "a") is None
    stage.finish(claimed, xcom={"rows": 3}, has_xcom=True, cache_key=KEY)
    found = cache.get(KEY, "d", "a")
    assert (found.attempt_id, found.run_id, found.has_xcom, found.xcom) == (claimed.attempt_id, "r", True, {"rows": 3})
    assert cache.get(OTHER, "d", "a") is None
    assert cache.get(KEY, "d", "b") is None
    assert cache.get(KEY, "e", "a") is None
    (entry,) = cache.entries()
    assert entry.expires_at == stage.clock() + timedelta(hours=1)
    stage.clock.advance(3599)
    assert cache.get(KEY, "d", "a") is not None
    stage.clock.advance(1)
    assert cache.get(KEY, "d", "a") is None
    assert cache.entries() == [entry]


@pytest.mark.parametrize(("xcom", "has_xcom"), [(None, False), (None, True), ([], True)])
def test_no_result_and_null_are_told_apart(stage: Any, cached: Any, xcom: Any, has_xcom: bool) -> None:
    stage.finish(stage.claim(), xcom=xcom, has_xcom=has_xcom, cache_key=KEY)
    found = stage.store.cache.get(KEY, "d", "a")
    assert (found.has_xcom, found.xcom) == (has_xcom, xcom)


def test_a_newer_result_takes_the_place_of_an_older_one(stage: Any, cached: Any) -> None:
    stage.finish(stage.claim(), xcom=1, has_xcom=True, cache_key=KEY)
    spec = stage.dag(tasks=[stage.task("a", cache=CacheSpec())])
    stage.publish(spec)
    second = stage.run(spec, "second")
    stage.schedule(second, "a")
    stage.clock.advance(9)
    stage.finish(stage.claim(), xcom=2, has_xcom=True, cache_key=KEY)
    assert stage.store.cache.get(KEY, "d", "a").xcom == 2
    (entry,) = stage.store.cache.entries()
    assert (entry.expires_at, entry.created_at) == (None, stage.clock())
    stage.clock.advance(10**8)
    assert stage.store.cache.get(KEY, "d", "a").run_id == "second"


def test_a_success_by_the_cache_is_shown_and_keeps_the_older_result(stage: Any, cached: Any) -> None:
    stage.finish(stage.claim(), xcom=1, has_xcom=True, cache_key=KEY)
    before = stage.store.cache.entries()
    assert stage.instance(cached).cached is False
    second = stage.run(stage.dag(tasks=[stage.task("a", cache=CacheSpec(3600.0), retries=1)]), "second")
    stage.schedule(second, "a")
    stage.clock.advance(60)
    outcome = stage.finish(stage.claim(), xcom=1, has_xcom=True, cache_key=KEY, cached=True)
    assert outcome.state is TaskState.SUCCESS
    assert stage.instance(second).cached is True
    assert stage.store.cache.entries() == before
    assert stage.store.attempts.xcom("d", "second", "a") == 1


@pytest.mark.parametrize("report", [{"state": "failed"}, {"state": "skipped"}, {"cache_key": None}, {"cache_key": "x"}])
def test_only_a_success_under_a_sound_key_is_kept(stage: Any, cached: Any, report: dict[str, Any]) -> None:
    stage.finish(stage.claim(), **{"cache_key": KEY, **report})
    assert stage.store.cache.entries() == []


def test_a_task_without_cache_keeps_nothing(stage: Any) -> None:
    stage.begin()
    stage.finish(stage.claim(), cache_key=KEY)
    assert stage.store.cache.entries() == []


def test_results_are_forgotten_by_dag_by_task_and_by_age(stage: Any) -> None:
    cache = stage.store.cache

    def fill() -> None:
        cache.clear()
        for dag_id, ttl in (("d1", None), ("d2", 60.0)):
            spec = stage.dag(dag_id, [stage.task(name, cache=CacheSpec(ttl)) for name in ("a", "b")])
            stage.publish(spec)
            stage.schedule(stage.run(spec, f"r{stage.clock():%H%M%S}"), "a", "b")
            for name in ("a", "b"):
                key = (dag_id[1] + ("c" if name == "a" else "d")) * 32
                stage.finish(stage.claim(), cache_key=key)
        stage.clock.advance(60)

    def left() -> list[tuple[str, str]]:
        return [(entry.dag_id, entry.task_id) for entry in cache.entries()]

    fill()
    assert cache.clear("d1", "a") == 1
    assert left() == [("d1", "b"), ("d2", "a"), ("d2", "b")]
    fill()
    assert cache.clear(before=stage.clock()) == 2
    assert left() == [("d1", "a"), ("d1", "b")]
    fill()
    assert cache.clear("d1", before=stage.clock()) == 0
    assert cache.clear("d1") == 2
    assert left() == [("d2", "a"), ("d2", "b")]
    assert cache.entries("d2", "b")[0].task_id == "b"
    assert cache.clear() == 2
    assert cache.clear() == 0

"""People clear, mark, stop and backfill what schedulers and workers are busy with: the outcome equals the model."""

from pathlib import Path

import pytest

from rerun_machine import check, copied, emptied
from rerun_model import SHAPES
from rerun_world import World
from yarrow.errors import UsageError
from yarrow.plans.requests import ClearRequest, MarkRequest


def test_the_outcome_equals_the_model(sqlite_template: Path) -> None:
    check(lambda folder: copied(sqlite_template, folder), examples=10, steps=15)


@pytest.mark.slow
def test_the_outcome_equals_the_model_whatever_happens(sqlite_template: Path) -> None:
    check(lambda folder: copied(sqlite_template, folder), examples=60, steps=35)


@pytest.mark.slow
def test_the_outcome_on_postgresql_equals_the_model(postgres_url: str) -> None:
    check(lambda folder: emptied(postgres_url), examples=40, steps=30)


def test_a_mark_overrules_a_stop(sqlite_template: Path, tmp_path: Path) -> None:
    """Who stops a task lets a success stand that comes before its worker has stopped it; who marks it does not."""
    world = World(copied(sqlite_template, tmp_path), SHAPES["diamond"])
    world.create(0)
    world.start()
    world.decide()
    world.grant()
    claim = world.take()
    assert claim is not None
    world.cancel(claim.key[0], "a")
    world.change(MarkRequest(dag_id="d", run_ids=(claim.key[0],), tasks="a", state="failed"))
    assert world.finish(claim, "success") == "failed"
    world.check()
    world.close()


def test_the_model_refuses_what_matches_nothing(sqlite_template: Path, tmp_path: Path) -> None:
    """Else a selector that selects nothing would pass for one that does nothing."""
    world = World(copied(sqlite_template, tmp_path), SHAPES["diamond"])
    world.create(0)
    with pytest.raises(UsageError):
        world.store.plans.draw(
            ClearRequest(dag_id="d", run_ids=("scheduled__2026-01-01T00:00:00+00:00",), tasks="x"), who="ann"
        )
    world.close()

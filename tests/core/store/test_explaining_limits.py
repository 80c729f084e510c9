"""What an explanation says of scheduled task instances is what the next grant does with them, whatever the limits."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from limits import Hall, Scene, scenes
from yarrow.states import RunState, TaskState
from yarrow.store.tables import dag_run

SCHEDULED, QUEUED = TaskState.SCHEDULED, TaskState.QUEUED


@pytest.mark.parametrize("page", [1000, 2])
def test_the_next_grant_takes_exactly_those_that_are_said_to_go_next(
    tmp_path: Path, sqlite_template: Path, sqlite_stage: Any, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yarrow.store.granting.PAGE", page)
    hall = Hall(tmp_path, sqlite_template)
    hall.open(sqlite_stage.dag, sqlite_stage.task)
    seen: Counter[str] = Counter()

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(scene=scenes)
    def judge(scene: Scene) -> None:
        hall.set_up(scene)
        said: dict[int, bool] = {}
        for place, row in enumerate(scene.rows):
            if row.state is SCHEDULED:
                found = hall.store.explanations.get(
                    row.dag_id, f"r{row.run}", row.task_id, place, parallelism=scene.parallelism, now=hall.now
                )
                said[place] = all(check.passed for check in found.checks)
                assert said[place] == ("goes next" in found.summary)
                assert said[place] != bool(found.failing)
                event(found.failing.name if found.failing else "goes next")
                seen.update(check.name for check in found.checks if check.passed is False)
                seen["goes next"] += said[place]
                ahead = [
                    other
                    for other, one in enumerate(scene.rows)
                    if one.state is SCHEDULED
                    and one.dag_id not in scene.paused
                    and one.queue in scene.served
                    and scene.order(other) < scene.order(place)
                ]
                line = next(check for check in found.checks if check.name == "line")
                assert line.facts["ahead"] == len(ahead)
        hall.store.attempts.grant(scene.parallelism, served=scene.served, now=hall.now)
        states = hall.states()
        assert said == {place: states[place] is QUEUED for place in said}

    try:
        judge()
    finally:
        hall.close()
    limits = {"max_active_tasks", "max_active_tis_per_dag", "max_active_tis_per_dagrun", "parallelism", "pool"}
    assert seen.keys() >= {"goes next", "dag_not_paused", "queue", "pool_exists", "line", *limits}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    limits=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    paused=st.sets(st.sampled_from(["d0", "d1"]), max_size=1),
    runs=st.lists(
        st.tuples(st.sampled_from(["d0", "d1"]), st.integers(0, 3), st.sampled_from([0, 0, 60]), st.booleans()),
        max_size=10,
    ),
)
def test_a_run_starts_exactly_when_it_is_said_to(
    tmp_path_factory: pytest.TempPathFactory,
    sqlite_template: Path,
    stage_dag: Any,
    limits: tuple[int, int],
    paused: set[str],
    runs: list[tuple[str, int, int, bool]],
) -> None:
    hall = Hall(tmp_path_factory.mktemp("hall"), sqlite_template)
    try:
        hall.store.workers.register_scheduler("s", "host", 1)
        specs = {f"d{number}": stage_dag(f"d{number}", max_active_runs=limit) for number, limit in enumerate(limits)}
        hall.store.catalog.publish([(spec, "", f"{name}.yaml") for name, spec in specs.items()])
        waiting = []
        for number, (dag_id, day, delay, started) in enumerate(runs):
            date = hall.now + timedelta(days=day)
            after = hall.now + timedelta(seconds=delay)
            record = hall.store.runs.create(
                specs[dag_id],
                specs[dag_id].version,
                run_id=f"r{number}",
                run_type="manual",
                interval=(date, date, date, after),
                params={},
            )
            assert record is not None
            waiting.append(record)
            if started:
                begin(hall, record.id)
        for dag_id in paused:
            hall.store.catalog.set_paused(dag_id, True, "test")
        said = set()
        for record in waiting:
            if hall.store.runs.by_id(record.id).state == "queued":
                found = hall.store.explanations.get(record.dag_id, record.run_id, "a", parallelism=8, now=hall.now)
                about_the_run = found.checks[: [check.name for check in found.checks].index("max_active_runs") + 1]
                if all(check.passed for check in about_the_run):
                    said.add(record.id)
        assert set(hall.store.runs.start_due(hall.now)) == said
    finally:
        hall.close()


def begin(hall: Hall, id: int) -> None:
    """Starts a run whatever the limits are, as they may have been wider."""
    statement = update(dag_run).where(dag_run.c.id == id).values(state=RunState.RUNNING)
    hall.database.write(lambda connection: connection.execute(statement))


@pytest.fixture
def stage_dag(sqlite_stage: Any) -> Any:
    return sqlite_stage.dag

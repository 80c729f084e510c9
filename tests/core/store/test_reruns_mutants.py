"""Each fence is needed: a scenario that ends well with it ends badly once it is taken away.

A scenario is played on a `World`, which raises AssertionError for whatever breaks a rule or is not as the model says.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import Phase
from sqlalchemy import or_, text, update

from rerun_machine import check, copied
from rerun_model import FIRST, SHAPES
from rerun_world import World
from yarrow.errors import StoreError
from yarrow.plans.plan import Plan
from yarrow.plans.requests import BackfillRequest, ClearRequest
from yarrow.store import clearing, deciding, finishing, overruling, situations, starting, transitions
from yarrow.store.specs import Specs
from yarrow.store.tables import attempt, task_instance

RUN = f"scheduled__{FIRST.isoformat()}"
CLEAR_A = ClearRequest(dag_id="d", run_ids=(RUN,), tasks="a")
CLEAR_ALL = ClearRequest(dag_id="d", run_ids=(RUN,), tasks="a+")

Scenario = Callable[[World, pytest.MonkeyPatch], None]
Mutation = Callable[[pytest.MonkeyPatch], None]


def begin(world: World) -> None:
    """A run of which `a` is queued."""
    world.create(0)
    pass_by(world)


def pass_by(world: World) -> None:
    world.start()
    world.decide()
    world.grant()


def once(work: Callable[[], Any]) -> Callable[[], None]:
    """The work, done at the first call and at no other."""
    left = [work]

    def call() -> None:
        if left:
            left.pop()()

    return call


# What happens


def a_decision_comes_after_a_clear(world: World, _patch: pytest.MonkeyPatch) -> None:
    begin(world)
    assert world.finish(world.take(), "success") == "success"
    thought = world.think(1)
    world.change(CLEAR_A)
    world.act(thought)
    world.check()


def a_clear_comes_while_a_report_is_taken_in(world: World, patch: pytest.MonkeyPatch) -> None:
    begin(world)
    claim = world.take()
    clear = once(lambda: world.change(CLEAR_A))
    read = finishing.read

    def slow_read(connection: Any, attempt_id: str) -> Any:
        row = read(connection, attempt_id)
        clear()
        return row

    patch.setattr(finishing, "read", slow_read)
    assert world.finish(claim, "success") == "none"
    world.check()


def a_change_is_made_of_what_has_moved(world: World, _patch: pytest.MonkeyPatch) -> None:
    """A claim comes in between, as if the rows had not been locked."""
    begin(world)
    drawn = world.draw(CLEAR_A)
    assert world.take() is not None
    [change] = drawn.plan.runs
    with suppress(StoreError):  # that others were always faster
        world.database.write(lambda c: clearing.carry_out(Specs(), c, "d", [change], None, "ann", world.now))
    world.check()


def a_plan_is_applied_after_another_task_has_run(world: World, _patch: pytest.MonkeyPatch) -> None:
    begin(world)
    assert world.finish(world.take(), "success") == "success"
    drawn = world.draw(CLEAR_ALL)
    pass_by(world)
    assert world.finish(world.take(), "success") == "success"
    assert not world.apply(drawn)


def two_workers_claim_the_same_attempt(world: World, patch: pytest.MonkeyPatch) -> None:
    begin(world)
    [message] = world.publish()
    database = world.store._database
    second, now = once(lambda: world.receive(message, "w2")), database.lease_now

    def slow_now(connection: Any) -> Any:
        second()
        return now(connection)

    patch.setattr(database, "lease_now", slow_now)
    assert world.receive(message, "w1") is None
    world.check()


def a_success_comes_after_a_clear(world: World, _patch: pytest.MonkeyPatch) -> None:
    begin(world)
    claim = world.take()
    world.change(CLEAR_A)
    world.finish(claim, "success")
    world.check()


def a_cleared_task_runs_again_while_its_worker_goes_on(world: World, _patch: pytest.MonkeyPatch) -> None:
    begin(world)
    assert world.take("w1") is not None
    world.store.plans.carry_out(CLEAR_A, who="ann")
    pass_by(world)
    assert world.take("w2") is None


def a_backfill_starts(world: World, _patch: pytest.MonkeyPatch) -> None:
    to_date = FIRST + timedelta(days=3)
    world.change(BackfillRequest(dag_id="d", from_date=FIRST, to_date=to_date, max_active_runs=1))
    pass_by(world)
    world.check()


def a_decision_comes_while_a_clear_is_made(world: World, patch: pytest.MonkeyPatch) -> None:
    begin(world)
    assert world.finish(world.take(), "success") == "success"
    thread = Thread(target=world.act, args=(world.think(1),))
    load = situations.load

    def slow_load(connection: Any, *arguments: Any, locked: bool) -> Any:
        found = load(connection, *arguments, locked=locked)
        if locked:
            thread.start()
            wait_until_done_or_held_up(connection, thread)
        return found

    patch.setattr(situations, "load", slow_load)
    world.change(CLEAR_ALL)
    thread.join(30)
    world.check()


def wait_until_done_or_held_up(connection: Any, thread: Thread) -> None:
    held_up = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    for _ in range(1000):
        if not thread.is_alive() or connection.execute(text(held_up)).scalar_one():
            break
        thread.join(0.01)


def a_task_fails_after_a_clear(world: World, _patch: pytest.MonkeyPatch) -> None:
    begin(world)
    assert world.finish(world.take(), "failed") == "up_for_retry"
    world.tick(11)
    pass_by(world)
    assert world.finish(world.take(), "failed") == "failed"
    world.change(CLEAR_A)
    pass_by(world)
    assert world.finish(world.take(), "failed") == "up_for_retry"


# What is taken away


def without_fence(patch: pytest.MonkeyPatch) -> None:
    columns = [column for column in deciding._LOCKED.selected_columns if column.name != "fenced_seq"]
    patch.setattr(deciding, "_LOCKED", deciding._LOCKED.with_only_columns(*columns, text("0 AS fenced_seq")))


def without_look_at_the_wish(patch: pytest.MonkeyPatch) -> None:
    move = finishing.move_attempt
    patch.setattr(finishing, "move_attempt", lambda *arguments, wish=None, **names: move(*arguments, **names))


def without_compare_and_set_of_changes(patch: pytest.MonkeyPatch) -> None:
    sort = overruling._sorted

    def believing(run: Any, change: Any, known: Any, person: Any) -> Any:
        row = known[run.row.id, change.task_id, change.map_index]
        kind, subject = sort(run, replace(change, from_state=row.state, attempt_id=row.attempt_id), known, person)
        return replace(kind, from_state=change.from_state), subject

    patch.setattr(overruling, "_sorted", believing)
    seen = task_instance.c.id.in_(transitions.bindparam("subject_ids", expanding=True))
    patch.setattr(
        transitions, "_MOVE_TASKS", update(task_instance).where(seen, any_state()).returning(task_instance.c.id)
    )


def any_state(table: Any = task_instance) -> Any:
    """A condition on the state that always holds."""
    state = transitions.bindparam("from_state")
    return or_(table.c.state == state, table.c.state != state)


def without_digest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Plan, "digest", property(lambda plan: "the same"))


def without_compare_and_set_of_claims(patch: pytest.MonkeyPatch) -> None:
    task = update(task_instance).where(
        task_instance.c.id == transitions.bindparam("subject_id"),
        any_state(),
        task_instance.c.attempt_id == transitions.bindparam("seen_attempt_id"),
    )
    patch.setattr(transitions, "_MOVE_ATTEMPTED_TASK", task)
    seen = (
        attempt.c.attempt_id == transitions.bindparam("subject_id"),
        attempt.c.nonce == transitions.bindparam("seen_nonce"),
    )
    patch.setattr(transitions, "_MOVE_ATTEMPT", update(attempt).where(*seen, any_state(attempt)))


def without_overruling(patch: pytest.MonkeyPatch) -> None:
    judge = finishing.verdict
    patch.setattr(finishing, "verdict", lambda *arguments, **names: judge(*arguments, **{**names, "overruled": False}))


def without_stop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(overruling, "_stop", overruling._move)


def without_limit_of_backfills(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(starting, "_NEXT_OF_BACKFILL", starting._NEXT_OF_BACKFILL.limit(1000))


def without_locks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(situations, "_lock", lambda connection, request, ids: list(ids))


def without_new_tries(patch: pytest.MonkeyPatch) -> None:
    values = overruling._values

    def kept(kind: Any, at: Any) -> Any:
        return {name: value for name, value in values(kind, at).items() if name != "max_tries"}

    patch.setattr(overruling, "_values", kept)


MUTANTS: list[tuple[Mutation, Scenario]] = [
    (without_fence, a_decision_comes_after_a_clear),
    (without_compare_and_set_of_changes, a_change_is_made_of_what_has_moved),
    (without_digest, a_plan_is_applied_after_another_task_has_run),
    (without_overruling, a_success_comes_after_a_clear),
    (without_stop, a_cleared_task_runs_again_while_its_worker_goes_on),
    (without_limit_of_backfills, a_backfill_starts),
    (without_new_tries, a_task_fails_after_a_clear),
]
BETWEEN: list[tuple[Mutation, Scenario]] = [
    (without_look_at_the_wish, a_clear_comes_while_a_report_is_taken_in),
    (without_compare_and_set_of_claims, two_workers_claim_the_same_attempt),
    (without_locks, a_decision_comes_while_a_clear_is_made),
]
"""Those where one transaction comes in the middle of another one, which SQLite has not."""


def play(url: str, scenario: Scenario, patch: pytest.MonkeyPatch) -> None:
    world = World(url, SHAPES["diamond"])
    try:
        scenario(world, patch)
    finally:
        world.close()


def named(mutants: list[tuple[Mutation, Scenario]]) -> list[Any]:
    return [pytest.param(*mutant, id=mutant[0].__name__) for mutant in mutants]


@pytest.fixture
def url(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copyfile(sqlite_template, tmp_path / "yarrow.db")
    return f"sqlite:///{tmp_path}/yarrow.db"


@pytest.mark.parametrize(("mutation", "scenario"), named(MUTANTS))
def test_with_its_fence_it_ends_well(
    url: str, monkeypatch: pytest.MonkeyPatch, mutation: Mutation, scenario: Scenario
) -> None:
    play(url, scenario, monkeypatch)


@pytest.mark.parametrize(("mutation", "scenario"), named(MUTANTS))
def test_without_its_fence_a_rule_is_broken(
    url: str, monkeypatch: pytest.MonkeyPatch, mutation: Mutation, scenario: Scenario
) -> None:
    mutation(monkeypatch)
    with pytest.raises(AssertionError):
        play(url, scenario, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", [mutation for mutation, _ in MUTANTS])
def test_without_its_fence_the_model_disagrees(
    sqlite_template: Path, monkeypatch: pytest.MonkeyPatch, mutation: Mutation
) -> None:
    """The machine that plays at random finds it too, with nobody to show it where."""
    mutation(monkeypatch)
    with pytest.raises((AssertionError, StoreError)):
        check(
            lambda folder: copied(sqlite_template, folder),
            examples=200,
            steps=40,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
        )


@pytest.mark.slow
@pytest.mark.parametrize(("mutation", "scenario"), named(BETWEEN))
def test_with_its_fence_it_ends_well_on_postgresql(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, mutation: Mutation, scenario: Scenario
) -> None:
    play(postgres_url, scenario, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("mutation", "scenario"), named(BETWEEN))
def test_without_its_fence_a_rule_is_broken_on_postgresql(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, mutation: Mutation, scenario: Scenario
) -> None:
    mutation(monkeypatch)
    with pytest.raises(AssertionError):
        play(postgres_url, scenario, monkeypatch)

"""A machine in which people clear, mark, stop and backfill what schedulers and workers are busy with, at random."""

import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from rerun_model import FIRST, RETRY, SELECTORS, SHAPES
from rerun_world import DISPATCH, LEASE, World, drain
from yarrow.plans.requests import BackfillRequest, ClearRequest, MarkRequest
from yarrow.store.tables import metadata

DAYS = 4
MANY_ENDS = ["success"] * 5 + ["failed"] * 3 + ["skipped", "lost", "deferred", "cancelled"]
TASKS = st.sampled_from(["a", "b", "c", "d"])
RUNS = st.integers(0, DAYS)
CHANCES = st.sampled_from([False, False, False, True])


@st.composite
def scopes(draw: st.DrawFn) -> dict[str, Any]:
    """Whose task instances a request is about, but for the run."""
    chosen = {name: True for name in ("upstream", "downstream", "past", "future") if draw(CHANCES)}
    if (only := draw(st.sampled_from([None] * 4 + ["only_failed", "only_running"]))) is not None:
        chosen[only] = True
    return {"tasks": draw(st.sampled_from(sorted(SELECTORS, key=str))), **chosen}


MARKS = st.one_of(
    scopes().flatmap(
        lambda scope: st.sampled_from(["success", "failed", "skipped"]).map(lambda s: {**scope, "state": s})
    ),
    st.sampled_from(["success", "failed"]).map(lambda state: {"runs": True, "state": state}),
)
SPANS = st.fixed_dictionaries(
    {
        "first": st.integers(0, DAYS - 1),
        "days": st.integers(1, DAYS),
        "reprocess": st.sampled_from(["none", "failed", "failed", "completed"]),
        "whole_runs": st.booleans(),
        "max_active_runs": st.integers(1, 2),
        "run_backwards": CHANCES,
    }
)


class Reruns(RuleBasedStateMachine):
    """A few days of one DAG, and all that happens to them in any order; schedulers may be away for long."""

    fresh_database: ClassVar[Callable[[Path], str]]

    messages = Bundle("messages")
    claims = Bundle("claims")
    thoughts = Bundle("thoughts")
    plans = Bundle("plans")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="yarrow-model-"))

    @initialize(shape=st.sampled_from(sorted(SHAPES)), played=st.integers(0, 4), bad=st.booleans())
    def begin(self, shape: str, played: int, bad: bool) -> None:
        """Two days have a run; some of their tasks have ended, one perhaps badly."""
        self.world = World(type(self).fresh_database(self.folder), SHAPES[shape])
        self.world.create(0)
        self.world.create(1)
        self.pass_by()
        for number in range(played):
            if (claim := self.world.take()) is not None:
                self.world.finish(claim, "skipped" if bad and number == 1 else "success")
            self.pass_by()

    # The schedulers

    @rule()
    def pass_by(self) -> None:
        """A pass of a scheduler."""
        self.world.start()
        self.world.decide()
        self.world.grant()

    @rule()
    def start(self) -> None:
        self.world.start()

    @rule(target=thoughts, number=RUNS)
    def think_only(self, number: int) -> Any:
        thought = self.world.think(self.world.look().ids[self.run_id(number)])
        return multiple() if thought is None else thought

    @rule(thought=consumes(thoughts), twice=st.booleans())
    def act_late(self, thought: Any, twice: bool) -> None:
        """A scheduler that was stopped for a while carries out what it had decided long ago."""
        self.world.act(thought)
        if twice:
            self.world.act(thought)

    @rule(target=messages)
    def publish(self) -> Any:
        self.world.grant()
        return multiple(*self.world.publish())

    # The workers. A message may come never, late, or any number of times.

    @rule(target=claims, message=messages)
    def receive(self, message: tuple[str, str]) -> Any:
        claim = self.world.receive(message)
        return multiple() if claim is None else claim

    @rule(target=claims)
    def take(self) -> Any:
        self.world.grant()
        claim = self.world.take()
        return multiple() if claim is None else claim

    @rule(claim=claims)
    def beat(self, claim: Any) -> None:
        self.world.beat(claim)

    @rule(claim=consumes(claims), state=st.sampled_from(MANY_ENDS), count=st.integers(0, 3), wake=st.booleans())
    def finish(self, claim: Any, state: str, count: int, wake: bool) -> None:
        self.world.finish(claim, state, count)
        if wake:
            self.pass_by()

    @rule(count=st.integers(1, 4), state=st.sampled_from(["success", "success", "failed"]))
    def work(self, count: int, state: str) -> None:
        """Whatever may run now runs."""
        for _ in range(count):
            self.pass_by()
            while (claim := self.world.take()) is not None:
                self.world.finish(claim, state)

    @rule(seconds=st.sampled_from([1.0, RETRY + 1, LEASE + 1, DISPATCH + 1]), sweep=st.booleans())
    def tick(self, seconds: float, sweep: bool) -> None:
        self.world.tick(seconds, sweep=sweep)

    # People

    def run_id(self, number: int) -> str:
        names = list(self.world.look().runs)
        return names[number % len(names)]

    @rule(number=RUNS, task_id=TASKS)
    def cancel(self, number: int, task_id: str) -> None:
        self.world.cancel(self.run_id(number), task_id)

    @rule(approve=st.booleans())
    def answer(self, approve: bool) -> None:
        for one in self.world.store.approvals.open()[:1]:
            self.world.store.approvals.answer("d", one.run_id, one.task_id, one.map_index, approve=approve, who="ann")

    @rule(number=RUNS, scope=scopes())
    def clear(self, number: int, scope: dict[str, Any]) -> None:
        self.world.change(clear_of(self.run_id(number), scope))

    @rule(number=RUNS, scope=scopes())
    def clear_while_a_scheduler_thinks(self, number: int, scope: dict[str, Any]) -> None:
        """What a scheduler makes of the end of a task comes after a clear."""
        run_id = self.run_id(number)
        self.world.grant()
        if (claim := self.world.take()) is not None:
            run_id = claim.key[0]
            self.world.finish(claim, "success")
        thought = self.world.think(self.world.look().ids[run_id])
        self.world.change(clear_of(run_id, scope))
        if thought is not None:
            self.world.act(thought)

    @rule(number=RUNS, mark=MARKS)
    def mark(self, number: int, mark: dict[str, Any]) -> None:
        self.world.change(MarkRequest(dag_id="d", run_ids=(self.run_id(number),), **mark))

    @rule(span=SPANS)
    def backfill(self, span: dict[str, Any]) -> None:
        self.world.change(backfill_of(**span))

    @rule(target=plans, number=RUNS, scope=scopes())
    def draw_clear(self, number: int, scope: dict[str, Any]) -> Any:
        drawn = self.world.draw(clear_of(self.run_id(number), scope))
        return multiple() if drawn is None else drawn

    @rule(target=plans, number=RUNS, mark=MARKS)
    def draw_mark(self, number: int, mark: dict[str, Any]) -> Any:
        drawn = self.world.draw(MarkRequest(dag_id="d", run_ids=(self.run_id(number),), **mark))
        return multiple() if drawn is None else drawn

    @rule(target=plans, span=SPANS)
    def draw_backfill(self, span: dict[str, Any]) -> Any:
        drawn = self.world.draw(backfill_of(**span))
        return multiple() if drawn is None else drawn

    @rule(plan=plans)
    def apply_later(self, plan: Any) -> None:
        self.world.apply(plan)

    @rule(chance=st.integers(0, 2), what=st.sampled_from(["pause", "resume", "cancel"]))
    def steer_backfill(self, chance: int, what: str) -> None:
        self.world.steer(chance, what)

    @rule(paused=st.booleans())
    def pause_dag(self, paused: bool) -> None:
        self.world.store.catalog.set_paused("d", paused, who="ann")

    @invariant()
    def rules_hold(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        """From wherever they stand, the runs come to their end once things work again."""
        try:
            if hasattr(self, "world"):
                drain(self.world)
        finally:
            if hasattr(self, "world"):
                self.world.close()
            shutil.rmtree(self.folder)


def clear_of(run_id: str, scope: dict[str, Any]) -> ClearRequest:
    return ClearRequest(dag_id="d", run_ids=(run_id,), while_paused=True, **scope)


def backfill_of(*, first: int, days: int, whole_runs: bool, reprocess: str, **fields: Any) -> BackfillRequest:
    from_date = FIRST + timedelta(days=first)
    return BackfillRequest(
        dag_id="d",
        from_date=from_date,
        to_date=from_date + timedelta(days=days - 1),
        reprocess=reprocess,
        whole_runs=whole_runs and reprocess == "failed",
        while_paused=True,
        **fields,
    )


def check(fresh_database: Callable[[Path], str], examples: int, steps: int, **more: Any) -> None:
    """Plays so many games. Raises AssertionError when one breaks a rule, or does not come out as the model says."""
    Reruns.fresh_database = staticmethod(fresh_database)  # type: ignore[assignment]
    run_state_machine_as_test(
        Reruns,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
            **more,
        ),
    )


def copied(template: Path, folder: Path) -> str:
    shutil.copyfile(template, folder / "yarrow.db")
    return f"sqlite:///{folder}/yarrow.db"


def emptied(url: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY".encode())
    return url

"""A deployment in a test's hands: what schedulers, workers and people do to it, each compared with a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from rerun_model import FINISHED, FIRST, RETRY, Look, Model, Wish, look
from rerun_rules import Key, broken_rules
from yarrow.decide import Decisions, decide
from yarrow.errors import Conflict, NotFound, Refused, UsageError
from yarrow.language.spec import DagSpec
from yarrow.plans.plan import Plan, TaskAction
from yarrow.plans.requests import BackfillRequest, MarkRequest, Request
from yarrow.protocol import Heartbeat, Report, RunningAttempt
from yarrow.states import AttemptState
from yarrow.store import Store
from yarrow.store.database import Database
from yarrow.store.records import AttemptRecord
from yarrow.store.tables import attempt, dag_run, task_instance

START = datetime(2026, 2, 1, tzinfo=UTC)
LEASE, DISPATCH = 30.0, 60.0  # seconds
BUDGET = 1000  # losses: no task fails of them here
CLEARS = (TaskAction.CLEAR, TaskAction.STOP_AND_CLEAR, TaskAction.COLLAPSE)


@dataclass(frozen=True)
class Claim:
    """What a worker executes."""

    attempt_id: str
    nonce: str
    worker: str
    key: Key


@dataclass(frozen=True)
class Thought:
    """What a scheduler has decided on, and may carry out much later, or twice, or never."""

    run: int
    decisions: Decisions
    seen_seq: int


@dataclass(frozen=True)
class Drawn:
    """A plan that was drawn, and how everything stood then."""

    plan: Plan
    look: Look
    wishes: Mapping[Key, Wish]


@dataclass
class World:
    """A store, a clock, and what must be true of them. Every method raises AssertionError when it is not."""

    url: str
    spec: DagSpec
    now: datetime = START
    executing: dict[str, tuple[Key, datetime]] = field(default_factory=dict)  # by attempt, until its lease is over
    ended: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = Model(self.spec)
        self.exact = not self.spec.mapped_tasks  # of mapped tasks the model knows the rules alone
        self.store = Store.open(self.url, clock=lambda: self.now)
        self.database = Database(self.url)
        self.store.workers.set_pools({"default_pool": 3})
        self.store.catalog.publish([(self.spec, "", "d.yaml")])

    def close(self) -> None:
        self.store.close()
        self.database.close()

    # Looks

    def look(self) -> Look:
        return self.database.read(look)

    def check(self) -> None:
        """Looks for rules that are broken, and for attempts that were changed after their end."""
        faults = [*self.database.read(broken_rules), *self._left_alone()]
        rows = self.database.read(lambda c: c.execute(select(attempt.c.attempt_id, attempt.c.state)).all())
        for row in rows:
            if row.state.finished:
                before = self.ended.setdefault(row.attempt_id, row.state)
                faults += [] if before is row.state else [f"attempt {row.attempt_id} was {before}, is {row.state}"]
        there = {row.attempt_id for row in rows}
        faults += [f"attempt {id} is gone" for id in self.ended if id not in there]
        assert faults == []

    def _left_alone(self) -> list[str]:
        """A run that no scheduler looks at again has nothing to be decided on."""
        looked_at = set(self.store.runs.undecided())
        faults = []
        for name, id in self.look().ids.items():
            if id in looked_at or (thought := self.think(id)) is None:
                continue
            decisions = thought.decisions
            if decisions.tasks or decisions.expansions or decisions.run is not None:
                faults.append(f"{name} would be left alone with {decisions}")
        return faults

    # The schedulers

    def create(self, day: int, run_type: str = "scheduled") -> None:
        at = FIRST + timedelta(days=day)
        name, interval = f"{run_type}__{at.isoformat()}", (at, at, at + timedelta(days=1), at + timedelta(days=1))
        spec = self.spec
        self.store.runs.create(spec, spec.version, run_id=name, run_type=run_type, interval=interval, params={})

    def start(self) -> None:
        before = self.look()
        started = self.store.runs.start_due()
        after = self.look()
        names = {name for name, id in after.ids.items() if id in started}
        assert {name for name in after.runs if after.runs[name] != before.runs[name]} == names
        for name in names:
            assert (before.runs[name], after.runs[name]) == ("queued", "running")
            assert {key[1] for key in after.tasks if key[0] == name}, f"{name} has started without a task instance"
        own = select(dag_run.c.run_id).where(dag_run.c.state == "running", dag_run.c.backfill_place.is_(None))
        running = set(self.database.read(lambda c: c.execute(own).scalars().all()))
        assert not names & running or len(running) <= self.spec.max_active_runs, f"too many are running: {running}"

    def think(self, run: int) -> Thought | None:
        found = self.store.runs.snapshot(run)
        if found is None:
            return None
        record = found.record
        decisions = decide(found.spec, record.view, found.tasks, self.now, found.xcoms, found.past)
        return Thought(run, decisions, record.change_seq)

    def act(self, thought: Thought) -> bool:
        return self.store.runs.apply(thought.run, thought.decisions, thought.seen_seq)

    def decide(self) -> None:
        for run in self.store.runs.undecided():
            thought = self.think(run)
            assert thought is not None
            assert self.act(thought), "a decision in time was refused"

    def grant(self) -> None:
        self.store.attempts.grant(4)

    def publish(self) -> list[tuple[str, str]]:
        rows = self.store.attempts.to_publish({"default": 4})
        self.store.attempts.mark_published(rows, self.now + timedelta(seconds=DISPATCH))
        return [(row.attempt_id, row.nonce) for row in rows]

    # The workers

    def take(self, worker: str = "w1") -> Claim | None:
        """Claims the best queued attempt."""
        claimed = self.store.attempts.next_for("default", worker, LEASE)
        return None if claimed is None else self._claimed(claimed, worker)

    def receive(self, message: tuple[str, str], worker: str = "w2") -> Claim | None:
        """Claims the attempt of a message, which may be an old one."""
        try:
            return self._claimed(self.store.attempts.claim(*message, worker, LEASE), worker)
        except Refused:
            return None

    def _claimed(self, claimed: Any, worker: str) -> Claim:
        key = (claimed.run_id, claimed.task_id, claimed.map_index)
        for other, (where, until) in self.executing.items():
            assert where != key or until < self.now, f"{key} is executed twice at once: {other}, {claimed.attempt_id}"
        assert claimed.attempt_id not in self.ended, "claimed after its end"
        self.executing[claimed.attempt_id] = (key, self.now + timedelta(seconds=LEASE))
        return Claim(claimed.attempt_id, claimed.nonce, worker, key)

    def beat(self, claim: Claim) -> bool:
        """A heartbeat. Returns whether the worker is to stop it; until it has, it goes on under a lease."""
        running = (RunningAttempt(claim.attempt_id),)
        heartbeat = Heartbeat(claim.worker, "host", 1, ["default"], 4, "0", running)
        told = claim.attempt_id in self.store.attempts.heartbeat(heartbeat, LEASE)
        found = self.store.attempts.get(claim.attempt_id)
        runs = found.state is AttemptState.RUNNING
        assert told == (not runs or _key(found) in self.model.wishes), f"{claim.key} was told {told}"
        self.executing.pop(claim.attempt_id, None)
        if runs:
            self.executing[claim.attempt_id] = (claim.key, self.now + timedelta(seconds=LEASE))
        return told

    def finish(self, claim: Claim, state: str, count: int = 2) -> str | None:
        """Reports the end of an attempt. Returns the state of its task instance; None: it came too late."""
        before = self.store.attempts.get(claim.attempt_id)
        soon = (self.now + timedelta(seconds=RETRY)).isoformat()
        value = [f"value {number}" for number in range(count)]
        report = Report(claim.attempt_id, state, xcom=value, has_xcom=True, resume_at=soon)
        self.executing.pop(claim.attempt_id, None)
        try:
            outcome = self.store.attempts.finish(report, claim.nonce, claim.worker, infra_budget=BUDGET)
        except Refused:
            late = before.state is not AttemptState.RUNNING or before.worker_id != claim.worker
            assert late or before.claimed_at is None or not self._held(claim), f"refused while it was {before.state}"
            return None
        if not outcome.repeated:
            expected = self.model.reported(_key(before), state)
            assert outcome.state == expected, f"{claim.key} reported {state}: {outcome.state}, not {expected}"
        return str(outcome.state)

    def _held(self, claim: Claim) -> bool:
        """Whether the attempt is still this worker's: it has not gone on with another one since it was put off."""
        try:
            self.store.attempts.get(claim.attempt_id, claim.nonce)
        except Refused:
            return False
        return True

    def tick(self, seconds: float, *, sweep: bool = True) -> None:
        """Time passes, and perhaps what was lost is noticed."""
        self.now += timedelta(seconds=seconds)
        if not sweep:
            return
        before = self.look()
        self.store.attempts.expire_leases(infra_budget=BUDGET)
        after = self.look()
        for key in [key for key in before.tasks if before.tasks[key] == "running" != after.tasks.get(key)]:
            expected = self.model.reported(key, "lost")
            assert after.tasks.get(key) == expected or not self.exact, f"{key} was lost: {after.tasks}, not {expected}"

    # People

    def cancel(self, run_id: str, task_id: str) -> None:
        key = (run_id, task_id, -1)
        before = self.look()
        try:
            done = self.store.attempts.cancel("d", run_id, task_id, who="bob")
        except NotFound:
            assert key not in before.tasks
            return
        expected = dict(before.tasks)
        if before.tasks[key] == "running":
            assert done == self.model.stopped(key)
        elif before.tasks[key] not in FINISHED:
            expected[key] = "failed"
        assert self.look().tasks == expected

    def change(self, request: Request) -> Plan | None:
        """Works out a request and does it at once, as the model says it must be done. None: there was nothing to do."""
        return self._done(request, lambda: self.store.plans.carry_out(request, who="ann"))

    def draw(self, request: Request) -> Drawn | None:
        now = self.look()
        try:
            plan = self.store.plans.draw(request, who="ann")
        except UsageError:
            return None
        finally:
            assert self.look() == now, "to draw a plan changed something"
        return Drawn(plan, now, dict(self.model.wishes))

    def apply(self, drawn: Drawn) -> bool:
        """Applies a plan that was drawn earlier: exactly what it lists, or nothing. Returns whether it was done."""
        before = self.look()
        try:
            done = self._done(drawn.plan.request, lambda: self.store.plans.apply(drawn.plan.id, who="ann"))
        except Conflict:
            applied = self.store.plans.get(drawn.plan.id).applied_at is not None
            unchanged = (before, self.model.wishes) == (drawn.look, drawn.wishes)
            assert applied or not unchanged, "refused though nothing has changed"
            assert self.look() == before, "refused, and something was done"
            return False
        if done is None:
            return False
        after = self.look()
        changes = {(run.run_id, task.task_id, task.map_index): task for run, task in drawn.plan.task_changes}
        for key, change in changes.items():
            told = change.action is TaskAction.COLLAPSE or before.tasks.get(key) == "running"
            assert told or after.tasks[key] == change.to_state, f"{key}: {after.tasks[key]}, not as planned"
        for key in before.tasks.keys() - changes.keys():
            assert after.tasks.get(key) == before.tasks[key], f"{key} changed, and is not in the plan"
        for run in drawn.plan.effective:
            assert after.runs[run.run_id] == run.to_state, f"{run.run_id}: {after.runs[run.run_id]}, not as planned"
        return True

    def steer(self, chance: int, what: str) -> None:
        """Pauses, resumes or cancels a backfill, if there is any."""
        before = self.look()
        ids = [one.id for one in self.store.backfills.list("d")]
        if not ids:
            return
        chosen = ids[chance % len(ids)]
        try:
            getattr(self.store.backfills, what)(chosen, who="ann")
        except UsageError:
            assert self.look() == before, "refused, and something was done"
            return
        after = self.look()
        waiting = {
            name for name, state in before.runs.items() if state == "queued" and before.backfills[name] == chosen
        }
        begun = {key[0] for key in before.tasks}
        expected = dict(before.runs)
        for name in waiting if what == "cancel" else ():
            if name in begun:
                expected[name] = "failed"
            else:
                del expected[name]
        assert after.runs == expected
        assert after.tasks == before.tasks

    def _done(self, request: Request, work: Callable[[], Plan]) -> Plan | None:
        """What a request has done, compared with the model. Raises Conflict, and AssertionError for what is wrong."""
        before = self.look()
        known = self.exact and not (isinstance(request, BackfillRequest) and self.spec.looks_back)
        gone = set(getattr(request, "run_ids", ())) - before.runs.keys()  # with the backfill that made it
        known = known and not gone
        expected = self.model.expected(request, before) if known else None
        try:
            plan = work()
        except Conflict:
            raise
        except UsageError as error:
            refused = str(error)
        else:
            refused = None
        after = self.look()
        assert refused is not None or not gone, f"done, although {gone} is not there"
        if refused is not None:
            assert after == before, "refused, and something was done"
            allowed = expected is None or self.model.nothing(request, expected, before)
            assert allowed, f"refused, and there was something to do: {refused} {self._reasons(request)}"
            return None
        if expected is None:
            self._believe(plan)
        else:
            assert after.tasks == expected.tasks
            self.model.check_runs(request, before, after, expected)
            self.model.take_over(expected)
        return plan

    def _reasons(self, request: Request) -> list[str]:
        runs = self.store.plans.draw(request, who="ann").runs
        return [f"{run.run_id}: {run.action} ({run.reason})" for run in runs]

    def _believe(self, plan: Plan) -> None:
        """Takes over from the plan what the model does not know."""
        for run, change in plan.task_changes:
            key = (run.run_id, change.task_id, change.map_index)
            if change.from_state == "running":
                only = change.action is TaskAction.COLLAPSE and change.to_state == "none"
                self.model.wishes[(*key[:2], -1) if only else key] = (str(change.to_state), True)
            if change.action in CLEARS:
                self.model.failures.pop(key, None)


def _key(found: AttemptRecord) -> Key:
    """Whose attempt it is by now: the first of several may have become the only one while it runs."""
    return found.run_id, found.task_id, found.map_index


def adopt(world: World) -> None:
    """Has the model of a world know what is wished of those that run, after others were at work on its database."""
    query = (
        select(dag_run.c.run_id, task_instance.c.task_id, task_instance.c.map_index, attempt.c.cancel_state)
        .add_columns(attempt.c.overruled)
        .select_from(attempt.join(task_instance).join(dag_run))
        .where(attempt.c.state == AttemptState.RUNNING, attempt.c.cancel_reason.is_not(None))
    )
    for run_id, task_id, map_index, state, overruled in world.database.read(lambda c: c.execute(query).all()):
        world.model.wishes[run_id, task_id, map_index] = (state or "failed", overruled)


def drain(world: World) -> None:
    """Lets schedulers and workers do all there is to do, while nothing is paused: every run must end."""
    world.store.catalog.set_paused("d", False, who="test")
    for one in world.store.backfills.list("d"):
        with suppress(UsageError):
            world.store.backfills.resume(one.id, who="test")
    for number in range(200):
        if number > 10 and world.spec.looks_back:
            _free(world)
        _pass(world)
        if set(world.look().runs.values()) <= {"success", "failed"}:
            break
    world.check()
    left = {name: state for name, state in world.look().runs.items() if state not in ("success", "failed")}
    assert left == {}, f"these runs are stuck: {left}, with {world.look().tasks}"


def _pass(world: World) -> None:
    world.tick(DISPATCH + 1)
    for record in world.store.approvals.open():
        world.store.approvals.answer("d", record.run_id, record.task_id, approve=True, who="ann")
    world.start()
    world.decide()
    world.grant()
    while (claim := world.take("w9")) is not None:
        world.finish(claim, "cancelled" if world.beat(claim) else "success")
        world.decide()


def _free(world: World) -> None:
    """Somebody sees to the failures that later runs wait for."""
    runs = tuple(world.look().runs)
    for task_id in [task_id for task_id, task in world.spec.tasks.items() if task.depends_on_past]:
        world.change(MarkRequest(dag_id="d", run_ids=runs, tasks=task_id, only_failed=True, state="success"))

"""The store against a model: whatever is lost, doubled, late or killed, the rules that must always hold do hold."""

import itertools
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, select

from yarrow.decide import Decisions, RunDecision, TaskDecision
from yarrow.errors import Refused
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.protocol import Heartbeat, Report, RunningAttempt
from yarrow.states import FAILED_TASK_STATES, AttemptState, RunState, TaskState
from yarrow.store import Store
from yarrow.store.database import Database
from yarrow.store.tables import attempt, event, task_instance, xcom

LEASE, DISPATCH, RETRY = 30.0, 60.0, 10.0
START = datetime(2026, 1, 1, tzinfo=UTC)
JUMPS = (1.0, RETRY + 1, LEASE + 1, DISPATCH + 1)
ENDS = st.sampled_from(["failed", "lost", "success", "cancelled", "skipped", "deferred"])
WAITING = (TaskState.SCHEDULED, TaskState.QUEUED, TaskState.UP_FOR_RETRY, TaskState.UP_FOR_RESCHEDULE)
OPEN = (AttemptState.QUEUED, AttemptState.RUNNING)
WITH_OPEN = (TaskState.QUEUED, TaskState.RUNNING)


def broken_rules(connection: Connection) -> list[str]:
    """What in the tables breaks a rule."""
    tasks = connection.execute(select(task_instance)).all()
    attempts = {row.attempt_id: row for row in connection.execute(select(attempt))}
    faults: list[str] = []
    for row in tasks:
        newest = attempts.get(row.attempt_id)
        if row.state in WAITING and row.wait_until is None:
            faults.append(f"I1: {row.task_id} is {row.state} and waits without end")
        if row.state is TaskState.RUNNING and (newest is None or newest.lease_until is None):
            faults.append(f"I1: {row.task_id} runs without a lease")
        if row.state is TaskState.QUEUED and (newest is None or newest.state is not AttemptState.QUEUED):
            faults.append(f"I1: {row.task_id} is queued without an open attempt")
        if row.state is TaskState.RUNNING and (newest is None or newest.state is not AttemptState.RUNNING):
            faults.append(f"I2: {row.task_id} runs without a running attempt")
        if row.try_number > row.max_tries:
            faults.append(f"I11: {row.task_id} had {row.try_number} tries of {row.max_tries}")
        if row.state is TaskState.SUCCESS and (newest is None or newest.state is not AttemptState.SUCCESS):
            faults.append(f"I5: {row.task_id} succeeded without a successful attempt")
        own = [one for one in attempts.values() if one.task_instance_id == row.id]
        if sum(one.state in OPEN for one in own) > (row.state in WITH_OPEN):
            faults.append(f"I3: {row.task_id} is {row.state} and has an open attempt too many")
        faults += wrongly_put_off(row, newest, own)
        if sum(one.state is AttemptState.FAILED for one in own) > row.max_tries:
            faults.append(f"I11: {row.task_id} failed more often than it may be tried")
    for row in connection.execute(select(xcom)):
        if attempts[row.attempt_id].state is not AttemptState.SUCCESS or row.value != row.attempt_id:
            faults.append(f"I7: an XCom of attempt {row.attempt_id}, which is {attempts[row.attempt_id].state}")
    return faults + replay(connection, tasks)


def wrongly_put_off(row: Any, newest: Any, own: Sequence[Any]) -> list[str]:
    """What is wrong with the attempts of a task instance that were put off: it is the newest one or none."""
    deferred = [one for one in own if one.state is AttemptState.DEFERRED]
    faults: list[str] = []
    if row.state is TaskState.UP_FOR_RESCHEDULE and deferred != [newest]:
        faults.append(f"I1: {row.task_id} waits without the attempt that is to go on")
    if deferred and (row.state not in (TaskState.UP_FOR_RESCHEDULE, TaskState.SCHEDULED) or deferred != [newest]):
        faults.append(f"I3: {row.task_id} is {row.state} and has an attempt that was put off")
    if any(one.lease_until is not None or one.ended_at is not None for one in deferred):
        faults.append(f"I3: an attempt of {row.task_id} was put off and holds a lease")
    return faults


def replay(connection: Connection, tasks: Sequence[Any]) -> list[str]:
    """The history, played from the start, must be without gaps and end in the states of the tables (I10)."""
    states = {row.task_id: TaskState.NONE for row in tasks}
    faults: list[str] = []
    for line in connection.execute(select(event).where(event.c.kind == "task.state").order_by(event.c.id)):
        if states[line.task_id] != line.from_state:
            faults.append(f"I10: {line.task_id} moved from {line.from_state} while it was {states[line.task_id]}")
        states[line.task_id] = TaskState(line.to_state)
    return faults + [
        f"I10: the history of {row.task_id} ends in {states[row.task_id]}, the table says {row.state}"
        for row in tasks
        if states[row.task_id] is not row.state
    ]


@dataclass(frozen=True)
class Claim:
    attempt_id: str
    nonce: str
    worker: str


class Lives(RuleBasedStateMachine):
    """One run of one or two tasks, a scheduler that crashes, a broker that forgets, workers that come late."""

    template: Path  # a database with the schema

    messages = Bundle("messages")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="yarrow-model-"))
        shutil.copyfile(self.template, self.folder / "yarrow.db")
        url = f"sqlite:///{self.folder}/yarrow.db"
        self.now = START
        self.store = Store.open(url, clock=lambda: self.now)
        self.look = Database(url)
        self.store.workers.set_pools({"default_pool": 2})
        self.claimed: set[tuple[str, str]] = set()
        self.put_off: set[tuple[str, str]] = set()  # claims that ended with that
        self.tries: dict[str, int] = {}
        self.ended: dict[str, str] = {}
        self.idle = True  # nothing happened since the last tick

    @initialize(target=messages, tasks=st.integers(1, 2), tries=st.sampled_from([2, 2, 1]))
    def begin(self, tasks: int, tries: int) -> Any:
        found = [TaskSpec(f"t{number}", "bash", {}, retries=tries - 1, retry_delay=RETRY) for number in range(tasks)]
        spec = DagSpec("d", {one.task_id: one for one in found})
        self.store.catalog.publish([(spec, "", "d.yaml")])
        interval = (START, START, START, START)
        run = self.store.runs.create(spec, spec.version, run_id="r", run_type="manual", interval=interval, params={})
        assert run is not None
        self.run = run.id
        self.store.runs.start_due()
        return self.dispatch_all("no")

    # The scheduler

    def decide(self) -> None:
        """What the scheduler does with a run, as simple as can be: every task runs at once."""
        for id in self.store.runs.undecided():
            snapshot = self.store.runs.snapshot(id)
            assert snapshot is not None
            moves, waits = [], []
            for view in snapshot.tasks:
                due = view.wait_until is not None and view.wait_until <= self.now
                waits_for_time = view.state in (TaskState.UP_FOR_RETRY, TaskState.UP_FOR_RESCHEDULE)
                if view.state is TaskState.NONE or (waits_for_time and due):
                    moves.append(TaskDecision(view.task_id, view.state, TaskState.SCHEDULED))
                elif waits_for_time and view.wait_until is not None:
                    waits.append(view.wait_until)
            states = {view.state for view in snapshot.tasks}
            end = RunState.FAILED if states & FAILED_TASK_STATES else RunState.SUCCESS
            over = RunDecision(RunState.RUNNING, end) if all(state.finished for state in states) else None
            decisions = Decisions(tuple(moves), over, min(waits, default=None))
            assert self.store.runs.apply(id, decisions, snapshot.record.change_seq)

    @precondition(lambda self: self.states() != {TaskState.RUNNING})
    @rule(target=messages, crash=st.sampled_from(["no", "after publishing", "before publishing"]))
    def dispatch(self, crash: str) -> Any:
        return self.dispatch_all(crash)

    def dispatch_all(self, crash: str) -> Any:
        self.decide()
        self.store.attempts.grant(2)
        rows = self.store.attempts.to_publish({"default": 2})
        if crash == "before publishing":
            return multiple()
        if crash == "no":
            self.store.attempts.mark_published(rows, self.now + timedelta(seconds=DISPATCH))
        return multiple(*[(row.attempt_id, row.nonce) for row in rows])

    @precondition(lambda self: not self.idle)
    @rule(seconds=st.sampled_from(JUMPS), sweep=st.booleans())
    def tick(self, seconds: float, sweep: bool) -> None:
        self.idle = True
        self.now += timedelta(seconds=seconds)
        if sweep:
            self.store.attempts.expire_leases(infra_budget=1)
            assert self.store.attempts.fail_unserved(3600) == 0
            self.remember_ends()

    # The workers. A message may be drawn never, which is a loss, late, or any number of times.

    @rule(target=claims, message=messages, worker=st.sampled_from(["w1", "w2"]), twice=st.booleans())
    def receive(self, message: tuple[str, str], worker: str, twice: bool) -> Any:
        claims = self.deliver(message, worker)
        return multiple(*claims, *(self.deliver(message, "w3") if twice else []))

    def deliver(self, message: tuple[str, str], worker: str) -> list[Claim]:
        try:
            claimed = self.store.attempts.claim(*message, worker, LEASE)
        except Refused:
            return []
        return [self.started(Claim(claimed.attempt_id, claimed.nonce, worker))]

    @precondition(lambda self: TaskState.QUEUED in self.states())
    @rule(target=claims, worker=st.sampled_from(["w1", "w2"]))
    def take_next(self, worker: str) -> Any:
        claimed = self.store.attempts.next_for("default", worker, LEASE)
        return multiple() if claimed is None else self.started(Claim(claimed.attempt_id, claimed.nonce, worker))

    @rule(
        target=claims, claim=consumes(claims), state=ENDS, more=st.booleans(), wake=st.booleans(), again=st.booleans()
    )
    def finish(self, claim: Claim, state: str, more: bool, wake: bool, again: bool) -> Any:
        """A report, which wakes the scheduler unless that message is lost, and which may come again."""
        followers = self.report(claim, state, "default" if more else None)
        if wake:
            self.decide()
        return multiple(*followers, *([claim] if again else []))

    @precondition(lambda self: TaskState.QUEUED in self.states())
    @rule(target=claims, state=ENDS, wake=st.booleans())
    def work(self, state: str, wake: bool) -> Any:
        """An attempt whose life is short; its claim stays in the bundle, so that it may report again."""
        claimed = self.store.attempts.next_for("default", "w1", LEASE)
        assert claimed is not None
        claim = self.started(Claim(claimed.attempt_id, claimed.nonce, "w1"))
        self.report(claim, state, None)
        if wake:
            self.decide()
        return claim

    @precondition(lambda self: not self.idle)
    @rule(claim=claims, stop=st.sampled_from([False] * 5 + [True]))
    def beat(self, claim: Claim, stop: bool) -> None:
        """A heartbeat, in time or late; now and then somebody stops the task before."""
        if stop:
            self.store.attempts.cancel("d", "r", self.store.attempts.get(claim.attempt_id).task_id, who="ann")
            self.remember_ends()
        heartbeat = Heartbeat(claim.worker, "host", 1, ["default"], 2, "0", (RunningAttempt(claim.attempt_id),))
        reasons = self.store.attempts.heartbeat(heartbeat, LEASE)
        assert claim.attempt_id in reasons or claim.attempt_id not in self.ended

    def states(self) -> set[str]:
        return set(self.store.runs.task_state_counts([self.run])[self.run])

    def report(self, claim: Claim, state: str, next_for: str | None) -> list[Claim]:
        resume_at = (self.now + timedelta(seconds=RETRY)).isoformat()
        report = Report(claim.attempt_id, state, xcom=claim.attempt_id, has_xcom=True, resume_at=resume_at)
        told = (claim.attempt_id, claim.nonce)
        try:
            outcome = self.store.attempts.finish(
                report, claim.nonce, claim.worker, infra_budget=1, next_for=next_for, lease=LEASE
            )
        except Refused:
            assert told in self.put_off or self.ended[claim.attempt_id] != state
            return []
        assert outcome.repeated == (claim.attempt_id in self.ended or told in self.put_off)
        if outcome.state is TaskState.UP_FOR_RESCHEDULE:
            self.put_off.add(told)
        self.remember_ends()
        self.idle = False
        if outcome.next is None:
            return []
        return [self.started(Claim(outcome.next.attempt_id, outcome.next.nonce, claim.worker))]

    def started(self, claim: Claim) -> Claim:
        assert (claim.attempt_id, claim.nonce) not in self.claimed, "I2: claimed twice"
        assert claim.attempt_id not in self.ended, "I2: claimed after its end"
        self.idle = False
        self.claimed.add((claim.attempt_id, claim.nonce))
        number = self.store.attempts.get(claim.attempt_id).try_number
        assert self.tries.setdefault(claim.attempt_id, number) == number, "I11: another try for the same attempt"
        return claim

    def remember_ends(self) -> None:
        rows = self.look.read(
            lambda connection: connection.execute(select(attempt.c.attempt_id, attempt.c.state)).all()
        )
        for row in rows:
            if row.state.finished:
                self.ended.setdefault(row.attempt_id, row.state)

    @invariant()
    def rules_hold(self) -> None:
        assert self.look.read(broken_rules) == []
        rows = self.look.read(
            lambda connection: connection.execute(select(attempt.c.attempt_id, attempt.c.state)).all()
        )
        states = {row.attempt_id: row.state for row in rows}
        assert {id: states[id] for id in self.ended} == self.ended, "I4: an end that changed"

    def teardown(self) -> None:
        """From wherever it stands, the run comes to its end once things work again."""
        try:
            if hasattr(self, "run"):
                self.come_to_an_end()
        finally:
            self.store.close()
            self.look.close()
            shutil.rmtree(self.folder)

    def come_to_an_end(self) -> None:
        for _ in range(30):
            self.now += timedelta(seconds=DISPATCH + 1)
            self.store.attempts.expire_leases(infra_budget=1)
            self.decide()
            if self.store.runs.by_id(self.run).state.finished:
                break
            self.store.attempts.grant(2)
            for row in self.store.attempts.to_publish({"default": 2}):
                claimed = self.store.attempts.claim(row.attempt_id, row.nonce, "w3", LEASE)
                report = Report(claimed.attempt_id, "success", xcom=claimed.attempt_id, has_xcom=True)
                self.store.attempts.finish(report, claimed.nonce, "w3")
        run = self.store.runs.by_id(self.run)
        assert run.state.finished
        assert run.wait_until is None
        assert self.look.read(broken_rules) == []


@pytest.mark.slow
def test_the_rules_hold_whatever_happens(sqlite_template: Path) -> None:
    Lives.template = sqlite_template
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


# Everything that can be said about one attempt, in every order, each thing twice.

WORDS = ("claim", "beat", "success", "failed", "lost", "cancel")


class Expected:
    """What must become of one task with two tries when the words are said in some order."""

    def __init__(self) -> None:
        self.attempt, self.task, self.stopped = "queued", "queued", False

    def say(self, word: str) -> str:
        if word == "claim":
            return self._claim()
        if word == "beat":
            return "stop" if self.attempt != "running" or self.stopped else "go on"
        if word == "cancel":
            return self._cancel()
        return self._report(word)

    def _claim(self) -> str:
        if self.attempt != "queued":
            return "refused"
        self.attempt = self.task = "running"
        return "accepted"

    def _report(self, word: str) -> str:
        if self.attempt == word:
            return "repeated"
        if self.attempt != "running":
            return "refused"
        self.attempt = word
        again = {"success": "success", "failed": "up_for_retry", "lost": "scheduled"}[word]
        self.task = "failed" if self.stopped and word != "success" else again
        return "accepted"

    def _cancel(self) -> str:
        if self.task in ("success", "failed") or self.stopped:
            return "nothing"
        if self.task == "running":
            self.stopped = True
            return "accepted"
        self.attempt = "cancelled" if self.attempt == "queued" else self.attempt
        self.task = "failed"
        return "accepted"


def say(stage: Any, task_id: str, message: tuple[str, str], word: str) -> str:
    """Says the word to the store and returns what it answers."""
    attempt_id, nonce = message
    attempts = stage.store.attempts
    try:
        if word == "claim":
            attempts.claim(attempt_id, nonce, "w1", LEASE)
            return "accepted"
        if word == "beat":
            return "stop" if stage.beat(attempt_id) else "go on"
        if word == "cancel":
            return "accepted" if attempts.cancel("d", "r", task_id, who="ann") else "nothing"
        return "repeated" if attempts.finish(Report(attempt_id, word), nonce, "w1").repeated else "accepted"
    except Refused:
        return "refused"


@pytest.mark.slow
def test_every_order_of_what_is_said_of_an_attempt_ends_as_the_model_says(sqlite_stage: Any) -> None:
    stage = sqlite_stage
    orders = {f"t{number}": order for number, order in enumerate(itertools.permutations(WORDS))}
    tasks = [stage.task(task_id, retries=1) for task_id in orders]
    stage.store.workers.set_pools({"default_pool": len(tasks)})
    run = stage.begin(stage.dag(tasks=tasks, max_active_tasks=len(tasks)), *orders)
    stage.store.attempts.grant(len(tasks))
    rows = stage.store.attempts.to_publish({"default": len(tasks)})
    messages = {stage.store.attempts.get(row.attempt_id).task_id: (row.attempt_id, row.nonce) for row in rows}
    expected = {task_id: Expected() for task_id in orders}
    for task_id, order in orders.items():
        for word in order:
            for _ in ("once", "twice"):
                answer = say(stage, task_id, messages[task_id], word)
                assert answer == expected[task_id].say(word), (order, word)
    for instance in stage.store.runs.task_instances(run.id):
        model = expected[instance.task_id]
        assert instance.state == model.task, orders[instance.task_id]
        assert stage.store.attempts.get(messages[instance.task_id][0]).state == model.attempt

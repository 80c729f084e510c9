"""Runs of mapped tasks, sensors and questions, decided on by schedulers that are late, against the rules that hold."""

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

from yarrow.decide import Decisions, decide
from yarrow.errors import Conflict, NotFound, Refused
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.protocol import Report
from yarrow.states import AttemptState, RunState, TaskState
from yarrow.store import Store
from yarrow.store.database import Database
from yarrow.store.tables import approval, attempt, dag_run, event, task_instance, xcom

LEASE, POKE, PATIENCE, TIMEOUT = 30.0, 20.0, 90, 1000.0  # seconds
START = datetime(2026, 1, 1, tzinfo=UTC)
TIMED = (TaskState.SCHEDULED, TaskState.QUEUED, TaskState.UP_FOR_RETRY, TaskState.UP_FOR_RESCHEDULE)
WITH_QUEUED = {TaskState.QUEUED: AttemptState.QUEUED, TaskState.RUNNING: AttemptState.RUNNING}
PUT_OFF = (TaskState.UP_FOR_RESCHEDULE, TaskState.SCHEDULED)


def broken_rules(connection: Connection) -> list[str]:
    """What in the tables breaks a rule."""
    runs = {row.id: row for row in connection.execute(select(dag_run))}
    tasks = connection.execute(select(task_instance).order_by(task_instance.c.id)).all()
    attempts = connection.execute(select(attempt)).all()
    questions = {row.task_instance_id: row for row in connection.execute(select(approval))}
    xcoms = {row.attempt_id: row.value for row in connection.execute(select(xcom))}
    faults: list[str] = []
    for row in tasks:
        own = [one for one in attempts if one.task_instance_id == row.id]
        found = [
            *wrong_waits(row, questions.get(row.id)),
            *wrong_attempts(row, own, xcoms),
            *wrong_answer(row, own, questions.get(row.id), xcoms),
        ]
        if runs[row.dag_run_id].state.finished and not (row.state.finished and row.wait_until is None):
            found.append("its run has ended")
        faults += [
            f"{runs[row.dag_run_id].run_id} {row.task_id}[{row.map_index}] is {row.state}: {why}" for why in found
        ]
    return faults + wrong_indexes(tasks, xcoms) + wrong_history(connection, runs, tasks)


def wrong_waits(row: Any, question: Any) -> list[str]:
    faults = []
    if row.state in TIMED and row.wait_until is None:
        faults.append("it waits without end")
    is_open = question is not None and question.answer is None
    if is_open != (row.state is TaskState.AWAITING_INPUT):
        faults.append(f"its question is {'open' if is_open else 'not open'}")
    if is_open and question.due_at != row.wait_until:
        faults.append("its question has another deadline")
    return faults


def wrong_attempts(row: Any, own: Sequence[Any], xcoms: Any) -> list[str]:
    faults = []
    newest = next((one for one in own if one.attempt_id == row.attempt_id), None)
    live = [one for one in own if one.state in (AttemptState.QUEUED, AttemptState.RUNNING)]
    wanted = WITH_QUEUED.get(row.state)
    if [one.state for one in live] != ([wanted] if wanted else []) or (live and live != [newest]):
        faults.append(f"its open attempts are {[str(one.state) for one in live]}")
    put_off = [one for one in own if one.state is AttemptState.DEFERRED]
    if put_off and (row.state not in PUT_OFF or put_off != [newest]):
        faults.append("an attempt was put off and will never go on")
    if row.state is TaskState.UP_FOR_RESCHEDULE and not put_off:
        faults.append("no attempt was put off")
    if row.state is TaskState.SUCCESS and (newest is None or newest.state is not AttemptState.SUCCESS):
        faults.append("no attempt succeeded")
    if any(one.attempt_id in xcoms and one.state is not AttemptState.SUCCESS for one in own):
        faults.append("an XCom of an attempt that did not succeed")
    return faults


def wrong_answer(row: Any, own: Sequence[Any], question: Any, xcoms: Any) -> list[str]:
    if question is None or question.answer in (None, "closed"):
        return ["an attempt without an answer"] if question is not None and own else []
    faults = [] if len(own) == 1 else [f"{len(own)} attempts for one answer"]
    told = xcoms.get(row.attempt_id)
    if row.state is TaskState.SUCCESS and (told is None or told["approved"] != (question.answer == "approve")):
        faults.append(f"its answer is {question.answer}, its XCom {told}")
    return faults


def wrong_indexes(tasks: Sequence[Any], xcoms: Any) -> list[str]:
    """A mapped task has its first instance alone, or one for each value, in order."""
    faults = []
    for run in {row.dag_run_id for row in tasks}:
        own = [row for row in tasks if row.dag_run_id == run]
        source = next(row for row in own if row.task_id == "a")
        mapped = [(row.map_index, row.map_value) for row in own if row.task_id == "m"]
        values = xcoms.get(source.attempt_id) or []
        if mapped not in ([(-1, None)], [(index, {"n": value}) for index, value in enumerate(values)]):
            faults.append(f"run {run}: `m` has {mapped} for {values}")
    return faults


def wrong_history(connection: Connection, runs: Any, tasks: Sequence[Any]) -> list[str]:
    """The history, played from the start, has no gap and ends in the states of the tables."""
    states: dict[tuple[str, str, int], str] = {}
    faults = []
    for line in connection.execute(select(event).where(event.c.kind == "task.state").order_by(event.c.id)):
        key = (line.run_id, line.task_id, line.map_index)
        if states.get(key, TaskState.NONE) != line.from_state:
            faults.append(f"{key} moved from {line.from_state} while it was {states.get(key)}")
        states[key] = line.to_state
    now = {(runs[row.dag_run_id].run_id, row.task_id, row.map_index): row.state for row in tasks}
    return faults + [
        f"the history of {key} ends in {states.get(key, TaskState.NONE)}, the table says {state}"
        for key, state in now.items()
        if states.get(key, TaskState.NONE) != state
    ]


@dataclass(frozen=True)
class Thought:
    """What a scheduler has decided on, and may carry out much later, or twice, or never."""

    run: int
    decisions: Decisions
    seen_seq: int


@dataclass(frozen=True)
class Claim:
    attempt_id: str
    nonce: str
    task_id: str


class RunsOfOneDag(RuleBasedStateMachine):
    """Two runs: `a` gives a list, `m` is mapped over it, `q` asks a person, `z` looks at the run before."""

    template: Path  # a database with the schema

    thoughts = Bundle("thoughts")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="yarrow-model-"))
        shutil.copyfile(self.template, self.folder / "yarrow.db")
        url = f"sqlite:///{self.folder}/yarrow.db"
        self.now = START
        self.store = Store.open(url, clock=lambda: self.now)
        self.look = Database(url)
        self.store.workers.set_pools({"default_pool": 4})
        self.ended: dict[str, Any] = {}

    @initialize(
        default=st.sampled_from([None, "approve", "reject"]),
        on_reject=st.sampled_from(["skip", "fail"]),
        timeout=st.sampled_from([None, f"{PATIENCE}s"]),
        fail_fast=st.booleans(),
        played=st.sampled_from([1, 2, 0]),
    )
    def begin(self, default: str | None, on_reject: str, timeout: str | None, fail_fast: bool, played: int) -> None:
        """Two runs that nothing has happened to, or whose `m` has been expanded, or whose `q` asks."""
        question = {
            "message": "Go on with {{ xcom.m }}?",
            "default": default,
            "on_reject": on_reject,
            "timeout": timeout,
        }
        tasks = [
            TaskSpec("a", "bash", {}, retries=1, retry_delay=5.0),
            TaskSpec("m", "bash", {}, ("a",), expand={"n": "{{ xcom.a }}"}, expand_xcoms=("a",), retries=1),
            TaskSpec("q", "approval", question, ("m",), trigger_rule="all_done", xcoms=("m",)),
            TaskSpec("z", "bash", {}, ("q",), depends_on_past=True),
        ]
        rules: dict[str, Any] = {"fail_fast": fail_fast, "dagrun_timeout": TIMEOUT}
        if fail_fast:
            tasks[2] = TaskSpec("q", "approval", question, ("m",), xcoms=("m",))
        self.spec = DagSpec("d", {task.task_id: task for task in tasks}, **rules)
        self.store.catalog.publish([(self.spec, "", "d.yaml")])
        for number in range(2):
            at = START + timedelta(days=number)
            self.store.runs.create(
                self.spec,
                self.spec.version,
                run_id=f"r{number}",
                run_type="manual",
                interval=(at, at, at, START),
                params={},
            )
        self.runs = self.store.runs.start_due()
        assert len(self.runs) == 2
        self.decide_in_time()
        for _ in range(played):
            self.work_off(2)

    # The schedulers

    def think(self, run: int) -> Thought | None:
        found = self.store.runs.snapshot(run)
        if found is None:
            return None
        record = found.record
        decisions = decide(found.spec, record.view, found.tasks, self.now, found.xcoms, found.past)
        return Thought(run, decisions, record.change_seq)

    def carry_out(self, thought: Thought) -> bool:
        done = self.store.runs.apply(thought.run, thought.decisions, thought.seen_seq)
        self.remember_ends()
        return done

    @rule()
    def decide_in_time(self) -> None:
        for run in self.store.runs.undecided():
            thought = self.think(run)
            assert thought is not None
            assert self.carry_out(thought)

    @rule(target=thoughts, number=st.integers(0, 1))
    def think_only(self, number: int) -> Any:
        thought = self.think(self.runs[number])
        return multiple() if thought is None else thought

    @rule(thought=consumes(thoughts), twice=st.booleans())
    def act_late(self, thought: Thought, twice: bool) -> None:
        """A scheduler that was stopped for a while carries out what it had decided long ago."""
        self.carry_out(thought)
        if twice:
            self.carry_out(thought)

    # The workers

    @rule(target=claims)
    def take(self) -> Any:
        self.store.attempts.grant(4)
        claimed = self.store.attempts.next_for("default", "w1", LEASE)
        return multiple() if claimed is None else Claim(claimed.attempt_id, claimed.nonce, claimed.task_id)

    @rule(
        claim=consumes(claims),
        state=st.sampled_from(["success"] * 4 + ["failed", "skipped", "lost", "deferred", "cancelled"]),
        count=st.integers(0, 3),
        wake=st.booleans(),
    )
    def finish(self, claim: Claim, state: str, count: int, wake: bool) -> None:
        self.report(claim, state, count)
        if wake:
            self.decide_in_time()

    def report(self, claim: Claim, state: str, count: int) -> None:
        resume_at = (self.now + timedelta(seconds=POKE)).isoformat()
        value = [f"value {number}" for number in range(count)]
        report = Report(claim.attempt_id, state, xcom=value, has_xcom=True, resume_at=resume_at)
        try:
            self.store.attempts.finish(report, claim.nonce, "w1", infra_budget=5)
        except Refused:
            assert claim.attempt_id in self.ended or self.was_lost(claim)
        self.remember_ends()

    def work_off(self, count: int) -> None:
        """Everything that may run now succeeds."""
        self.store.attempts.grant(4)
        while (claimed := self.store.attempts.next_for("default", "w1", LEASE)) is not None:
            self.report(Claim(claimed.attempt_id, claimed.nonce, claimed.task_id), "success", count)
        self.decide_in_time()

    def was_lost(self, claim: Claim) -> bool:
        return self.store.attempts.get(claim.attempt_id).state is not AttemptState.RUNNING

    # People

    @rule(number=st.integers(0, 1), approve=st.booleans(), wake=st.booleans())
    def answer(self, number: int, approve: bool, wake: bool) -> None:
        waiting = [one for one in self.store.approvals.open() if one.run_id == f"r{number}"]
        in_time = [one for one in waiting if one.due_at is None or one.due_at > self.now]
        try:
            record = self.store.approvals.answer("d", f"r{number}", "q", approve=approve, who="ann")
        except (Conflict, NotFound):
            assert in_time == []
        else:
            assert len(in_time) == 1
            assert record.answer == ("approve" if approve else "reject")
        self.remember_ends()
        if wake:
            self.decide_in_time()

    @precondition(lambda self: self.now < START + timedelta(seconds=TIMEOUT / 2))
    @rule(
        number=st.integers(0, 1),
        instance=st.sampled_from([("m", -1), ("q", -1), ("m", 0), ("a", -1), ("z", -1)]),
        chance=st.integers(0, 2),
    )
    def stop(self, number: int, instance: tuple[str, int], chance: int) -> None:
        if chance < 2:
            return
        task_id, map_index = instance
        try:
            self.store.attempts.cancel("d", f"r{number}", task_id, map_index, who="bob")
        except NotFound:
            assert task_id == "m"  # not expanded yet, or expanded already
        self.remember_ends()

    @rule(seconds=st.sampled_from([1.0, POKE + 1, LEASE + 1, PATIENCE + 1.0]))
    def tick(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.store.attempts.expire_leases(infra_budget=5)
        self.remember_ends()

    def remember_ends(self) -> None:
        for row in self.look.read(lambda c: c.execute(select(attempt.c.attempt_id, attempt.c.state)).all()):
            if row.state.finished:
                assert self.ended.setdefault(row.attempt_id, row.state) is row.state, "an end that changed"

    @invariant()
    def rules_hold(self) -> None:
        assert self.look.read(broken_rules) == []

    def teardown(self) -> None:
        """From wherever they stand, the runs come to their end once things work again."""
        try:
            if hasattr(self, "runs"):
                self.come_to_an_end()
        finally:
            self.store.close()
            self.look.close()
            shutil.rmtree(self.folder)

    def come_to_an_end(self) -> None:
        for _ in range(40):
            self.tick(LEASE + 1)
            self.decide_in_time()
            if all(self.store.runs.by_id(run).state.finished for run in self.runs):
                break
            self.work_off(2)
            for record in self.store.approvals.open():
                if record.due_at is None:
                    self.store.approvals.answer("d", record.run_id, "q", approve=True, who="ann")
        assert {self.store.runs.by_id(run).state for run in self.runs} <= {RunState.SUCCESS, RunState.FAILED}
        assert self.look.read(broken_rules) == []


@pytest.mark.slow
def test_the_rules_hold_however_late_a_scheduler_is(sqlite_template: Path) -> None:
    RunsOfOneDag.template = sqlite_template
    run_state_machine_as_test(
        RunsOfOneDag,
        settings=settings(
            max_examples=50,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy import event as events

from together import together
from yarrow.errors import Conflict, NotFound, UsageError
from yarrow.language.spec import DagSpec, DeadlineSpec, ScheduleSpec
from yarrow.plans.backfilling import backfill_run_id
from yarrow.plans.plan import Plan
from yarrow.plans.requests import BackfillRequest, ClearRequest
from yarrow.states import RunState, TaskState
from yarrow.store import Store, granting
from yarrow.store.records import BackfillRecord, RunRecord
from yarrow.store.tables import dag_version, task_instance
from yarrow.timetable import scheduled_run_id

DAY = timedelta(days=1)
NONE, SUCCESS, FAILED, SCHEDULED = TaskState.NONE, TaskState.SUCCESS, TaskState.FAILED, TaskState.SCHEDULED


@dataclass
class Backfilled:
    """A stage with a daily DAG, and backfills of the days before its clock."""

    stage: Any
    spec: DagSpec

    @property
    def store(self) -> Store:
        store: Store = self.stage.store
        return store

    def day(self, number: int) -> datetime:
        """The logical date so many days before now, of which the interval is over from 1 on."""
        date: datetime = self.stage.clock() - number * DAY
        return date

    def request(self, first: int, last: int = 1, **fields: Any) -> BackfillRequest:
        return BackfillRequest(dag_id="d", from_date=self.day(first), to_date=self.day(last), **fields)

    def begin(self, first: int, last: int = 1, **fields: Any) -> int:
        plan: Plan = self.store.plans.carry_out(self.request(first, last, **fields), who="ann")
        return int(str(plan.result["backfill_id"]))

    def runs(self) -> list[RunRecord]:
        return sorted(self.store.runs.list("d", limit=10_000), key=lambda run: (run.logical_date, run.id))

    def states(self) -> list[str]:
        return [str(run.state) for run in self.runs()]

    def start(self) -> list[str]:
        """The run ids that start now, in the order in which they do."""
        return [self.store.runs.by_id(id).run_id for id in self.store.runs.start_due()]

    def end(self, run: RunRecord, state: RunState = RunState.SUCCESS) -> None:
        """Ends a running run with all its tasks."""
        task_state = SUCCESS if state is RunState.SUCCESS else FAILED
        instances = self.store.runs.task_instances(run.id)
        moves = [(one.task_id, one.state, task_state) for one in instances if one.state is NONE]
        assert self.stage.decide(run, *moves)
        assert self.stage.end(run, state)

    def end_all(self) -> None:
        """Starts and ends runs until none is left."""
        while any(not run.state.finished for run in self.runs()):
            self.store.runs.start_due()
            running = [run for run in self.runs() if run.state is RunState.RUNNING]
            assert running, f"nothing starts: {self.states()}"
            for run in running:
                self.end(run)

    def past(self, number: int, state: RunState, run_type: str = "scheduled", **fields: Any) -> RunRecord:
        """A run of a past day that has ended."""
        date = self.day(number)
        interval = (date, date, date + DAY, self.stage.clock())
        run = self.store.runs.create(
            fields.pop("spec", self.spec),
            self.spec.version,
            run_id=fields.pop("run_id", scheduled_run_id(date)),
            run_type=run_type,
            interval=interval,
            params=fields.pop("params", {}),
        )
        assert run is not None
        self.store.runs.start_due()
        self.end(self.store.runs.by_id(run.id), state)
        return self.store.runs.by_id(run.id)

    def backfill(self, id: int) -> BackfillRecord:
        return self.store.backfills.get(id)

    def history(self, kind: str) -> list[Any]:
        return [line for line in self.store.runs.events("d", limit=100_000) if line.kind == kind]


def daily(stage: Any, *tasks: Any, **fields: Any) -> DagSpec:
    settings = {"schedule": ScheduleSpec(cron="@daily"), "start_date": datetime(2010, 1, 1, tzinfo=UTC), **fields}
    spec: DagSpec = stage.dag(tasks=list(tasks) or None, **settings)
    stage.publish(spec)
    return spec


@pytest.fixture
def past(stage: Any) -> Backfilled:
    return Backfilled(stage, daily(stage))


@pytest.fixture
def sqlite_past(sqlite_stage: Any) -> Backfilled:
    return Backfilled(sqlite_stage, daily(sqlite_stage))


# How they begin.


def test_makes_queued_runs_without_task_instances(past: Backfilled) -> None:
    id = past.begin(3, params={}, max_active_runs=2)
    runs = past.runs()
    assert [run.run_id for run in runs] == [backfill_run_id(past.day(number)) for number in (3, 2, 1)]
    assert {(run.run_type, run.state, run.backfill_id, run.priority_class) for run in runs} == {
        ("backfill", RunState.QUEUED, id, -1)
    }
    assert {(run.triggered_by, run.version, run.run_after - run.logical_date) for run in runs} == {
        ("ann", past.spec.version, DAY)
    }
    assert [past.store.runs.task_instances(run.id) for run in runs] == [[], [], []]
    assert past.store.runs.task_summaries([run.id for run in runs]) == {run.id: [] for run in runs}
    assert [(line.run_id, line.to_state, line.who) for line in past.history("run.state")] == [
        (run.run_id, "queued", "ann") for run in runs
    ]
    (created,) = past.history("backfill.created")
    assert (created.who, str(created.reason).split(",")[0]) == ("ann", f"backfill {id}")


def test_task_instances_are_made_when_a_run_starts_with_its_class(past: Backfilled) -> None:
    past.begin(1, priority_class=-7)
    (id,) = past.store.runs.start_due()
    instances = past.store.runs.task_instances(id)
    assert [(one.task_id, one.state, one.max_tries) for one in instances] == [("a", NONE, 1), ("b", NONE, 1)]
    classes = select(task_instance.c.priority_class).where(task_instance.c.dag_run_id == id)
    found = past.store.runs._database.read(lambda connection: connection.execute(classes).scalars().all())
    assert found == [-7, -7]
    assert past.store.runs.undecided() == [id]


def test_params_are_those_of_the_request_with_defaults(past: Backfilled) -> None:
    schema = {"limit": {"type": "integer", "default": 1}, "name": {"type": "string", "default": "x"}}
    daily(past.stage, params=schema)
    past.begin(1, params={"limit": 9})
    assert [run.params for run in past.runs()] == [{"limit": 9, "name": "x"}]


def test_begins_nothing_when_all_is_there(past: Backfilled) -> None:
    past.begin(3)
    with pytest.raises(UsageError, match=r"nothing to do in any of 3 runs: in flight: it is queued\.$"):
        past.begin(3)
    assert len(past.store.backfills.list()) == 1


def test_a_plan_is_applied_as_it_was_shown_or_not_at_all(past: Backfilled) -> None:
    shown = past.store.plans.draw(past.request(3), who="ann")
    assert past.runs() == []
    past.past(2, RunState.SUCCESS)
    with pytest.raises(Conflict, match=r"out of date, and nothing was done: .*scheduled__"):
        past.store.plans.apply(shown.id, who="bob")
    assert len(past.runs()) == 1
    again = past.store.plans.draw(past.request(3), who="ann")
    assert [str(run.action) for run in again.runs] == ["create", "skip", "create"]
    past.store.plans.apply(again.id, who="bob")
    assert [run.run_type for run in past.runs()] == ["backfill", "scheduled", "backfill"]
    with pytest.raises(Conflict, match="was applied"):
        past.store.plans.apply(again.id, who="bob")


def test_a_run_id_that_belongs_to_another_date_is_a_conflict(past: Backfilled) -> None:
    past.past(9, RunState.SUCCESS, run_type="manual", run_id=backfill_run_id(past.day(2)))
    with pytest.raises(Conflict, match="already, of another logical date"):
        past.begin(3)
    assert len(past.runs()) == 1
    assert past.store.backfills.list() == []


def test_overlapping_backfills_leave_one_another_alone(past: Backfilled) -> None:
    first = past.begin(4, 2)
    shown = past.store.plans.draw(past.request(6, 1), who="ann")
    reasons = [run.reason for run in shown.runs]
    assert reasons == [None, None, *["in flight: it is queued"] * 3, None]
    second = past.begin(6, 1)
    assert [run.backfill_id for run in past.runs()] == [second, second, first, first, first, second]
    past.end_all()
    assert {one.state for one in past.store.backfills.list()} == {"completed"}


def test_deadlines_are_those_of_runs_by_hand(past: Backfilled) -> None:
    daily(past.stage, deadline=DeadlineSpec(60.0, "queued_at"))
    past.begin(2)
    due = past.store.deadlines.list("d", missed=False)
    queued = {run.run_id for run in past.runs()}
    assert {(one.run_id, one.due_at) for one in due} == {
        (id, past.stage.clock() + timedelta(minutes=1)) for id in queued
    }
    daily(past.stage, deadline=DeadlineSpec(60.0, "data_interval_end"))
    past.begin(4, 3)
    assert len(past.store.deadlines.list("d", missed=False)) == 2  # those of the past had passed before


# Reruns.


def test_a_rerun_becomes_a_run_of_the_backfill(past: Backfilled) -> None:
    run = past.past(2, RunState.FAILED)
    id = past.begin(3, reprocess="failed", priority_class=-3)
    again = past.store.runs.by_id(run.id)
    assert (again.state, again.run_type, again.run_id) == (RunState.QUEUED, "scheduled", run.run_id)
    assert (again.backfill_id, again.priority_class, again.params) == (id, -3, {})
    assert past.stage.states(again) == {"a": NONE, "b": NONE}
    assert past.backfill(id).counts == {"queued": 3}
    assert past.start() == [backfill_run_id(past.day(3)), run.run_id, backfill_run_id(past.day(1))]
    past.end_all()
    assert past.states() == ["success"] * 3


@pytest.mark.parametrize(("params", "expected"), [({}, {"limit": 5}), ({"limit": 8}, {"limit": 8})])
def test_a_rerun_keeps_its_params_unless_others_are_given(
    past: Backfilled, params: dict[str, Any], expected: dict[str, Any]
) -> None:
    past.spec = daily(past.stage, params={"limit": {"type": "integer", "default": 1}})
    run = past.past(1, RunState.SUCCESS, params={"limit": 5})
    past.begin(1, reprocess="completed", params=params)
    assert past.store.runs.by_id(run.id).params == expected


# Limits and order.


def test_each_backfill_and_the_dag_have_limits_of_their_own(past: Backfilled) -> None:
    past.spec = daily(past.stage, max_active_runs=1)
    first, second = past.begin(9, 6, max_active_runs=2), past.begin(5, 2, max_active_runs=3)
    by_hand = [past.stage.run(past.spec, f"r{number}", past.day(20 + number), start=False) for number in range(3)]
    past.store.runs.start_due()
    running = [run.backfill_id for run in past.runs() if run.state is RunState.RUNNING]
    assert sorted(running, key=str) == sorted([None, first, first, second, second, second], key=str)
    assert past.store.runs.active_count("d") == len(by_hand)
    assert past.start() == []


@pytest.mark.parametrize("backwards", [False, True])
def test_runs_start_in_the_order_of_the_plan(past: Backfilled, backwards: bool) -> None:
    past.begin(4, max_active_runs=1, run_backwards=backwards)
    started = []
    while any(not run.state.finished for run in past.runs()):
        started += past.start()
        (run,) = [run for run in past.runs() if run.state is RunState.RUNNING]
        past.end(run)
    dates = [past.day(number) for number in (4, 3, 2, 1)]
    assert started == [backfill_run_id(date) for date in (dates[::-1] if backwards else dates)]


def test_a_paused_dag_starts_none_of_them(past: Backfilled) -> None:
    past.begin(2)
    past.store.catalog.set_paused("d", True, "ann")
    assert past.start() == []
    past.store.catalog.set_paused("d", False, "ann")
    assert len(past.start()) == 2


def test_a_failed_or_deleted_run_does_not_hold_up_the_others(past: Backfilled) -> None:
    id = past.begin(4, max_active_runs=1)
    past.store.runs.start_due()
    first, second, *_ = past.runs()
    past.end(past.store.runs.by_id(first.id), RunState.FAILED)
    delete = text("DELETE FROM dag_run WHERE id = :id")
    past.store.runs._database.write(lambda connection: connection.execute(delete, {"id": second.id}))
    past.end_all()
    assert past.states() == ["failed", "success", "success"]
    record = past.backfill(id)
    assert (record.state, record.progress, record.counts) == ("completed", 1.0, {"failed": 1, "success": 2})


def test_two_schedulers_never_start_too_many(postgres_stage: Any, postgres_url: str) -> None:
    past = Backfilled(postgres_stage, daily(postgres_stage, max_active_runs=2))
    past.begin(40, 21, max_active_runs=3)
    past.begin(20, 1, max_active_runs=4)
    for number in range(10):
        postgres_stage.run(past.spec, f"r{number}", past.day(100 + number), start=False)
    most = "SELECT coalesce(backfill_id, 0), count(*) FROM dag_run WHERE state = 'running' GROUP BY 1"
    seen: list[tuple[int, int]] = []

    def scheduler() -> None:
        store = Store.open(postgres_url, clock=postgres_stage.clock)
        mine = Backfilled(replace(postgres_stage, store=store), past.spec)
        for _ in range(400):
            for id in store.runs.start_due():
                counts = store.runs._database.read(lambda connection: connection.execute(text(most)).all())
                seen.extend((key, count) for key, count in counts)
                mine.end(store.runs.by_id(id))
            if all(run.state.finished for run in mine.runs()):
                break
        store.close()

    assert together(scheduler, scheduler, scheduler) == []
    assert set(past.states()) == {"success"}
    limits = {0: 2, 1: 3, 2: 4}
    assert {key for key, _ in seen} == set(limits)
    assert all(count <= limits[key] for key, count in seen)


def test_of_two_people_at_once_one_makes_each_run(postgres_stage: Any, postgres_url: str) -> None:
    past = Backfilled(postgres_stage, daily(postgres_stage))
    made: list[int] = []

    def person(first: int, last: int) -> None:
        store = Store.open(postgres_url, clock=postgres_stage.clock)
        with suppress(UsageError):  # there was nothing left to do
            plan = store.plans.carry_out(past.request(first, last), who="ann")
            made.append(len(plan.effective))
        store.close()

    spans = [(60, 20), (60, 20), (50, 1), (40, 30)]
    assert together(*(partial(person, *span) for span in spans)) == []
    assert sum(made) == 60
    assert len({run.logical_date for run in past.runs()}) == 60
    past.end_all()


def test_cancelled_while_schedulers_start_its_runs_nothing_is_left(postgres_stage: Any, postgres_url: str) -> None:
    past = Backfilled(postgres_stage, daily(postgres_stage, max_active_runs=2))
    for round_ in range(3):
        id = past.begin(60, reprocess="completed", max_active_runs=5)

        def scheduler() -> None:
            store = Store.open(postgres_url, clock=postgres_stage.clock)
            mine = Backfilled(replace(postgres_stage, store=store), past.spec)
            while any(not run.state.finished for run in mine.runs()):
                for run_id in store.runs.start_due():
                    mine.end(store.runs.by_id(run_id))
            store.close()

        def person(id: int = id) -> None:
            store = Store.open(postgres_url, clock=postgres_stage.clock)
            while store.backfills.get(id).left > 50:
                pass
            store.backfills.pause(id, "bob")
            store.backfills.resume(id, "bob")
            store.backfills.cancel(id, "bob")
            store.close()

        assert together(scheduler, scheduler, person) == []
        assert past.backfill(id).state == "cancelled"
        assert all(run.state.finished for run in past.runs()), round_
        assert past.backfill(id).counts.get("success", 0) < 60


# Their class.


def granted(past: Backfilled, slots: int) -> list[str]:
    before = {run.id: past.stage.states(run) for run in past.runs()}
    past.store.attempts.grant(slots)
    return [
        run.run_id
        for run in past.runs()
        for task_id, state in past.stage.states(run).items()
        if state is TaskState.QUEUED and before[run.id][task_id] is SCHEDULED
    ]


def test_tasks_of_other_runs_go_first_whatever_their_weight(past: Backfilled) -> None:
    past.begin(2)
    run = past.stage.run(past.spec, "later", past.day(0))
    for one in past.runs():
        past.stage.schedule(one, "a" if one.backfill_id else "b")  # a has the greater weight
    assert granted(past, 1) == ["later"]
    assert past.store.attempts.to_publish({"default": 5})[0].attempt_id == past.stage.instance(run, "b").attempt_id
    assert sorted(granted(past, 3)) == [backfill_run_id(past.day(2)), backfill_run_id(past.day(1))]
    claimed = [past.store.attempts.next_for("default", "w", 60.0) for _ in range(3)]
    assert [one.run_id for one in claimed if one] == [
        "later",
        backfill_run_id(past.day(2)),
        backfill_run_id(past.day(1)),
    ]


def test_a_higher_class_goes_before_all_others(past: Backfilled) -> None:
    past.begin(1, priority_class=5)
    past.stage.run(past.spec, "later", past.day(9))
    for one in past.runs():
        past.stage.schedule(one, "a")
    assert granted(past, 1) == [backfill_run_id(past.day(1))]


def test_candidates_are_read_on_across_classes(past: Backfilled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granting, "PAGE", 2)
    past.begin(5)
    past.begin(9, 6, priority_class=-2)
    for number in range(3):
        past.stage.run(past.spec, f"r{number}", past.day(20 + number))
    past.store.runs.start_due()
    for one in past.runs():
        past.stage.schedule(one, "a")
    assert past.store.attempts.grant(100) == 12


# Scheduled runs.


def test_no_scheduled_run_is_made_where_a_backfill_has_one(past: Backfilled) -> None:
    past.begin(1)
    date, following = past.day(1), past.day(0)
    values = {"run_type": "scheduled", "interval": (date, date, following, following), "params": {}}
    made = past.store.runs.create(
        past.spec, past.spec.version, run_id=scheduled_run_id(date), advance=(following, following + DAY), **values
    )
    assert made is None
    record = past.store.catalog.dag("d")
    assert (record.scheduled_through, record.next_logical_date) == (date, following)
    assert past.store.catalog.progress(["d"])["d"].covered_until == following
    assert [run.run_type for run in past.runs()] == ["backfill"]


def test_the_run_before_may_be_one_of_a_backfill(past: Backfilled) -> None:
    spec = past.spec = daily(
        past.stage, past.stage.task("a", depends_on_past=True), past.stage.task("b", upstream=("a",)), catchup=True
    )
    past.begin(2, 2)
    past.store.runs.start_due()
    date = past.day(1)
    values = {"run_type": "scheduled", "interval": (date, date, date + DAY, date + DAY), "params": {}}
    made = past.store.runs.create(spec, spec.version, run_id="s", **values)
    assert made is not None
    past.store.runs.start_due()
    snapshot = past.store.runs.snapshot(made.id)
    assert snapshot is not None
    assert snapshot.past is not None
    assert snapshot.past.run_id == backfill_run_id(past.day(2))


# Some of the tasks.


def test_runs_of_some_tasks_have_a_version_of_their_own(past: Backfilled) -> None:
    past.begin(3, 2, tasks="b")
    (id, _) = past.store.runs.start_due()
    assert [one.task_id for one in past.store.runs.task_instances(id)] == ["b"]
    run = past.store.runs.by_id(id)
    assert run.version != past.spec.version
    assert past.store.catalog.spec("d", run.version).tasks["b"].upstream == ()
    assert [one.number for one in past.store.catalog.versions("d")] == [1]
    columns = select(dag_version.c.number, dag_version.c.cut_from).where(dag_version.c.version == run.version)
    assert past.store.runs._database.read(lambda connection: connection.execute(columns).one()) == (
        -1,
        past.spec.version,
    )
    past.begin(4, 4, tasks="b")  # the same version again
    past.begin(5, 5, tasks="a")  # and another one
    numbers = select(dag_version.c.number).order_by(dag_version.c.number)
    assert past.store.runs._database.read(lambda connection: connection.execute(numbers).scalars().all()) == [-2, -1, 1]
    past.end_all()
    assert set(past.states()) == {"success"}


def test_a_part_that_is_published_later_becomes_a_version_of_its_own(past: Backfilled) -> None:
    past.begin(1, tasks="a")
    (run,) = past.runs()
    part = past.store.catalog.spec("d", run.version)
    past.stage.publish(part)
    assert [(one.number, one.version) for one in past.store.catalog.versions("d")] == [
        (2, part.version),
        (1, past.spec.version),
    ]
    other = daily(past.stage, past.stage.task("z"))
    assert past.store.catalog.versions("d")[0].number == 3
    assert past.store.catalog.dag("d").version == other.version


# Holding them up and ending them.


def test_a_paused_backfill_starts_nothing_until_it_is_resumed(past: Backfilled) -> None:
    id = past.begin(4, max_active_runs=1)
    past.store.runs.start_due()
    assert past.store.backfills.pause(id, "bob").state == "paused"
    past.end(past.store.runs.by_id(past.runs()[0].id))
    assert past.start() == []
    assert past.backfill(id).eta is None
    assert past.store.backfills.resume(id, "bob").state == "running"
    assert len(past.start()) == 1
    assert [(line.kind, line.who) for line in past.store.runs.events("d", limit=1000) if "backfill." in line.kind] == [
        ("backfill.created", "ann"),
        ("backfill.paused", "bob"),
        ("backfill.resumed", "bob"),
    ]


def test_cancelling_deletes_what_never_started_and_lets_the_rest_go_on(past: Backfilled) -> None:
    run = past.past(2, RunState.SUCCESS)
    id = past.begin(5, reprocess="completed", max_active_runs=2)
    past.store.runs.start_due()
    record = past.store.backfills.cancel(id, "bob", reason="wrong month")
    assert (record.state, record.eta) == ("cancelled", None)
    assert [(one.run_type, str(one.state)) for one in past.runs()] == [
        ("backfill", "running"),
        ("backfill", "running"),
        ("scheduled", "failed"),
    ]
    rerun = past.store.runs.by_id(run.id)
    assert rerun.reason == f"The backfill {id} was cancelled by bob before it ran again: wrong month"
    assert rerun.ended_at is not None
    assert {line.run_id for line in past.history("run.deleted")} == {
        backfill_run_id(past.day(number)) for number in (3, 1)
    }
    assert [line.reason for line in past.history("backfill.cancelled")] == [f"backfill {id}: wrong month"]
    past.end_all()
    assert past.states() == ["success", "success", "failed"]
    assert past.backfill(id).progress == 0.6


def test_runs_of_a_cancelled_backfill_can_be_had_again(past: Backfilled) -> None:
    run = past.past(3, RunState.SUCCESS)
    id = past.begin(4, reprocess="completed", max_active_runs=1)
    past.store.runs.start_due()
    past.store.backfills.pause(id, "bob")
    past.store.backfills.cancel(id, "bob")
    past.end_all()
    past.store.plans.carry_out(ClearRequest(dag_id="d", run_ids=(run.run_id,)), who="ann")
    assert past.store.runs.active_count("d") == 1
    past.end_all()
    again = past.begin(4)  # what was deleted
    past.end_all()
    assert past.states() == ["success"] * 4
    assert past.backfill(again).run_count == 2


def test_a_run_that_is_cleared_after_its_backfill_starts_within_the_limit_of_its_dag(past: Backfilled) -> None:
    past.spec = daily(past.stage, max_active_runs=1)
    id = past.begin(3, max_active_runs=1)
    past.store.runs.start_due()
    first = past.runs()[0]
    past.end(first)
    past.store.backfills.pause(id, "ann")
    past.store.plans.carry_out(ClearRequest(dag_id="d", run_ids=(first.run_id,)), who="ann")
    assert past.start() == [first.run_id]
    assert past.backfill(id).state == "paused"
    past.end(past.store.runs.by_id(first.id))
    past.store.backfills.resume(id, "ann")
    past.end_all()
    assert past.backfill(id).state == "completed"


def test_a_run_that_is_cleared_while_it_goes_on_stays_in_its_backfill(past: Backfilled) -> None:
    id = past.begin(2, max_active_runs=1)
    past.store.runs.start_due()
    run = past.runs()[0]
    assert past.stage.decide(run, ("a", NONE, TaskState.SKIPPED))
    past.store.plans.carry_out(ClearRequest(dag_id="d", run_ids=(run.run_id,)), who="ann")
    assert past.start() == []
    assert past.backfill(id).left == 2


def test_what_is_not_there_or_over_is_refused_with_a_sentence(past: Backfilled) -> None:
    for change in (past.store.backfills.pause, past.store.backfills.resume, past.store.backfills.cancel):
        with pytest.raises(NotFound, match="There is no backfill 7"):
            change(7, "ann")
    with pytest.raises(NotFound):
        past.backfill(7)
    id = past.begin(2)
    with pytest.raises(Conflict, match="is not paused"):
        past.store.backfills.resume(id, "ann")
    past.store.backfills.pause(id, "ann")
    with pytest.raises(Conflict, match="is paused already"):
        past.store.backfills.pause(id, "ann")
    past.store.backfills.cancel(id, "ann")
    with pytest.raises(Conflict, match="is cancelled: it can't be paused any more"):
        past.store.backfills.pause(id, "ann")
    with pytest.raises(Conflict, match="is cancelled: it can't be cancelled any more"):
        past.store.backfills.cancel(id, "ann")
    other = past.begin(2)
    past.end_all()
    with pytest.raises(Conflict, match=f"The backfill {other} is completed"):
        past.store.backfills.cancel(other, "ann")


# How they are looked at.


def test_tells_how_far_it_is_and_when_it_will_be_complete(past: Backfilled) -> None:
    id = past.begin(6, max_active_runs=2)
    record = past.backfill(id)
    assert (record.state, record.progress, record.left, record.eta) == ("queued", 0.0, 6, None)
    past.store.runs.start_due()
    first, second, *_ = past.runs()
    past.stage.clock.advance(100)
    past.end(first)
    record = past.backfill(id)
    assert (record.state, round(record.progress, 3), record.counts) == (
        "running",
        0.167,
        {"queued": 4, "running": 1, "success": 1},
    )
    assert record.eta == 100 * 4.5 / 2
    past.end(second)
    assert past.backfill(id).eta == 100 * 4 / 2
    past.end_all()
    record = past.backfill(id)
    assert (record.state, record.progress, record.eta) == ("completed", 1.0, None)
    assert record.to_json()["state"] == "completed"


def test_before_any_run_has_ended_the_plan_tells_how_long_it_takes(past: Backfilled) -> None:
    run = past.stage.begin(past.spec, "a")
    for task_id in ("a", "b"):
        if task_id == "b":
            past.stage.schedule(run, "b")
        claimed = past.stage.claim()
        past.stage.clock.advance(10)
        past.stage.finish(claimed)
    past.stage.end(run)
    plan = past.store.plans.carry_out(past.request(400, 391, max_active_runs=5), who="ann")
    assert plan.estimate is not None
    assert plan.estimate.seconds == 40
    assert past.backfill(int(str(plan.result["backfill_id"]))).eta == 40


def test_lists_the_newest_first_and_only_those_that_go_on(past: Backfilled) -> None:
    first, second = past.begin(2, 2), past.begin(1, 1)
    other = past.stage.dag("e", schedule=ScheduleSpec(cron="@daily"), start_date=datetime(2010, 1, 1, tzinfo=UTC))
    past.stage.publish(other)
    request = replace(past.request(1), dag_id="e")
    third = int(str(past.store.plans.carry_out(request, who="ann").result["backfill_id"]))
    assert [one.id for one in past.store.backfills.list()] == [third, second, first]
    assert [one.id for one in past.store.backfills.list("d")] == [second, first]
    past.store.backfills.cancel(second, "ann")
    assert [one.id for one in past.store.backfills.list("d", active_only=True)] == [first]
    past.end_all()
    assert past.store.backfills.list("d", active_only=True) == []


# What it costs.


@pytest.fixture
def executed() -> Iterator[list[str]]:
    """The SQL that is executed."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    events.listen(Engine, "before_cursor_execute", note)
    yield found
    events.remove(Engine, "before_cursor_execute", note)


def test_ten_years_of_days_take_as_many_statements_as_ten_days(past: Backfilled, executed: list[str]) -> None:
    past.begin(10, 1)
    few = len(executed)
    executed.clear()
    past.begin(3660, 11)
    assert len(executed) <= few + 10
    assert len(past.runs()) == 3660
    executed.clear()
    assert len(past.start()) == 20
    past.store.runs.start_due()
    executed.clear()
    assert past.start() == []
    assert len(executed) <= 3  # with the BEGIN: a full backfill costs a pass of the loop two looks


def test_a_look_for_runs_to_start_does_not_go_through_those_that_wait(sqlite_past: Backfilled) -> None:
    sqlite_past.begin(3)
    plans = {}
    for name, query in {
        "own": "SELECT id FROM dag_run WHERE state = 'queued' AND backfill_place IS NULL",
        "next": (
            "SELECT id FROM dag_run WHERE backfill_id = 1 AND state = 'queued' AND backfill_place IS NOT NULL "
            "ORDER BY backfill_place LIMIT 2"
        ),
    }.items():
        explain = text(f"EXPLAIN QUERY PLAN {query}")
        rows = sqlite_past.store.runs._database.read(lambda connection, e=explain: connection.execute(e).all())
        plans[name] = " ".join(row[-1] for row in rows)
    assert "ix_dag_run_queued (backfill_place=?)" in plans["own"]
    assert "ix_dag_run_backfill (backfill_id=? AND state=?" in plans["next"]
    assert "TEMP B-TREE" not in plans["next"]

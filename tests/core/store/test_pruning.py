"""Retention: what is too old goes in short steps, and nothing that is still needed does."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, insert, select, update

from yarrow.language.spec import DagSpec, DeadlineSpec, ScheduleSpec
from yarrow.notify import Happening
from yarrow.plans.requests import ClearRequest
from yarrow.states import RunState
from yarrow.store import tables as t
from yarrow.store.notifications import write_down
from yarrow.timetable import scheduled_run_id

DAY = timedelta(days=1)


class Past:
    """Writes into a store what has happened long ago. Day 0 is now; the cut is 90 days ago."""

    def __init__(self, stage: Any) -> None:
        self.stage, self.store, self.now = stage, stage.store, stage.clock()
        self.database = self.store.runs._database
        self.before = self.now - 90 * DAY

    def dag(self, dag_id: str = "d", through: int | None = None, **fields: Any) -> DagSpec:
        """A DAG, as old as the hills."""
        spec: DagSpec = self.stage.dag(dag_id, **fields)
        self.stage.publish(spec)
        at = self.now - 1000 * DAY
        self.change(update(t.dag).where(t.dag.c.dag_id == dag_id).values(updated_at=at, created_at=at))
        self.change(update(t.dag_version).where(t.dag_version.c.dag_id == dag_id).values(created_at=at))
        if through is not None:
            self.change(update(t.dag).where(t.dag.c.dag_id == dag_id).values(scheduled_through=self.ago(through)))
        return spec

    def ago(self, days: float) -> datetime:
        moment: datetime = self.now - days * DAY
        return moment

    def run(self, days: float, spec: DagSpec, state: str = "success", run_type: str = "scheduled", **row: Any) -> str:
        """A run whose logical date and whose end were so many days ago, with all that a run may have."""
        at = self.ago(days)
        run_id = str(row.pop("run_id", f"{run_type}-{days:g}"))
        over = state in ("success", "failed")
        task_state = row.pop("task", "success" if over else "none")
        values = {
            "dag_id": spec.dag_id,
            "run_id": run_id,
            "run_type": run_type,
            "version": spec.version,
            "state": state,
            **dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end", "run_after", "queued_at"), at),
            "params": {},
            "ended_at": at if over else None,
            **row,
        }

        def work(connection: Connection) -> None:
            id = connection.execute(insert(t.dag_run).values(values).returning(t.dag_run.c.id)).scalar_one()
            of_task = {
                "dag_run_id": id,
                "dag_id": spec.dag_id,
                "logical_date": at,
                "task_id": "a",
                "state": task_state,
                "max_tries": 1,
                "queue": "default",
                "pool": "default_pool",
                "priority_weight": 1,
                "attempt_id": f"{spec.dag_id}{id}",
            }
            added = insert(t.task_instance).values(of_task).returning(t.task_instance.c.id)
            instance = connection.execute(added).scalar_one()
            tried = {"attempt_id": f"{spec.dag_id}{id}", "task_instance_id": instance, "try_number": 1, "nonce": "n"}
            tried |= {"state": task_state if over else "queued", "queue": "default", "created_at": at}
            connection.execute(insert(t.attempt).values(tried))
            connection.execute(insert(t.xcom).values(attempt_id=tried["attempt_id"], value=1))
            line = {"at": at, "kind": "run.state", "dag_id": spec.dag_id, "run_id": run_id, "who": "scheduler"}
            connection.execute(insert(t.event), [line, line])

        self.database.write(work)
        return run_id

    def change(self, statement: Any, parameters: Any = None) -> None:
        self.database.write(lambda connection: connection.execute(statement, parameters))

    def prune(self, size: int = 500) -> Counter[str]:
        """Prunes, and checks that as much goes as was counted."""
        counted = self.store.pruning.count(self.before, self.now)
        total: Counter[str] = Counter()
        for step in self.store.pruning.steps(self.before, who="ann", now=self.now, size=size):
            total.update(step.counts)
        assert +total == counted
        assert self.store.pruning.count(self.before, self.now) == {}
        return +total

    def runs(self, dag_id: str = "d") -> set[str]:
        return {run.run_id for run in self.store.runs.list(dag_id, limit=10_000)}

    def count(self, table: Any) -> int:
        query = select(func.count()).select_from(table)
        counted: int = self.database.read(lambda connection: connection.execute(query).scalar_one())
        return counted


@pytest.fixture
def past(stage: Any) -> Past:
    return Past(stage)


@pytest.fixture
def postgres_past(postgres_stage: Any) -> Past:
    return Past(postgres_stage)


def manual(past: Past, spec: DagSpec, *days: float, **row: Any) -> None:
    for one in days:
        past.run(one, spec, run_type="manual", **row)


def test_old_runs_go_with_all_that_belongs_to_them(past: Past) -> None:
    spec = past.dag()
    manual(past, spec, 400, 91, 89, 1)
    past.run(95, spec, "failed", "manual")
    total = past.prune()
    assert total == {"runs": 3, "task_instances": 3, "attempts": 3, "xcoms": 3, "history_lines": 6}
    assert past.runs() == {"manual-89", "manual-1"}
    assert past.count(t.attempt) == past.count(t.xcom) == 2
    (line,) = [line for line in past.store.runs.events() if line.kind == "db.pruned"]
    assert line.who == "ann"
    assert "3 runs" in str(line.reason)


def test_a_run_ended_when_it_ended_whatever_its_date(past: Past) -> None:
    spec = past.dag()
    past.run(400, spec, run_type="manual", ended_at=past.ago(1))
    assert past.prune() == {}


def test_a_count_changes_nothing(past: Past) -> None:
    spec = past.dag()
    manual(past, spec, 100, 200)
    before = {table: past.count(table) for table in t.metadata.tables.values()}
    assert past.store.pruning.count(past.before, past.now)["runs"] == 2
    assert {table: past.count(table) for table in t.metadata.tables.values()} == before


@pytest.mark.parametrize(
    "row", [{"state": "queued"}, {"state": "running"}, {"state": "failed", "task": "running"}], ids=str
)
def test_a_run_that_is_not_over_stays_with_its_history(past: Past, row: dict[str, Any]) -> None:
    spec = past.dag()
    past.run(300, spec, run_type="manual", **row)
    assert past.prune() == {}
    assert past.count(t.event) >= 2


def test_the_newest_run_of_the_schedule_stays(past: Past) -> None:
    spec = past.dag(through=200)
    for days in (400, 300, 200):
        past.run(days, spec)
    past.run(150, spec, run_type="manual")
    assert past.prune()["runs"] == 3
    assert past.runs() == {"scheduled-200"}
    assert past.store.catalog.progress(["d"])["d"].covered_until == past.ago(200)


def test_the_newest_one_stays_when_the_schedule_was_moved_past_it(past: Past) -> None:
    spec = past.dag(through=100)
    past.run(400, spec)
    past.run(300, spec)
    past.prune()
    assert past.runs() == {"scheduled-300"}


def test_the_run_before_one_that_is_not_over_stays(past: Past) -> None:
    """Its tasks may look back at it."""
    spec = past.dag(through=1, tasks=[past.stage.task("a", depends_on_past=True)], catchup=True)
    for days in (400, 300, 200):
        past.run(days, spec)
    past.run(1, spec, "running")
    past.prune()
    assert past.runs() == {"scheduled-200", "scheduled-1"}


def test_without_catchup_it_may_be_any_run(past: Past) -> None:
    spec = past.dag(through=1, tasks=[past.stage.task("a", depends_on_past=True)])
    manual(past, spec, 400, 300)
    past.run(1, spec, "running")
    past.prune()
    assert past.runs() == {"manual-300", "scheduled-1"}


def test_each_run_before_an_open_one_stays_however_they_are_mixed(past: Past) -> None:
    spec = past.dag(through=1, tasks=[past.stage.task("a", depends_on_past=True)])
    for days, state in ((400, "success"), (390, "success"), (380, "queued"), (370, "success"), (360, "running")):
        past.run(days, spec, state)
    past.run(1, spec)
    past.prune()
    assert past.runs() == {"scheduled-390", "scheduled-380", "scheduled-370", "scheduled-360", "scheduled-1"}


def test_what_a_pause_after_failures_counts_stays(past: Past) -> None:
    spec = past.dag(max_consecutive_failed_dag_runs=3)
    manual(past, spec, 400, 300, 200, 100, state="failed")
    assert past.prune()["runs"] == 1
    assert past.runs() == {"manual-300", "manual-200", "manual-100"}


def test_what_the_average_of_a_deadline_is_taken_of_stays(past: Past) -> None:
    spec = past.dag(deadline=DeadlineSpec(60.0, "average"))
    manual(past, spec, 500, 400, 300, 200)
    manual(past, spec, 100, state="failed")
    past.prune()
    assert past.runs() == {"manual-400", "manual-300", "manual-200"}


def test_runs_of_a_backfill_stay_while_it_goes_on(past: Past) -> None:
    spec = past.dag(through=1)
    past.run(1, spec)
    past.change(insert(t.backfill), [backfill_row(past, id) for id in (1, 2)])
    # That of 398 is the one before the open one.
    known = ((400, 1, "success"), (399, 2, "success"), (398, None, "success"), (200, 1, "queued"), (100, 2, "success"))
    for days, id, state in known:
        past.run(days, spec, state, run_type="backfill", backfill_id=id)
    total = past.prune()
    assert past.runs() == {"scheduled-1", "backfill-400", "backfill-398", "backfill-200"}
    assert (total["runs"], total["backfills"]) == (2, 1)
    assert past.count(t.backfill) == 1


def backfill_row(past: Past, id: int) -> dict[str, Any]:
    return {
        "id": id,
        "dag_id": "d",
        "plan_id": f"p{id}",
        "from_date": past.ago(500),
        "to_date": past.ago(300),
        "reprocess": "none",
        "params": {},
        "max_active_runs": 1,
        "run_backwards": False,
        "priority_class": -1,
        "run_count": 2,
        "created_at": past.ago(200),
        "created_by": "ann",
    }


def test_plans_go_unless_a_backfill_is_of_them(past: Past) -> None:
    spec = past.dag()
    past.change(insert(t.backfill), [backfill_row(past, 1)])
    past.run(1, spec, run_type="backfill", backfill_id=1)
    row = {"kind": "clear", "dag_id": "d", "document": {}, "runs": [], "run_count": 0, "digest": ""}
    plans = [
        {**row, "id": id, "planned_at": past.ago(days), "planned_by": "ann"}
        for id, days in (("p1", 100), ("p2", 100), ("p3", 1))
    ]
    past.change(insert(t.plan), plans)
    assert past.prune() == {"plans": 1}
    assert past.count(t.plan) == 2


def test_the_run_that_published_what_is_waited_for_stays(past: Past) -> None:
    """The data interval of the run to come is taken from it."""
    spec = past.dag()
    past.dag("waits", schedule=ScheduleSpec(datasets=("x", "y")))
    manual(past, spec, 200, 100)
    event_row = {"dataset": "x", "at": past.ago(200), "dag_id": "d", "run_id": "manual-200", "who": "scheduler"}
    past.change(insert(t.dataset_event), [{**event_row, "id": 1}])
    past.change(insert(t.dataset_pending), [{"dag_id": "waits", "event_id": 1, "dataset": "x"}])
    past.prune()
    assert past.runs() == {"manual-200"}
    assert past.count(t.dataset_event) == 1


def test_publications_go_when_nothing_refers_to_them(past: Past) -> None:
    spec = past.dag()
    manual(past, spec, 200, 10)
    ids = past.database.read(lambda connection: connection.execute(select(t.dag_run.c.id)).scalars().all())
    events = [{"id": n, "dataset": "x", "at": past.ago(300 - n), "who": "ann"} for n in range(1, 5)]
    past.change(insert(t.dataset_event), [*events, {"id": 5, "dataset": "y", "at": past.ago(200), "who": "ann"}])
    # 1 is of a run that goes, 2 of one that stays, 3 of none; 4 and 5 are the newest of their data sets.
    past.change(
        insert(t.dag_run_dataset), [{"dag_run_id": ids[0], "event_id": 1}, {"dag_run_id": ids[1], "event_id": 2}]
    )
    assert past.prune()["dataset_events"] == 2
    left = past.database.read(lambda connection: connection.execute(select(t.dataset_event.c.id)).scalars().all())
    assert sorted(left) == [2, 4, 5]


def test_the_history_of_what_is_gone_goes_and_the_last_unpausing_stays(past: Past) -> None:
    past.dag()
    past.change(t.event.delete())
    line = {"dag_id": "d", "who": "ann", "run_id": None, "at": past.ago(100)}
    kinds = ("dag.unpaused", "dag.version", "dag.unpaused", "dag.paused")
    past.change(insert(t.event), [{**line, "kind": kind} for kind in kinds])
    past.change(insert(t.event), [{**line, "kind": "run.deleted", "run_id": "r"}])
    past.change(insert(t.event), [{**line, "kind": "run.deleted", "run_id": "q", "at": past.ago(1)}])
    assert past.prune() == {"history_lines": 4}
    left = [(line.kind, line.run_id) for line in past.store.runs.events()]
    assert left == [("dag.unpaused", None), ("run.deleted", "q"), ("db.pruned", None)]


def test_notifications_go_once_they_are_delivered_or_given_up(past: Past) -> None:
    past.dag()
    past.change(t.event.delete())
    for days in (100, 99, 98, 1):
        happening = Happening(kind="failure", dag_id="d", run_id="r", state="failed", at=past.ago(days))
        past.database.write(lambda connection, happening=happening: write_down(connection, happening, ["log"]))
    done = update(t.notification).where(t.notification.c.id != 2).values(next_try_at=None)
    past.change(done)
    assert past.prune() == {"notifications": 2}
    assert past.count(t.notification) == 2


def test_missed_deadlines_go_unless_their_run_is_there_or_awaited(past: Past) -> None:
    """Were that of a run that is still awaited forgotten, it would be set anew and told of a second time."""
    spec = past.dag()
    past.run(1, spec, run_id="there")
    awaited = past.ago(120)
    past.change(update(t.dag).values(next_logical_date=awaited))
    row = {"dag_id": "d", "task_id": "", "due_at": past.ago(100), "missed_at": past.ago(100)}
    runs = ("gone", "there", scheduled_run_id(awaited))
    past.change(insert(t.deadline), [{**row, "run_id": run_id} for run_id in runs])
    past.change(insert(t.deadline), [{**row, "run_id": "recent", "missed_at": past.ago(1)}])
    assert past.prune() == {"deadlines": 1}
    assert past.count(t.deadline) == 3


def test_results_go_when_they_have_expired(past: Past) -> None:
    row = {"dag_id": "d", "task_id": "a", "attempt_id": "x", "has_xcom": False, "created_at": past.ago(100)}
    expiry = {"old": past.ago(1), "good": past.ago(-1), "for ever": None}
    past.change(insert(t.result_cache), [{**row, "key": key, "expires_at": at} for key, at in expiry.items()])
    assert past.prune() == {"results": 1}


def versions(past: Past) -> list[tuple[str, int]]:
    query = select(t.dag_version.c.version, t.dag_version.c.number).order_by(t.dag_version.c.number)
    return past.database.read(lambda connection: [tuple(row) for row in connection.execute(query)])


def test_versions_go_that_no_run_has(past: Past) -> None:
    spec = past.dag(max_active_runs=1)
    row = {"dag_id": "d", "spec": spec.to_json(), "source": "", "created_at": past.ago(100)}
    rows = [("v2", 2, None), ("v3", 3, None), ("v4", 4, None), ("v5", 5, None), ("cut3", -1, "v3"), ("cut4", -2, "v4")]
    past.change(insert(t.dag_version), [{**row, "version": v, "number": n, "cut_from": cut} for v, n, cut in rows])
    past.change(insert(t.dag_version), [{**row, "version": "v6", "number": 6, "created_at": past.ago(1)}])
    past.change(insert(t.dag_version), [{**row, "version": "v7", "number": 7}])
    past.run(200, spec, run_type="manual", version="v2")
    past.run(5, spec, run_type="manual", version="cut3")
    # v1 is what the file says again, v3 is what a part is of that a run has, v6 is young, v7 has the highest number.
    assert past.prune()["versions"] == 4
    assert versions(past) == [("cut3", -1), (spec.version, 1), ("v3", 3), ("v6", 6), ("v7", 7)]
    past.stage.publish(past.stage.dag(max_active_runs=2))
    assert past.store.catalog.versions("d")[0].number == 8


def test_versions_stay_while_a_run_may_just_be_made_of_them(past: Past) -> None:
    past.dag(max_active_runs=1)
    past.stage.publish(past.stage.dag(max_active_runs=2))
    assert past.prune() == {}
    past.stage.clock.advance(3601)
    past.now = past.stage.clock()
    assert past.prune()["versions"] == 1


def test_a_dag_that_a_newer_yarrow_has_written_is_pruned_with_care(past: Past) -> None:
    spec = past.dag()
    manual(past, spec, 500, 400, 300, 200)
    past.stage.damage("d")
    past.prune()
    assert past.runs() == {"manual-400", "manual-300", "manual-200"}


def test_small_steps_delete_the_same(past: Past) -> None:
    for name in ("d", "e"):
        manual(past, past.dag(name), *range(100, 125))
        past.run(5, past.stage.dag(name))
    assert past.prune(size=3)["runs"] == 50
    assert past.runs() == past.runs("e") == {"scheduled-5"}


def test_no_step_has_more_runs_or_tasks_than_it_may(past: Past) -> None:
    spec = past.dag()
    manual(past, spec, *range(100, 120))
    wide = past.database.read(lambda connection: connection.execute(select(t.dag_run.c.id)).scalars().all())[10]
    row = {"dag_run_id": wide, "dag_id": "d", "logical_date": past.now, "state": "success", "max_tries": 1}
    row |= {"queue": "default", "pool": "default_pool", "priority_weight": 1, "task_id": "m"}
    past.change(insert(t.task_instance), [{**row, "map_index": n} for n in range(100)])
    steps = list(past.store.pruning.steps(past.before, who="ann", now=past.now, size=5))
    sizes = [(step.counts["runs"], step.counts["task_instances"]) for step in steps if step.runs]
    assert sum(runs for runs, _ in sizes) == 20
    assert max(runs for runs, _ in sizes) == 5
    assert [tasks for runs, tasks in sizes if tasks > 40] == [101]  # a run goes as a whole, but then alone


def test_it_may_be_broken_off_and_taken_up_again(past: Past) -> None:
    spec = past.dag()
    manual(past, spec, *range(100, 110))
    steps = past.store.pruning.steps(past.before, who="ann", now=past.now, size=4)
    assert len(next(steps).runs) == 4
    steps.close()
    assert len(past.runs()) == past.count(t.attempt) == 6
    assert past.prune()["runs"] == 6


def test_where_large_xcoms_lie_is_told(past: Past) -> None:
    spec = past.dag()
    manual(past, spec, 100)
    past.change(update(t.xcom).values(value={"$ref": "s3://objects/xcom/a/b.json"}))
    steps = past.store.pruning.steps(past.before, who="ann", now=past.now)
    assert [step.references for step in steps if step.runs] == [["s3://objects/xcom/a/b.json"]]


# Races


def clear(connection: Connection, run_id: str) -> None:
    """What a clear does to a run that has ended."""
    values = {"state": RunState.QUEUED, "ended_at": None, "change_seq": t.dag_run.c.change_seq + 1}
    connection.execute(update(t.dag_run).where(t.dag_run.c.run_id == run_id).values(**values))


def test_a_run_that_is_cleared_between_the_look_and_the_lock_survives_whole(past: Past) -> None:
    spec = past.dag()
    manual(past, spec, 100, 99)
    engine = past.database._writer
    done: list[bool] = []

    def before_the_lock(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "SKIP LOCKED" in statement and not done:
            done.append(True)
            past.database.write(lambda connection: clear(connection, "manual-100"))

    def before_the_transaction(work: Any) -> Any:
        if not done:
            done.append(True)
            real(lambda connection: clear(connection, "manual-100"))
        return real(work)

    if past.database.dialect == "sqlite":  # which lets nobody in between
        real = past.database.write
        past.store.pruning._database = type("", (), {"write": staticmethod(before_the_transaction)})()
        past.store.pruning._database.read = past.database.read
        past.store.pruning._database.now = past.database.now
    else:
        event.listen(engine, "before_cursor_execute", before_the_lock)
    for _ in past.store.pruning.steps(past.before, who="ann", now=past.now):
        pass
    if past.database.dialect != "sqlite":
        event.remove(engine, "before_cursor_execute", before_the_lock)
    assert done
    assert past.runs() == {"manual-100"}
    assert past.count(t.task_instance) == past.count(t.attempt) == past.count(t.xcom) == 1
    assert len([line for line in past.store.runs.events("d") if line.run_id == "manual-100"]) == 2


def test_a_run_that_somebody_is_clearing_is_left_alone_and_nothing_waits(postgres_past: Past) -> None:
    past = postgres_past
    spec = past.dag()
    manual(past, spec, 100, 99)
    with past.database._writer.begin() as connection:
        connection.execute(select(t.dag_run.c.id).where(t.dag_run.c.run_id == "manual-100").with_for_update())
        steps = list(past.store.pruning.steps(past.before, who="ann", now=past.now))
        clear(connection, "manual-100")
    assert sum(len(step.runs) for step in steps) == 1
    assert past.runs() == {"manual-100"}
    assert past.count(t.attempt) == 1


def test_a_run_that_a_person_clears_while_others_go_survives(past: Past) -> None:
    spec = past.dag()
    manual(past, spec, *range(100, 106))
    steps = past.store.pruning.steps(past.before, who="ann", now=past.now, size=2)
    assert len(next(steps).runs) == 2  # the oldest
    request = ClearRequest(dag_id="d", run_ids=("manual-101", "manual-100"))
    past.store.plans.carry_out(request, who="bob", now=past.now)
    for _ in steps:
        pass
    assert past.runs() == {"manual-101", "manual-100"}
    assert past.count(t.attempt) == 2
    assert {run.state for run in past.store.runs.list("d")} == {RunState.QUEUED}


def test_two_prune_at_once_and_everything_goes_once(postgres_past: Past) -> None:
    past = postgres_past
    spec = past.dag()
    manual(past, spec, *range(100, 160))
    found: list[Sequence[tuple[str, str]]] = []
    failed: list[Exception] = []

    def work() -> None:
        try:
            for step in past.store.pruning.steps(past.before, who="ann", now=past.now, size=3):
                found.append(step.runs)
        except Exception as error:  # noqa: BLE001 -- told by the assertion below
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    deleted = [run for runs in found for run in runs]
    assert len(deleted) == len(set(deleted))
    past.prune()  # what each had locked the other has left alone
    assert past.runs() == set()


# What it costs


def test_every_look_uses_an_index(sqlite_stage: Any) -> None:
    past = Past(sqlite_stage)
    spec = past.dag(through=1, tasks=[past.stage.task("a", depends_on_past=True)])
    past.change(insert(t.backfill), [backfill_row(past, 1)])
    for days in range(100, 110):
        past.run(days, spec, backfill_id=1)
    past.run(1, spec)
    found: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "DELETE", "WITH")):
            found.append((statement, parameters))

    event.listen(past.database._reader, "before_cursor_execute", note)
    past.prune()
    event.remove(past.database._reader, "before_cursor_execute", note)
    with past.database._reader.connect() as connection:
        plans = {
            statement: [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            for statement, parameters in found
        }
    # Short tables may be read whole.
    large = ("dag_run", "task_instance", "attempt", "xcom", "event", "notification", "dataset_event", "dag_run_dataset")
    scans = {
        (step, statement)
        for statement, steps in plans.items()
        for step in steps
        if any(step.startswith(f"SCAN {name}") and "USING" not in step for name in (*large, "later", "other"))
    }
    assert scans == set()
    assert len(plans) > 20

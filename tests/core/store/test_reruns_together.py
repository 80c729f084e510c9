"""Ten people clear, mark, stop and backfill the same runs at once, while schedulers and workers are at work on them."""

import itertools
import random
import shutil
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from rerun_model import FIRST, SELECTORS, bash, daily
from rerun_world import START, World, adopt, drain
from together import together
from yarrow.decide import decide
from yarrow.errors import UsageError
from yarrow.plans.requests import BackfillRequest, ClearRequest, MarkRequest, Request
from yarrow.protocol import Heartbeat, Report, RunningAttempt
from yarrow.store import Store
from yarrow.store.database import Database

LEASE = 1_000_000.0
DAYS = 3
SPEC = daily(
    bash("a", retries=1, retry_delay=0.0),
    bash("b", "a", retries=2, retry_delay=0.0),
    bash("c", "a", trigger_rule="all_done"),
    bash("d", "b", "c", trigger_rule="none_failed"),
    max_active_runs=3,
    max_active_tasks=8,
)
RUNS = [f"scheduled__{(FIRST + timedelta(days=day)).isoformat()}" for day in range(DAYS)]
ENDS = ["success"] * 6 + ["failed"] * 2 + ["skipped", "lost", "cancelled", "deferred"]


class Crowd:
    """What the threads share: a clock that goes on with each look, who executes what, and whether it is over."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.over = threading.Event()
        self.executing: set[tuple[str, str, int]] = set()
        self.twice: list[Any] = []
        self.done: list[str] = []  # one entry for each thing that a person did
        self._looks = itertools.count()
        self._lock = threading.Lock()

    def clock(self) -> datetime:
        return START + timedelta(milliseconds=20 * next(self._looks))

    def open(self) -> Store:
        return Store.open(self.url, clock=self.clock)

    # People

    def person(self, seed: int, count: int) -> None:
        """Does so many things by chance; what is refused in a sentence for people is refused."""
        store, dice = self.open(), random.Random(seed)
        drawn: list[str] = []
        for _ in range(count):
            with suppress(UsageError):
                self.done.append(self._do_one(store, dice, drawn, f"person {seed}"))
        store.close()

    def _do_one(self, store: Store, dice: random.Random, drawn: list[str], who: str) -> str:
        plans = ["draw"] * 2 + ["apply"] * 3 + ["draw and apply"] * 2
        what = dice.choice(["carry out"] * 4 + plans + ["stop", "steer"])
        if what == "carry out":
            return store.plans.carry_out(request_by(dice), who=who).request.kind
        if what.startswith("draw"):
            drawn.append(store.plans.draw(request_by(dice), who=who).id)
        if what.endswith("apply") and drawn:
            return f"apply {store.plans.apply(drawn.pop(), who=who).request.kind}"
        if what == "stop":
            store.attempts.cancel("d", dice.choice(RUNS), dice.choice("abcd"), who=who)
        elif what == "steer" and (backfills := store.backfills.list("d")):
            steer = dice.choice([store.backfills.pause, store.backfills.resume, store.backfills.cancel])
            steer(dice.choice(backfills).id, who=who)
        return what

    # The engine

    def schedule(self) -> None:
        store = self.open()
        while not self.over.is_set():
            store.runs.start_due()
            for id in store.runs.undecided():
                found = store.runs.snapshot(id)
                if found is not None:
                    view, now = found.record.view, self.clock()
                    decisions = decide(found.spec, view, found.tasks, now, found.xcoms, found.past)
                    store.runs.apply(id, decisions, found.record.change_seq)
            store.attempts.grant(8)
        store.close()

    def work(self, name: str) -> None:
        store, dice = self.open(), random.Random(name)
        while not self.over.is_set():
            if (claimed := store.attempts.next_for("default", name, LEASE)) is None:
                continue
            key = (claimed.run_id, claimed.task_id, claimed.map_index)
            with self._lock:
                self.twice += [key] if key in self.executing else []
                self.executing.add(key)
            running = (RunningAttempt(claimed.attempt_id, 1.0),)
            told = store.attempts.heartbeat(Heartbeat(name, "h", 1, ["default"], 1, "0", running), LEASE)
            with self._lock:
                self.executing.discard(key)
            state = dice.choice([*ENDS, "cancelled"] if told else ENDS)
            soon = self.clock().isoformat()
            report = Report(claimed.attempt_id, state, xcom=name, has_xcom=True, resume_at=soon)
            store.attempts.finish(report, claimed.nonce, name, infra_budget=1000)
        store.close()


def request_by(dice: random.Random) -> Request:
    tasks = dice.choice(sorted(SELECTORS, key=str))
    run_ids = tuple(sorted(dice.sample(RUNS, dice.randint(1, 2))))
    flags = {name: True for name in ("upstream", "downstream", "past", "future") if dice.random() < 0.2}
    kind = dice.choice(["clear"] * 4 + ["mark"] * 2 + ["mark run", "backfill"])
    if kind == "clear":
        return ClearRequest(dag_id="d", run_ids=run_ids, tasks=tasks, only_failed=dice.random() < 0.2, **flags)
    if kind == "mark":
        state = dice.choice(["success", "failed", "skipped"])
        return MarkRequest(dag_id="d", run_ids=run_ids, tasks=tasks, state=state, **flags)
    if kind == "mark run":
        return MarkRequest(dag_id="d", run_ids=run_ids, runs=True, state=dice.choice(["success", "failed"]))
    return BackfillRequest(
        dag_id="d",
        from_date=FIRST + timedelta(days=dice.randint(0, 2)),
        to_date=FIRST + timedelta(days=dice.randint(2, 6)),
        reprocess=dice.choice(["none", "failed", "completed"]),
        max_active_runs=dice.randint(1, 3),
        run_backwards=dice.random() < 0.3,
    )


def all_at_once(url: str, *, people: int, schedulers: int, workers: int, count: int) -> Crowd:
    """Lets them loose on a few runs, and then has everything come to its end."""
    world = World(url, SPEC)
    world.store.workers.set_pools({"default_pool": 6})
    for day in range(DAYS):
        world.create(day)
    crowd = Crowd(url)
    left = itertools.count(1)

    def person(seed: int) -> None:
        try:
            crowd.person(seed, count)
        finally:
            if next(left) == people:
                crowd.over.set()

    def engine(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            crowd.over.set()
            raise

    errors = together(
        *[lambda seed=seed: person(seed) for seed in range(people)],
        *[lambda: engine(crowd.schedule) for _ in range(schedulers)],
        *[lambda name=f"w{number}": engine(lambda: crowd.work(name)) for number in range(workers)],
    )
    crowd.over.set()
    assert ["".join(traceback.format_exception(error)) for error in errors] == []
    assert crowd.twice == [], "executed twice at once"
    world.now = crowd.clock()
    adopt(world)
    world.check()
    drain(world)
    world.close()
    return crowd


def test_people_a_scheduler_and_workers_on_sqlite(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "yarrow.db")
    crowd = all_at_once(f"sqlite:///{tmp_path}/yarrow.db", people=4, schedulers=1, workers=2, count=12)
    assert_not_idle(crowd)


@pytest.mark.slow
def test_ten_people_schedulers_and_workers_on_postgresql(postgres_url: str, record_property: Any) -> None:
    database = Database(postgres_url)
    query = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    before = database.read(lambda connection: connection.execute(query).scalar_one())
    crowd = all_at_once(postgres_url, people=10, schedulers=2, workers=4, count=25)
    assert_not_idle(crowd)
    # One that PostgreSQL ended was repeated, else somebody had seen an error.
    deadlocks = database.read(lambda connection: connection.execute(query).scalar_one()) - before
    database.close()
    record_property("deadlocks", deadlocks)
    assert deadlocks <= 10  # a lock order that is wrong gives dozens


def assert_not_idle(crowd: Crowd) -> None:
    """Else the agreement would say little."""
    assert {"clear", "mark", "backfill", "draw"} <= set(crowd.done)
    assert any(one.startswith("apply ") for one in crowd.done)

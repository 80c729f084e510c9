"""What people's requests and workers' reports do to states, told a second time and as plainly as the rules are said.

It knows nothing of how the store works: states of task instances, what people wish of those that run, and how often
each has failed since it was cleared last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from rerun_rules import Key
from yarrow.language.spec import DagSpec, ScheduleSpec, TaskSpec
from yarrow.plans.requests import BackfillRequest, ClearRequest, MarkRequest, Request
from yarrow.store.tables import dag_run, task_instance

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
RETRY = 10.0  # seconds
FAILED = ("failed", "upstream_failed")
FINISHED = (*FAILED, "success", "skipped", "removed")

States = dict[Key, str]
Wish = tuple[str, bool]
"""The state that is wished for a task that runs, and whether that counts whatever it still comes to."""


def bash(task_id: str, *upstream: str, **fields: Any) -> TaskSpec:
    return TaskSpec(task_id, "bash", {"command": "true"}, upstream, **fields)


def daily(*tasks: TaskSpec, **fields: Any) -> DagSpec:
    limits = {"max_active_runs": 2, "max_active_tasks": 4, "start_date": FIRST, "schedule": ScheduleSpec(cron="@daily")}
    return DagSpec("d", {task.task_id: task for task in tasks}, **{**limits, **fields})


SHAPES: Mapping[str, DagSpec] = {
    "diamond": daily(
        bash("a", retries=1, retry_delay=RETRY),
        bash("b", "a", retries=1, retry_delay=RETRY),
        bash("c", "a", trigger_rule="all_done"),
        bash("d", "b", "c", trigger_rule="none_failed"),
    ),
    "past": daily(
        bash("a"),
        TaskSpec("b", "approval", {"message": "Go on?"}, ("a",), trigger_rule="one_done"),
        bash("c", "a", depends_on_past=True, retries=1, retry_delay=RETRY),
        bash("d", "b", "c"),
    ),
    "mapped": daily(
        bash("a"),
        bash("b", "a", expand={"n": "{{ xcom.a }}"}, expand_xcoms=("a",), retries=1, retry_delay=RETRY),
        bash("c", "b", trigger_rule="all_done"),
        bash("d", "c"),
    ),
}
SELECTORS: Mapping[str | None, str] = {
    "a": "a",
    "b": "b",
    "+b": "ab",
    "a+": "abcd",
    "c,d": "cd",
    "b d": "bd",
    "d": "d",
    "c": "c",
    None: "abcd",
}
"""Selectors, and the tasks that they name in the first two shapes."""


@dataclass(frozen=True)
class Look:
    """All that people see of the runs."""

    tasks: States
    runs: dict[str, str]
    dates: dict[str, datetime]
    attempts: dict[Key, str | None]
    backfills: dict[str, int | None]
    ids: dict[str, int]


def look(connection: Connection) -> Look:
    runs = {row.id: row for row in connection.execute(select(dag_run).order_by(dag_run.c.id))}
    tasks: States = {}
    attempts: dict[Key, str | None] = {}
    for row in connection.execute(select(task_instance).order_by(task_instance.c.id)):
        key = (runs[row.dag_run_id].run_id, row.task_id, row.map_index)
        tasks[key], attempts[key] = str(row.state), row.attempt_id
    return Look(
        tasks,
        {row.run_id: str(row.state) for row in runs.values()},
        {row.run_id: row.logical_date for row in runs.values()},
        attempts,
        {row.run_id: row.backfill_id for row in runs.values()},
        {row.run_id: row.id for row in runs.values()},
    )


@dataclass
class Expected:
    """What a request comes to."""

    tasks: States
    wishes: dict[Key, Wish] = field(default_factory=dict)
    cleared: set[Key] = field(default_factory=set)  # at once, or when its worker has stopped it

    def clear(self, key: Key) -> None:
        if self.tasks[key] == "running":
            self.wishes[key] = ("none", True)
            self.cleared.add(key)
        elif self.tasks[key] != "none":
            self.tasks[key] = "none"
            self.cleared.add(key)

    def mark(self, key: Key, state: str) -> None:
        if self.tasks[key] == "running":
            self.wishes[key] = (state, True)
        else:
            self.tasks[key] = state


@dataclass
class Model:
    """What the world must come to."""

    spec: DagSpec
    wishes: dict[Key, Wish] = field(default_factory=dict)
    failures: dict[Key, int] = field(default_factory=dict)  # since it was cleared last

    def reported(self, key: Key, state: str) -> str:
        """The state of a task instance after a report of its attempt. Raises AssertionError for a try too many."""
        wish, overruled = self.wishes.pop(key, (None, False))
        if wish is not None and overruled:
            return wish
        if state in ("success", "skipped"):
            return state
        if wish is not None:
            return wish
        if state == "failed":
            tries = self.spec.tasks[key[1]].retries + 1
            self.failures[key] = self.failures.get(key, 0) + 1
            assert self.failures[key] <= tries, f"{key} was tried too often"
            return "failed" if self.failures[key] == tries else "up_for_retry"
        return "up_for_reschedule" if state == "deferred" else "scheduled"

    def stopped(self, key: Key) -> bool:
        """Somebody stops one that runs: the last word of a person counts. Returns whether that is anything new."""
        state, overruled = self.wishes.get(key, (None, False))
        if state == "failed" or (state is not None and not overruled):
            return False
        self.wishes[key] = ("failed", overruled)
        return True

    def take_over(self, expected: Expected) -> None:
        self.wishes.update(expected.wishes)
        for key in expected.cleared:
            self.failures.pop(key, None)

    def nothing(self, request: Request, expected: Expected, now: Look) -> bool:
        """Whether a request may be refused, for there is nothing to do."""
        if isinstance(request, BackfillRequest):
            days = (request.to_date - request.from_date).days + 1
            return not expected.cleared and len(self._newest(request, now)) == days
        if isinstance(request, MarkRequest) and request.runs:
            return all(now.runs[run_id] == request.state for run_id in request.run_ids)
        told = all(self.wishes.get(key) == wish for key, wish in expected.wishes.items())
        return expected.tasks == now.tasks and told

    def expected(self, request: Request, now: Look) -> Expected:
        """What becomes of the task instances that there are."""
        found = Expected(dict(now.tasks))
        if isinstance(request, ClearRequest):
            for key in self._selected(request, now):
                found.clear(key)
        elif isinstance(request, BackfillRequest):
            for key in self._rerun(request, now):
                found.clear(key)
        elif request.runs:
            other = "success" if request.state == "success" else "skipped"
            for key, state in now.tasks.items():
                if key[0] in request.run_ids and state not in FINISHED:
                    found.mark(key, request.state if state == "running" else other)
        else:
            self._mark(request, now, found)
        return found

    def _mark(self, request: MarkRequest, now: Look, found: Expected) -> None:
        chosen = self._selected(request, now)
        for key in chosen:
            found.mark(key, request.state)
        # Of one that is on its way there already, nothing new is wished.
        told = (request.state, True)
        changed = [key for key in chosen if now.tasks[key] != request.state and self.wishes.get(key) != told]
        for run_id, task_id, index in changed if request.state != "failed" else ():
            for name in self.after({task_id}):
                key = (run_id, name, index)
                if key not in chosen and now.tasks[key] in FAILED:
                    found.clear(key)

    def _selected(self, request: ClearRequest | MarkRequest, now: Look) -> list[Key]:
        named = set(SELECTORS[request.tasks])
        tasks = set(named)
        tasks |= self.before(named) if request.upstream else set()
        tasks |= self.after(named) if request.downstream else set()
        dates = [now.dates[run_id] for run_id in request.run_ids]
        runs = set(request.run_ids)
        runs |= {name for name, date in now.dates.items() if request.past and date < max(dates)}
        runs |= {name for name, date in now.dates.items() if request.future and date > min(dates)}
        chosen = [key for key in now.tasks if key[0] in runs and key[1] in tasks]
        if request.only_running:
            return [key for key in chosen if now.tasks[key] == "running"]
        if request.only_failed:
            return [key for key in chosen if now.tasks[key] in FAILED or self._is_left(key, now)]
        return chosen

    def _is_left(self, key: Key, now: Look) -> bool:
        """Whether it never came to an end though its run did."""
        return now.runs[key[0]] in ("success", "failed") and now.tasks[key] not in FINISHED

    def _newest(self, request: BackfillRequest, now: Look) -> dict[datetime, str]:
        """The newest run of each logical date of the span that has one."""
        found: dict[datetime, str] = {}
        for name in sorted(now.dates, key=lambda name: now.ids[name]):
            if request.from_date <= now.dates[name] <= request.to_date:
                found[now.dates[name]] = name
        return found

    def _rerun(self, request: BackfillRequest, now: Look) -> list[Key]:
        """What a backfill clears in the runs that there are."""
        keys: list[Key] = []
        for name in self._newest(request, now).values():
            own = {key: state for key, state in now.tasks.items() if key[0] == name}
            over = now.runs[name] in ("success", "failed") and "running" not in own.values()
            if not over or request.reprocess == "none":
                continue
            failed = {key[1] for key, state in own.items() if state not in ("success", "skipped")}
            if request.reprocess == "completed" or (now.runs[name] == "failed" and request.whole_runs):
                keys += own
            elif now.runs[name] == "failed" and not self._is_held_up(failed | self.after(failed), own):
                keys += [key for key in own if key[1] in failed | self.after(failed)]
        return keys

    def _is_held_up(self, tasks: set[str], own: States) -> bool:
        """Whether each of the first of some tasks would only be skipped again, as what comes before it was."""
        skipped = {key[1] for key, state in own.items() if state == "skipped"}
        first = [self.spec.tasks[name] for name in tasks if not tasks & set(self.spec.tasks[name].upstream)]
        return all(task.trigger_rule == "all_success" and skipped & set(task.upstream) for task in first)

    def before(self, tasks: set[str]) -> set[str]:
        found = {name for task in tasks for name in self.spec.tasks[task].upstream}
        return found | self.before(found) if found else found

    def after(self, tasks: set[str]) -> set[str]:
        found = {name for name, task in self.spec.tasks.items() if tasks & set(task.upstream)}
        return found | self.after(found) if found else found

    def check_runs(self, request: Request, before: Look, after: Look, expected: Expected) -> None:
        """Runs that had ended are queued again when something is cleared in them; marked ones have their state."""
        assert before.runs.keys() <= after.runs.keys()
        cleared = {key[0] for key in expected.cleared}
        for name, state in after.runs.items():
            was = before.runs.get(name)
            if was is None:
                wanted = {"queued"} if isinstance(request, BackfillRequest) else set()
            elif isinstance(request, MarkRequest):
                whole = request.runs and name in request.run_ids
                wanted = {request.state} if whole else {was, "queued", "success", "failed"}
            elif name in cleared:
                wanted = {"queued" if was in ("success", "failed") else was}
            elif was in ("success", "failed") and self._is_unfinished(name, before):
                wanted = {was, "queued"}
            else:
                wanted = {was}
            assert state in wanted, f"{name} was {was} and is {state}"

    def _is_unfinished(self, run_id: str, now: Look) -> bool:
        """Whether something of a run that is over never ran, as in one whose backfill was cancelled."""
        own = [state for key, state in now.tasks.items() if key[0] == run_id]
        return not own or "none" in own

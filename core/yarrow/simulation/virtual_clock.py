"""The world of a forecast: runs and tasks that come and go on a virtual clock, decided on by the real `decide`."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import takewhile

from yarrow.decide import RunView, TaskDecision, decide
from yarrow.errors import UsageError
from yarrow.forecast import Capacity, DagForecast, Durations, Forecast, Miss, Progress
from yarrow.language.spec import DagSpec, DeadlineSpec, TaskSpec
from yarrow.simulation.virtual_dag import (
    VirtualDag,
    VirtualRun,
    deadline_of,
    fires_of_dag,
    past_of,
    view_of,
    virtual_dag,
)
from yarrow.simulation.virtual_queue import VirtualQueue
from yarrow.states import RunState, TaskState
from yarrow.timetable import Interval, scheduled_run_id

MOST_TASKS = 1_000_000
"""Task instances in one forecast; more take too long and too much memory."""

_WEEK = timedelta(days=7)
_TOLD_EVERY = 1000  # moments of the virtual clock

_PASS = timedelta(seconds=1)
"""No two runs of `@continuous` start within less: a run that takes no time would never let the clock go on."""


class World:
    """Everything that hangs on the virtual clock. `run` it once, then ask for the `result`."""

    def __init__(
        self, specs: Sequence[DagSpec], start: datetime, end: datetime, durations: Durations, capacity: Capacity
    ) -> None:
        self._start, self._end = start, end
        self._durations = durations
        self._capacity = capacity
        self._dags = {spec.dag_id: virtual_dag(spec, start) for spec in specs}
        self._events: list[tuple[datetime, int, Callable[[datetime], None]]] = []
        self._sequence = 0
        self._waiting = VirtualQueue()
        self._undecided: dict[VirtualRun, None] = {}  # all that ends at one moment is decided on at once
        self._used = 0
        self._used_pools: Counter[str] = Counter()
        self._peak: tuple[int, datetime | None] = (0, None)
        self._peak_pools: dict[str, int] = {}
        self._made = 0

    def run(self, progress: Progress) -> None:
        """Lets the time of the forecast pass, and tells how far it is now and then."""
        self._refuse_what_takes_too_long()
        steps = 0
        for dag in self._dags.values():
            self._await_fire(dag)
        while self._events:
            now = self._events[0][0]
            if now >= self._end:
                break
            if (steps := steps + 1) % _TOLD_EVERY == 0:
                progress(now)
            while self._events and self._events[0][0] == now:
                heapq.heappop(self._events)[2](now)
            while self._undecided:
                undecided, self._undecided = self._undecided, {}
                for run in undecided:
                    self._decide(run, now)
            self._grant(now)
        progress(self._end)

    def _refuse_what_takes_too_long(self) -> None:
        """Raises UsageError at once when the first week, and so very likely the whole, has far too many tasks."""
        weeks = (self._end - self._start) / _WEEK
        if weeks < 2:
            return
        found = 0
        for dag in self._dags.values():
            first_week = takewhile(lambda one: one.run_after < self._start + _WEEK, fires_of_dag(dag.spec, self._start))
            found += sum(1 for _ in first_week) * len(dag.spec.tasks)
        if found * weeks > 1.5 * MOST_TASKS:
            raise UsageError(
                f"The forecast would have about {round(found * weeks, -4):,.0f} task instances; "
                f"at most {MOST_TASKS:,} are followed.",
                hint="Ask for a shorter period.",
            )

    def _at(self, instant: datetime, what: Callable[[datetime], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (instant, self._sequence, what))

    # Runs

    def _continue(self, run: VirtualRun, now: datetime) -> None:
        """Makes the run of `@continuous` that follows on another one: the next pass of a scheduler would."""
        end_date, start = run.dag.spec.end_date, run.view.data_interval_end
        moment = max(now, run.due_at + _PASS)

        def follow(later: datetime) -> None:
            if run.dag.active == 0 and (end_date is None or later <= end_date):
                self._create(run.dag, Interval.between(start, later), later)

        self._at(moment, follow)

    def _await_fire(self, dag: VirtualDag) -> None:
        interval = next(dag.fires, None)
        if interval is None:
            return

        def fire(now: datetime) -> None:
            self._create(dag, interval, now)
            self._await_fire(dag)

        self._at(max(interval.run_after, self._start), fire)

    def _create(self, dag: VirtualDag, interval: Interval, now: datetime) -> None:
        self._made += len(dag.spec.tasks)
        if self._made > MOST_TASKS:
            raise UsageError(
                f"The forecast has more than {MOST_TASKS:,} task instances.", hint="Ask for a shorter period."
            )
        spec = dag.spec
        view = RunView(
            dag_id=spec.dag_id,
            run_id=scheduled_run_id(interval.logical_date),
            state=RunState.QUEUED,
            logical_date=interval.logical_date,
            data_interval_start=interval.data_interval_start,
            data_interval_end=interval.data_interval_end,
            params={},  # nothing that is left of the DAG names any
        )
        tasks = {task_id: view_of(task_id, TaskState.NONE) for task_id in spec.tasks}
        run = VirtualRun(dag, len(dag.runs), view, now, tasks)
        dag.runs.append(run)
        dag.queued.append(run)
        self._start_runs(dag, now)

    def _start_runs(self, dag: VirtualDag, now: datetime) -> None:
        while dag.queued and dag.active < dag.spec.max_active_runs:
            run = dag.queued.popleft()
            dag.active += 1
            run.view = replace(run.view, state=RunState.RUNNING, started_at=now)
            self._undecided[run] = None

    def _decide(self, run: VirtualRun, now: datetime) -> None:
        if run.ended_at is not None:
            return
        decisions = decide(run.dag.spec, run.view, run.tasks.values(), now, {}, past_of(run))
        for decision in decisions.tasks:
            self._move(run, decision, now)
        if decisions.run is not None:
            run.view = replace(run.view, state=decisions.run.to_state)
            run.ended_at = now
            run.dag.active -= 1
            run.forget(states=not run.dag.minds_past)
            self._start_runs(run.dag, now)
            self._make_dataset_run(run.dag, now)
            self._wake_later_run(run)
            if run.dag.continuous and run.dag.active == 0:
                self._continue(run, now)
        elif decisions.wait_until is not None:
            self._at(decisions.wait_until, lambda _later: self._undecided.setdefault(run))

    def _move(self, run: VirtualRun, decision: TaskDecision, now: datetime) -> None:
        task_id = decision.task_id
        run.tasks[task_id] = view_of(task_id, decision.to_state)
        if decision.to_state is TaskState.SCHEDULED:
            run.scheduled_at[task_id] = now
            if task_id in run.dag.without_slot:
                self._begin(run, task_id, now)
                return
            self._waiting.add(run, task_id)
        elif decision.to_state.finished:
            was_running = decision.from_state is TaskState.RUNNING
            self._ended(run, task_id, now, was_running=was_running)
            if was_running:  # it was stopped, and something may follow from that
                self._undecided[run] = None

    def _wake_later_run(self, run: VirtualRun) -> None:
        if not run.dag.minds_past:
            return
        for later in run.dag.runs[run.number + 1 : run.number + 2]:
            if later.view.state is RunState.RUNNING:
                self._undecided[later] = None

    # Tasks

    def _grant(self, now: datetime) -> None:
        """Gives slots by priority to what fits, past what does not."""
        if self._is_full():
            return
        for run, task_id in self._waiting.take(self._fits):
            if run.tasks[task_id].state is TaskState.SCHEDULED:
                self._take(run, task_id, now)
            if self._is_full():
                return

    def _is_full(self) -> bool:
        return self._capacity.slots is not None and self._used >= self._capacity.slots

    def _fits(self, run: VirtualRun, task_id: str) -> bool:
        dag, task = run.dag, run.dag.spec.tasks[task_id]
        if dag.busy >= dag.spec.max_active_tasks:
            return False
        if task.max_active_tis_per_dag is not None and dag.busy_tasks[task_id] >= task.max_active_tis_per_dag:
            return False
        slots = None if self._capacity.pools is None else self._capacity.pools.get(task.pool)
        return slots is None or self._used_pools[task.pool] + task.pool_slots <= slots

    def _pool_of(self, line: tuple[str, str]) -> str:
        dag_id, task_id = line
        return self._dags[dag_id].spec.tasks[task_id].pool

    def _take(self, run: VirtualRun, task_id: str, now: datetime) -> None:
        dag, task = run.dag, run.dag.spec.tasks[task_id]
        waited = (now - run.scheduled_at[task_id]).total_seconds()
        dag.waits[task_id] += int(waited)
        if waited > dag.longest[0]:
            dag.longest = (waited, task_id)
        dag.busy += 1
        dag.busy_tasks[task_id] += 1
        self._used += 1
        self._used_pools[task.pool] += task.pool_slots
        if self._used > self._peak[0]:
            self._peak = (self._used, now)
        self._peak_pools[task.pool] = max(self._peak_pools.get(task.pool, 0), self._used_pools[task.pool])
        self._begin(run, task_id, now)

    def _begin(self, run: VirtualRun, task_id: str, now: datetime) -> None:
        run.tasks[task_id] = view_of(task_id, TaskState.RUNNING)
        run.dag.ran += 1
        took = timedelta(seconds=self._durations(run.dag.spec.dag_id, task_id))

        def end(later: datetime) -> None:
            if run.ended_at is None and run.tasks[task_id].state is TaskState.RUNNING:
                run.tasks[task_id] = view_of(task_id, TaskState.SUCCESS)
                self._ended(run, task_id, later, was_running=True)
                self._undecided[run] = None

        self._at(now + took, end)

    def _ended(self, run: VirtualRun, task_id: str, now: datetime, *, was_running: bool) -> None:
        dag, task = run.dag, run.dag.spec.tasks[task_id]
        run.task_ends[task_id] = now
        if was_running and task_id not in dag.without_slot:
            dag.busy -= 1
            dag.busy_tasks[task_id] -= 1
            self._used -= 1
            self._used_pools[task.pool] -= task.pool_slots
            self._waiting.freed(dag.spec.dag_id, task.pool, self._pool_of)
        if run.tasks[task_id].state is TaskState.SUCCESS:
            self._publish(task, now)
            if task.operator == "trigger_dag":
                self._trigger(task, now)

    def _publish(self, task: TaskSpec, now: datetime) -> None:
        """Makes the runs of DAGs that wait for the datasets of a task."""
        for dag in self._dags.values() if task.outlets else ():
            waited_for = set(dag.spec.schedule.datasets) if dag.spec.schedule is not None else set()
            if published := waited_for.intersection(task.outlets):
                dag.pending |= published
                self._make_dataset_run(dag, now)

    def _make_dataset_run(self, dag: VirtualDag, now: datetime) -> None:
        """Makes one run for all that is pending, if that is enough and the DAG may have another run."""
        schedule = dag.spec.schedule
        if schedule is None or not dag.pending or dag.active + len(dag.queued) >= dag.spec.max_active_runs:
            return
        if schedule.mode == "any" or dag.pending.issuperset(schedule.datasets):
            dag.pending.clear()
            self._create(dag, Interval.exact(now), now)

    def _trigger(self, task: TaskSpec, now: datetime) -> None:
        dag = self._dags.get(str(task.arguments.get("dag_id")))
        if dag is not None:
            self._create(dag, Interval.exact(now), now)

    # What came of it

    def result(self) -> Forecast:
        misses = [miss for dag in self._dags.values() for miss in self._misses(dag)]
        late = Counter(miss.dag_id for miss in misses)
        return Forecast(
            start=self._start,
            end=self._end,
            dags=tuple(self._summary(dag, late[dag.spec.dag_id]) for dag in self._dags.values()),
            misses=tuple(sorted(misses, key=lambda miss: (miss.due_at, miss.dag_id))),
            peak_slots=self._peak[0],
            peak_at=self._peak[1],
            peak_pools=dict(sorted(self._peak_pools.items())),
        )

    def _summary(self, dag: VirtualDag, misses: int) -> DagForecast:
        took = [
            (run.ended_at - run.view.started_at).total_seconds()
            for run in dag.runs
            if run.ended_at is not None and run.view.started_at is not None
        ]
        queued = [((run.view.started_at or self._end) - run.due_at).total_seconds() for run in dag.runs]
        return DagForecast(
            dag_id=dag.spec.dag_id,
            runs=len(dag.runs),
            unfinished=len(dag.runs) - len(took),
            tasks=dag.ran,
            mean_wait=dag.waits.total() / dag.ran if dag.ran else 0.0,
            longest_wait=dag.longest[0],
            longest_wait_task=dag.longest[1],
            longest_queue=max(queued, default=0.0),
            mean_run=sum(took) / len(took) if took else 0.0,
            longest_run=max(took, default=0.0),
            misses=misses,
        )

    def _misses(self, dag: VirtualDag) -> Iterator[Miss]:
        wanted: list[tuple[str | None, DeadlineSpec]] = [(None, dag.spec.deadline)] if dag.spec.deadline else []
        wanted += [(task.task_id, task.deadline) for task in dag.spec.tasks.values() if task.deadline]
        for run in dag.runs if wanted else ():
            for task_id, deadline in wanted:
                due_at = deadline_of(deadline, run)
                ended_at = run.ended_at if task_id is None else run.task_ends.get(task_id)
                if due_at is not None and due_at < min(ended_at or self._end, self._end):
                    yield Miss(dag.spec.dag_id, run.view.logical_date, task_id, due_at, ended_at)

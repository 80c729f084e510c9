"""The world of a forecast: runs and tasks that come and go on a virtual clock, decided on by the real `decide`."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeAlias

from yarrow.decide import RunView, TaskDecision, decide
from yarrow.errors import UsageError
from yarrow.forecast import Capacity, DagForecast, Durations, Forecast, Miss
from yarrow.language.spec import DagSpec, DeadlineSpec, TaskSpec
from yarrow.states import RunState, TaskState
from yarrow.timetable import Interval, scheduled_run_id
from yarrow.virtual_dag import VirtualDag, VirtualRun, deadline_of, past_of, view_of, virtual_dag

MOST_TASKS = 1_000_000
"""Task instances in one forecast; more take too long and too much memory."""

_PASS = timedelta(seconds=1)
"""No two runs of `@continuous` start within less: a run that takes no time would never let the clock go on."""

_Instance: TypeAlias = tuple[VirtualRun, str]


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
        # Tasks that could run, in lines: those of one line need the same room, so that its first speaks for all.
        self._lines: dict[tuple[str, str], list[tuple[int, datetime, int, _Instance]]] = defaultdict(list)
        self._undecided: dict[VirtualRun, None] = {}  # all that ends at one moment is decided on at once
        self._used = 0
        self._used_pools: Counter[str] = Counter()
        self._peak: tuple[int, datetime | None] = (0, None)
        self._peak_pools: dict[str, int] = {}
        self._made = 0

    def run(self) -> None:
        for dag in self._dags.values():
            self._await_fire(dag)
        while self._events:
            now = self._events[0][0]
            if now >= self._end:
                return
            while self._events and self._events[0][0] == now:
                heapq.heappop(self._events)[2](now)
            while self._undecided:
                undecided, self._undecided = self._undecided, {}
                for run in undecided:
                    self._decide(run, now)
            self._grant(now)

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
            weight = -run.dag.spec.weights[task_id]
            self._sequence += 1
            place = (weight, run.view.logical_date, self._sequence, (run, task_id))
            heapq.heappush(self._lines[run.dag.spec.dag_id, task_id], place)
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
        blocked: set[tuple[str, str]] = set()
        while self._capacity.slots is None or self._used < self._capacity.slots:
            heads = [(line[0], name) for name, line in self._lines.items() if line and name not in blocked]
            if not heads:
                return
            (_, _, _, (run, task_id)), name = min(heads, key=lambda head: head[0][:3])
            if not self._fits(run, task_id):
                blocked.add(name)
                continue
            heapq.heappop(self._lines[name])
            if not self._lines[name]:
                del self._lines[name]
            if run.tasks[task_id].state is TaskState.SCHEDULED:
                self._take(run, task_id, now)

    def _fits(self, run: VirtualRun, task_id: str) -> bool:
        dag, task = run.dag, run.dag.spec.tasks[task_id]
        if dag.busy >= dag.spec.max_active_tasks:
            return False
        if task.max_active_tis_per_dag is not None and dag.busy_tasks[task_id] >= task.max_active_tis_per_dag:
            return False
        slots = None if self._capacity.pools is None else self._capacity.pools.get(task.pool)
        return slots is None or self._used_pools[task.pool] + task.pool_slots <= slots

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
            if run.tasks[task_id].state is TaskState.RUNNING:
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

"""Keeps the states of a run's task instances while they are decided on, and counts them as a trigger rule sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain

from yarrow.decision.decisions import TaskView
from yarrow.decision.trigger_rules import TEARDOWN_RULE, Counts
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.mapping import Instance
from yarrow.states import TaskState


class Standing:
    """How the task instances of a run stand.

    `single` has the states of the tasks that are one instance, with the index -1: those that are not mapped, and those
    whose `expand` is not known yet. None stands there for a task that has become several: its instances are elsewhere,
    and a DAG without mapped tasks pays nothing for them. Instances of tasks that the DAG does not have are left out.
    """

    def __init__(self, spec: DagSpec, views: Iterable[TaskView]) -> None:
        self._spec = spec
        self._several: dict[str, dict[int, TaskState]] = {}
        self._tallies: dict[str, Counter[TaskState]] = {}  # of `_several`, how many there are in each state
        self._several_views: dict[str, dict[int, TaskView]] = {}
        self._new_values: dict[Instance, Mapping[str, Json]] = {}
        self.single: dict[str, TaskState | None]
        if spec.mapped_tasks:
            self._views = {}
            for view in views:
                if view.map_index < 0:
                    self._views[view.task_id] = view
                elif view.task_id in spec.tasks:
                    self._several_views.setdefault(view.task_id, {})[view.map_index] = view
            self.single = {task_id: self._load(task_id) for task_id in spec.tasks}
        else:
            known = self._views = {view.task_id: view for view in views}
            self.single = {task_id: known[task_id].state for task_id in spec.tasks}

    def _load(self, task_id: str) -> TaskState | None:
        views = self._several_views.get(task_id)
        if views is None:
            return self._views[task_id].state
        self._several[task_id] = {index: views[index].state for index in sorted(views)}
        self._tallies[task_id] = Counter(self._several[task_id].values())
        return None

    # One instance.

    def view(self, task_id: str, map_index: int) -> TaskView | None:
        """What was known of an instance at first; None: it is new."""
        if map_index < 0:
            return self._views[task_id]
        return self._several_views.get(task_id, {}).get(map_index)

    def map_value(self, task_id: str, map_index: int) -> Mapping[str, Json] | None:
        view = self.view(task_id, map_index)
        return self._new_values.get((task_id, map_index)) if view is None else view.map_value

    def state(self, task_id: str, map_index: int) -> TaskState:
        state = self.single[task_id]
        return self._several[task_id][map_index] if state is None else state

    def move(self, task_id: str, map_index: int, to_state: TaskState) -> TaskState:
        """Returns the state that the instance had."""
        from_state = self.single[task_id]
        if from_state is not None:
            self.single[task_id] = to_state
            return from_state
        states, tally = self._several[task_id], self._tallies[task_id]
        from_state = states[map_index]
        tally[from_state] -= 1
        tally[to_state] += 1
        states[map_index] = to_state
        return from_state

    def expand(self, task_id: str, values: Sequence[Mapping[str, Json]]) -> None:
        """The instance -1 of a task becomes several."""
        self.single[task_id] = None
        self._several[task_id] = dict.fromkeys(range(len(values)), TaskState.NONE)
        self._tallies[task_id] = Counter({TaskState.NONE: len(values)})
        self._new_values.update({(task_id, index): value for index, value in enumerate(values)})

    # All of them.

    def chosen(self) -> Iterator[tuple[str, int, tuple[str, ...]]]:
        """The instances that succeeded and chose what comes after them, with what they chose."""
        several = (view for views in self._several_views.values() for view in views.values())
        for view in chain(self._views.values(), several):
            if view.follow is not None and view.state is TaskState.SUCCESS and view.task_id in self.single:
                yield view.task_id, view.map_index, view.follow

    def present(self) -> set[TaskState]:
        """The states that there are."""
        found = {state for state in set(self.single.values()) if state is not None}
        return found.union(*([state for state in tally if tally[state]] for tally in self._tallies.values()))

    def instances(self, task_id: str) -> Mapping[int, TaskState]:
        """The states of a task's instances by their index."""
        state = self.single[task_id]
        return self._several[task_id] if state is None else {-1: state}

    def those(self, wanted: Collection[TaskState], task_ids: Iterable[str] | None = None) -> list[Instance]:
        """The instances in some states, in the order of the tasks; of all tasks unless some are given."""
        found: list[Instance] = []
        for task_id in self.single if task_ids is None else task_ids:
            state = self.single[task_id]
            if state is None:
                found.extend((task_id, index) for index, other in self._several[task_id].items() if other in wanted)
            elif state in wanted:
                found.append((task_id, -1))
        return found

    def waiting_tasks(self) -> list[str]:
        """The tasks of which an instance has not started."""
        if not self._tallies:
            return [task_id for task_id, state in self.single.items() if state is TaskState.NONE]
        return [task_id for task_id in self.single if self.waits(task_id)]

    def waits(self, task_id: str) -> bool:
        """Whether an instance of a task has not started."""
        state = self.single[task_id]
        return state is TaskState.NONE or (state is None and self._tallies[task_id][TaskState.NONE] > 0)

    # What one of them sees of others.

    def seen(self, task_id: str, reader: TaskSpec, map_index: int) -> Mapping[TaskState, int]:
        """How many instances of a task one of another sees in each state: within a mapped group that of its index."""
        state = self.single[task_id]
        if state is not None:
            return {state: 1}
        if reader.map_group is not None and self._spec.tasks[task_id].map_group == reader.map_group:
            own = self._several[task_id].get(map_index)
            if own is not None:
                return {own: 1}
        return self._tallies[task_id]

    def first_seen(
        self, task_id: str, reader: TaskSpec, map_index: int, wanted: Collection[TaskState]
    ) -> Instance | None:
        """The first instance of a task that one of another sees in one of some states."""
        if not any(state in wanted for state, count in self.seen(task_id, reader, map_index).items() if count):
            return None
        instances = self.instances(task_id)
        if reader.map_group is not None and self._spec.tasks[task_id].map_group == reader.map_group:
            instances = {map_index: instances[map_index]} if map_index in instances else instances
        return next((task_id, index) for index, state in instances.items() if state in wanted)

    def counts(self, task: TaskSpec, map_index: int) -> Counts | None:
        """What the trigger rule of an instance looks at; None: no upstream instance has ended."""
        if map_index >= 0 or task.trigger_rule == TEARDOWN_RULE:
            return self.counts_among(task.upstream, task, map_index)
        success = skipped = failed = upstream_failed = removed = 0
        single = self.single
        for upstream in task.upstream:
            state = single[upstream]
            if state is TaskState.SUCCESS:
                success += 1
            elif state is TaskState.NONE:
                continue
            elif state is None:
                return self.counts_among(task.upstream, task, map_index)
            elif state is TaskState.SKIPPED:
                skipped += 1
            elif state is TaskState.FAILED:
                failed += 1
            elif state is TaskState.UPSTREAM_FAILED:
                upstream_failed += 1
            elif state is TaskState.REMOVED:
                removed += 1
        if success or skipped or failed or upstream_failed or removed:
            return Counts(len(task.upstream), success, skipped, failed, upstream_failed, removed)
        return None

    def counts_among(self, task_ids: Iterable[str], reader: TaskSpec, map_index: int) -> Counts:
        """How the instances of some tasks stand, of those that one of another sees."""
        found: Counter[TaskState] = Counter()
        setups: Counter[TaskState] = Counter()
        for task_id in task_ids:
            seen = self.seen(task_id, reader, map_index)
            found.update(seen)
            if self._spec.tasks[task_id].setup:
                setups.update(seen)
        return Counts(
            found.total(),
            found[TaskState.SUCCESS],
            found[TaskState.SKIPPED],
            found[TaskState.FAILED],
            found[TaskState.UPSTREAM_FAILED],
            found[TaskState.REMOVED],
            excused=found[TaskState.REMOVED] if map_index >= 0 else 0,
            setups=setups.total(),
            successful_setups=setups[TaskState.SUCCESS],
            skipped_setups=setups[TaskState.SKIPPED],
        )

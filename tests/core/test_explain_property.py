"""What an explanation says of a task instance that has not started is what `decide` makes of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from deciding import NOW, RUN, applied
from small_dags import PARAMS, Maker
from yarrow.decide import Decisions, PastView, RunView, TaskView, decide
from yarrow.explaining.explain import explain
from yarrow.explaining.explanation import Explanation
from yarrow.explaining.facts import Circumstances, InstanceFacts
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec
from yarrow.mapping import Instance
from yarrow.states import TaskState

Views = Mapping[Instance, TaskView]

_RUN_CHECKS = {"scheduler", "run"}
_WORLD = (
    *[TaskState.SUCCESS] * 4,
    *[TaskState.FAILED] * 2,
    *[TaskState.SKIPPED] * 2,
    TaskState.UPSTREAM_FAILED,
    TaskState.RUNNING,
    TaskState.RUNNING,
    TaskState.SCHEDULED,
    TaskState.QUEUED,
    TaskState.UP_FOR_RETRY,
    TaskState.UP_FOR_RESCHEDULE,
    TaskState.AWAITING_INPUT,
    TaskState.REMOVED,
    *[TaskState.NONE] * 8,
)


def explained(
    spec: DagSpec,
    run: RunView,
    views: Views,
    xcoms: Mapping[Instance, Json],
    past: PastView | None,
    instance: Instance,
) -> Explanation:
    """As the store explains it, from the same values that `decide` gets."""
    view = views[instance]
    facts = InstanceFacts(*instance, view.state, "default", view.try_number, view.max_tries, wait_until=view.wait_until)
    return explain(
        Circumstances(
            now=NOW,
            spec=spec,
            run=run,
            run_reason=None,
            run_ended_at=None,
            is_paused=False,
            schedulers=1,
            views=tuple(views.values()),
            xcoms=xcoms,
            past=past,
            instance=facts,
        )
    )


def outcome(decisions: Decisions, instance: Instance) -> tuple[TaskState | None, int | None]:
    """What is decided on an instance: the state that it gets, and how many it becomes."""
    for expansion in decisions.expansions:
        if (expansion.task_id, -1) == instance:
            return None, len(expansion.values)
    return next((one.to_state for one in decisions.tasks if (one.task_id, one.map_index) == instance), None), None


def assert_agree(
    spec: DagSpec, run: RunView, views: Views, xcoms: Mapping[Instance, Json], past: PastView | None
) -> Decisions:
    """Each instance that has not started is explained as it is decided on."""
    decisions = decide(spec, run, views.values(), NOW, xcoms, past)
    for instance, view in views.items():
        if view.state is not TaskState.NONE:
            continue
        found = explained(spec, run, views, xcoms, past, instance)
        expected = outcome(decisions, instance)
        words = f"{instance}: {expected} {found.summary} {found.checks}\n{spec}\n{views}"
        assert (found.next_state, found.expands_to) == expected, words
        begins = expected[1] is not None or expected[0] in _BEGINS
        assert all(check.passed for check in found.checks) == begins, words
        # An instance that ends without having begun is told to for the reason that is written down.
        reason = next((d.reason for d in decisions.tasks if (d.task_id, d.map_index) == instance), None)
        if reason is not None and found.failing is not None:
            assert reason.removesuffix(" (soft_fail)").lower() in found.failing.sentence.lower(), words
        assert found.summary.endswith(".")
        assert "  " not in found.summary
    return decisions


_BEGINS = (TaskState.SCHEDULED, TaskState.SUCCESS, TaskState.AWAITING_INPUT)


class World:
    """A run of a DAG made by chance, in a state made by chance; not all of them can come about."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        case = Maker(self.rng).case()
        tasks = {task_id: self._task(task) for task_id, task in case.spec.tasks.items()}
        fields = {"fail_fast": self.chance(0.2), "dagrun_timeout": 60.0 if self.chance(0.1) else None}
        self.spec = replace(case.spec, tasks=tasks, **fields)
        started = NOW - timedelta(seconds=self.rng.choice([10, 3600]))
        self.run = replace(RUN, params={name: field["default"] for name, field in PARAMS.items()}, started_at=started)
        self.views = dict(self._views())
        self.xcoms: dict[Instance, Json] = {
            (name, -1): value
            for name, value in case.xcoms.items()
            if self.views.get((name, -1), TaskView(name, TaskState.NONE)).state is TaskState.SUCCESS
        }
        self.past = self._past()

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def _task(self, task):
        fields = {}
        if self.chance(0.1):
            fields["depends_on_past"] = True
        if self.chance(0.1):
            fields |= {"depends_on_past": True, "wait_for_downstream": True}
        if task.when is None and self.chance(0.05):
            fields["when"] = "xcom.t0.missing" if "t0" in task.upstream else "params.no"
            fields["when_xcoms"] = ("t0",) if "t0" in task.upstream else ()
        return replace(task, **fields)

    def _views(self) -> Iterator[tuple[Instance, TaskView]]:
        expanded: dict[str, int] = {}
        for task in self.spec.tasks.values():
            key = task.map_group or task.task_id
            if task.mapped and key not in expanded:
                expanded[key] = self.rng.randint(1, 3) if self.chance(0.5) else 0
            size = expanded.get(key, 0) if task.mapped else 0
            for index in range(size) if size else (-1,):
                state = self.rng.choice(_WORLD)
                if task.mapped and not size and not state.finished:
                    state = TaskState.NONE
                yield (task.task_id, index), self._view(task, state, index)

    def _view(self, task, state: TaskState, index: int) -> TaskView:
        follow: Sequence[str] | None = None
        if state is TaskState.SUCCESS and task.operator == "branch":
            follow = tuple(name for name in self.spec.downstream[task.task_id] if self.chance(0.5))
        elif state is TaskState.SUCCESS and task.operator in ("short_circuit", "approval") and self.chance(0.4):
            follow = ()
        waits = state in (TaskState.UP_FOR_RETRY, TaskState.UP_FOR_RESCHEDULE, TaskState.AWAITING_INPUT)
        due = NOW + timedelta(seconds=self.rng.choice([-5, 0, 5])) if waits else None
        value = {"n": index} if index >= 0 else None
        return TaskView(task.task_id, state, 0, 1, due, follow, index, value)

    def _past(self) -> PastView | None:
        if not self.spec.looks_back or self.chance(0.3):
            return None
        states = (TaskState.SUCCESS, TaskState.SUCCESS, TaskState.SKIPPED, TaskState.FAILED, TaskState.RUNNING)
        return PastView("before", {task_id: [self.rng.choice(states)] for task_id in self.spec.tasks})


@given(st.integers(min_value=0, max_value=2**63))
@settings(max_examples=1500, deadline=None)
def test_an_explanation_is_what_is_decided(seed: int) -> None:
    world = World(seed)
    decisions = assert_agree(world.spec, world.run, world.views, world.xcoms, world.past)
    after = applied(world.views, decisions)
    if decisions.run is None:
        assert_agree(world.spec, world.run, after, world.xcoms, world.past)


def test_the_worlds_hold_all_that_can_be_decided() -> None:
    """Else the property would say little: every outcome and every check that fails comes up often."""
    outcomes: dict[object, int] = {}
    failing: dict[str, int] = {}
    for seed in range(1500):
        world = World(seed)
        decisions = decide(world.spec, world.run, world.views.values(), NOW, world.xcoms, world.past)
        for instance, view in world.views.items():
            if view.state is TaskState.NONE:
                state, size = outcome(decisions, instance)
                key = "expands" if size else state
                outcomes[key] = outcomes.get(key, 0) + 1
                found = explained(world.spec, world.run, world.views, world.xcoms, world.past, instance)
                if found.failing:
                    failing[found.failing.name] = failing.get(found.failing.name, 0) + 1
    begins = {TaskState.SCHEDULED, TaskState.SUCCESS, TaskState.AWAITING_INPUT, "expands"}
    assert {None, *begins, TaskState.SKIPPED, TaskState.FAILED, TaskState.UPSTREAM_FAILED} <= outcomes.keys()
    assert failing.keys() >= {
        "run_not_stopped",
        "not_deadlocked",
        "choice",
        "setups",
        "trigger_rule",
        "past",
        "when",
        "expand",
        "expand_inputs",
    }, failing
    assert min(failing.values()) >= 3, failing

"""Small DAGs with all that decides about a run, made by chance, and how their tasks are told to end."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from run_oracle import RUNS, End, Instance, Oracle
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.simulate import Outcome, Simulation, simulate
from yarrow.states import TaskState

RULES = tuple(rule for rule in RUNS if rule != "all_done_setup_success")
START = datetime(2026, 1, 1, tzinfo=UTC)
ARGUMENTS = {"short_circuit": {"condition": True}, "approval": {"message": "Shall it go on?"}}
PARAMS = {"yes": {"type": "boolean", "default": True}, "no": {"type": "boolean", "default": False}}


@dataclass(frozen=True)
class Ends:
    """What became of a run."""

    run_state: str
    states: Mapping[Instance, str]
    started: Sequence[Instance]  # those that are executed, in the order in which they were begun


@dataclass(frozen=True)
class Case:
    """A DAG, and all that the world does to its run."""

    spec: DagSpec
    ends: Mapping[Instance, End] = field(default_factory=dict)
    order: Sequence[Instance] = ()
    whens: Mapping[Instance, bool] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    xcoms: Mapping[str, object] = field(default_factory=dict)

    def expected(self) -> Ends:
        """What the oracle tells."""
        oracle = Oracle(self.spec, self.ends, self.order, self.whens, self.sizes)
        states, run_state = oracle.run()
        return Ends(run_state, states, [one for one in oracle.started if self._is_executed(one)])

    def simulated(self) -> Ends:
        """What the simulator tells."""
        found = self.simulation()
        states = {(one.task_id, one.map_index): str(one.state) for one in found.instances}
        return Ends(str(found.state), states, [one for one in found.order if self._is_executed(one)])

    def _is_executed(self, instance: Instance) -> bool:
        return self.spec.tasks[instance[0]].operator not in ("empty", "approval")

    def simulation(self) -> Simulation:
        outcomes = {
            task_id if index < 0 else f"{task_id}[{index}]": Outcome(TaskState(end.state), end.follow)
            for (task_id, index), end in self.ends.items()
        }
        return simulate(self.spec, outcomes=outcomes, xcoms=self.xcoms, order=self.order, logical_date=START, now=START)

    def describe(self) -> str:
        """All of it on a few lines, for a failing test."""
        lines = [f"{self.spec.run_state}{', fail_fast' if self.spec.fail_fast else ''}; order {list(self.order)}"]
        for task in self.spec.tasks.values():
            words = [task.task_id, task.operator, f"after {list(task.upstream)}", task.trigger_rule]
            words += [name for name in ("setup", "teardown", "soft_fail") if getattr(task, name)]
            words += [f"when {task.when}"] if task.when else []
            words += [f"expand {task.expand} group {task.map_group}"] if task.expand else []
            words += [f"retries {task.retries}"] if task.retries else []
            words += [f"{index}: {end}" for (name, index), end in self.ends.items() if name == task.task_id]
            lines.append(" | ".join(words))
        return "\n".join(lines)


def bare_task(task_id: str, *upstream: str, operator: str = "bash", **fields: Any) -> TaskSpec:
    arguments = {**ARGUMENTS.get(operator, {}), **fields.pop("arguments", {})}
    # All weigh the same, so that those that may start at once do so in the order of the DAG.
    return TaskSpec(task_id, operator, arguments, upstream=upstream, weight_rule="absolute", **fields)


def bare_dag(*tasks: TaskSpec, **fields: Any) -> DagSpec:
    return DagSpec("small", {task.task_id: task for task in tasks}, params=PARAMS, **fields)


@dataclass
class Maker:
    """Makes a case of what `rng` says. The chances are such that most cases hold something unusual."""

    rng: random.Random
    most_tasks: int = 8
    mapped: bool = True
    groups: bool = True
    whens: dict[Instance, bool] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    ends: dict[Instance, End] = field(default_factory=dict)
    xcoms: dict[str, object] = field(default_factory=dict)

    def case(self) -> Case:
        size = self.rng.randint(1, self.most_tasks)
        density = self.rng.choice([0.3, 0.5, 0.8])
        plain_rules = self.chance(0.15)
        tasks: dict[str, TaskSpec] = {}
        for place in range(size):
            task_id = f"t{place}"
            upstream = tuple(other for other in tasks if self.chance(density))
            tasks[task_id] = self.task(task_id, upstream, plain_rules)
        if self.groups and size >= 3 and self.chance(0.3):
            self.group(tasks)
        spec = bare_dag(
            *tasks.values(),
            run_state=self.rng.choice(["leaves", "all_tasks"]),
            fail_fast=plain_rules and self.chance(0.6),
        )
        for task_id in tasks:
            self.end(spec, task_id)
        order = [(task_id, index) for task_id in tasks for index in range(-1, 4)]
        self.rng.shuffle(order)
        return Case(spec, self.ends, tuple(order), self.whens, self.sizes, self.xcoms)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def task(self, task_id: str, upstream: tuple[str, ...], plain_rules: bool) -> TaskSpec:
        rng = self.rng
        operator = rng.choice(["bash"] * 6 + ["branch"] * 2 + ["short_circuit", "empty", "approval"])
        fields: dict[str, Any] = {}
        if operator == "approval":
            message = ARGUMENTS["approval"]
            fields["arguments"] = (
                {**message, "on_reject": rng.choice(["skip", "fail"])} if self.chance(0.7) else message
            )
            fields["soft_fail"] = self.chance(0.2)
        role = rng.choice(["setup", "teardown"] + [None] * 5)
        if role is not None:
            fields[role] = True
        rule = "all_success" if plain_rules or self.chance(0.3) else rng.choice(RULES)
        if role == "teardown":
            rule = "all_done_setup_success" if self.chance(0.8) else rule
            fields["on_failure_fail_dagrun"] = self.chance(0.5)
        if self.chance(0.15):
            fields["when"] = rng.choice(["params.yes", "params.no"])
            self.whens[task_id, -1] = fields["when"] == "params.yes"
        if operator == "bash":
            fields |= {"retries": rng.choice([0, 0, 1, 2]), "retry_delay": rng.choice([30.0, 60.0])}
            fields["soft_fail"] = self.chance(0.1)
            if self.mapped and self.chance(0.25):
                fields |= self.expand(task_id, task_id)
        return bare_task(task_id, *upstream, operator=operator, trigger_rule=rule, **fields)

    def expand(self, task_id: str, name: str) -> dict[str, Any]:
        """What makes a task mapped over a literal list, and perhaps a `when` that looks at its values."""
        size = self.rng.randint(0, 3)
        self.sizes[name] = size
        fields: dict[str, Any] = {"expand": {"n": list(range(size))}}
        if self.chance(0.2):
            left_out = self.rng.randint(0, 2)
            fields["when"] = f"map.n != {left_out}"
            self.whens.pop((task_id, -1), None)
            self.whens[task_id, left_out] = False
        return fields

    def group(self, tasks: dict[str, TaskSpec]) -> None:
        """Puts a few tasks in a row into a mapped group, over a literal list or over an XCom."""
        names = list(tasks)
        begin = self.rng.randint(0, len(names) - 2)
        members = names[begin : begin + self.rng.randint(2, 3)]
        sources = [name for name in names[:begin] if tasks[name].operator == "bash" and not tasks[name].mapped]
        source = self.rng.choice(sources) if sources and self.chance(0.5) else None
        size = self.rng.randint(0, 3)
        self.sizes["g"] = size
        values = list(range(size))
        if source is not None:
            self.xcoms[source] = values
        for name in members:
            self.sizes.pop(name, None)
            for index in range(3):
                self.whens.pop((name, index), None)
            task = tasks[name]
            outside = [later for later in names[begin + len(members) :] if name in tasks[later].upstream]
            leaves_it = task.operator == "approval" or (task.operator == "branch" and outside)
            operator = "bash" if leaves_it else task.operator
            when = self.whens.get((name, -1))
            for index in range(size):
                self.whens[name, index] = when is not False
            tasks[name] = bare_task(
                name,
                *sorted({*task.upstream, *([source] if source else [])}),
                operator=operator,
                trigger_rule=task.trigger_rule,
                setup=task.setup,
                teardown=task.teardown,
                on_failure_fail_dagrun=task.on_failure_fail_dagrun,
                soft_fail=task.soft_fail,
                retries=task.retries,
                retry_delay=task.retry_delay,
                when=None if when is None else task.when,
                expand={"n": f"{{{{ xcom.{source} }}}}" if source else values},
                expand_xcoms=(source,) if source else (),
                map_group="g",
            )

    def end(self, spec: DagSpec, task_id: str) -> None:
        """How a task ends, and each instance of a mapped one."""
        task = spec.tasks[task_id]
        size = self.sizes.get(task.map_group or task_id) if task.mapped else None
        for index in (-1,) if size is None else range(size):
            states = ["success"] * 4 + ["failed"] * 2 + ["skipped"]
            state = self.rng.choice(states[:-1] if task.operator == "approval" else states)
            follow: tuple[str, ...] | None = None
            if task.operator == "branch":
                follow = tuple(name for name in spec.downstream[task_id] if self.chance(0.5))
            elif task.operator == "short_circuit" and self.chance(0.5):
                follow = ()
            if task.operator == "empty":
                continue
            if state != "success":
                follow = None
            elif task.operator in ("branch", "short_circuit") and follow is None:
                continue
            self.ends[task_id, index] = End(state, follow)

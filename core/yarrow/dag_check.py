"""Runs the tests that stand beside a DAG file: what is expected against what a simulation comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from yarrow.errors import TemplateError, UsageError
from yarrow.jsontypes import Json
from yarrow.language.fixtures import DagTest
from yarrow.language.names import CONNECTION_FIELDS
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.language.template import render_value, run_names
from yarrow.mapping import visible_xcoms
from yarrow.schedules.zones import load_zone
from yarrow.simulate import Outcome, SimulatedTask, Simulation, instance_name, simulate


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What became of one test."""

    test: DagTest
    problems: tuple[str, ...]  # sentences; none: it passed
    notes: tuple[str, ...]  # what the simulation had to assume

    @property
    def passed(self) -> bool:
        return not self.problems


def check(spec: DagSpec, test: DagTest, *, now: datetime | None = None) -> CheckResult:
    """Returns what became of a test of a DAG. Nothing is executed, read or written.

    Args:
        spec: The DAG.
        test: What is given, and what is expected.
        now: Aware. When the run starts; by default at this moment.
    """
    try:
        simulation = simulate(
            spec,
            outcomes={name: _outcome(value) for name, value in test.outcomes.items()},
            xcoms=test.xcoms,
            params=test.params,
            logical_date=_logical_date(spec, test),
            now=now,
        )
    except UsageError as error:
        return CheckResult(test, (str(error),), ())
    return CheckResult(test, tuple(_problems(spec, test, simulation)), simulation.notes)


def _outcome(value: str | tuple[str, ...]) -> Outcome:
    return Outcome.parse(value) if isinstance(value, str) else Outcome(follow=value)


def _logical_date(spec: DagSpec, test: DagTest) -> datetime | None:
    if test.logical_date is None:
        return None
    date = datetime.fromisoformat(test.logical_date)
    return date if date.tzinfo else date.replace(tzinfo=load_zone(spec.timezone))


def _problems(spec: DagSpec, test: DagTest, simulation: Simulation) -> Iterator[str]:
    expect = test.expect
    if expect.run is not None and simulation.state != expect.run:
        because = f": {simulation.reason}" if simulation.reason else ""
        yield f"the run is {simulation.state}{because}; expected {expect.run}"
    states = {instance_name((one.task_id, one.map_index)): one.state for one in simulation.instances}
    states.update(simulation.tasks)
    for name, state in expect.tasks.items():
        if name not in states:
            yield f"there is no task instance `{name}`; expected {state}"
        elif states[name] != state:
            yield f"`{name}` is {states[name]}{_because(simulation, name)}; expected {state}"
    for task_id, chosen in expect.branches.items():
        follow = _instance(simulation, task_id).follow
        if follow is None or set(follow) != set(chosen):
            found = "makes no choice" if follow is None else f"chooses {_listed(follow)}"
            yield f"`{task_id}` {found}; expected {_listed(chosen)}"
    yield from _order_problems(test, simulation)
    for task_id, parameters in expect.rendered.items():
        yield from _rendered_problems(spec, test, simulation, spec.tasks[task_id], parameters)


def _because(simulation: Simulation, name: str) -> str:
    """Why a task, or one instance of it, ended as it did."""
    reasons = (
        one.reason
        for one in simulation.instances
        if one.reason and name in (one.task_id, instance_name((one.task_id, one.map_index)))
    )
    reason = next(reasons, None)
    return f": {reason}" if reason else ""


def _instance(simulation: Simulation, task_id: str) -> SimulatedTask:
    return next(one for one in simulation.instances if one.task_id == task_id)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


def _order_problems(test: DagTest, simulation: Simulation) -> Iterator[str]:
    started = list(dict.fromkeys(task_id for task_id, _ in simulation.order))
    wanted = test.expect.order
    if missing := [task_id for task_id in wanted if task_id not in started]:
        yield f"{_listed(tuple(missing))} did not start; expected the order {' → '.join(wanted)}"
        return
    found = sorted(wanted, key=started.index)
    if tuple(found) != wanted:
        yield f"the tasks start in the order {' → '.join(found)}; expected {' → '.join(wanted)}"


def _rendered_problems(
    spec: DagSpec, test: DagTest, simulation: Simulation, task: TaskSpec, expected: Mapping[str, Json]
) -> Iterator[str]:
    names = _names(spec, test, simulation, task)
    for parameter, value in expected.items():
        try:
            rendered = render_value(task.arguments[parameter], names)
        except TemplateError as error:
            yield f"`{task.task_id}.{parameter}` can't be rendered: {error}"
            continue
        if rendered != value:
            yield f"`{task.task_id}.{parameter}` is {rendered!r:.200}; expected {value!r:.200}"


def _names(spec: DagSpec, test: DagTest, simulation: Simulation, task: TaskSpec) -> Mapping[str, Any]:
    """What the templates of a task may name; of a mapped task what its first instance may. Secrets are masked."""
    view, instance = simulation.view, _instance(simulation, task.task_id)
    run = run_names(
        dag_id=view.dag_id,
        run_id=view.run_id,
        logical_date=view.logical_date,
        data_interval_start=view.data_interval_start,
        data_interval_end=view.data_interval_end,
        timezone=spec.timezone,
    )
    masked = dict.fromkeys(CONNECTION_FIELDS, "***")
    return {
        **run,
        "task_id": task.task_id,
        "try_number": 1,
        "map_index": instance.map_index,
        "map": instance.map_value or {},
        "params": view.params,
        "xcom": visible_xcoms(spec, (task.task_id, instance.map_index), task.xcoms, simulation.xcoms),
        "var": {name: test.variables.get(name, "***") for name in task.variables},
        "conn": dict.fromkeys(task.connections, masked),
    }

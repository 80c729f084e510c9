"""Which runs, tasks and task instances a scope is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from yarrow.errors import NotFound, UsageError
from yarrow.language.shape import did_you_mean
from yarrow.language.spec import DagSpec
from yarrow.plans.closure import SELECTED, reached
from yarrow.plans.plan import RunAction, RunChange
from yarrow.plans.requests import Scope
from yarrow.plans.selector import parse
from yarrow.plans.situation import RunFacts, Situation, TaskFacts
from yarrow.states import FAILED_TASK_STATES, TaskState


@dataclass(frozen=True, slots=True)
class Selection:
    """The tasks of one version of a DAG that a scope is about."""

    whys: Mapping[str, str] = field(default_factory=dict)  # task_id -> why, in the order of the tasks
    lacking: str | None = None  # the words for what the version has not, so that nothing of it is selected


def check(scope: Scope) -> None:
    """Refuses a scope that makes no sense, whatever there is. Raises UsageError."""
    span = scope.from_date is not None or scope.to_date is not None
    if scope.run_ids and span:
        raise UsageError("Runs are either named or given as a span of logical dates, not both.")
    if not scope.run_ids and not span:
        hint = "Name runs, or give the first and the last logical date of a span."
        raise UsageError("It is not said which runs are meant.", hint=hint)
    if scope.from_date is not None and scope.to_date is not None and scope.from_date > scope.to_date:
        first, last = scope.from_date.isoformat(), scope.to_date.isoformat()
        raise UsageError(f"The span ends before it begins: from {first} to {last}.")
    if span and (scope.past or scope.future):
        hint = "Leave out the end of the span on that side instead."
        raise UsageError("Past and future are counted from named runs, not from a span.", hint=hint)
    if scope.only_failed and scope.only_running:
        raise UsageError("No task instance has failed and is running as well: choose one of the two.")
    if scope.map_index is not None and scope.map_index < 0:
        raise UsageError(f"A map index is 0 or more, not {scope.map_index}.")
    if scope.map_index is not None and scope.tasks is None:
        raise UsageError("A map index is that of one mapped task: say which.")
    if scope.tasks is not None:
        parse(scope.tasks)


def runs_of(scope: Scope, situation: Situation) -> list[RunFacts]:
    """The runs that a scope is about, the earliest first.

    Raises:
        NotFound: A run that it names is not there.
        UsageError: There are none.
    """
    runs = sorted(situation.runs, key=lambda run: (run.logical_date, run.id))
    if not scope.run_ids:
        first, last = scope.from_date, scope.to_date
        in_span = [
            run
            for run in runs
            if (first is None or first <= run.logical_date) and (last is None or run.logical_date <= last)
        ]
        if not in_span:
            raise UsageError(f"The DAG `{scope.dag_id}` has no runs in that span of logical dates.")
        return in_span
    by_id = {run.run_id: run for run in runs}
    if missing := [run_id for run_id in scope.run_ids if run_id not in by_id]:
        hint = did_you_mean(missing[0], by_id)
        raise NotFound(f"The DAG `{scope.dag_id}` has no run `{missing[0]}`.", hint=hint)
    dates = [by_id[run_id].logical_date for run_id in scope.run_ids]
    earliest, latest = min(dates), max(dates)
    return [
        run
        for run in runs
        if run.run_id in scope.run_ids
        or (scope.past and run.logical_date < earliest)
        or (scope.future and run.logical_date > latest)
    ]


def selections(scope: Scope, specs: Mapping[str, DagSpec]) -> dict[str, Selection]:
    """What a scope selects in each version of a DAG; the newest of them is the last one.

    Raises:
        UsageError: It selects nothing in any of them.
    """
    found = {version: _selection(scope, spec) for version, spec in specs.items()}
    if all(one.lacking for one in found.values()):
        newest = list(specs)[-1]
        if scope.tasks is not None:
            parse(scope.tasks).of(specs[newest])
        hint = None if scope.map_index is None else "A map index is that of one mapped task."
        raise UsageError(f"The DAG `{scope.dag_id}` has no {found[newest].lacking}.", hint=hint)
    return found


def _selection(scope: Scope, spec: DagSpec) -> Selection:
    if scope.tasks is None:
        return Selection(dict.fromkeys(spec.tasks, SELECTED), None if spec.tasks else "tasks")
    selector = parse(scope.tasks)
    if lacking := selector.lacking(spec):
        return Selection(lacking=lacking)
    whys = selector.whys(spec)
    if scope.map_index is not None and (len(whys) != 1 or not all(spec.tasks[task_id].mapped for task_id in whys)):
        return Selection(lacking=f"mapped task that `{selector}` alone selects")
    whys |= reached(spec, whys, upstream=scope.upstream, downstream=scope.downstream)
    return Selection({task_id: whys[task_id] for task_id in spec.tasks if task_id in whys})


def instances_meant(scope: Scope, run: RunFacts, spec: DagSpec, selection: Selection) -> Callable[[TaskFacts], bool]:
    """Tells which task instances of the selected tasks of a run a scope is about.

    A map index is that of the one selected task. Of other tasks of its mapped group it means the same instance, of all
    others all of them.
    """
    alike: frozenset[str] = frozenset()
    if scope.map_index is not None:
        named = next(task_id for task_id, why in selection.whys.items() if why == SELECTED)
        group = spec.tasks[named].map_group
        alike = frozenset((named,) if group is None else spec.map_groups[group])

    def meant(one: TaskFacts) -> bool:
        if one.task_id in alike and one.map_index != scope.map_index:
            return False
        if scope.only_running:
            return one.state is TaskState.RUNNING
        return not scope.only_failed or has_failed(run, one)

    return meant


def has_failed(run: RunFacts, one: TaskFacts) -> bool:
    """Whether a task instance failed or could not run; in a run that is over also whether it never came to an end."""
    return one.state in FAILED_TASK_STATES or (run.state.finished and not one.state.finished)


def instances(run: RunFacts) -> dict[str, list[TaskFacts]]:
    """The task instances of each task of a run by map index, without those that are history or about to be."""
    found: dict[str, list[TaskFacts]] = {}
    for one in sorted(run.tasks, key=lambda one: one.map_index):
        if TaskState.REMOVED not in (one.state, one.stopping_to):
            found.setdefault(one.task_id, []).append(one)
    return found


def untouched(run: RunFacts, reason: str) -> RunChange:
    """A run to which nothing happens."""
    return RunChange(
        run_id=run.run_id,
        logical_date=run.logical_date,
        action=RunAction.SKIP,
        reason=reason,
        from_state=run.state.value,
        to_state=run.state.value,
        version=run.version,
    )


def nothing_meant(scope: Scope, run: RunFacts, selection: Selection) -> str | None:
    """Why a scope is about no task instance of a run; None: perhaps it is about some."""
    if selection.lacking:
        return f"its version has no {selection.lacking}"
    if scope.map_index is not None:
        named = next(task_id for task_id, why in selection.whys.items() if why == SELECTED)
        rows = instances(run).get(named, ())
        if all(one.map_index != scope.map_index for one in rows):
            return f"it has no task instance `{named}[{scope.map_index}]`"
    return None


def each_version(runs: Sequence[RunFacts]) -> dict[str, DagSpec]:
    """The versions of the DAG that some runs have; that of the last run is the last one."""
    found: dict[str, DagSpec] = {}
    for run in runs:
        found.pop(run.version, None)
        found[run.version] = run.spec
    return found

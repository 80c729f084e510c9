"""Requests and plans in words."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from yarrow.plans.compatibility import compatibility
from yarrow.plans.needs import XCOM, needs_of, xcoms_of
from yarrow.plans.plan import Need, RunAction, RunChange, TaskAction
from yarrow.plans.requests import BackfillRequest, ClearRequest, MarkRequest, Request, Scope
from yarrow.plans.scope import instances
from yarrow.plans.situation import RunFacts, Situation
from yarrow.schedules.words import join_words
from yarrow.states import TaskState

_NAMED = 5
"""How many runs or tasks a sentence names one by one."""

_OF_A_SCHEDULE = ("scheduled", "backfill")
"""Types of runs whose data intervals are those of the schedule."""

_RUN_AGAIN = frozenset({TaskAction.CLEAR, TaskAction.STOP_AND_CLEAR, TaskAction.COLLAPSE})


def request_text(request: Request) -> str:
    """A request in a line, without its DAG: for the history, and for the heading of its plan."""
    reason = f": {request.reason}" if request.reason else ""
    if isinstance(request, BackfillRequest):
        return f"backfill {', '.join(_backfill_words(request))}{reason}"
    if isinstance(request, MarkRequest):
        return f"mark {_scope_text(request)} as {request.state}{reason}"
    version = ", in the newest version of the DAG" if request.latest_version else ""
    return f"clear {_scope_text(request)}{version}{reason}"


def _backfill_words(request: BackfillRequest) -> Iterator[str]:
    yield f"{instant(request.from_date)} to {instant(request.to_date)} UTC"
    if request.reprocess != "none":
        whole = " as whole runs" if request.whole_runs and request.reprocess == "failed" else ""
        yield f"reprocess {request.reprocess}{whole}"
    if request.tasks is not None:
        yield f"tasks {request.tasks}"
    yield f"{request.max_active_runs} at a time"
    if request.run_backwards:
        yield "latest first"
    if request.params:
        yield f"params {json.dumps(dict(request.params), ensure_ascii=False)}"


def _scope_text(scope: Scope) -> str:
    """Which task instances of which runs."""
    tasks = "all tasks" if scope.tasks is None else scope.tasks
    if scope.map_index is not None:
        tasks = f"{tasks}[{scope.map_index}]"
    around = [word for word in ("upstream", "downstream") if getattr(scope, word)]
    if around:
        tasks = f"{tasks} with {' and '.join(around)}"
    only = [word for word in ("failed", "running") if getattr(scope, f"only_{word}")]
    if only:
        tasks = f"what is {' or '.join(only)} of {tasks}"
    if isinstance(scope, MarkRequest) and scope.runs:
        return _runs_text(scope)
    return f"{tasks} of {_runs_text(scope)}"


def _runs_text(scope: Scope) -> str:
    if scope.from_date is not None or scope.to_date is not None:
        start = f" from {instant(scope.from_date)}" if scope.from_date else ""
        end = f" to {instant(scope.to_date)}" if scope.to_date else ""
        return f"the runs{start}{end} UTC"
    named = _listed(scope.run_ids) if len(scope.run_ids) <= _NAMED else f"{len(scope.run_ids):,} runs"
    beyond = [words for words, given in (("all before", scope.past), ("all after", scope.future)) if given]
    return f"{named} and {' and '.join(beyond)}" if beyond else named


def notes_of(request: Request, runs: Sequence[RunChange], situation: Situation) -> list[str]:
    """What people should know about a plan besides its rows, in sentences."""
    effective = [run for run in runs if run.action != "skip"]
    if not effective:
        return []
    found = [*_state_of_dag(effective, situation)]
    if isinstance(request, ClearRequest) and request.latest_version:
        found += _version_notes(effective, situation)
    return [
        *found,
        *_lost_notes(effective),
        *_need_notes(request, effective, situation),
        *_unmade_notes(request, effective, situation),
        *_twice_notes(runs, situation),
        *_cache_notes(effective, situation),
    ]


def _state_of_dag(runs: Sequence[RunChange], situation: Situation) -> Iterator[str]:
    if all(run.to_state in ("success", "failed") for run in runs):
        return  # nothing is to run
    if situation.is_paused:
        yield f"{situation.dag_id} is paused: runs wait until `yarrow dags unpause {situation.dag_id}`."
    if not situation.is_active:
        yield f"{situation.dag_id} has no file any more: the runs go on all the same, each in its own version."


def _version_notes(runs: Sequence[RunChange], situation: Situation) -> Iterator[str]:
    """How the newest version differs from those that runs leave for it."""
    facts = {fact.run_id: fact for fact in situation.runs}
    leaving: dict[str, list[RunFacts]] = {}
    anew: dict[str, set[str]] = {}
    for run in runs:
        fact = facts.get(run.run_id)
        if fact is not None and run.version not in (None, fact.version):
            leaving.setdefault(fact.version, []).append(fact)
            anew[fact.version] = anew.get(fact.version, set(fact.spec.tasks)) & _executed_anew(run, fact)
    if not leaving:
        yield "The runs are of the newest version of the DAG already."
    for old, members in leaving.items():
        one = len(members) == 1
        who = members[0].run_id if one else f"{len(members):,} runs"
        number, before = (situation.numbers.get(version) for version in (situation.newest.version, old))
        versions = f"version {number} instead of {before}" if number and before else "the newest version"
        if number and before and before < 0:  # it has no number that people see
            versions = f"version {number} instead of a part of the DAG"
        goes = f"{who} {'goes' if one else 'go'} on in {versions}"
        params = [fact.params for fact in members]
        sentences = compatibility(members[0].spec, situation.newest, params, anew[old])
        yield from (f"{goes}: {sentence}" for sentence in sentences)
        if not sentences:
            yield f"{goes}: nothing that matters to {'it' if one else 'them'} is another way."


def _executed_anew(run: RunChange, fact: RunFacts) -> set[str]:
    """The tasks of a run that will be executed again, all instances of them."""
    again = {(change.task_id, change.map_index) for change in run.tasks if change.action in _RUN_AGAIN}
    left = {one.task_id for one in fact.tasks if one.state.finished and (one.task_id, one.map_index) not in again}
    return {task_id for task_id, _ in again} - left


def _lost_notes(runs: Sequence[RunChange]) -> Iterator[str]:
    losing = Counter(task.task_id for run in runs for task in run.tasks if task.loses_xcom)
    if losing:
        count = losing.total()
        what = "An XCom is" if count == 1 else f"{count:,} XComs are"
        yield f"{what} lost: of {_listed(list(losing))}. Every attempt stays, with its log."
    elif any(task.attempt_id for run in runs for task in run.tasks):
        yield "No XCom is lost. Every attempt stays, with its log."


def _need_notes(request: Request, runs: Sequence[RunChange], situation: Situation) -> Iterator[str]:
    """What tasks take from tasks that are not selected."""
    facts = {fact.run_id: fact for fact in situation.runs}
    missing: Counter[tuple[str, str, str]] = Counter()
    there: Counter[tuple[str, str, str]] = Counter()
    for run in runs:
        fact = facts.get(run.run_id)
        needs = run.needs
        if isinstance(request, ClearRequest) and fact is not None:
            needs = _lacking(run, fact, situation)
        for need in needs:
            (there if need.there else missing)[need.task_id, need.of_task_id, need.what] += 1
    for (task_id, of, what), count in missing.items():
        where = f"in {_count(count, 'run')}"
        if what == XCOM:
            yield f"{task_id} takes the XCom of {of}, which is not selected, and it is not there {where}."
        else:
            yield f"{task_id} comes after {of}, which is not selected and has not run {where}: it does not wait for it."
    left = "does not run again" if request.tasks is None else "is not selected"
    for (task_id, of, what), count in there.items():
        if what == XCOM:
            yield f"{task_id} takes the XCom of {of}, which {left}; it is there in {_count(count, 'run')}."


def _lacking(run: RunChange, fact: RunFacts, situation: Situation) -> list[Need]:
    """The XComs that what is cleared takes, and that the tasks before it, though they ended, have not left."""
    spec = fact.spec if run.version in (None, fact.version) else situation.newest
    rows = instances(fact)
    needs = needs_of(spec, {change.task_id for change in run.tasks}, rows)
    lacking = [need for need in needs if need.what == XCOM and not need.there]
    return [need for need in lacking if all(one.state.finished for one in rows.get(need.of_task_id, ()))]


def _unmade_notes(request: Request, runs: Sequence[RunChange], situation: Situation) -> Iterator[str]:
    """The XComs that tasks which are yet to run take from what is marked success without having made any."""
    if not isinstance(request, MarkRequest) or request.state != TaskState.SUCCESS:
        return
    facts = {fact.run_id: fact for fact in situation.runs}
    taken: dict[tuple[str, str], None] = {}
    for run in runs:
        fact = facts[run.run_id]
        marked = {change.task_id for change in run.tasks if change.to_state == TaskState.SUCCESS}
        after = {(one.task_id, one.map_index): one.state for one in fact.tasks}
        after |= {(change.task_id, change.map_index): TaskState(change.to_state) for change in run.tasks}
        to_run = {task_id for (task_id, _), state in after.items() if not state.finished}
        for task in fact.spec.tasks.values():
            if task.task_id in to_run:
                taken |= dict.fromkeys((task.task_id, of) for of in fact.spec.tasks if of in marked & xcoms_of(task))
    for task_id, of in taken:
        yield f"{task_id} takes the XCom of {of}, which a mark does not give it."


def _twice_notes(runs: Sequence[RunChange], situation: Situation) -> Iterator[str]:
    """The runs of a schedule as it was before, some of whose time the runs that are made cover once more."""
    dates = {run.logical_date for run in runs}
    made = sorted(
        (run.data_interval_start, run.data_interval_end)
        for run in runs
        if run.action is RunAction.CREATE and run.data_interval_start and run.data_interval_end
    )
    ends = [end for _, end in made]
    found = []
    for fact in situation.runs:
        if fact.run_type in _OF_A_SCHEDULE and fact.logical_date not in dates:
            first = bisect_right(ends, fact.data_interval_start)
            if first < len(made) and made[first][0] < fact.data_interval_end:
                found.append(fact.run_id)
    if found:
        which = f"{found[0]} is" if len(found) == 1 else f"{len(found):,} runs, from {found[0]} on, are"
        yield f"{which} there at another time than the schedule has now: that time is covered once more."


def _cache_notes(runs: Sequence[RunChange], situation: Situation) -> Iterator[str]:
    specs = {fact.run_id: fact.spec for fact in situation.runs}
    cached: dict[str, None] = {}
    for run in runs:
        spec = specs.get(run.run_id, situation.newest)
        for change in run.tasks:
            task = spec.tasks.get(change.task_id)
            if change.action in _RUN_AGAIN and task is not None and task.cache is not None:
                cached[change.task_id] = None
    if cached:
        names = _listed(list(cached))
        yield f"The cached results of {names} are not used: what is cleared is executed, and its new result is kept."


def instant(moment: datetime) -> str:
    """A moment in UTC, with seconds only when there are any."""
    utc = moment.astimezone(UTC)
    return utc.strftime("%Y-%m-%d %H:%M:%S" if utc.second else "%Y-%m-%d %H:%M")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED + 1
    return join_words(names if more <= 1 else [*names[: _NAMED - 1], f"{more:,} more"])

"""What a task instance that has not started depends on: the run going on, choices, setups, its trigger rule, the run
before, `expand` and `when`, each judged by the function that `decide` asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from yarrow import approvals
from yarrow.decision.choices import unwanted_instances
from yarrow.decision.judging import (
    WITHOUT_RUNNING,
    group_verdict,
    may_always_run,
    of_rule,
    of_setups,
    rule_reason,
    setups_reason,
    verdict,
)
from yarrow.decision.names import Names, holds
from yarrow.decision.past import unmet
from yarrow.decision.run_end import DEADLOCK, fail_fast_reason, failures, label, overdue, timeout_due
from yarrow.decision.standing import Standing
from yarrow.decision.trigger_rules import Verdict
from yarrow.errors import TemplateError
from yarrow.explaining.explanation import Finding, first_clause, found
from yarrow.explaining.facts import Circumstances
from yarrow.explaining.upstream import awaited_by
from yarrow.explaining.words import at, count, ended, listed, state_counts
from yarrow.jsontypes import Json
from yarrow.language.spec import TaskSpec
from yarrow.language.template import shorten
from yarrow.mapping import expand, names_map
from yarrow.states import TaskState

_NAMED = 20
"""How many upstream tasks the facts of a trigger rule name."""


@dataclass
class Dependencies:
    """What was found, check by check; the first that has not passed settles what becomes of the task instance."""

    findings: list[Finding] = field(default_factory=list)
    next_state: TaskState | None = None  # what the scheduler makes of it; None: it waits, or becomes several
    expands_to: int | None = None
    settled: bool = False

    def add(self, finding: Finding, next_state: TaskState | None = None) -> None:
        self.findings.append(finding)
        if finding.check.passed is False and not self.settled:
            self.settled, self.next_state = True, next_state

    @property
    def clause(self) -> str:
        return first_clause(self.findings) or "may run: the scheduler is about to see to it"


def dependencies(circumstances: Circumstances, standing: Standing, *, deadlock: bool, root: str | None) -> Dependencies:
    """Judges a task instance in the state `none`.

    Args:
        standing: The states in which it is decided on it.
        deadlock: Nothing runs any more that could let it run.
        root: What the task instance does that all of this waits for in the end, with its name; None: there is none.
    """
    return _Judging(circumstances, standing, deadlock, root).everything()


class _Judging:
    """Takes one look after the other."""

    def __init__(self, given: Circumstances, standing: Standing, deadlock: bool, root: str | None) -> None:
        self._given = given
        self._spec = given.spec
        self._standing = standing
        self._deadlock = deadlock
        self._root = root
        self._task = given.spec.tasks[given.instance.task_id]
        self._index = given.instance.map_index
        self._names = Names(given.spec, given.run, given.xcoms)
        self._found = Dependencies()

    def everything(self) -> Dependencies:
        if self._deadlock:
            self._ends("not_deadlocked", f"nothing runs any more: {DEADLOCK}", TaskState.UPSTREAM_FAILED)
        self._stopped()
        self._choice()
        if self._index < 0 and self._task.map_group is not None:
            self._group()
            self._expand()
        else:
            self._upstream_checks()
            self._past()
            unexpanded = self._index < 0 and self._task.mapped
            if not (unexpanded and self._task.when is not None and names_map(self._task.when)):
                self._when()
            if unexpanded:
                self._expand()
        self._begin()
        return self._found

    def _ends(self, name: str, reason: str, state: TaskState, **facts: Json) -> None:
        verb = {TaskState.FAILED: "fails", TaskState.UPSTREAM_FAILED: "can't run"}.get(state, "is skipped")
        self._found.add(found(name, False, ended(reason[0].upper() + reason[1:]), f"{verb}: {reason}", **facts), state)

    def _fails(self, name: str, reason: str) -> None:
        self._ends(name, reason, TaskState.SKIPPED if self._task.soft_fail else TaskState.FAILED)

    # What stops or skips it.

    def _stopped(self) -> None:
        spec, given = self._spec, self._given
        if (reason := overdue(spec, given.run, given.now)) is not None:
            self._ends("run_not_stopped", reason, TaskState.SKIPPED)
        elif spec.fail_fast and not self._task.teardown and (failed := failures(spec, self._standing)):
            self._ends("run_not_stopped", fail_fast_reason(failed), TaskState.SKIPPED)
        elif (due := timeout_due(spec, given.run)) is not None:
            sentence = f"The run may go on until {at(due)} (`dagrun_timeout`)."
            self._found.add(found("run_not_stopped", True, sentence, due=due.isoformat()))

    def _choice(self) -> None:
        chose = list(self._standing.chosen())
        for task_id, map_index, follow in chose:
            others, reason = unwanted_instances(self._spec, self._standing, task_id, map_index, follow)
            if (self._task.task_id, self._index) in others:
                self._ends("choice", reason, TaskState.SKIPPED, by=task_id, follow=list(follow))
                return
        if chose:
            self._found.add(found("choice", True, "No branch, short circuit or rejection leaves it out."))

    # What comes before it.

    def _upstream_checks(self) -> None:
        """A trigger rule may end what a setup would let wait, and is told first then."""
        judged, _ = verdict(self._spec, self._standing, self._task, self._index)
        setups = self._required_setups()
        unready = setups and of_setups(self._standing, self._task, self._index, setups).verdict is Verdict.WAIT
        if unready and judged is not Verdict.WAIT:
            self._rule()
            self._setups()
        else:
            self._setups()
            self._rule()

    def _required_setups(self) -> tuple[str, ...]:
        task = self._task
        return () if may_always_run(task) else self._spec.required_setups.get(task.task_id, ())

    def _setups(self) -> None:
        task = self._task
        setups = self._required_setups()
        if not setups:
            return
        judgement = of_setups(self._standing, task, self._index, setups)
        names = listed([f"`{name}`" for name in setups])
        facts = self._upstream(setups)
        if judgement.verdict in WITHOUT_RUNNING:
            reason = setups_reason(self._standing, task, self._index, judgement, setups)
            self._ends("setups", reason, WITHOUT_RUNNING[judgement.verdict], upstream=facts)
        elif judgement.verdict is Verdict.WAIT:
            sentence = f"It needs the setups {names}, which have not all succeeded yet."
            self._found.add(found("setups", False, sentence, self._waits(f"its setup {names}"), upstream=facts))
        else:
            self._found.add(found("setups", True, f"The setups {names} have succeeded.", upstream=facts))

    def _rule(self) -> None:
        task, rule = self._task, self._task.trigger_rule
        if not task.upstream:
            self._found.add(found("trigger_rule", True, "It has no upstream task.", rule=rule))
            return
        tally = self._tally()
        facts: dict[str, Json] = {
            "rule": rule,
            "states": {str(state.value): number for state, number in tally.items()},
            "upstream": self._upstream(task.upstream),
        }
        about = f"Trigger rule `{rule}` over {count(sum(tally.values()), 'upstream task')}: {state_counts(tally)}."
        if may_always_run(task):
            self._found.add(found("trigger_rule", True, about, **facts))
            return
        judgement = of_rule(self._standing, task, self._index)
        if judgement.verdict in WITHOUT_RUNNING:
            reason = rule_reason(self._standing, task, self._index, judgement)
            self._ends("trigger_rule", reason, WITHOUT_RUNNING[judgement.verdict], **facts)
        elif judgement.verdict is Verdict.RUN:
            self._found.add(found("trigger_rule", True, about, **facts))
        else:
            self._found.add(found("trigger_rule", False, about, self._waits("its upstream tasks"), **facts))

    def _tally(self) -> Mapping[TaskState, int]:
        tally: dict[TaskState, int] = {}
        for task_id in self._task.upstream:
            for state, number in self._standing.seen(task_id, self._task, self._index).items():
                if number:
                    tally[state] = tally.get(state, 0) + number
        return tally

    def _upstream(self, task_ids: tuple[str, ...]) -> Json:
        """How many instances of each upstream task are in which state: first of those that have not succeeded."""
        seen = {task_id: self._standing.seen(task_id, self._task, self._index) for task_id in task_ids}
        plain = {
            task_id: {str(state.value): number for state, number in states.items() if number}
            for task_id, states in seen.items()
        }
        order = sorted(plain, key=lambda task_id: set(plain[task_id]) == {TaskState.SUCCESS.value})
        return {task_id: plain[task_id] for task_id in order[:_NAMED]}

    def _waits(self, otherwise: str) -> str:
        return self._root or f"waits for {otherwise}"

    def _group(self) -> None:
        task = self._task
        judged, reason = group_verdict(self._standing, task)
        names = listed([f"`{name}`" for name in awaited_by(self._spec, task, self._index)])
        facts = self._upstream(task.expand_xcoms)
        if judged in WITHOUT_RUNNING:
            self._ends("expand_inputs", reason or "", WITHOUT_RUNNING[judged], upstream=facts)
        elif judged is Verdict.WAIT:
            sentence = f"Its group `{task.map_group}` is mapped over what {names} returns, which has not ended yet."
            self._found.add(found("expand_inputs", False, sentence, self._waits(names), upstream=facts))
        elif task.expand_xcoms:
            self._found.add(found("expand_inputs", True, f"{names} ended, over which its group is mapped."))

    def _past(self) -> None:
        task = self._task
        if not (task.depends_on_past or task.wait_for_downstream):
            return
        past = self._given.past
        reason = unmet(task, self._spec.downstream[task.task_id], past)
        rule = "wait_for_downstream" if task.wait_for_downstream else "depends_on_past"
        if reason is not None and past is not None:
            clause = f"waits for the run before (`{rule}`): {reason}"
            sentence = f"It waits for the run before (`{rule}`): {reason}."
            self._found.add(found("past", False, sentence, clause, run_before=past.run_id))
        elif past is None:
            self._found.add(found("past", True, f"There is no run before that it would have to wait for (`{rule}`)."))
        else:
            sentence = f"The run before, {past.run_id}, did what `{rule}` asks."
            self._found.add(found("past", True, sentence, run_before=past.run_id))

    # What its values say.

    def _context(self) -> Mapping[str, object]:
        value = self._standing.map_value(self._task.task_id, self._index)
        return self._names.of(self._task, self._index, value)

    def _when(self) -> None:
        task = self._task
        if task.when is None:
            return
        text = f"`{shorten(task.when)}`"
        if self._found.settled and (task.when_xcoms or names_map(task.when)):
            names = listed([f"`{name}`" for name in task.when_xcoms]) if task.when_xcoms else "all before it"
            sentence = f"`when` is {text}; what it comes to is known when {names} has ended."
            self._found.add(found("when", None, sentence, expression=task.when))
            return
        try:
            true = holds(task.when, self._context())
        except TemplateError as error:
            self._fails("when", f"`when` can't be evaluated: {error}")
            return
        if true:
            self._found.add(found("when", True, f"`when` is true: {text}.", expression=task.when))
        else:
            self._ends("when", f"`when` is false: {text}", TaskState.SKIPPED, expression=task.when)

    def _expand(self) -> None:
        task = self._task
        over = listed([f"`{name}`" for name in task.expand_xcoms])
        if self._found.settled:
            what = f"over what {over} returns" if task.expand_xcoms else "over a list that its file gives"
            sentence = f"It is mapped {what}; how many instances it becomes is told when it may run."
            self._found.add(found("expand", None, sentence, over=list(task.expand_xcoms)))
            return
        try:
            values = expand(task, self._context())
        except TemplateError as error:
            self._fails("expand", str(error))
            return
        if not values:
            self._ends("expand", "`expand` is empty", TaskState.SKIPPED, instances=0)
            return
        self._found.expands_to = len(values)
        sentence = f"`expand` makes {count(len(values), 'task instance')} of it."
        self._found.add(found("expand", True, sentence, instances=len(values)))

    def _begin(self) -> None:
        """What follows when all is met."""
        task = self._task
        if self._found.settled or self._found.expands_to is not None:
            return
        self._found.next_state = TaskState.SCHEDULED
        if task.operator == "empty":
            self._found.next_state = TaskState.SUCCESS
        elif task.operator == approvals.OPERATOR:
            try:
                approvals.question(task, self._context(), self._given.now)
                self._found.next_state = TaskState.AWAITING_INPUT
            except TemplateError as error:
                self._fails("question", str(error))


def waiting_clause(spec_task: TaskSpec, root: tuple[str, int], does: str) -> str:
    """What a task instance does that waits for another one in the end, which does something itself."""
    further = "" if root[0] in spec_task.upstream else ", further upstream"
    what = "its upstream task " if root[0] in spec_task.upstream else ""
    return f"waits for {what}{label(root)}{further}, which {does}"

"""Finds what is valid and still hardly meant, as the graph alone shows it: each is a warning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from yarrow import approvals
from yarrow.language import codes
from yarrow.language.drafts import DagDraft
from yarrow.language.faults import Fault
from yarrow.language.flow import Flow
from yarrow.language.graph import Origin
from yarrow.language.references import Named
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.language.template import compile_expression

_MAX_WORK: Final = 300_000
"""Tasks that are looked at for one DAG: enough for people's DAGs, and never long."""
_WANTS_WORSE: Final = {
    "one_failed": "when nothing before `{}` fails",
    "all_failed": "when something before `{}` succeeds",
    "all_skipped": "when something before `{}` runs",
}
"""Trigger rules that skip a task when all goes well -> when that is."""


def find_traps(draft: DagDraft, spec: DagSpec, named: Mapping[str, Named]) -> Iterator[Fault]:
    """Yields a warning for each trap in a DAG without faults; `named` is what its tasks name."""
    traps = _Traps(draft, spec)
    yield from traps.always_skipped()
    yield from traps.missing_xcoms(named)
    if spec.run_state == "leaves" and not spec.fail_fast:
        yield from traps.hidden_failures()


@dataclass(frozen=True, slots=True)
class _Cause:
    """Something that may come about and has tasks skipped."""

    skipped: frozenset[str]
    why: str  # continues "is skipped ..."


class _Traps:
    def __init__(self, draft: DagDraft, spec: DagSpec) -> None:
        self.draft = draft
        self.spec = spec
        self.flow = Flow(spec)
        self._causes: dict[str, list[tuple[_Cause, set[str]]]] = {}

    # A task that no choice of a branch lets run.

    def always_skipped(self) -> Iterator[Fault]:
        told: set[str] = set()
        for branch in self.spec.tasks.values():
            choices = self._choices(branch)
            if not choices or self._is_enough():
                continue
            tasks = self.spec.tasks
            sure = [[name for name in cause.skipped if not _may_not_wait(tasks[name])] for cause in choices]
            never = set.intersection(*map(self.flow.without, sure))
            for task_id in sorted(never - told):
                task = self.spec.tasks[task_id]
                if never.isdisjoint(task.upstream) and task.trigger_rule != "all_failed":
                    yield self._never_runs(branch, task, any(task_id not in skipped for skipped in sure))
            told |= never

    def _never_runs(self, branch: TaskSpec, task: TaskSpec, is_join: bool) -> Fault:
        draft = self.draft.tasks[task.task_id]
        if not is_join:
            message = f"`{task.task_id}` is always skipped: `{branch.task_id}` never chooses it."
            return draft.fault("depends_on", codes.ALWAYS_SKIPPED, message, "Name it in `then`.", warning=True)
        message = (
            f"`{task.task_id}` is skipped whatever `{branch.task_id}` chooses: each time one directly before it is "
            f"skipped, and its trigger rule is `{task.trigger_rule}`."
        )
        hint = "A task that joins branches needs `trigger_rule: none_failed_min_one_success`."
        return draft.fault("trigger_rule", codes.ALWAYS_SKIPPED, message, hint, warning=True)

    def _choices(self, task: TaskSpec) -> list[_Cause] | None:
        """What a branch may choose, as the tasks that are skipped then; None where that is not known."""
        if task.operator != "branch":
            return None
        conditions: Any = task.arguments.get("conditions", ())
        if not isinstance(conditions, Sequence) or isinstance(conditions, str):
            return None
        chosen = [condition.get("then") for condition in conditions if isinstance(condition, Mapping)]
        found: dict[frozenset[str], _Cause] = {}
        for follow in [*chosen, task.arguments.get("otherwise", [])]:
            if not isinstance(follow, list) or any("{{" in str(name) for name in follow):
                return None
            why = f"when `{task.task_id}` chooses {' and '.join(f'`{name}`' for name in follow) or 'nothing'}"
            skipped = self._not_chosen(task, follow)
            found.setdefault(skipped, _Cause(skipped, why))
        return list(found.values())

    def _not_chosen(self, branch: TaskSpec, follow: Sequence[str]) -> frozenset[str]:
        """A task that comes after a chosen one as well is not skipped."""
        kept = {*follow, *self.flow.after(follow)}
        children = self.spec.downstream[branch.task_id]
        return frozenset(child for child in children if child not in kept and _can_be_cut(self.spec.tasks[child]))

    # An XCom that is not there when its reader runs.

    def missing_xcoms(self, named: Mapping[str, Named]) -> Iterator[Fault]:
        for reader in self.spec.tasks.values():
            if reader.trigger_rule == "all_success":
                continue  # it runs only when all that it names has succeeded
            for task_id, origin in named[reader.task_id].needed.items():
                writer = self.spec.tasks[task_id]
                if writer.mapped and (writer.map_group is None or writer.map_group != reader.map_group):
                    continue  # a list in any case
                if _asks_first(reader, task_id):
                    continue
                if (why := self._missing(reader, writer)) is not None:
                    yield _missing_fault(reader, writer, why, origin)

    def _missing(self, reader: TaskSpec, writer: TaskSpec) -> str | None:
        """Why the XCom of a task may not be there when another one runs."""
        for task_id in chain([writer.task_id], reversed(self.flow.before(writer.task_id))):
            for cause, gone in self._caused_by(task_id):
                if writer.task_id in gone and reader.task_id not in gone:
                    return f"is skipped {cause.why}"
        if writer.soft_fail or writer.operator == "empty" or self.spec.fail_fast or self._is_enough():
            return None
        return "may have failed" if self.flow.runs_despite(reader, writer.task_id) else None

    def _caused_by(self, task_id: str) -> list[tuple[_Cause, set[str]]]:
        """How a task may have tasks skipped, itself or others, and which are skipped then in all."""
        if task_id not in self._causes:
            causes = () if self._is_enough() else self._all_causes(self.spec.tasks[task_id])
            self._causes[task_id] = [(cause, self.flow.without(cause.skipped)) for cause in causes]
        self.flow.work += len(self._causes[task_id])
        return self._causes[task_id]

    def _all_causes(self, task: TaskSpec) -> Iterator[_Cause]:
        alone, name = frozenset((task.task_id,)), task.task_id
        if task.when is not None:
            yield _Cause(alone, f"when `when` of `{name}` is false")
        if task.soft_fail:
            yield _Cause(alone, f"when `{name}` fails (`soft_fail`)")
        if task.trigger_rule in _WANTS_WORSE and task.upstream:
            yield _Cause(alone, _WANTS_WORSE[task.trigger_rule].format(name))
        yield from self._choices(task) or ()
        if (cut := self._cuts_off(task)) is not None:
            yield cut

    def _cuts_off(self, task: TaskSpec) -> _Cause | None:
        if task.operator == "short_circuit":
            why = f"when the condition of `{task.task_id}` is false"
        elif task.operator == approvals.OPERATOR and task.arguments.get("on_reject", "skip") == "skip":
            why = f"when `{task.task_id}` is rejected"
        else:
            return None
        within = [self.spec.tasks[name] for name in self.flow.after([task.task_id])]
        reached = (item for item in within if task.map_group is None or item.map_group == task.map_group)
        return _Cause(frozenset(item.task_id for item in reached if _can_be_cut(item)), why)

    # A run that succeeds although a task has failed.

    def hidden_failures(self) -> Iterator[Fault]:
        leaves = frozenset(self.spec.effective_leaves)
        sure: set[str] = set()  # tasks whose failure fails the run, as a simple look shows
        for task in reversed(list(self.spec.tasks.values())):
            if task.task_id in leaves or any(
                child in sure and _passes_on(self.spec.tasks[child]) for child in self.spec.downstream[task.task_id]
            ):
                sure.add(task.task_id)
        for leaf in self.spec.tasks.values():
            if leaf.task_id in leaves and not _passes_on(leaf) and leaf.failure_counts and not self._is_enough():
                hidden = self._hidden_before(leaf, leaves, sure)
                if hidden is not None:
                    yield self._hides(leaf, hidden)

    def _hidden_before(self, leaf: TaskSpec, leaves: frozenset[str], sure: set[str]) -> str | None:
        """A task before a last one whose failure no last task tells of."""
        for task_id in self.flow.before(leaf.task_id):
            task = self.spec.tasks[task_id]
            if task_id in sure or task.soft_fail or task.operator == "empty" or not task.failure_counts:
                continue
            if self._is_enough():
                return None
            if leaves.isdisjoint(self.flow.broken_by(task_id)) and not self._tells_by_choice(task_id, leaves):
                return task_id
        return None

    def _tells_by_choice(self, failed: str, leaves: frozenset[str]) -> bool:
        """Whether a last task tells of a failure because all else before it was not chosen where that task was."""
        for task_id in self.flow.before(failed):
            choices = self._choices(self.spec.tasks[task_id])
            if not choices or failed not in self.flow.without([task_id]):
                continue
            skipped = [gone for gone in (self.flow.without(cause.skipped) for cause in choices) if failed not in gone]
            if skipped and not any(leaves.isdisjoint(self.flow.broken_by(failed, gone)) for gone in skipped):
                return True
        return False

    def _hides(self, leaf: TaskSpec, hidden: str) -> Fault:
        message = (
            f"`{leaf.task_id}` makes a success of a run in which `{hidden}` failed: a run ends as its last tasks do, "
            f"and with the trigger rule `{leaf.trigger_rule}` this one does not fail with it."
        )
        otherwise = (
            "remove `on_failure_fail_dagrun`" if leaf.teardown else "`teardown: true` when the task only cleans up"
        )
        hint = f"Write `run_state: all_tasks` for the DAG, or {otherwise}."
        draft = self.draft.tasks[leaf.task_id]
        return draft.fault("trigger_rule", codes.HIDDEN_FAILURE, message, hint, warning=True)

    def _is_enough(self) -> bool:
        return self.flow.work > _MAX_WORK


def _can_be_cut(task: TaskSpec) -> bool:
    """Whether a choice before a task may skip it. No teardown is skipped, and `always` does not wait for the choice."""
    return not task.teardown and task.trigger_rule != "always"


def _may_not_wait(task: TaskSpec) -> bool:
    """Whether a task may have started before one directly before it has ended."""
    return task.trigger_rule in ("one_success", "one_failed", "one_done") and len(task.upstream) > 1


def _passes_on(task: TaskSpec) -> bool:
    """Whether the failure of any task directly before it breaks a task."""
    rule = task.trigger_rule
    alone = len(task.upstream) == 1 and rule in ("one_success", "all_done_min_one_success")
    return alone or rule in ("all_success", "none_failed", "none_failed_min_one_success")


def _asks_first(reader: TaskSpec, task_id: str) -> bool:
    """Whether the `when` of a task looks at an XCom of another one that need not be there, before its `with` does."""
    if reader.when is None or task_id not in reader.when_xcoms:
        return False
    path = ("xcom", *task_id.split("."))
    references = compile_expression(reader.when).references
    return all(reference.optional for reference in references if reference.path[: len(path)] == path)


def _missing_fault(reader: TaskSpec, writer: TaskSpec, why: str, origin: Origin) -> Fault:
    message = (
        f"`{reader.task_id}` names the XCom of `{writer.task_id}`, which {why}, and with the trigger rule "
        f"`{reader.trigger_rule}` it runs all the same."
    )
    hint = "Say what it is then: `| default(...)`."
    return origin.node.source.fault(
        origin.node.place(origin.offset), codes.MAY_BE_MISSING, message, hint, severity="warning"
    )

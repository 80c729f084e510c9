"""Reads the mappings of a DAG file into drafts: checked by themselves, not yet against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yarrow import registry
from yarrow.decision.trigger_rules import TEARDOWN_RULE
from yarrow.errors import BrokenOperator, NotFound
from yarrow.jsontypes import Json
from yarrow.language import codes, grammar
from yarrow.language.containers import AnyJson
from yarrow.language.faults import Fault
from yarrow.language.grammar import check_fields, stray_key
from yarrow.language.nodes import BrokenNode, MappingNode, Node, ScalarNode, SequenceNode, describe
from yarrow.language.parameters import Parameters, parameters
from yarrow.language.params import check_params
from yarrow.language.shape import INVALID, Findings, Site, did_you_mean, note_connection
from yarrow.operator import Operator


@dataclass(slots=True)
class GroupDraft:
    """A task group. The DAG itself is the group with the empty id."""

    group_id: str
    parent: GroupDraft | None = None
    depends_on: list[ScalarNode] = field(default_factory=list)
    doc_md: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    node: MappingNode | None = None  # None: the DAG
    expand: Mapping[str, Json] | None = None  # of the group itself
    max_map_length: int = 1024
    members: dict[str, str] = field(default_factory=dict)  # short id -> full id, of tasks and groups directly within

    def full_id(self, name: str) -> str:
        return f"{self.group_id}.{name}" if self.group_id else name

    @property
    def mapped_by(self) -> GroupDraft | None:
        """The mapped group that what is in here belongs to: this one, or the nearest one around it."""
        group: GroupDraft | None = self
        while group is not None and group.expand is None:
            group = group.parent
        return group


@dataclass(slots=True)
class TaskDraft:
    """A task as far as it can be understood without the others."""

    task_id: str
    key: ScalarNode
    group: GroupDraft
    node: MappingNode
    values: dict[str, Any]  # the valid ones of its keys, over the defaults of its groups and DAG
    operator_name: str = ""
    operator: type[Operator] | None = None
    declared: Parameters | None = None
    arguments: Mapping[str, Json] | None = None  # None: they have faults
    sites: list[Site] = field(default_factory=list)
    depends_on: list[ScalarNode] = field(default_factory=list)

    @property
    def expand(self) -> Mapping[str, Json] | None:
        """What it is mapped over, itself or with its group."""
        own: Mapping[str, Json] | None = self.values.get("expand")
        group = self.group.mapped_by
        return own if own is not None or group is None else group.expand

    @property
    def map_group(self) -> str | None:
        """The id of the mapped group that it is in."""
        group = self.group.mapped_by
        return group.group_id if group is not None else None

    @property
    def control(self) -> bool:
        """Whether its result steers the run."""
        return self.operator is not None and self.operator.control

    def place(self, key: str) -> Node:
        """Where a key of it stands, or the task when it has the key from elsewhere."""
        return self.node.entries.get(key, self.key)

    def fault(self, key: str, code: str, message: str, hint: str | None = None, *, warning: bool = False) -> Fault:
        """A fault of one of its keys."""
        return self.place(key).fault(code, message, hint, "warning" if warning else "error")


@dataclass(slots=True)
class DagDraft:
    """A DAG file as far as each of its parts is understood by itself."""

    node: MappingNode
    values: dict[str, Any]
    params: Mapping[str, Mapping[str, Json]]
    tasks: dict[str, TaskDraft] = field(default_factory=dict)
    groups: dict[str, GroupDraft] = field(default_factory=dict)


def draft_dag(node: MappingNode, found: Findings) -> DagDraft:
    """Reads a DAG file's mapping; every fault of its parts is added."""
    values = check_fields(
        node,
        {name: known for name, known in grammar.DAG.items() if name != "schedule"},
        found,
        also=("schedule", "params", "default_args", "tasks"),
        what="a DAG",
    )
    if (schedule := node.entries.get("schedule")) is not None and (value := _schedule(schedule, found)) is not INVALID:
        values["schedule"] = value
    params = check_params(node.entries["params"], found) if "params" in node.entries else {}
    draft = DagDraft(node, values, params)
    root = GroupDraft("", defaults=_defaults(node, found, {}))
    tasks = node.entries.get("tasks")
    if tasks is None:
        message = "The DAG has no `tasks`."
        found.faults.append(node.fault(codes.NO_TASKS, message, "Add `tasks:` with at least one task."))
    else:
        _Tasks(draft, found).read(tasks, root)
    return draft


def _schedule(node: Node, found: Findings) -> Any:
    if not isinstance(node, MappingNode):
        return grammar.SCHEDULE.check(node, found, "`schedule`")
    kinds = [kind for kind in grammar.SCHEDULE_MAPPINGS if kind in node.entries]
    if len(kinds) > 1:
        message = f"A schedule has either `{kinds[0]}` or `{kinds[1]}`, not both."
        found.faults.append(node.keys[kinds[1]].fault(codes.BAD_SCHEDULE, message))
        return INVALID
    before = len(found.faults)
    values = check_fields(node, grammar.SCHEDULE_MAPPINGS[kinds[0] if kinds else "cron"], found, what="a schedule")
    if not kinds:
        message = "The schedule has neither `cron` nor `every` nor `datasets`."
        mode = next((word for word in ("any", "all") if word in node.entries), None)
        hint = f"Write `{{datasets: [...], mode: {mode}}}`." if mode else None
        found.faults.append(node.fault(codes.MISSING_KEY, message, hint))
    return values if len(found.faults) == before else INVALID


def _defaults(node: MappingNode, found: Findings, above: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `default_args` of a DAG or group, over those of what it stands in."""
    given = node.entries.get("default_args")
    if given is None or isinstance(given, BrokenNode):
        return above
    if not isinstance(given, MappingNode):
        message = f"`default_args` must be a mapping of keys of tasks, not {describe(given)}."
        found.faults.append(given.fault(codes.WRONG_TYPE, message))
        return above
    return {**above, **check_fields(given, grammar.DEFAULT_ARGS, found, what="`default_args`")}


class _Tasks:
    """Reads `tasks:` of the DAG and of its groups."""

    def __init__(self, draft: DagDraft, found: Findings) -> None:
        self.draft = draft
        self.found = found

    def read(self, node: Node, group: GroupDraft) -> None:
        if isinstance(node, BrokenNode):
            return
        if not isinstance(node, MappingNode):
            message = f"`tasks` must be a mapping of task ids to tasks, not {describe(node)}."
            hint = "Write `my_task:` without a dash." if isinstance(node, SequenceNode) else None
            self.found.faults.append(node.fault(codes.WRONG_TYPE, message, hint))
            return
        if not node.entries:
            self.found.faults.append(node.fault(codes.NO_TASKS, "There are no tasks in `tasks`."))
        for name, item in node.entries.items():
            self._entry(node, name, item, group)

    def _entry(self, parent: MappingNode, name: str, item: Node, group: GroupDraft) -> None:
        full_id = group.full_id(name)
        fault = grammar.id_fault(parent, name)
        if fault is None and len(full_id) > grammar.MAX_TASK_ID:
            message = f"The full id of the task has more than {grammar.MAX_TASK_ID} characters."
            fault = parent.keys[name].fault(codes.BAD_ID, message)
        if fault is not None:
            self.found.faults.append(fault)
        group.members[name] = full_id
        if isinstance(item, BrokenNode):
            self.draft.tasks[full_id] = self._unreadable(full_id, parent.keys[name], group)
        elif not isinstance(item, MappingNode):
            message = f"The task `{name}` must be a mapping of its keys, not {describe(item)}."
            self.found.faults.append(item.fault(codes.WRONG_TYPE, message, "It needs at least `operator:`."))
            self.draft.tasks[full_id] = self._unreadable(full_id, parent.keys[name], group)
        elif "tasks" in item.entries and "operator" not in item.entries:
            self._group(full_id, item, group)
        else:
            self.draft.tasks[full_id] = self._task(full_id, parent.keys[name], item, group)

    def _unreadable(self, full_id: str, key: ScalarNode, group: GroupDraft) -> TaskDraft:
        """A task of which only the id is known, so that naming it is no fault."""
        return TaskDraft(full_id, key, group, MappingNode(key.source, key.line, key.column, False), {})

    def _group(self, full_id: str, node: MappingNode, parent: GroupDraft) -> None:
        values = check_fields(node, grammar.GROUP, self.found, also=("tasks", "default_args"), what="a task group")
        group = GroupDraft(
            full_id,
            parent,
            _texts(node.entries.get("depends_on")),
            values.get("doc_md"),
            _defaults(node, self.found, parent.defaults),
            node,
            values.get("expand"),
        )
        group.max_map_length = values.get("max_map_length", group.defaults.get("max_map_length", 1024))
        self.draft.groups[full_id] = group
        self.read(node.entries["tasks"], group)

    def _task(self, full_id: str, key: ScalarNode, node: MappingNode, group: GroupDraft) -> TaskDraft:
        draft = TaskDraft(full_id, key, group, node, {}, depends_on=_texts(node.entries.get("depends_on")))
        operator_node = node.entries.get("operator")
        self._find_operator(draft, operator_node)
        inside = tuple(draft.declared.fields) if draft.declared is not None else ()
        mine = {name: item for name, item in node.entries.items() if name in grammar.TASK or name in ("with", "tasks")}
        for name, item in node.entries.items():
            if name not in mine:
                self.found.faults.append(self._stray(draft, name, inside))
                if name in inside:
                    self._note_templates(draft, item)
        if "tasks" in mine:
            message = "An entry is either a task with `operator` or a group with `tasks`, not both."
            self.found.faults.append(node.keys["tasks"].fault(codes.UNKNOWN_KEY, message))
        found = Findings(self.found.faults, draft.sites)
        values = {
            name: value
            for name, known in grammar.TASK.items()
            if name in mine and (value := known.shape.check(mine[name], found, f"`{name}`")) is not INVALID
        }
        draft.values = {**group.defaults, **values}
        if values.get("teardown") and "trigger_rule" not in values:
            draft.values["trigger_rule"] = TEARDOWN_RULE
        if draft.declared is not None:
            self._arguments(draft, draft.declared, mine.get("with"))
        elif "with" in mine:
            self._note_templates(draft, mine["with"])
        return draft

    def _note_templates(self, draft: TaskDraft, node: Node) -> None:
        """Has the templates looked at of a value of which it is not known what it is for."""
        AnyJson(template=True).check(node, Findings(self.found.faults, draft.sites))

    def _stray(self, draft: TaskDraft, name: str, parameters_of_operator: tuple[str, ...]) -> Any:
        if name in parameters_of_operator:
            hint = f"`{name}` is a parameter of the operator `{draft.operator_name}`: put it under `with`."
            return draft.node.keys[name].fault(codes.UNKNOWN_KEY, f"Unknown key `{name}`.", hint)
        return stray_key(draft.node, name, (*grammar.TASK, "with"), "a task")

    def _find_operator(self, draft: TaskDraft, node: Node | None) -> None:
        if node is None:
            message = f"The task `{draft.task_id}` names no operator."
            hint = "Add `operator: bash` or another." if "tasks" not in draft.node.entries else None
            self.found.faults.append(draft.key.fault(codes.MISSING_OPERATOR, message, hint))
            return
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str) or "{{" in node.value:
            return  # the wrong type is named with the other keys
        draft.operator_name = node.value
        try:
            draft.operator = registry.operator_class(node.value)
            draft.declared = parameters(draft.operator)
        except NotFound as error:
            message = f"There is no operator `{node.value[:100]}`."
            self.found.faults.append(node.fault(codes.UNKNOWN_OPERATOR, message, error.hint))
        except BrokenOperator as error:
            self.found.faults.append(node.fault(codes.BROKEN_OPERATOR, error.message))

    def _arguments(self, draft: TaskDraft, declared: Parameters, node: Node | None) -> None:
        if isinstance(node, BrokenNode):
            return
        if node is not None and not isinstance(node, MappingNode):
            message = f"`with` must be a mapping of the operator's parameters, not {describe(node)}."
            self.found.faults.append(node.fault(codes.WRONG_TYPE, message))
            return
        before = len(self.found.faults)
        mine = Findings(self.found.faults, draft.sites)
        values: dict[str, Json] = {}
        for name, item in node.entries.items() if node is not None else ():
            assert node is not None
            parameter = declared.fields.get(name)
            if parameter is None:
                mine.faults.append(_unknown_parameter(node, name, draft, declared))
                self._note_templates(draft, item)
                continue
            if parameter.expression and isinstance(item, ScalarNode) and isinstance(item.value, str):
                mine.sites.append(Site(item, "expression"))
                values[name] = item.value
                continue
            note_connection(name, item, mine)
            value = parameter.shape.check(item, mine, f"`{name}`")
            if value is not INVALID:
                values[name] = value
        # A parameter that is there, but misspelt or beside `with`, has a fault that says so.
        hints = {fault.hint for fault in mine.faults[before:]}
        for name, parameter in declared.fields.items():
            given = (node is not None and name in node.entries) or name in draft.node.entries
            if parameter.required and not given and f"Did you mean `{name}`?" not in hints:
                mine.faults.append(_missing_parameter(draft, name))
        complete = all(name in values for name, parameter in declared.fields.items() if parameter.required)
        if complete and len(mine.faults) == before:
            draft.arguments = values


def _unknown_parameter(node: MappingNode, name: str, draft: TaskDraft, declared: Parameters) -> Any:
    hint = did_you_mean(name, declared.fields)
    if hint is None and name in grammar.TASK:
        hint = f"`{name}` is a key of the task: put it beside `with`."
    if hint is None:
        hint = f"It has: {', '.join(sorted(declared.fields))}." if declared.fields else "It has no parameters."
    message = f"The operator `{draft.operator_name}` has no parameter `{name}`."
    return node.keys[name].fault(codes.UNKNOWN_PARAMETER, message, hint)


def _missing_parameter(draft: TaskDraft, name: str) -> Any:
    place = draft.node.keys.get("with", draft.key)
    message = f"The task `{draft.task_id}` lacks `{name}`, which the operator `{draft.operator_name}` needs."
    return place.fault(codes.MISSING_PARAMETER, message, f"Add `{name}` under `with`.")


def _texts(node: Node | None) -> list[ScalarNode]:
    """The texts of a list such as `depends_on`; what else is in it has a fault already."""
    items = node.items if isinstance(node, SequenceNode) else []
    return [item for item in items if isinstance(item, ScalarNode) and isinstance(item.value, str)]

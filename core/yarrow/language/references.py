"""Resolves the names in a DAG's templates and expressions: every one must exist before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from yarrow import approvals
from yarrow.language import codes, names
from yarrow.language.containers import AnyJson, ListOf, Union
from yarrow.language.drafts import DagDraft, GroupDraft, TaskDraft
from yarrow.language.expression import Reference
from yarrow.language.faults import Fault
from yarrow.language.graph import Origin
from yarrow.language.nodes import MappingNode, Node, ScalarNode
from yarrow.language.scalars import Boolean, Duration, Enum, Null, Number, Text
from yarrow.language.shape import Shape, did_you_mean
from yarrow.language.template import Template, compile_expression, compile_template
from yarrow.language.values import TemplateFault

MAX_TEMPLATES: Final = 256 * 1024
"""Characters of all the different templates of a DAG: parsing them must not take long."""
MAX_DECIDED: Final = 4096
"""Characters of a `when`, an `expand` or a question: the scheduler evaluates them, and must not be held up."""


_SCALARS: Final = ("string", "number", "integer", "boolean", "null")

Place: TypeAlias = Literal["with", "when", "expand", "question"]
"""Where a template stands. `question`: in `with:` of a task that asks a person and that no worker executes."""


@dataclass(slots=True)
class Named:
    """What the templates of one task, or the `expand` of one group, name."""

    xcoms: dict[str, Origin] = field(default_factory=dict)  # in `with:`
    when_xcoms: dict[str, Origin] = field(default_factory=dict)
    expand_xcoms: dict[str, Origin] = field(default_factory=dict)
    needed: dict[str, Origin] = field(default_factory=dict)  # of all these, those that must be there in any case
    variables: set[str] = field(default_factory=set)
    connections: set[str] = field(default_factory=set)

    def xcoms_at(self, place: Place) -> dict[str, Origin]:
        return {"when": self.when_xcoms, "expand": self.expand_xcoms}.get(place, self.xcoms)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who names something, and where."""

    place: Place
    named: Named
    map_group: str | None  # the mapped group that it is in
    map_names: Collection[str] | None  # what `map` has; None: it is not mapped


class References:
    """Looks up names in one DAG."""

    def __init__(self, draft: DagDraft, faults: list[Fault]) -> None:
        self.draft = draft
        self.faults = faults
        self._seen: set[str] = set()
        self._left = MAX_TEMPLATES
        self._told = False

    def of(self, task: TaskDraft) -> Named:
        """Returns what a task's arguments, its `when` and its `expand` name; what can't be found is a fault."""
        named = Named()
        reader = _Reader(
            "question" if task.operator_name == approvals.OPERATOR else "with", named, task.map_group, task.expand
        )
        for site in task.sites:
            if site.kind == "connection":
                named.connections.add(str(site.node.value))
                continue
            template = self._compile(
                site.node, expression=site.kind == "expression", in_scheduler=reader.place == "question"
            )
            for reference in template.references if template is not None else ():
                self._look_up(site.node, reference, reader)
        when = task.node.entries.get("when")
        if isinstance(when, ScalarNode) and isinstance(when.value, str) and "when" in task.values:
            template = self._compile(when, expression=True, in_scheduler=True)
            for reference in template.references if template is not None else ():
                self._look_up(when, reference, replace(reader, place="when"))
        if "expand" in task.values:
            self._expansion(task.node.entries["expand"], named, task.map_group)
        return named

    def of_group(self, group: GroupDraft) -> Named:
        """Returns what the `expand` of a mapped group names."""
        named = Named()
        if group.node is not None and group.expand is not None:
            self._expansion(group.node.entries["expand"], named, None)
        return named

    def _expansion(self, node: Node, named: Named, map_group: str | None) -> None:
        reader = _Reader("expand", named, map_group, None)
        for name, item in node.entries.items() if isinstance(node, MappingNode) else ():
            if not isinstance(item, ScalarNode):
                continue
            template = self._compile(item, expression=False, in_scheduler=True)
            if template is None:
                continue
            for reference in template.references:
                self._look_up(item, reference, reader)
            if (why := self._never_a_list(template, map_group)) is not None:
                message = f"`expand.{name}` is never a list: {why}."
                self.faults.append(item.fault(codes.NEVER_A_LIST, message))
            elif (printer := self._last_line(template, map_group)) is not None:
                message = f"`expand.{name}` is never a list: the last line that `{printer}` prints is a text."
                hint = f"Give `{printer}` the parameter `output: json`, or write `| fromjson`."
                self.faults.append(item.fault(codes.NEVER_A_LIST, message, hint, "warning"))

    def _never_a_list(self, template: Template, map_group: str | None) -> str | None:
        """Why a template can't give a list or a mapping, as far as that is known before anything runs."""
        if not template.whole:
            return "text around the braces makes it a text"
        if template.single is not None:
            return f"the expression gives {template.single}"
        path = template.path
        if path is None:
            return None
        if path[0] in names.RUN_NAMES:
            return f"`{path[0]}` is {'a date' if path[0] in names.DATES else 'a text'}"
        if path[0] == "params" and len(path) == 2:
            kind = self.draft.params.get(path[1], {}).get("type")
            return f"the param `{path[1]}` is of type {kind}" if kind in _SCALARS else None
        if path[0] == "xcom" and (found := self._task_of(path)) is not None:
            task, end = found
            shape: Shape | None = self._xcom_shape(task, map_group)
            for name in path[end:]:
                try:
                    shape = shape.field(name) if shape is not None else None
                except KeyError:
                    return None  # which is a fault already
            if shape is not None and not _may_be_listed(shape):
                return f"`{'.'.join(path)}` is {shape.expects()}"
        return None

    def _last_line(self, template: Template, map_group: str | None) -> str | None:
        """The `bash` task whose whole XCom a template gives, if that is a line of text."""
        path = template.path
        found = self._task_of(path) if path is not None and path[0] == "xcom" else None
        if path is None or found is None or found[1] < len(path):
            return None
        task = found[0]
        if task.operator_name != "bash" or self._xcom_shape(task, map_group) is not None:
            return None  # of a mapped task it is a list of lines
        return task.task_id if (task.arguments or {}).get("output", "last_line") == "last_line" else None

    def _compile(self, node: ScalarNode, *, expression: bool, in_scheduler: bool) -> Template | None:
        text = str(node.value)
        if in_scheduler and len(text) > MAX_DECIDED:
            message = f"It has more than {MAX_DECIDED:,} characters, too long for what the scheduler evaluates."
            self.faults.append(node.fault(codes.TOO_LARGE, message, "Let a task compute it, and name its XCom."))
            return None
        if text not in self._seen:
            self._seen.add(text)
            self._left -= len(text)
        if self._left < 0:
            if not self._told:
                self._told = True
                message = f"The templates of the DAG have more than {MAX_TEMPLATES:,} characters in all."
                self.faults.append(node.fault(codes.TOO_LARGE, message, "Let the program read a file instead."))
            return None
        try:
            return compile_expression(text) if expression else compile_template(text)
        except TemplateFault as error:
            self.faults.append(node.fault_at(error.offset, error.code, error.message, error.hint))
            return None

    def _look_up(self, node: ScalarNode, reference: Reference, reader: _Reader) -> None:
        root = reference.path[0]
        origin = Origin(node, reference.offset, template=True)
        on_worker = reader.place == "with"
        if root in names.RUN_NAMES or (root in names.TASK_NAMES and on_worker):
            self._plain_name(origin, reference)
        elif not on_worker and (root in names.TASK_NAMES or root in ("var", "conn")):
            where = "a question" if reader.place == "question" else f"`{reader.place}`"
            message = f"`{root}` is known only to the worker, and {where} is evaluated before a worker has the task."
            self.faults.append(origin.fault(codes.NAME_NOT_HERE, message, "Use `params` or `xcom` instead."))
        elif root == "params":
            self._param(origin, reference)
        elif root == "xcom":
            self._xcom(origin, reference, reader)
        elif root == "var":
            self._variable(origin, reference, reader.named)
        elif root == "conn":
            self._connection(origin, reference, reader.named)
        elif root == "map":
            self._map(origin, reference, reader)
        else:
            self._unknown(origin, root, reader)

    def _map(self, origin: Origin, reference: Reference, reader: _Reader) -> None:
        if reader.place == "expand":
            message = "`map` is what `expand` gives: it is not known before."
            self.faults.append(origin.fault(codes.UNKNOWN_NAME, message, "Use `params` or `xcom` instead."))
        elif reader.map_names is None:
            message = "`map` is known only in a mapped task, and this one is not mapped."
            hint = "Give the task, or the group that it is in, `expand:`."
            self.faults.append(origin.fault(codes.UNKNOWN_NAME, message, hint))
        elif len(reference.path) > 1 and (name := reference.path[1]) not in reader.map_names:
            advice = did_you_mean(name, reader.map_names) or _listed("It has", reader.map_names, "")
            self.faults.append(origin.fault(codes.UNKNOWN_NAME, f"`expand` has no name `{name}`.", advice))

    def _plain_name(self, origin: Origin, reference: Reference) -> None:
        if len(reference.path) > 1:
            dotted = ".".join(reference.path)
            hint = "Use a filter, such as `ds` or `ts`, or `macros.ds_format`."
            self.faults.append(
                origin.fault(codes.UNKNOWN_NAME, f"`{dotted}`: `{reference.path[0]}` has no fields.", hint)
            )

    def _param(self, origin: Origin, reference: Reference) -> None:
        path, declared = reference.path, self.draft.params
        if len(path) == 1:
            return  # all of them, as a mapping
        if path[1] not in declared:
            hint = did_you_mean(path[1], declared) or _listed("Params are", declared, "The DAG declares no `params`.")
            self.faults.append(origin.fault(codes.UNKNOWN_PARAM, f"There is no param `{path[1]}`.", hint))
        elif len(path) > 2 and declared[path[1]].get("type") in _SCALARS:
            kind = declared[path[1]]["type"]
            message = f"`{'.'.join(path)}`: the param `{path[1]}` is of type {kind} and has no fields."
            self.faults.append(origin.fault(codes.UNKNOWN_PARAM, message))

    def _variable(self, origin: Origin, reference: Reference, named: Named) -> None:
        path = reference.path
        if len(path) == 1:
            self.faults.append(origin.fault(codes.UNKNOWN_NAME, "`var` alone: name one variable.", "Write `var.name`."))
        elif len(path) > 2:
            hint = (
                f"Write `var.{path[2]}`." if path[1] in ("value", "json") else f"Write `(var.{path[1]} | fromjson).…`."
            )
            message = f"`{'.'.join(path)}`: a variable is a text and has no fields."
            self.faults.append(origin.fault(codes.UNKNOWN_NAME, message, hint))
        else:
            named.variables.add(path[1])

    def _connection(self, origin: Origin, reference: Reference, named: Named) -> None:
        path = reference.path
        if len(path) < 3:
            fields = ", ".join(f"`{name}`" for name in names.CONNECTION_FIELDS)
            message = f"`{'.'.join(path)}`: name one field of one connection."
            hint = f"Write `conn.conn_id.host`; fields are {fields}."
            self.faults.append(origin.fault(codes.UNKNOWN_NAME, message, hint))
        elif path[2] not in names.CONNECTION_FIELDS:
            message = f"`{'.'.join(path)}`: a connection has no field `{path[2]}`."
            advice = did_you_mean(path[2], names.CONNECTION_FIELDS) or _listed(
                "Fields are", names.CONNECTION_FIELDS, ""
            )
            self.faults.append(origin.fault(codes.UNKNOWN_NAME, message, advice))
        else:
            named.connections.add(path[1])

    def _task_of(self, path: tuple[str, ...]) -> tuple[TaskDraft, int] | None:
        """The task that a path `xcom.…` names, and how many parts of the path that takes."""
        for end in range(len(path), 1, -1):
            if (task := self.draft.tasks.get(".".join(path[1:end]))) is not None:
                return task, end
        return None

    def _xcom(self, origin: Origin, reference: Reference, reader: _Reader) -> None:
        path = reference.path
        found = self._task_of(path)
        if found is not None:
            task, end = found
            reader.named.xcoms_at(reader.place).setdefault(task.task_id, origin)
            if not reference.optional:
                reader.named.needed.setdefault(task.task_id, origin)
            self._output(origin, path, end, task, reader.map_group)
        elif len(path) == 1:
            message, hint = "`xcom` alone: name the task.", "Write `xcom.task_id.field`."
            self.faults.append(origin.fault(codes.UNKNOWN_XCOM_TASK, message, hint))
        else:
            self.faults.append(self._no_such_task(origin, path[1:]))

    def _no_such_task(self, origin: Origin, path: tuple[str, ...]) -> Fault:
        group = next(
            (name for end in range(len(path), 0, -1) if (name := ".".join(path[:end])) in self.draft.groups), None
        )
        if group is not None:
            rest = path[group.count(".") + 1 :]
            message = f"The group `{group}` has no XCom; its tasks have."
            if rest:
                message = f"There is no task `{rest[0]}` in the group `{group}`."
            inside = self.draft.tasks
            hint = _listed("Its tasks are", [name for name in inside if name.startswith(group + ".")], "")
            return origin.fault(codes.UNKNOWN_XCOM_TASK, message, hint)
        return origin.fault(codes.UNKNOWN_XCOM_TASK, f"There is no task `{path[0]}`.", self._task_hint(path))

    def _task_hint(self, path: tuple[str, ...]) -> str | None:
        tasks = self.draft.tasks
        by_end = [name for name in tasks if name.endswith(f".{path[0]}")]
        if by_end:
            return f"Write the full id: `xcom.{by_end[0]}`."
        dashed = [name for name in tasks if name.startswith(f"{path[0]}-")]
        if dashed:
            return f"An id with a dash goes in brackets: `xcom['{dashed[0]}']`."
        return did_you_mean(path[0], tasks) or _listed("Tasks are", tasks, "")

    def _xcom_shape(self, task: TaskDraft, map_group: str | None) -> Shape | None:
        """What the XCom of a task is for a reader: of a mapped one a list, unless both are in one mapped group."""
        shape = task.declared.outputs if task.declared is not None else None
        if task.expand is None or (task.map_group is not None and task.map_group == map_group):
            return shape
        return ListOf(shape if shape is not None else AnyJson())

    def _output(
        self, origin: Origin, path: tuple[str, ...], start: int, task: TaskDraft, map_group: str | None
    ) -> None:
        plain = task.declared.outputs if task.declared is not None else None
        shape = self._xcom_shape(task, map_group)
        mapped = shape is not plain
        for place in range(start, len(path)):
            outer = shape
            if outer is None:
                return
            try:
                shape = outer.field(path[place])
            except KeyError:
                if mapped and place == start:
                    where, rest = ".".join(path[:start]), ".".join(path[start:])
                    message = f"`{where}` has no field `{path[start]}`: it is mapped: a list, one item per instance."
                    hint = f"Write `{where}[0].{rest}` for the first, or pass on the whole list."
                    self.faults.append(origin.fault(codes.UNKNOWN_OUTPUT, message, hint))
                else:
                    self.faults.append(_unknown_output(origin, path, place, outer, task))
                return

    def _unknown(self, origin: Origin, root: str, reader: _Reader) -> None:
        known = [*names.RUN_NAMES, *names.TASK_NAMES, *names.SPACES]
        hint = f"Write `map.{root}`." if root in (reader.map_names or ()) else names.REPLACED.get(root)
        if hint is None and root in self.draft.params:
            hint = f"Write `params.{root}`."
        if hint is None and root in self.draft.tasks:
            hint = f"Write `xcom.{root}`."
        if hint is None and root == "macros":
            hint = "A macro is called: `macros.ds_add(ds, 1)`."
        hint = hint or did_you_mean(root, known) or f"A text goes in quotes: `'{root}'`."
        self.faults.append(origin.fault(codes.UNKNOWN_NAME, f"There is no name `{root}`.", hint))


def _unknown_output(origin: Origin, path: tuple[str, ...], place: int, shape: Shape, task: TaskDraft) -> Fault:
    where = ".".join(path[:place])
    fields: Iterable[str] = getattr(shape, "fields", ())
    message = f"`{where}` has no field `{path[place]}`: the operator `{task.operator_name}` does not return it."
    hint = did_you_mean(path[place], fields) or _listed("It has", fields, f"It is {shape.expects()}.")
    return origin.fault(codes.UNKNOWN_OUTPUT, message, hint)


def _may_be_listed(shape: Shape) -> bool:
    """Whether a value of the shape can be a list or a mapping."""
    if isinstance(shape, Union):
        return any(_may_be_listed(option) for option in shape.options)
    return not isinstance(shape, Text | Number | Boolean | Null | Enum | Duration)


def _listed(words: str, known: Iterable[str] | Mapping[str, object], otherwise: str) -> str | None:
    listed = [f"`{name}`" for name in known]
    if not listed:
        return otherwise or None
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return f"{words} {', '.join(listed[:10])}{more}."

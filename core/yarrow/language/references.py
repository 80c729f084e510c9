"""Resolves the names in a DAG's templates and expressions: every one must exist before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from yarrow.language import codes, names
from yarrow.language.drafts import DagDraft, TaskDraft
from yarrow.language.expression import Reference
from yarrow.language.faults import Fault
from yarrow.language.graph import Origin
from yarrow.language.nodes import ScalarNode
from yarrow.language.shape import Shape, did_you_mean
from yarrow.language.template import Template, compile_expression, compile_template
from yarrow.language.values import TemplateFault

MAX_TEMPLATES: Final = 256 * 1024
"""Characters of all the different templates of a DAG: parsing them must not take long."""


@dataclass(slots=True)
class Named:
    """What the templates of one task name."""

    xcoms: dict[str, Origin] = field(default_factory=dict)  # in `with:`
    when_xcoms: dict[str, Origin] = field(default_factory=dict)
    variables: set[str] = field(default_factory=set)
    connections: set[str] = field(default_factory=set)


class References:
    """Looks up names in one DAG."""

    def __init__(self, draft: DagDraft, faults: list[Fault]) -> None:
        self.draft = draft
        self.faults = faults
        self._seen: set[str] = set()
        self._left = MAX_TEMPLATES
        self._told = False

    def of(self, task: TaskDraft) -> Named:
        """Returns what a task's arguments and its `when` name; what can't be found is a fault."""
        named = Named()
        for site in task.sites:
            if site.kind == "connection":
                named.connections.add(str(site.node.value))
                continue
            template = self._compile(site.node, expression=site.kind == "expression")
            for reference in template.references if template is not None else ():
                self._look_up(site.node, reference, named, when=False)
        when = task.node.entries.get("when")
        if isinstance(when, ScalarNode) and isinstance(when.value, str) and "when" in task.values:
            template = self._compile(when, expression=True)
            for reference in template.references if template is not None else ():
                self._look_up(when, reference, named, when=True)
        return named

    def _compile(self, node: ScalarNode, *, expression: bool) -> Template | None:
        text = str(node.value)
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

    def _look_up(self, node: ScalarNode, reference: Reference, named: Named, *, when: bool) -> None:
        root = reference.path[0]
        origin = Origin(node, reference.offset, template=True)
        if root in names.RUN_NAMES or (root in names.TASK_NAMES and not when):
            self._plain_name(origin, reference)
        elif when and (root in names.TASK_NAMES or root in ("var", "conn")):
            message = f"`{root}` is known only to the worker, and `when` is evaluated before a worker has the task."
            self.faults.append(origin.fault(codes.NAME_NOT_HERE, message, "Use `params` or `xcom` instead."))
        elif root == "params":
            self._param(origin, reference)
        elif root == "xcom":
            self._xcom(origin, reference, named.when_xcoms if when else named.xcoms)
        elif root == "var":
            self._variable(origin, reference, named)
        elif root == "conn":
            self._connection(origin, reference, named)
        else:
            self._unknown(origin, root)

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
        elif len(path) > 2 and declared[path[1]].get("type") in ("string", "number", "integer", "boolean", "null"):
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

    def _xcom(self, origin: Origin, reference: Reference, found: dict[str, Origin]) -> None:
        path = reference.path
        for end in range(len(path), 1, -1):
            task_id = ".".join(path[1:end])
            if task_id in self.draft.tasks:
                found.setdefault(task_id, origin)
                self._output(origin, path, end, self.draft.tasks[task_id])
                return
        if len(path) == 1:
            message, hint = "`xcom` alone: name the task.", "Write `xcom.task_id.field`."
            self.faults.append(origin.fault(codes.UNKNOWN_XCOM_TASK, message, hint))
            return
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

    def _output(self, origin: Origin, path: tuple[str, ...], start: int, task: TaskDraft) -> None:
        shape = task.declared.outputs if task.declared is not None else None
        for place in range(start, len(path)):
            outer = shape
            if outer is None:
                return
            try:
                shape = outer.field(path[place])
            except KeyError:
                self.faults.append(_unknown_output(origin, path, place, outer, task))
                return

    def _unknown(self, origin: Origin, root: str) -> None:
        known = [*names.RUN_NAMES, *names.TASK_NAMES, *names.SPACES]
        hint = names.REPLACED.get(root)
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


def _listed(words: str, known: Iterable[str] | Mapping[str, object], otherwise: str) -> str | None:
    listed = [f"`{name}`" for name in known]
    if not listed:
        return otherwise or None
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return f"{words} {', '.join(listed[:10])}{more}."

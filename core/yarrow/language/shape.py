"""The declaration algebra: what a value may look like, checked against nodes and data, and written as JSON Schema."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, TypeAlias

from yarrow.language import codes
from yarrow.language.faults import Fault, FaultList
from yarrow.language.nodes import BrokenNode, MappingNode, Node, ScalarNode, SequenceNode, describe

INVALID: Final = object()
"""What `check` returns for a value whose fault is named."""

TEMPLATE_PATTERN: Final = r"\{\{"
FRAGMENT_PATTERN: Final = r"\{\{|\.ya?ml$"
"""What an editor sees in place of a list or mapping: a template, or the path of a `!file`."""

_MANY: Final = 200

Schema: TypeAlias = dict[str, Any]
Problem: TypeAlias = tuple[str, str, str | None]
"""A code, the end of a sentence that begins with the name of the value, and a hint."""


@dataclass(frozen=True, slots=True)
class Site:
    """A text in a file that means more than itself."""

    node: ScalarNode
    kind: Literal["template", "expression", "connection"]


@dataclass(slots=True)
class Findings:
    """What a check found."""

    faults: FaultList = field(default_factory=FaultList)
    sites: list[Site] = field(default_factory=list)


class Shape(ABC):
    """What a value may look like."""

    __slots__ = ("template",)

    words: ClassVar[str]
    """What it is, such as "a whole number"."""

    def __init__(self, template: bool = False) -> None:
        self.template = template  # a text with `{{ }}` may stand in its place, or in it

    def check(self, node: Node, found: Findings, name: str = "The value") -> Any:
        """Returns the value of a node, or INVALID after adding the faults. `name` begins their sentences."""
        if isinstance(node, BrokenNode):
            return INVALID
        if isinstance(node, ScalarNode) and isinstance(node.value, str):
            braces = "{{" in node.value
            if self.template and (braces or "{%" in node.value):  # a statement is told of together with the templates
                found.sites.append(Site(node, "template"))
                if braces:
                    return node.value
            elif braces and not self.takes_braces():
                message = f"{name} is needed before the task runs, so it can't be a template."
                found.faults.append(node.fault(codes.NO_TEMPLATE_HERE, message))
                return INVALID
        return self.check_node(node, found, name)

    def check_value(self, value: Any, name: str = "the value") -> list[str]:
        """Returns what is wrong with a value of plain data, a sentence for each problem; templates are rendered."""
        problem = self.problem(value)
        return [] if problem is None else [f"{name} {problem[1]}"]

    def takes_braces(self) -> bool:
        """Whether `{{` is ordinary text here."""
        return False

    def expects(self) -> str:
        """What it is, for messages."""
        return self.words

    def check_node(self, node: Node, found: Findings, name: str) -> Any:
        """`check` without what is common to all shapes. This one is for scalars."""
        value: Any = node.value if isinstance(node, ScalarNode) else ([] if isinstance(node, SequenceNode) else {})
        problem = self.problem(value)
        if problem is None:
            return self.convert(value)
        code, sentence, hint = problem
        found.faults.append(node.fault(code, f"{name} {sentence}", hint))
        return INVALID

    def problem(self, value: Any) -> Problem | None:
        """What is wrong with a value as a whole."""
        return None

    def convert(self, value: Any) -> Any:
        """The value as the rest of Yarrow gets it."""
        return value

    def field(self, name: str) -> Shape | None:
        """The shape of a field within, or None when nothing is known of it. Raises KeyError when there is none."""
        raise KeyError(name)

    @abstractmethod
    def json_schema(self) -> Schema:
        """The shape as JSON Schema 2020-12."""

    def wrong_type(self, value: Any) -> Problem:
        return codes.WRONG_TYPE, f"must be {self.expects()}, not {describe(value)}.", self.type_hint(value)

    def type_hint(self, value: Any) -> str | None:
        return None

    def or_template(self, schema: Schema, pattern: str = TEMPLATE_PATTERN) -> Schema:
        if not self.template:
            return schema
        return {"anyOf": [schema, {"type": "string", "pattern": pattern}]}


def unknown_key(node: MappingNode, key: str, known: Iterable[str], hint: str | None = None) -> Fault:
    """The fault of a key that does not exist here."""
    names = list(known)
    if hint is None:
        hint = did_you_mean(key, names) or (f"There are: {', '.join(sorted(names))}." if len(names) <= 12 else None)
    return node.keys[key].fault(codes.UNKNOWN_KEY, f"Unknown key `{key}`.", hint)


def did_you_mean(given: object, known: Iterable[str]) -> str | None:
    """ "Did you mean `retries`?", when something is near enough."""
    if not isinstance(given, str):
        return None
    names = list(known)
    if len(names) > _MANY:  # comparing with all of them would take long
        names = [name for name in names if name[:1] == given[:1] and abs(len(name) - len(given)) <= 2][:_MANY]
    near = difflib.get_close_matches(given[:100], names, n=1, cutoff=0.6)
    if not near:  # another case, or `-` and `_` mixed up
        folded = {name.lower().replace("_", "-"): name for name in names}
        near = difflib.get_close_matches(given[:100].lower().replace("_", "-"), list(folded), n=1, cutoff=0.6)
        near = [folded[name] for name in near]
    return f"Did you mean `{near[0]}`?" if near else None


def check_keys_are_plain(node: MappingNode, found: Findings) -> None:
    """Keys are never rendered: a template in one would be a surprise."""
    for key, place in node.keys.items():
        if "{{" in key:
            message = f"The key `{key}` can't be a template: only values are rendered."
            found.faults.append(place.fault(codes.NO_TEMPLATE_HERE, message))


def is_connection_id(name: str) -> bool:
    """Whether a parameter of that name holds the id of a connection, which the task is then given."""
    return name == "conn_id" or name.endswith("_conn_id")


def note_connection(name: str, node: Node, found: Findings) -> None:
    """Notes the connection that a parameter names. It must be known before the task runs, to be handed out at all."""
    if not is_connection_id(name) or not isinstance(node, ScalarNode) or not isinstance(node.value, str):
        return
    if "{{" in node.value:
        message = f"`{name}` must be the plain id of a connection: a task is only given those that its file names."
        found.faults.append(node.fault(codes.NO_TEMPLATE_HERE, message))
    else:
        found.sites.append(Site(node, "connection"))

"""The tree of a YAML text: scalars, sequences and mappings, each with its place."""

from __future__ import annotations

from collections.abc import Mapping

from yarrow.jsontypes import Json
from yarrow.language.faults import Fault, Severity
from yarrow.language.source import Source


class Node:
    """One value of a file. Lines and columns count from 1."""

    __slots__ = ("column", "height", "line", "size", "source", "weight")

    def __init__(self, source: Source, line: int, column: int) -> None:
        self.source = source
        self.line = line
        self.column = column
        self.size = 1  # nodes in this subtree, aliases expanded
        self.height = 1  # levels in this subtree
        self.weight = 0  # characters of text in this subtree

    def fault(self, code: str, message: str, hint: str | None = None, severity: Severity = "error") -> Fault:
        return self.source.fault((self.line, self.column), code, message, hint, severity)


class ScalarNode(Node):
    """A text, number, truth value or null. `style` is YAML's, or `file` for the text of a `!file`."""

    __slots__ = ("style", "value")

    def __init__(
        self, source: Source, line: int, column: int, value: bool | int | float | str | None, style: str
    ) -> None:
        super().__init__(source, line, column)
        self.value = value
        self.style = style
        self.weight = len(value) if isinstance(value, str) else 8

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of the character at `offset` of the text, as nearly as they can be told."""
        text = str(self.value)
        row = text.count("\n", 0, offset)
        column = offset - (text.rfind("\n", 0, offset) + 1)
        if self.style == "file":
            return row + 1, column + 1
        if self.style == "|":
            content = text.split("\n")[row]
            start = self.source.line(self.line + 1 + row).find(content) if content else -1
            return (self.line + 1 + row, start + column + 1) if start >= 0 else (self.line, self.column)
        start = self.column - 1 + (1 if self.style in ("'", '"') else 0)
        if self.style in ("", "'", '"') and self.source.line(self.line).startswith(text[:offset], start):
            return self.line, start + offset + 1
        return self.line, self.column

    def fault_at(self, offset: int, code: str, message: str, hint: str | None = None) -> Fault:
        return self.source.fault(self.place(offset), code, message, hint)


class SequenceNode(Node):
    """A list."""

    __slots__ = ("items",)

    def __init__(self, source: Source, line: int, column: int) -> None:
        super().__init__(source, line, column)
        self.items: list[Node] = []


class MappingNode(Node):
    """A mapping. Keys are texts, exactly as they were written."""

    __slots__ = ("entries", "flow", "keys")

    def __init__(self, source: Source, line: int, column: int, flow: bool) -> None:
        super().__init__(source, line, column)
        self.flow = flow
        self.entries: dict[str, Node] = {}
        self.keys: dict[str, ScalarNode] = {}


class BrokenNode(Node):
    """Stands where a value was wrong and its fault is already named: nothing more is said about it."""

    __slots__ = ()


def describe(value: object) -> str:
    """What a node or a plain value is, in words: "the number 5", "text `abc`", "a list"."""
    if isinstance(value, ScalarNode):
        value = value.value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        line = " ".join(value.split())
        return f"the text `{line if len(line) <= 40 else line[:39] + '…'}`" if line else "an empty text"
    return "a mapping" if isinstance(value, MappingNode | Mapping) else "a list"


def data(node: Node) -> Json:
    """The plain data of a node; broken values are null."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, SequenceNode):
        return [data(item) for item in node.items]
    if isinstance(node, MappingNode):
        return {key: data(value) for key, value in node.entries.items()}
    return None

"""Reads YAML text into a tree of nodes with places: within limits, with YAML 1.2's types, and every fault named.

The tree is built from libyaml's event stream, without recursion. Depth, number and size are counted as the events come
in and as aliases are used, so nothing is ever composed that is beyond the limits (libyaml's own composer overflows the
C stack on deep nesting, and PyYAML hangs on some merge keys of 500 bytes).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import yaml
from yaml import events

from yarrow.language import codes
from yarrow.language.faults import Fault
from yarrow.language.mistakes import explain, unquoted_template
from yarrow.language.nodes import BrokenNode, MappingNode, Node, ScalarNode, SequenceNode, describe
from yarrow.language.source import Source

try:
    from yaml._yaml import CParser as _Parser
except ImportError:  # a PyYAML built without libyaml: slower, with the same events
    from yaml import SafeLoader as _Parser  # type: ignore[assignment] # both have get_event

MAX_DEPTH: Final = 50
MAX_NODES: Final = 10_000
MAX_TEXT: Final = 4 * 1024 * 1024
"""Characters of all text together, counted again for each use of an alias or `!file`."""

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: Final[Mapping[str, bool | None]] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOT_ALLOWED = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NUMBER_START = frozenset("0123456789+-.")

Include: TypeAlias = Callable[[ScalarNode, list[Fault]], Node]
"""Follows one `!file`, of which it gets the path as a node."""


def read(source: Source, faults: list[Fault], include: Include | None = None) -> Node | None:
    """Returns the tree of a YAML text of one document, or None when it can't be read at all.

    Args:
        source: The text.
        faults: Every fault found is added here.
        include: Follows `!file`; without it the tag is a fault.
    """
    builder = _Builder(source, faults, include)
    try:
        return builder.build()
    except _Stop as stop:
        faults.append(stop.fault)
    except yaml.MarkedYAMLError as error:
        faults.append(explain(source, error))
    except yaml.YAMLError as error:
        faults.append(source.fault((1, 1), codes.SYNTAX, f"The file is not YAML: {error}."))
    return None


def resolve(text: str) -> bool | int | float | str | None:
    """The value of a plain (unquoted) scalar by YAML 1.2's core schema, decimal numbers only.

    `yes`, `on`, `22:22`, `010`, `0x1F`, `1_000`, `2024-01-01` and `.inf` stay the text that was written.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return text
    if _INTEGER.fullmatch(text):
        # Beyond 64 bits no database and no other program would keep it exactly.
        return int(text) if len(text) < 21 and abs(int(text)) < 2**63 else text
    if _FLOAT.fullmatch(text):
        number = float(text)
        return text if number in (float("inf"), float("-inf")) else number
    return text


class _Stop(Exception):
    def __init__(self, fault: Fault) -> None:
        self.fault = fault


class _Frame:
    """A container that is still open."""

    __slots__ = ("anchor", "broken", "key", "node", "template")

    def __init__(self, node: SequenceNode | MappingNode, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: Node | None = None  # of a mapping: the key whose value comes next
        self.broken = False  # its tag has a fault, so what it is can't be told
        self.template = False  # it is not a mapping but an unquoted `{{ template }}`


class _Builder:
    """Builds the tree of one text."""

    def __init__(self, source: Source, faults: list[Fault], include: Include | None) -> None:
        self.source = source
        self.faults = faults
        self.include = include
        self.root: Node | None = None
        self.nodes = 0
        self.weight = 0
        self._open: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}  # None while the anchored value is still open

    def build(self) -> Node | None:
        if (bad := _NOT_ALLOWED.search(self.source.text)) is not None:
            raise _Stop(_bad_character(self.source, bad))
        parser = _Parser(self.source.text)
        documents = 0
        while (event := parser.get_event()) is not None:
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)
            elif type(event) is events.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise self._stop(
                        event, codes.DOCUMENTS, "A second YAML document starts here.", "One file, one DAG."
                    )
        return self.root

    def scalar(self, event: Any) -> None:
        mark, text = event.start_mark, event.value
        is_key = self._is_key()
        plain = event.implicit[0] and not is_key
        node = ScalarNode(
            self.source, mark.line + 1, mark.column + 1, resolve(text) if plain else text, event.style or ""
        )
        value: Node = node
        if event.tag is not None:
            value = self._tagged(node, event.tag, is_key)
        self._count(value)
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        self._attach(value)

    def start(self, event: Any) -> None:
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        node: SequenceNode | MappingNode
        if type(event) is events.MappingStartEvent:
            node = MappingNode(self.source, line, column, bool(event.flow_style))
        else:
            node = SequenceNode(self.source, line, column)
        frame = _Frame(node, event.anchor)
        if event.tag is not None:
            self._unknown_tag(node, event.tag)
            frame.broken = True
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._count(node)
        self._open.append(frame)

    def end(self, _event: Any) -> None:
        frame = self._open.pop()
        node: Node = frame.node
        if frame.template:
            self.faults.append(unquoted_template(self.source, node.line, node.column))
        if frame.template or frame.broken:
            node = BrokenNode(self.source, node.line, node.column)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = node
        self._attach(node)

    def alias(self, event: Any) -> None:
        name = event.anchor
        if name not in self._anchors:
            raise self._stop(
                event,
                codes.ALIAS,
                f"`*{name}` is an alias in YAML, and there is no anchor `&{name}` before it.",
                f'Quote it if it is text: "*{name}".',
            )
        node = self._anchors[name]
        if node is None:
            raise self._stop(event, codes.ALIAS, f"`*{name}` stands inside the very value that it names.")
        if self._is_key():
            raise self._stop(event, codes.BAD_KEY, f"A key can't be an alias, as `*{name}` is.", "Write the key out.")
        self._count(node, event)
        self._attach(node)

    def _tagged(self, node: ScalarNode, tag: str, is_key: bool) -> Node:
        if tag != "!file" or is_key:
            self._unknown_tag(node, tag)
        elif self.include is None:
            self.faults.append(node.fault(codes.FILE_REFERENCE, "`!file` needs a DAG folder, and this text has none."))
        else:
            return self.include(node, self.faults)
        return BrokenNode(self.source, node.line, node.column)

    def _unknown_tag(self, node: Node, tag: str) -> None:
        shown = tag.replace("tag:yaml.org,2002:", "!!")
        hint = "The only tag is `!file`, before the path of a file. Quote what is meant as text."
        self.faults.append(node.fault(codes.TAG, f"The tag `{shown}` can't be used here.", hint))

    def _is_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].node, MappingNode) and self._open[-1].key is None

    def _attach(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        frame = self._open[-1]
        parent = frame.node
        if isinstance(parent, SequenceNode):
            parent.items.append(node)
        elif frame.key is None:
            frame.key = node
            self._check_key(frame, parent, node)
        else:
            key, frame.key = frame.key, None
            if isinstance(key, ScalarNode):
                self._entry(parent, key, node)
        parent.size += node.size
        parent.weight += node.weight
        if node.height >= parent.height:
            parent.height = node.height + 1

    def _check_key(self, frame: _Frame, parent: MappingNode, key: Node) -> None:
        """Names what is wrong with a key that is not text; its value is then passed over."""
        if isinstance(key, ScalarNode):
            if key.value == "" and key.style == "":
                self.faults.append(key.fault(codes.BAD_KEY, "A key is missing before the `:`."))
                frame.key = BrokenNode(self.source, key.line, key.column)
        elif isinstance(key, MappingNode) and key.flow and parent.flow and _is_inside(parent, key):
            frame.template = True
        elif not isinstance(key, BrokenNode):
            self.faults.append(key.fault(codes.BAD_KEY, f"A key is a text, not {describe(key)}."))

    def _entry(self, parent: MappingNode, key: ScalarNode, value: Node) -> None:
        name = str(key.value)
        if name == "<<" and key.style == "":
            self.faults.append(
                key.fault(
                    codes.ALIAS,
                    "YAML's merge key `<<` is not part of the DAG language.",
                    "Use `default_args` of the DAG or of a group; a whole value can be repeated with `&name`, `*name`.",
                )
            )
        elif name in parent.keys:
            first = parent.keys[name].line
            self.faults.append(
                key.fault(codes.DUPLICATE_KEY, f"The key `{name}` is given twice: first on line {first}.")
            )
        else:
            parent.keys[name] = key
            parent.entries[name] = value

    def _count(self, node: Node, event: Any = None) -> None:
        """Counts a value that begins, or one that is used again, with all that is in it."""
        self.nodes += node.size
        self.weight += node.weight
        place = (event.start_mark.line + 1, event.start_mark.column + 1) if event else (node.line, node.column)
        if len(self._open) + node.height > MAX_DEPTH:
            raise _Stop(
                self.source.fault(place, codes.TOO_DEEP, f"The values are nested more than {MAX_DEPTH} levels deep.")
            )
        if self.nodes > MAX_NODES:
            message = f"The file has more than {MAX_NODES:,} values, each use of an alias counted."
            hint = "Split it, or move long data into a file that the task reads."
            raise _Stop(self.source.fault(place, codes.TOO_MANY_NODES, message, hint))
        if self.weight > MAX_TEXT:
            message = f"The file has more than {MAX_TEXT:,} characters, each use of an alias or `!file` counted."
            raise _Stop(self.source.fault(place, codes.TOO_LARGE, message))

    def _stop(self, event: Any, code: str, message: str, hint: str | None = None) -> _Stop:
        mark = event.start_mark
        return _Stop(self.source.fault((mark.line + 1, mark.column + 1), code, message, hint))


_HANDLERS: Final[Mapping[type[Any], Callable[[_Builder, Any], None]]] = {
    events.ScalarEvent: _Builder.scalar,
    events.MappingStartEvent: _Builder.start,
    events.SequenceStartEvent: _Builder.start,
    events.MappingEndEvent: _Builder.end,
    events.SequenceEndEvent: _Builder.end,
    events.AliasEvent: _Builder.alias,
}


def _is_inside(outer: Node, inner: Node) -> bool:
    return inner.line == outer.line and inner.column == outer.column + 1


def _bad_character(source: Source, match: re.Match[str]) -> Fault:
    before = source.text[: match.start()]
    place = (before.count("\n") + 1, match.start() - before.rfind("\n"))
    return source.fault(
        place, codes.NOT_TEXT, f"The character U+{ord(match.group()):04X} is not allowed in a DAG file."
    )

"""Compiles one expression of a template: Jinja's syntax tree, node by node, into closures over plain data.

What is not in the tables below does not exist in the language. A dotted path is nothing but look-ups in mappings and
lists, so no attribute and no method of any Python object can be reached.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from jinja2 import nodes

from yarrow.language import codes
from yarrow.language.filters import FILTER_ARITY, FILTERS, MACRO_ARITY, MACROS
from yarrow.language.operations import Path, find_xcom, holds, listed, plus, step, walk
from yarrow.language.values import (
    MissingPath,
    TemplateFault,
    ValueFault,
    bounded,
    bounded_number,
    kind,
    number,
    to_text,
)

Evaluate: TypeAlias = Callable[[Mapping[str, Any]], Any]

MAX_DEPTH: Final = 60
"""How deeply the parts of an expression may be nested."""

_ARITHMETIC: Final[Mapping[type[nodes.BinExpr], tuple[str, Callable[[Any, Any], Any]]]] = {
    nodes.Sub: ("-", operator.sub),
    nodes.Mul: ("*", operator.mul),
    nodes.Div: ("/", operator.truediv),
    nodes.FloorDiv: ("//", operator.floordiv),
    nodes.Mod: ("%", operator.mod),
}
_ADVICE: Final[Mapping[type[nodes.Node], str]] = {
    nodes.Test: "Instead of `is`, compare: `x == none`; for what may be missing there is the filter `default`.",
    nodes.Pow: "`**` is not available.",
    nodes.Tuple: "Write a list: `[a, b]`.",
}


@dataclass(frozen=True, slots=True)
class Reference:
    """One path in a template, and where it is."""

    path: Path
    offset: int
    optional: bool = False  # it may be missing: `default` stands in for it, or it is reached on a condition only


class Compiler:
    """Compiles the expressions of one text and notes every path that they refer to."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.references: list[Reference] = []
        self._depth = 0
        self._optional = 0  # how many parts around this one do without it
        self._cursor = 0
        self._backward = 50  # searches from the start: enough for people, and never long

    def compile(self, node: nodes.Node) -> Evaluate:
        """Returns a function of the context.

        Raises:
            TemplateFault: The expression uses something that the language does not have.
        """
        compiler = _COMPILERS.get(type(node))
        if compiler is None:
            raise self._refuse(node)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TemplateFault(codes.TEMPLATE_SYNTAX, "The expression is nested too deeply.", offset=self._line(node))
        evaluate = compiler(self, node)
        self._depth -= 1
        return evaluate

    def _compile_optional(self, node: nodes.Node) -> Evaluate:
        """`compile` of a part that need not be there."""
        self._optional += 1
        evaluate = self.compile(node)
        self._optional -= 1
        return evaluate

    # Paths and literals.

    def _path(self, node: nodes.Node) -> Evaluate:
        path = literal_path(node)
        if path is None:
            assert isinstance(node, nodes.Getitem | nodes.Getattr)
            return self._item(node)
        for part in path:
            self._check_name(part)
        self.references.append(Reference(path, self._place(path), self._optional > 0))
        if path[0] == "xcom" and len(path) > 1:
            return lambda context: walk(*find_xcom(context, path), path)
        return lambda context: walk(context, 0, path)

    def _check_name(self, name: str) -> None:
        """Such a look-up would find nothing; whoever writes it is told so at once."""
        if name.startswith("__"):
            message = f"`{name}`: names with two underscores are not available."
            raise TemplateFault(codes.TEMPLATE_SYNTAX, message, offset=max(self.text.find(name), 0))

    def _item(self, node: nodes.Getitem | nodes.Getattr) -> Evaluate:
        """`(expression).field`, `path[expression]` and slices."""
        base = self.compile(node.node)
        if isinstance(node, nodes.Getattr):
            name = node.attr
            self._check_name(name)
            return lambda context: step(base(context), name, "the value")
        if isinstance(node.arg, nodes.Slice):
            return self._slice(base, node.arg)
        root = node.node
        while isinstance(root, nodes.Getattr | nodes.Getitem):
            root = root.node
        if (
            isinstance(root, nodes.Name)
            and isinstance(node.node, nodes.Name)
            and root.name in ("xcom", "var", "conn", "params")
        ):
            raise TemplateFault(
                codes.TEMPLATE_SYNTAX,
                f"`{root.name}[...]` needs a name in quotes, so that it is known before the task runs.",
                offset=self.find(root.name),
                hint=f"Write `{root.name}.name` or `{root.name}['name']`.",
            )
        index = self.compile(node.arg)
        return lambda context: step(base(context), index(context), "the value")

    def _slice(self, base: Evaluate, node: nodes.Slice) -> Evaluate:
        if node.step is not None:
            raise TemplateFault(
                codes.TEMPLATE_SYNTAX, "A slice has a start and an end, no step.", offset=self._line(node)
            )
        start = self.compile(node.start) if node.start is not None else None
        stop = self.compile(node.stop) if node.stop is not None else None

        def evaluate(context: Mapping[str, Any]) -> Any:
            value = base(context)
            if not isinstance(value, str | list | tuple):
                raise ValueFault(f"A slice needs text or a list, not {kind(value)}.")
            bounds = [None if bound is None else bound(context) for bound in (start, stop)]
            if any(isinstance(bound, bool) or not isinstance(bound, int | None) for bound in bounds):
                raise ValueFault("The bounds of a slice are whole numbers.")
            return value[bounds[0] : bounds[1]]

        return evaluate

    def _constant(self, node: nodes.Const) -> Evaluate:
        value = node.value
        if isinstance(value, int | float) and not isinstance(value, bool):
            bounded_number(value)
        elif not isinstance(value, str | bool | None):
            raise self._refuse(node)
        return lambda _context: value

    def _list(self, node: nodes.List) -> Evaluate:
        items = [self.compile(item) for item in node.items]
        return lambda context: bounded([item(context) for item in items])

    def _mapping(self, node: nodes.Dict) -> Evaluate:
        pairs: list[tuple[str, Evaluate]] = []
        for pair in node.items:
            if not (isinstance(pair.key, nodes.Const) and isinstance(pair.key.value, str)):
                raise TemplateFault(
                    codes.TEMPLATE_SYNTAX, "The key of a mapping is a text in quotes.", offset=self._line(node)
                )
            pairs.append((pair.key.value, self.compile(pair.value)))
        return lambda context: bounded({key: value(context) for key, value in pairs})

    # Operators.

    def _compare(self, node: nodes.Compare) -> Evaluate:
        first = self.compile(node.expr)
        rest = [(operand.op, self.compile(operand.expr)) for operand in node.ops]

        def evaluate(context: Mapping[str, Any]) -> bool:
            left = first(context)
            for symbol, operand in rest:
                right = operand(context)
                if not holds(symbol, left, right):
                    return False
                left = right
            return True

        return evaluate

    def _and(self, node: nodes.And) -> Evaluate:
        left, right = self.compile(node.left), self._compile_optional(node.right)
        return lambda context: left(context) and right(context)

    def _or(self, node: nodes.Or) -> Evaluate:
        left, right = self.compile(node.left), self._compile_optional(node.right)
        return lambda context: left(context) or right(context)

    def _not(self, node: nodes.Not) -> Evaluate:
        value = self.compile(node.node)
        return lambda context: not value(context)

    def _sign(self, node: nodes.UnaryExpr) -> Evaluate:
        value = self.compile(node.node)
        if isinstance(node, nodes.Pos):
            return lambda context: number(value(context), "`+`")
        return lambda context: -number(value(context), "`-`")

    def _add(self, node: nodes.Add) -> Evaluate:
        left, right = self.compile(node.left), self.compile(node.right)
        return lambda context: plus(left(context), right(context))

    def _arithmetic(self, node: nodes.BinExpr) -> Evaluate:
        symbol, apply = _ARITHMETIC[type(node)]
        left, right = self.compile(node.left), self.compile(node.right)
        what = f"`{symbol}`"

        def evaluate(context: Mapping[str, Any]) -> Any:
            one, two = number(left(context), what), number(right(context), what)
            if two == 0 and symbol in ("/", "//", "%"):
                raise ValueFault(f"`{symbol}`: division by zero.")
            return bounded_number(apply(one, two))

        return evaluate

    def _concatenate(self, node: nodes.Concat) -> Evaluate:
        parts = [self.compile(part) for part in node.nodes]
        return lambda context: _join(parts, context)

    def _choice(self, node: nodes.CondExpr) -> Evaluate:
        if node.expr2 is None:
            raise TemplateFault(
                codes.TEMPLATE_SYNTAX,
                "`a if b` needs an `else`.",
                offset=self._line(node),
                hint="Write `a if b else c`.",
            )
        test = self.compile(node.test)
        yes, no = self._compile_optional(node.expr1), self._compile_optional(node.expr2)
        return lambda context: yes(context) if test(context) else no(context)

    # Filters and macros.

    def _filter(self, node: nodes.Filter) -> Evaluate:
        name = node.name
        if name not in FILTERS:
            raise TemplateFault(
                codes.UNKNOWN_FILTER,
                f"There is no filter `{name}`.",
                offset=self.find(name),
                hint=_nearest(name, FILTERS, "Filters are"),
            )
        if node.node is None:
            raise self._refuse(node)
        value = self._compile_optional(node.node) if name == "default" else self.compile(node.node)
        arguments = self._arguments(node, f"The filter `{name}`", FILTER_ARITY[name])
        function = FILTERS[name]
        if name == "default":
            return lambda context: function(
                _or_missing(value, arguments, context), *[item(context) for item in arguments]
            )
        return lambda context: function(value(context), *[item(context) for item in arguments])

    def _call(self, node: nodes.Call) -> Evaluate:
        path = literal_path(node.node)
        if path is None or path[0] != "macros" or len(path) != 2:
            called = ".".join(path) if path else "a value"
            raise TemplateFault(
                codes.UNKNOWN_MACRO,
                f"`{called}(...)`: only macros can be called.",
                offset=self.find(path[0]) if path else self._line(node),
                hint=_CALLS.get(path[-1] if path else "")
                or f"Macros are {listed(f'macros.{name}' for name in MACROS)}.",
            )
        name = path[1]
        if name not in MACROS:
            raise TemplateFault(
                codes.UNKNOWN_MACRO,
                f"There is no macro `macros.{name}`.",
                offset=self.find(f"macros.{name}"),
                hint=_nearest(name, MACROS, "Macros are"),
            )
        arguments = self._arguments(node, f"`macros.{name}`", MACRO_ARITY[name])
        function = MACROS[name]
        return lambda context: function(*[item(context) for item in arguments])

    def _arguments(self, node: nodes.Filter | nodes.Call, what: str, arity: tuple[int, int]) -> list[Evaluate]:
        if node.kwargs or node.dyn_args or node.dyn_kwargs:
            raise TemplateFault(
                codes.TEMPLATE_SYNTAX, f"{what} takes its arguments by position.", offset=self._line(node)
            )
        least, most = arity
        if not least <= len(node.args) <= most:
            expected = str(least) if least == most else f"{least} to {most}"
            raise TemplateFault(
                codes.TEMPLATE_SYNTAX,
                f"{what} takes {expected} argument{'' if expected == '1' else 's'}, not {len(node.args)}.",
                offset=self._line(node),
            )
        return [self.compile(item) for item in node.args]

    # Places.

    def find(self, what: str) -> int:
        """Where a word stands in the text. Words come mostly in their order, so the search goes on from the last."""
        pattern = re.compile(rf"(?<![\w.]){re.escape(what)}(?!\w)")
        match = pattern.search(self.text, self._cursor)
        if match is None and self._backward > 0:
            self._backward -= 1
            match = pattern.search(self.text)
        if match is None:
            return self._cursor
        self._cursor = match.end()
        return match.start()

    def _place(self, path: Path) -> int:
        dotted = ".".join(path)
        return self.find(dotted) if self.text.find(dotted, self._cursor) >= 0 else self.find(path[0])

    def _line(self, node: nodes.Node) -> int:
        """The start of the first `{{` of the node's line: Jinja knows no columns."""
        start = 0
        for _ in range(node.lineno - 1):
            start = self.text.find("\n", start) + 1
        return max(self.text.find("{{", start), start)

    def _refuse(self, node: nodes.Node) -> TemplateFault:
        name = type(node).__name__
        return TemplateFault(
            codes.TEMPLATE_SYNTAX,
            f"The template language has no {_WORDS.get(type(node), name)}.",
            offset=self._line(node),
            hint=_ADVICE.get(type(node)),
        )


_WORDS: Final[Mapping[type[nodes.Node], str]] = {nodes.Test: "`is`", nodes.Pow: "`**`", nodes.Tuple: "tuples"}
_CALLS: Final[Mapping[str, str]] = {
    "xcom_pull": "Write `xcom.task_id.field`.",
    "get": "Write `path.key | default(...)`.",
    "items": "A mapping can be passed on as it is.",
    "strftime": "Use the filters `ds`, `ds_nodash`, `ts`, `ts_nodash`, or `macros.ds_format`.",
    "isoformat": "Use the filter `ts`.",
    "format": "Use `~` to put texts together.",
}
_COMPILERS: Final[Mapping[type[nodes.Node], Callable[[Compiler, Any], Evaluate]]] = {
    nodes.Name: Compiler._path,
    nodes.Getattr: Compiler._path,
    nodes.Getitem: Compiler._path,
    nodes.Const: Compiler._constant,
    nodes.List: Compiler._list,
    nodes.Dict: Compiler._mapping,
    nodes.Compare: Compiler._compare,
    nodes.And: Compiler._and,
    nodes.Or: Compiler._or,
    nodes.Not: Compiler._not,
    nodes.Neg: Compiler._sign,
    nodes.Pos: Compiler._sign,
    nodes.Add: Compiler._add,
    **dict.fromkeys(_ARITHMETIC, Compiler._arithmetic),
    nodes.Concat: Compiler._concatenate,
    nodes.CondExpr: Compiler._choice,
    nodes.Filter: Compiler._filter,
    nodes.Call: Compiler._call,
}


def literal_path(node: nodes.Node) -> Path | None:
    """The path of `a.b['c'][0]`; None when a part of it is computed."""
    parts: list[str] = []
    while not isinstance(node, nodes.Name):
        if isinstance(node, nodes.Getattr):
            parts.append(node.attr)
        elif (
            isinstance(node, nodes.Getitem)
            and isinstance(node.arg, nodes.Const)
            and isinstance(node.arg.value, str | int)
            and not isinstance(node.arg.value, bool)
        ):
            parts.append(str(node.arg.value))
        else:
            return None
        node = node.node
    parts.append(node.name)
    return tuple(reversed(parts))


def _nearest(name: str, known: Any, otherwise: str) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean `{near[0]}`?" if near else f"{otherwise} {listed(sorted(known))}."


def _join(parts: list[Evaluate], context: Mapping[str, Any]) -> Any:
    result = ""
    for part in parts:
        result = bounded(result + to_text(part(context)))
    return result


def _or_missing(value: Evaluate, arguments: list[Evaluate], context: Mapping[str, Any]) -> Any:
    """What `default` is applied to: the value, or the default itself when a path in it does not exist."""
    try:
        return value(context)
    except MissingPath:
        return arguments[0](context) if arguments else ""

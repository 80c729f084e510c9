"""Says of an expression that it gives one text, number or truth value, whatever its data are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Final

from jinja2 import nodes

from yarrow.language.filters import FILTERS

_FILTERED: Final[Mapping[str, str]] = {"str": "a text", "int": "a number"}
"""What the function of a filter says that it returns -> that in words."""


def single_value(node: nodes.Node) -> str | None:
    """What an expression gives, in words, if that is never a list or a mapping; None: it may be one."""
    if isinstance(node, nodes.Const):
        return _constant(node.value)
    if isinstance(node, nodes.Compare | nodes.Not):
        return "true or false"
    if isinstance(node, nodes.Concat):
        return "a text"
    if isinstance(node, nodes.Add):
        return single_value(node.left) or single_value(node.right)
    if isinstance(node, nodes.BinExpr) and not isinstance(node, nodes.And | nodes.Or):
        return "a number"
    if isinstance(node, nodes.UnaryExpr):
        return "a number"
    if isinstance(node, nodes.Filter):
        returned = inspect.signature(FILTERS[node.name]).return_annotation
        return _FILTERED.get(returned)
    if isinstance(node, nodes.Call):
        return "a text"  # of a macro: there are no other functions
    return None


def _constant(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return "a text" if isinstance(value, str) else "a number"

"""Turns the annotations of an operator's class into shapes."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, Required, is_typeddict

from yarrow import jsontypes
from yarrow.language.containers import AnyJson, Field, ListOf, MapOf, Record, TupleOf, Union
from yarrow.language.scalars import Boolean, Duration, Enum, Null, Number, Text
from yarrow.language.shape import Shape
from yarrow.operator import DurationMark

_FALLBACK: Mapping[str, Any] = {
    # `Json` is a recursive alias, written as a string: its names are resolved wherever it is used.
    "Json": Any,
    "JsonObject": dict[str, Any],
    "Mapping": Mapping,
    "Sequence": Sequence,
}
_LISTS = (list, Sequence, set, frozenset)
_MAPPINGS = (dict, Mapping)


def shape_of(annotation: Any, metadata: Mapping[str, Any]) -> Shape:
    """Returns the shape of an annotation, as `hints` gives it.

    Args:
        annotation: str, int, float, bool, None, Any, Json, Literal, Annotated, list, tuple, dict, a TypedDict or a
            union of them.
        metadata: What `param` was told: `template`, `minimum`, `maximum`, `pattern`.

    Raises:
        TypeError: The annotation is not one of these.
    """
    return _shape(annotation, metadata, ())


def hints(owner: type) -> dict[str, Any]:
    """The annotations of a class, its bases included, evaluated.

    Raises:
        NameError: An annotation uses a name that its module only imports for type checkers.
    """
    found: dict[str, Any] = {}
    for base in reversed(owner.__mro__):
        if base is object or "__annotations__" not in vars(base):
            continue
        module = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        own = {name: value for name, value in vars(base).items() if not name.startswith("__")}
        local = {name: value for name, value in _FALLBACK.items() if name not in module} | own
        local |= {name: Any for name, value in module.items() if value is jsontypes.Json}
        local |= {name: dict[str, Any] for name, value in module.items() if value is jsontypes.JsonObject}
        alone = type(base.__name__, (), {"__annotations__": vars(base)["__annotations__"]})
        found |= typing.get_type_hints(alone, globalns=module, localns=local, include_extras=True)
    return found


def _shape(annotation: Any, metadata: Mapping[str, Any], within: tuple[type, ...]) -> Shape:
    template = bool(metadata.get("template", True))
    scalar = _scalar(annotation, metadata, template)
    if scalar is not None:
        return scalar
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is Annotated:
        return _annotated(arguments, metadata, within)
    if origin in (NotRequired, Required):
        return _shape(arguments[0], metadata, within)
    if origin is Literal:
        return Enum(arguments, template=template)
    if origin in (types.UnionType, typing.Union):
        return Union([_shape(item, metadata, within) for item in arguments], template=template)
    if is_typeddict(annotation):
        return _record(annotation, metadata, within)
    if annotation in _LISTS or origin in _LISTS:
        return ListOf(_shape(arguments[0] if arguments else Any, metadata, within), template=template)
    if annotation in _MAPPINGS or origin in _MAPPINGS:
        if arguments and arguments[0] is not str:
            raise TypeError(f"the keys of {annotation} must be str")
        return MapOf(_shape(arguments[1] if arguments else Any, metadata, within), template=template)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return ListOf(_shape(arguments[0], metadata, within), template=template)
        return TupleOf([_shape(item, metadata, within) for item in arguments], template=template)
    raise TypeError(f"{annotation!r} can't be declared in a DAG file")


def _scalar(annotation: Any, metadata: Mapping[str, Any], template: bool) -> Shape | None:
    if annotation is str:
        return Text(template=template, literal=not template, pattern=metadata.get("pattern"))
    if annotation is int or annotation is float:
        return Number(
            integer=annotation is int,
            minimum=metadata.get("minimum"),
            maximum=metadata.get("maximum"),
            template=template,
        )
    if annotation is bool:
        return Boolean(template)
    if annotation is None or annotation is type(None):
        return Null(template)
    if annotation is Any or annotation is object:
        return AnyJson(template)
    return None


def _annotated(arguments: tuple[Any, ...], metadata: Mapping[str, Any], within: tuple[type, ...]) -> Shape:
    """`Annotated[float, param(doc=..., minimum=0)]` narrows a field of a TypedDict."""
    own = dict(metadata)
    for extra in arguments[1:]:
        if isinstance(extra, DurationMark):
            return Duration(template=bool(metadata.get("template", True)))
        if isinstance(extra, dataclasses.Field):
            own |= {key: value for key, value in extra.metadata.items() if key in ("minimum", "maximum", "pattern")}
    return _shape(arguments[0], own, within)


def _record(annotation: Any, metadata: Mapping[str, Any], within: tuple[type, ...]) -> Shape:
    if annotation in within:
        raise TypeError(f"{annotation.__name__} holds itself, and a recursive type can't be declared")
    fields: dict[str, Field] = {}
    inner = {"template": metadata.get("template", True)}
    for name, hint in hints(annotation).items():
        origin = typing.get_origin(hint)
        required = name in annotation.__required_keys__
        # With postponed annotations the class itself does not see these marks.
        if origin is NotRequired:
            required = False
        elif origin is Required:
            required = True
        shape = _shape(hint, inner, (*within, annotation))
        fields[name] = Field(shape, required=required, doc=_doc(hint))
    return Record(fields, template=bool(inner["template"]))


def _doc(hint: Any) -> str | None:
    while typing.get_origin(hint) in (NotRequired, Required):
        hint = typing.get_args(hint)[0]
    for extra in typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ():
        if isinstance(extra, str):
            return extra
        if isinstance(extra, dataclasses.Field):
            doc: str | None = extra.metadata.get("doc")
            return doc
    return None

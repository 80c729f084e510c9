"""Shapes: annotations, values on the worker, JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

import pytest
from jsonschema import Draft202012Validator

from yarrow import Context, Duration, Operator, param
from yarrow.errors import BrokenOperator, TemplateError
from yarrow.jsontypes import Json, JsonObject
from yarrow.language.annotations import shape_of
from yarrow.language.loader import LoadResult
from yarrow.language.parameters import parameters, render_arguments

Load = Callable[[str], LoadResult]


class Inner(TypedDict):
    """A record."""

    name: Annotated[str, param(doc="Its name.", pattern="[a-z]+")]
    size: NotRequired[Annotated[int, param(doc="Its size.", minimum=1)]]


class Loose(TypedDict, total=False):
    """A record without required keys, but one."""

    must: Required[int]
    may: list[Inner] | None


class Clip(TypedDict):
    """A step."""

    op: Literal["clip"]
    low: float


class Drop(TypedDict):
    """Another step."""

    op: Literal["drop", "remove"]
    columns: list[str]


class Endless(TypedDict):
    """A record that holds itself."""

    inner: Endless | None


class Everything(Operator):
    """Has a parameter of every kind."""

    text: str = param(default="", doc="x")
    number: float = param(default=1, minimum=0, maximum=10, doc="x")
    count: int | None = param(default=None, doc="x")
    flag: bool = param(default=False, doc="x")
    anything: Json = param(default=None, doc="x")
    an_object: JsonObject = param(default={}, doc="x")
    things: list[Json] = param(default=[], doc="x")
    names: dict[str, list[str]] = param(default={}, doc="x")
    mapping: Mapping[str, Any] = param(default={}, doc="x")
    pair: tuple[int, str] = param(default=(1, "a"), doc="x")
    row: tuple[int, ...] = param(default=(), doc="x")
    choice: Literal["a", "b", 3] = param(default="a", doc="x")
    inner: Inner | None = param(default=None, doc="x")
    steps: list[Clip | Drop | str] = param(default=[], doc="x")
    loose: Loose | None = param(default=None, doc="x")
    wait: Duration = param(default="5s", doc="x")
    raw: str = param(default="", template=False, doc="x")
    condition: bool = param(default=False, expression=True, doc="x")
    conn_id: str | None = param(default=None, doc="x")

    def execute(self, context: Context) -> None:
        raise NotImplementedError


GOOD: list[tuple[str, Any]] = [
    ("text", "x"),
    ("number", 2),
    ("number", 2.5),
    ("count", None),
    ("count", 3),
    ("count", 3.0),
    ("flag", True),
    ("anything", {"a": [1, None]}),
    ("an_object", {"a": 1}),
    ("things", [1, "a", {}]),
    ("names", {"a": ["b"]}),
    ("mapping", {"a": None}),
    ("pair", [1, "b"]),
    ("row", [1, 2, 3]),
    ("choice", "b"),
    ("choice", 3),
    ("inner", {"name": "a"}),
    ("inner", {"name": "a", "size": 2}),
    ("loose", {"must": 1}),
    ("steps", [{"op": "clip", "low": 1}, {"op": "remove", "columns": []}, "x"]),
    ("loose", {"must": 1, "may": [{"name": "x"}]}),
    ("wait", "90s"),
    ("raw", "{{ x }}"),
    ("conn_id", "warehouse"),
]
BAD: list[tuple[str, Any, str]] = [
    ("text", 1, "must be text, not the number 1"),
    ("number", "2", "must be a number"),
    ("number", True, "must be a number, not true"),
    ("number", 11, "must be at most 10"),
    ("number", -1, "must be at least 0"),
    ("count", 1.5, "must be a whole number or null"),
    ("flag", "true", "must be true or false"),
    ("an_object", [1], "must be a mapping"),
    ("things", {"a": 1}, "must be a list"),
    ("names", {"a": [1]}, "`names`.a[0] must be text"),
    ("pair", [1], "must be a list of 2 items"),
    ("pair", [1, 2], "`pair`[1] must be text"),
    ("row", ["a"], "must be a whole number"),
    ("choice", "c", "must be one of `a`, `b`, `3`"),
    ("inner", {"size": 1}, "needs the key `name`"),
    ("inner", {"name": "A"}, "must match"),
    ("inner", {"name": "a", "size": 0}, "must be at least 1"),
    ("inner", {"name": "a", "color": 1}, "has no key `color`"),
    ("steps", [{"op": "clip", "lo": 1, "low": 2}], "`steps`[0] has no key `lo`"),
    ("steps", [{"op": "clp", "low": 2}], "`steps`[0].op must be one of `clip`, `drop`, `remove`, not the text `clp`"),
    ("steps", [3], "`steps`[0] must be a mapping or text"),
    ("loose", {}, "needs the key `must`"),
    ("wait", "5", "is not a duration"),
]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_values_that_fit(name: str, value: Any) -> None:
    shape = parameters(Everything).fields[name].shape
    assert shape.check_value(value) == []
    assert list(Draft202012Validator(shape.json_schema()).iter_errors(value)) == []


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_values_that_do_not_fit(name: str, value: Any, message: str) -> None:
    shape = parameters(Everything).fields[name].shape
    problems = shape.check_value(value, f"`{name}`")
    assert len(problems) == 1
    assert message in problems[0]
    assert list(Draft202012Validator(shape.json_schema()).iter_errors(value))


@pytest.mark.parametrize("name", [name for name in parameters(Everything).fields if name not in ("raw", "conn_id")])
def test_a_template_may_stand_for_any_value(name: str) -> None:
    schema = parameters(Everything).fields[name].shape.json_schema()
    assert list(Draft202012Validator(schema).iter_errors("{{ params.x }}")) == []


@pytest.mark.parametrize(
    "annotation", [bytes, complex, dict[int, str], set[bytes], Callable[[], int], object(), Endless]
)
def test_annotations_that_can_not_be_declared(annotation: Any) -> None:
    with pytest.raises(TypeError):
        shape_of(annotation, {})


def test_an_operator_that_can_not_be_understood() -> None:
    class Odd(Operator):
        """Odd."""

        data: bytes = param(doc="x")

        def execute(self, context: Context) -> None:
            raise NotImplementedError

    with pytest.raises(BrokenOperator, match="Odd can't be understood"):
        parameters(Odd)


def test_documentation_of_fields_is_kept() -> None:
    schema = parameters(Everything).fields["inner"].shape.json_schema()
    assert "Its name." in str(schema)


def test_arguments_are_rendered_and_checked() -> None:
    arguments: dict[str, Json] = {
        "count": "{{ params.n }}",
        "text": "n={{ params.n }}",
        "raw": "{{ params.n }}",
        "condition": "params.n > 2",
        "things": ["{{ params.n }}", 1],
    }
    assert render_arguments(Everything, arguments, {"params": {"n": 3}}) == {
        "count": 3,
        "text": "n=3",
        "raw": "{{ params.n }}",
        "condition": True,
        "things": [3, 1],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": "{{ params.gone }}"}, "Parameter `count`: `params.gone` does not exist"),
        ({"count": "{{ params.x }}"}, "`count` must be a whole number or null, not the text `a`"),
        ({"flag": "{{ params.x }}", "text": 3}, "`flag` must be true or false, not the text `a`; `text` must be text"),
        ({"nothing": 1}, "no parameter `nothing`"),
    ],
)
def test_arguments_that_do_not_fit_after_rendering(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TemplateError) as error:
        render_arguments(Everything, arguments, {"params": {"x": "a"}})
    assert message in str(error.value)

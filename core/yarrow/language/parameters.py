"""What an operator declares: its parameters and outputs as shapes, and how a task's arguments are rendered by them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from yarrow.errors import BrokenOperator, TemplateError
from yarrow.jsontypes import Json
from yarrow.language.annotations import hints, shape_of
from yarrow.language.containers import Field
from yarrow.language.shape import Shape, is_connection_id
from yarrow.language.template import compile_expression, render_value
from yarrow.operator import Operator


@dataclass(frozen=True, slots=True)
class Parameter(Field):
    """One parameter of an operator."""

    template: bool = True  # `{{ }}` in it is rendered
    expression: bool = False  # a text is an expression without braces


@dataclass(frozen=True, slots=True)
class Parameters:
    """The declaration of an operator."""

    fields: Mapping[str, Parameter]
    outputs: Shape | None  # of the XCom; None when nothing is known of it
    doc: str  # the class's docstring


@functools.cache
def parameters(operator: type[Operator]) -> Parameters:
    """Returns what an operator declares.

    Raises:
        BrokenOperator: Its annotations can't be understood.
    """
    try:
        annotations = hints(operator)
        fields = {
            item.name: _parameter(item, annotations[item.name]) for item in dataclasses.fields(cast(Any, operator))
        }
        outputs = None if operator.Outputs is None else shape_of(operator.Outputs, {"template": False})
    except (TypeError, NameError, AttributeError, KeyError, SyntaxError) as error:
        where = f"{operator.__module__}.{operator.__qualname__}"
        raise BrokenOperator(f"The parameters of the operator {where} can't be understood: {error}.") from error
    return Parameters(fields, outputs, _docstring(operator))


def render_arguments(
    operator: type[Operator], arguments: Mapping[str, Json], context: Mapping[str, Any]
) -> dict[str, Json]:
    """Renders a task's `with:` for its operator, and checks what came out against the declared types.

    Args:
        operator: The class; parameters that it declares with `template=False` are left as they are.
        arguments: `TaskSpec.arguments`.
        context: `run_names(...)` with `xcom`, `params`, `var`, `conn`, `task_id`, `try_number` and `map_index`.

    Raises:
        TemplateError: A template can't be rendered, or a rendered value does not fit its parameter.
    """
    declared = parameters(operator).fields
    rendered: dict[str, Json] = {}
    problems: list[str] = []
    for name, value in arguments.items():
        parameter = declared.get(name)
        if parameter is None:
            problems.append(f"the operator has no parameter `{name}`")
            continue
        try:
            rendered[name] = _render(parameter, value, context)
        except TemplateError as error:
            raise TemplateError(f"Parameter `{name}`: {error.message}", hint=error.hint) from error
        problems += parameter.shape.check_value(rendered[name], f"`{name}`")
    problems += [f"`{name}` is missing" for name, item in declared.items() if item.required and name not in rendered]
    if problems:
        raise TemplateError(f"The parameters do not fit the operator: {'; '.join(p.rstrip('.') for p in problems)}.")
    return rendered


def _render(parameter: Parameter, value: Json, context: Mapping[str, Any]) -> Json:
    if parameter.expression:
        return compile_expression(value).render(context) if isinstance(value, str) else value
    return render_value(value, context) if parameter.template else value


def _parameter(item: dataclasses.Field[Any], annotation: Any) -> Parameter:
    metadata = dict(item.metadata)
    if is_connection_id(item.name):
        metadata["template"] = False
    has_factory = item.default_factory is not dataclasses.MISSING
    required = item.default is dataclasses.MISSING and not has_factory
    default = None
    if not required:
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
    return Parameter(
        shape=shape_of(annotation, metadata),
        required=required,
        doc=metadata.get("doc"),
        default=default,
        examples=tuple(metadata.get("examples", ())),
        template=bool(metadata.get("template", True)),
        expression=bool(metadata.get("expression", False)),
    )


def _docstring(operator: type[Operator]) -> str:
    # A dataclass without a docstring is given its signature as one.
    doc = operator.__doc__ or ""
    return "" if doc.startswith(f"{operator.__name__}(") else doc

"""Templates: text with `{{ expressions }}` over plain data, parsed by Jinja, checked and evaluated by Yarrow.

Only Jinja's parser is used. Its syntax tree is checked node by node and turned into closures over plain data
(`expression.py`), so a template can't reach an attribute, a method or a module, whatever it says. A text that is
exactly one `{{ expression }}` keeps the type of its value; anything else renders to text. What a template inserts is
data: it is never rendered again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from jinja2 import Environment, TemplateSyntaxError, nodes

from yarrow.errors import TemplateError
from yarrow.jsontypes import Json
from yarrow.language import codes
from yarrow.language.expression import Compiler, Reference, literal_path
from yarrow.language.operations import Path
from yarrow.language.single import single_value
from yarrow.language.values import MAX_TEXT, TemplateFault, ValueFault, plain, to_text

MAX_TEMPLATE: Final = 64 * 1024
"""Characters of one template."""

# Only `{{` is special; `{%` and `{#` are ordinary text (`${#list[@]}` in a shell command): their marks hold a NUL.
_PARSER = Environment(  # noqa: S701 - nothing is rendered by Jinja, and what we render is not HTML
    block_start_string="\0%",
    block_end_string="%\0",
    comment_start_string="\0#",
    comment_end_string="#\0",
    keep_trailing_newline=True,
    cache_size=0,
)
_STATEMENT = re.compile(
    r"\{%[-+]?\s*(?:if|elif|else|endif|for|endfor|set|endset|macro|call|filter|block|raw|include|import|from|do|with)\b"
)


_BRACES = re.compile(r"\{\{[-+]?(.*?)-?\}\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template."""

    text: str
    references: tuple[Reference, ...]
    evaluate: Callable[[Mapping[str, Any]], Any]
    whole: bool = False  # it is one expression and nothing else, whose value keeps its type
    path: Path | None = None  # that expression is this path and nothing else
    single: str | None = None  # what that expression gives, in words, if it is never a list or a mapping

    @property
    def names(self) -> tuple[Path, ...]:
        """What it refers to, such as `("xcom", "ingest", "rows")`: each path once, in the order of the text."""
        return tuple(dict.fromkeys(reference.path for reference in self.references))

    def render(self, context: Mapping[str, Any]) -> Json:
        """Returns the value over a context of plain data.

        Raises:
            TemplateError: A path does not exist, or a value does not fit what is done with it.
        """
        try:
            return plain(self.evaluate(context))
        except TemplateFault as error:
            raise TemplateError(f"{error.message} (in `{shorten(self.text)}`)", hint=error.hint) from None
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise TemplateError(f"`{shorten(self.text)}` can't be rendered: {error}") from error


def without_braces(text: str) -> str:
    """An expression that `compile_expression` takes, without the `{{ }}` or `{{- -}}` that may stand round it."""
    braces = _BRACES.fullmatch(text.strip())
    return braces[1].strip() if braces is not None else text.strip()


def is_template(text: str) -> bool:
    """Whether there is anything to render in a text."""
    return "{{" in text


@lru_cache(maxsize=16384)
def compile_template(text: str) -> Template:
    """Compiles a text with any number of `{{ expressions }}`.

    Raises:
        TemplateFault: It is not within the template language; `offset` is the place in the text.
    """
    _check_size(text)
    _refuse_statements(text)
    if "{{" not in text:
        return Template(text, (), lambda _context: text)
    pieces = _parse(text)
    compiler = Compiler(text)
    if len(pieces) == 1 and not isinstance(pieces[0], nodes.TemplateData):
        return _whole(text, compiler, pieces[0])
    parts = [piece.data if isinstance(piece, nodes.TemplateData) else compiler.compile(piece) for piece in pieces]
    return Template(text, tuple(compiler.references), _joined(parts))


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> Template:
    """Compiles an expression without braces, as `when:` has; one pair of `{{ }}` round all of it is accepted too.

    Raises:
        TemplateFault: It is not an expression of the template language.
    """
    _check_size(text)
    inner = text.strip()
    braces = inner.startswith("{{")
    pieces = _parse(inner, shift=text.index("{{")) if braces else _parse("{{ " + text + " }}", shift=-3)
    if len(pieces) != 1 or isinstance(pieces[0], nodes.TemplateData):
        raise TemplateFault(
            codes.TEMPLATE_SYNTAX,
            f"`{shorten(text)}` is not one expression.",
            hint="Write it without braces, such as `xcom.check.rows > 0`.",
        )
    return _whole(text, Compiler(text), pieces[0])


def render_value(value: Json, context: Mapping[str, Any]) -> Json:
    """Renders every text in a JSON value; keys stay as they are.

    Raises:
        TemplateError: A template can't be rendered.
    """
    if isinstance(value, str):
        return compile_template(value).render(context) if "{{" in value else value
    if isinstance(value, Mapping):
        return {key: render_value(item, context) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [render_value(item, context) for item in value]
    return value


def template_names(value: Json) -> tuple[Path, ...]:
    """Returns every path that the templates in a JSON value refer to."""
    return tuple(dict.fromkeys(path for text in _texts(value) for path in compile_template(text).names))


def run_names(
    *,
    dag_id: str,
    run_id: str,
    logical_date: datetime,
    data_interval_start: datetime,
    data_interval_end: datetime,
    timezone: str = "UTC",
) -> dict[str, Any]:
    """Builds the names of a run that every template may use. The instants are aware; dates are those of `timezone`.

    `ds` is therefore the local date: midnight of 1 May in Berlin gives `2024-05-01`, where Airflow gives 30 April.
    """
    zone = ZoneInfo(timezone)
    local = logical_date.astimezone(zone)
    return {
        "dag_id": dag_id,
        "run_id": run_id,
        "logical_date": local,
        "data_interval_start": data_interval_start.astimezone(zone),
        "data_interval_end": data_interval_end.astimezone(zone),
        "ds": local.strftime("%Y-%m-%d"),
        "ds_nodash": local.strftime("%Y%m%d"),
        "ts": local.isoformat(),
        "ts_nodash": local.strftime("%Y%m%dT%H%M%S"),
    }


def shorten(text: str, limit: int = 80) -> str:
    """The text on one line, cut for a message."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _texts(value: Json) -> Iterable[str]:
    if isinstance(value, str):
        if "{{" in value:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _whole(text: str, compiler: Compiler, node: nodes.Node) -> Template:
    evaluate = compiler.compile(node)
    path, single = literal_path(node), single_value(node)
    return Template(text, tuple(compiler.references), evaluate, whole=True, path=path, single=single)


def _check_size(text: str) -> None:
    if len(text) > MAX_TEMPLATE:
        raise TemplateFault(
            codes.TEMPLATE_SYNTAX,
            f"The template has {len(text):,} characters, more than {MAX_TEMPLATE:,}.",
            hint="Let the program that it is for read a file instead.",
        )
    if "\0" in text:
        raise TemplateFault(codes.TEMPLATE_SYNTAX, "A template can't hold the character NUL.", offset=text.index("\0"))


def _refuse_statements(text: str) -> None:
    if (statement := _STATEMENT.search(text)) is not None:
        raise TemplateFault(
            codes.TEMPLATE_SYNTAX,
            f"`{statement.group()} ... %}}`: a template has no statements, only expressions in `{{{{ }}}}`.",
            offset=statement.start(),
            hint="A choice can be written as `{{ 'a' if params.x else 'b' }}`.",
        )


def _parse(text: str, shift: int = 0) -> list[nodes.Node]:
    """The pieces of a template: `TemplateData` and expressions. `shift` is added to offsets in faults."""
    try:
        tree = _PARSER.parse(text)
    except TemplateSyntaxError as error:
        raise _syntax_fault(text, error, shift) from None
    except (RecursionError, ValueError) as error:  # ValueError: a number with thousands of digits
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise TemplateFault(codes.TEMPLATE_SYNTAX, f"`{shorten(text)}` can't be read: {reason}.") from None
    pieces: list[nodes.Node] = []
    for statement_node in tree.body:
        pieces.extend(statement_node.nodes if isinstance(statement_node, nodes.Output) else [statement_node])
    return pieces


def _syntax_fault(text: str, error: TemplateSyntaxError, shift: int) -> TemplateFault:
    """Jinja tells a line; the first `{{` of that line is the best place within it."""
    lines = text.split("\n")
    line = min(max(error.lineno, 1), len(lines)) - 1
    start = sum(len(item) + 1 for item in lines[:line])
    place = text.find("{{", start)
    if place < 0:
        place = max(text.rfind("{{", 0, start + 1), 0)
    message = (error.message or "it is not an expression").rstrip(".")
    end = text.find("}}", place)
    hint = None
    if end < 0:
        message, hint = "`{{` is never closed", "Close it with `}}`."
    shown = shorten(text[place:] if end < 0 else text[place : end + 2])
    if shift < 0:
        shown = shorten(text[2:-2])
    return TemplateFault(
        codes.TEMPLATE_SYNTAX,
        f"`{shown}` is not a valid template: {message}.",
        offset=max(0, place + shift),
        hint=hint,
    )


def _joined(parts: list[str | Callable[[Mapping[str, Any]], Any]]) -> Callable[[Mapping[str, Any]], Any]:
    def evaluate(context: Mapping[str, Any]) -> str:
        texts: list[str] = []
        size = 0
        for part in parts:
            text = part if isinstance(part, str) else to_text(part(context))
            size += len(text)
            if size > MAX_TEXT:
                raise ValueFault(f"The rendered text is longer than {MAX_TEXT:,} characters.")
            texts.append(text)
        return "".join(texts)

    return evaluate

"""Templates: what they give, what they refuse, and that they stay small."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarrow.errors import TemplateError
from yarrow.jsontypes import Json
from yarrow.language.filters import FILTERS, MACROS
from yarrow.language.template import (
    MAX_TEMPLATE,
    compile_expression,
    compile_template,
    render_value,
    run_names,
    template_names,
)
from yarrow.language.values import TemplateFault

CONTEXT: dict[str, Any] = {
    **run_names(
        dag_id="d",
        run_id="r",
        logical_date=datetime(2024, 4, 30, 22, tzinfo=UTC),
        data_interval_start=datetime(2024, 4, 30, 22, tzinfo=UTC),
        data_interval_end=datetime(2024, 5, 1, 22, tzinfo=UTC),
        timezone="Europe/Berlin",
    ),
    "task_id": "t",
    "try_number": 2,
    "map_index": -1,
    "params": {
        "n": 3,
        "x": 0.5,
        "name": "Ada",
        "flag": True,
        "none": None,
        "list": [3, 1, 2],
        "map": {"a": 1, "0": "z"},
    },
    "xcom": {
        "load": {"rows": 10, "parts": ["a", "b"]},
        "group.inner": {"field": {"deep": "v"}},
        "my-task": 7,
        "text": "t",
    },
    "var": {"folder": "s3://bucket/in/", "json": '{"a": [1, 2]}'},
    "conn": {"db": {"host": "h", "port": 5}},
    "evil": "{{ params.n }}",
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # A single expression keeps its type.
        ("{{ params.n }}", 3),
        ("{{ params.x }}", 0.5),
        ("{{ params.flag }}", True),
        ("{{ params.none }}", None),
        ("{{ params.list }}", [3, 1, 2]),
        ("{{ params }}", CONTEXT["params"]),
        ("{{params.n}}", 3),
        ("{{- params.n -}}", 3),
        # Mixed text becomes text.
        (" {{ params.n }}", " 3"),
        ("{{ params.n }}\n", "3\n"),
        ("{{ params.n }}{{ params.n }}", "33"),
        ("{{ params.flag }}/{{ params.none }}/{{ params.list }}", "true/null/[3, 1, 2]"),
        ("a\r\n", "a\r\n"),
        ("no braces", "no braces"),
        ("${#list[@]} {% x %}", "${#list[@]} {% x %}"),
        ("{# x #}{{ 1 }}", "{# x #}1"),
        # Paths.
        ("{{ xcom.load.rows }}", 10),
        ("{{ xcom.load.parts[1] }}", "b"),
        ("{{ xcom.load.parts[-1] }}", "b"),
        ("{{ xcom.group.inner.field.deep }}", "v"),
        ("{{ xcom['my-task'] }}", 7),
        ("{{ xcom['group.inner'].field.deep }}", "v"),
        ("{{ params.map['a'] }}", 1),
        ("{{ params.map[0] }}", "z"),
        ("{{ params.list[params.n - 1] }}", 2),
        ("{{ conn.db.host }}:{{ conn.db.port }}", "h:5"),
        ("{{ var.folder }}", "s3://bucket/in/"),
        ("{{ (var.json | fromjson).a[1] }}", 2),
        ("{{ params.name[0] }}", "A"),
        ("{{ params.name[:2] }}", "Ad"),
        ("{{ params.list[1:] }}", [1, 2]),
        ("{{ ds[:7] }}", "2024-05"),
        # Dates are those of the DAG's time zone.
        ("{{ ds }}", "2024-05-01"),
        ("{{ ds_nodash }}", "20240501"),
        ("{{ ts }}", "2024-05-01T00:00:00+02:00"),
        ("{{ ts_nodash }}", "20240501T000000"),
        ("{{ logical_date }}", "2024-05-01T00:00:00+02:00"),
        ("at {{ data_interval_end }}", "at 2024-05-02T00:00:00+02:00"),
        ("{{ data_interval_end | ds }}", "2024-05-02"),
        ("{{ logical_date < data_interval_end }}", True),
        ("{{ {'at': logical_date} }}", {"at": "2024-05-01T00:00:00+02:00"}),
        ("{{ macros.ds_add(ds, -1) }}", "2024-04-30"),
        ("{{ macros.ds_add(logical_date, 31) }}", "2024-06-01"),
        ("{{ macros.ds_format(ds, '%Y-%m-%d', '%d.%m.%Y') }}", "01.05.2024"),
        ("{{ logical_date | ts_nodash }}", "20240501T000000"),
        # Operators.
        ("{{ 1 + 2 * 3 }}", 7),
        ("{{ 7 // 2 }}", 3),
        ("{{ 7 / 2 }}", 3.5),
        ("{{ -7 % 3 }}", 2),
        ("{{ -params.n }}", -3),
        ("{{ 'a' + 'b' }}", "ab"),
        ("{{ [1] + [2] }}", [1, 2]),
        ("{{ 'n' ~ 1 ~ none }}", "n1null"),
        ("{{ params.n > 2 and not params.none }}", True),
        ("{{ params.none or 'x' }}", "x"),
        ("{{ 1 < 2 < 3 }}", True),
        ("{{ 1 < 3 < 3 }}", False),
        ("{{ 'a' in params.map }}", True),
        ("{{ 2 not in params.list }}", False),
        ("{{ 'd' in 'Ada' }}", True),
        ("{{ 'yes' if params.flag else 'no' }}", "yes"),
        ("{{ params.none == none }}", True),
        ("{{ {'a': [1, params.n]} }}", {"a": [1, 3]}),
        # Filters.
        ("{{ params.gone | default(1) }}", 1),
        ("{{ params.gone.deeper | default('x') | upper }}", "X"),
        ("{{ params.none | default(1) }}", None),
        ("{{ params.none | default(1, true) }}", 1),
        ("{{ params.n | default(1) }}", 3),
        ("{{ ' 12 ' | trim | int }}", 12),
        ("{{ '1e2' | int }}", 100),
        ("{{ 'x' | int(0) }}", 0),
        ("{{ '1.5' | float }}", 1.5),
        ("{{ 2.5678 | round(2) }}", 2.57),
        ("{{ 2.6 | round }}", 3),
        ("{{ params.list | length }}", 3),
        ("{{ params.name | lower }}", "ada"),
        ("{{ 'a-b' | replace('-', '_') }}", "a_b"),
        ("{{ params.list | join(',') }}", "3,1,2"),
        ("{{ params.list | first }}{{ params.list | last }}", "32"),
        ("{{ params.list | min }}", 1),
        ("{{ params.list | max }}", 3),
        ("{{ params.list | sum }}", 6),
        ("{{ params.list | sort }}", [1, 2, 3]),
        ("{{ params.list | sort(true) }}", [3, 2, 1]),
        ("{{ [1, 2, 1, 1.0] | unique }}", [1, 2, 1.0]),
        ("{{ params.map | tojson }}", '{"a": 1, "0": "z"}'),
        ("{{ var.folder | basename }}", "in"),
        ("{{ -2 | abs }}", 2),
        ("{{ 5 | string }}", "5"),
        ("{{ params.map | list }}", ["a", "0"]),
        ("{{ '2024-01-02T03:04:05' | ds_nodash }}", "20240102"),
        ("{{ '2024-01-02' | ts }}", "2024-01-02T00:00:00"),
        # What is inserted is data.
        ("{{ evil }}", "{{ params.n }}"),
        ("<{{ evil }}>", "<{{ params.n }}>"),
        ("{{ '{{' }}", "{{"),
    ],
)
def test_render(text: str, value: object) -> None:
    rendered = compile_template(text).render(CONTEXT)
    assert rendered == value
    assert type(rendered) is type(value)
    json.dumps(rendered)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ params.gone }}", "`params.gone` does not exist: `params` has `n`, `x`, `name`"),
        ("{{ xcom.load.parts[2] }}", "`xcom.load.parts.2` does not exist: `xcom.load.parts` is a list of 2"),
        ("{{ xcom.text.rows }}", "`xcom.text` is text"),
        ("{{ xcom.nobody.rows }}", "there is no XCom of that task. There is: `load`, `group.inner`"),
        ("{{ params.none.x }}", "`params.none` is null"),
        ("{{ logical_date.year }}", "`logical_date` is a date"),
        ("{{ foo }}", "`foo` does not exist"),
        ("{{ 'a' + 1 }}", "can't add text and a number"),
        ("{{ 'a' * 3 }}", "`*` needs a number, not text"),
        ("{{ [1] * 3 }}", "`*` needs a number, not a list"),
        ("{{ '%s' % 3 }}", "`%` needs a number, not text"),
        ("{{ true + 1 }}", "can't add"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 1 % 0 }}", "division by zero"),
        ("{{ 1 < 'a' }}", "can't compare a number with text"),
        ("{{ 1 in 'a' }}", "needs text on the left"),
        ("{{ 1 in 2 }}", "on the right"),
        ("{{ 9223372036854775807 + 1 }}", "too large for a number"),
        ("{{ 1e308 * 10 }}", "too large for a number"),
        ("{{ 'x' | int }}", "can't read `x`"),
        ("{{ params.map | float }}", "can't read a mapping"),
        ("{{ params.map | sum }}", "`sum` needs a list, not a mapping"),
        ("{{ [1, 'a'] | sort }}", "a list of numbers or of texts"),
        ("{{ [] | first }}", "something empty"),
        ("{{ 5 | length }}", "needs text, a list or a mapping"),
        ("{{ '{' | fromjson }}", "not JSON"),
        ("{{ 'NaN' | fromjson }}", "NaN is not JSON"),
        ("{{ 'x' | ds }}", "not an ISO 8601 date"),
        ("{{ macros.ds_add(ds, 99999999) }}", "out of range"),
        ("{{ macros.ds_format(ds, '%Q', '%Y') }}", "ds_format"),
        ("{{ params.name[params.name:] }}", "bounds of a slice"),
        ("{{ params.map[1:] }}", "needs text or a list"),
    ],
)
def test_what_can_not_be_rendered(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as error:
        compile_template(text).render(CONTEXT)
    assert message in str(error.value)
    assert text in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ params['__class__'] }}",
        "{{ params | attr('x') }}",
        "{{ params.keys() }}",
        "{{ ''.format(1) }}",
        "{{ range(10) }}",
        "{{ cycler() }}",
        "{{ macros.ds_add.__globals__ }}",
        "{{ self._x() }}",
        "{{ 2 ** 99 }}",
        "{{ (1, 2) }}",
        "{{ params.list | map('x') }}",
        "{{ params is defined }}",
        "{{ {params.name: 1} }}",
        "{{ [1, 2][::2] }}",
        "{{ a = 1 }}",
        "{{ lambda: 1 }}",
        "{{ 1 if 2 }}",
        "{{ macros.ds_add(*params.list) }}",
        "{{ macros.ds_add(ds=ds, days=1) }}",
        "{{ ds | default(value=1) }}",
        "{% set x = 1 %}{{ x }}",
        "{% raw %}{{ x }}{% endraw %}",
        "{{ _('x') }}",
        "{{ xcom[params.name] }}",
        "{{ 'a' | filter.b }}",
        "{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}",
        "{{ " + "1 + " * 500 + "1 }}",
        "{{ " + "9" * 5000 + " }}",
        "{{ 1e999 }}",
    ],
)
def test_what_the_language_does_not_have(text: str) -> None:
    with pytest.raises(TemplateFault):
        compile_template(text)


def test_a_template_reaches_no_attribute_of_any_object() -> None:
    class Trap:
        secret = "s"

        def __getattr__(self, name: str) -> str:
            raise AssertionError("an attribute was read")

    for text in ("{{ trap.secret }}", "{{ trap['secret'] }}", "{{ (trap).secret }}", "{{ [trap][0].secret }}"):
        with pytest.raises(TemplateError):
            compile_template(text).render({"trap": Trap()})


@pytest.mark.parametrize(
    "text",
    [
        "{{ big }}{{ big }}{{ big }}",
        "{{ big ~ big ~ big }}",
        "{{ big + big + big }}",
        "{{ [big, big, big] }}",
        "{{ [big, big, big] | join }}",
        "{{ 'aaaaaaaaaa' | replace('', big) }}",
        "{{ [big, big, big] | tojson }}",
        "{{ {'a': big, 'b': big, 'c': big} }}",
        "x{{ [big, [big, [big]]] }}",
    ],
)
def test_results_are_bounded(text: str) -> None:
    with pytest.raises(TemplateError, match="longer than"):
        compile_template(text).render({"big": "x" * 500_000})


def test_a_value_that_is_passed_on_may_be_large() -> None:
    big = ["x" * 500_000] * 10
    assert compile_template("{{ xcom.a }}").render({"xcom": {"a": big}}) == big


def test_a_template_has_a_largest_size() -> None:
    compile_template("{{ ds }}" + "x" * (MAX_TEMPLATE - 8))
    with pytest.raises(TemplateFault, match="more than"):
        compile_template("{{ ds }}" + "x" * MAX_TEMPLATE)


def test_nothing_takes_long(ends: Callable[[Callable[[], object]], None]) -> None:
    size = 60_000
    texts = [
        "{{ds}}" * (size // 6),
        "{{ " + "not " * (size // 4) + "x }}",
        "{{ [" + "1," * (size // 2) + "1] }}",
        "{{" * (size // 2),
        "{{ a" + ".b" * (size // 2) + " }}",
        "{{ a" + "|upper" * (size // 6) + " }}",
        "{{ " + " " * size + "}}",
        "{{ '" + "a" * size,
        "{{ [" + ", ".join(f"xcom.x{number}" for number in range(5000)) + "] }}",
        "{{ " + "'a' ~ " * (size // 6) + "1 }}",
    ]

    def compile_all() -> None:
        for text in texts:
            with contextlib.suppress(TemplateError):
                compile_template(text).render({"ds": "x", "xcom": {}})

    ends(compile_all)


@pytest.mark.parametrize(
    "text", ["params.n > 2", "{{ params.n > 2 }}", "  params.n > 2\n", "{'a': {'b': true}}['a']['b']"]
)
def test_expressions(text: str) -> None:
    assert compile_expression(text).render(CONTEXT) is True


@pytest.mark.parametrize(
    "text", ["", "params.n >", "a }} b {{ c", "{{ 1 }} {{ 2 }}", "x {{ 1 }}", "- }}", "{{ 1", "{% if x %}"]
)
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(TemplateFault):
        compile_expression(text)


def test_a_leading_minus_is_not_a_whitespace_mark() -> None:
    assert compile_expression("-1 + 2").render({}) == 1


def test_names() -> None:
    value: Json = {
        "a": "{{ xcom.load.rows + params.n }}",
        "b": ["{{ ds }}", {"c": "x{{ var.folder }}{{ ds }}"}],
        "{{ k }}": 1,
    }
    assert template_names(value) == (("xcom", "load", "rows"), ("params", "n"), ("ds",), ("var", "folder"))
    assert compile_template("{{ xcom['my-task'].parts[0] }}").names == (("xcom", "my-task", "parts", "0"),)


def test_a_value_is_rendered_deeply_and_its_keys_are_not() -> None:
    value: Json = {"{{ ds }}": ["{{ params.n }}", {"x": "{{ evil }}"}], "n": 1}
    assert render_value(value, CONTEXT) == {"{{ ds }}": [3, {"x": "{{ params.n }}"}], "n": 1}


def test_compiled_templates_are_kept() -> None:
    assert compile_template("{{ ds }}/kept") is compile_template("{{ ds }}/kept")


def test_every_filter_and_macro_is_documented() -> None:
    for function in (*FILTERS.values(), *MACROS.values()):
        assert function.__doc__


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(_values)
def test_a_single_expression_gives_back_any_value(value: Any) -> None:
    assert compile_template("{{ params.x }}").render({"params": {"x": value}}) == value


@given(st.text())
def test_text_without_braces_is_itself(text: str) -> None:
    if "{{" not in text and "{%" not in text and "\0" not in text:
        assert compile_template(text).render({}) == text


_WORDS = [
    "a",
    "b.c",
    "1",
    "2.5",
    "'x'",
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "~",
    "==",
    "<",
    "in",
    "not",
    "and",
    "or",
    "if",
    "else",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "|",
    "upper",
    "join",
    "list",
    "sum",
]


@settings(max_examples=400)
@given(st.lists(st.sampled_from(_WORDS), max_size=12), _values)
def test_an_expression_gives_json_or_a_template_error(words: list[str], value: Any) -> None:
    with contextlib.suppress(TemplateError):
        rendered = compile_expression(" ".join(words)).render({"a": value, "b": {"c": value}})
        json.dumps(rendered, allow_nan=False)

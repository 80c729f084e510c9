"""Values that could break out of what they are written into."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from yarrow.differences.dag_diff import dag_diff
from yarrow.differences.impact import RunsInFlight, Standing, impact
from yarrow.differences.markdown import as_markdown
from yarrow.differences.report import Report, Side
from yarrow.differences.text import as_text
from yarrow.differences.words import code, value_text
from yarrow.language.spec import DagSpec, TaskSpec

HOSTILE = [
    "a | b",
    "`x`",
    "``` ```\n```\n# heading",
    "</code><script>alert(1)</script>",
    "\x1b[31mred\r\u202e",
    "line\n\nanother\n",
    "![x](http://example.com/x.png) **bold** <img src=x>",
]


def report(old: Any, new: Any, now: datetime, **fields: Any) -> Report:
    before, after = (
        DagSpec("d", {"a": TaskSpec("a", "bash", {"command": value})}, description=str(value)) for value in (old, new)
    )
    after = dataclasses.replace(after, **fields)
    return Report(Side(before, 1), Side(after, 2), dag_diff(before, after, now), now)


@pytest.mark.parametrize("value", HOSTILE)
def test_nothing_breaks_out_of_markdown(value: str, now: datetime) -> None:
    written = as_markdown(report("before", value, now))
    outside = outside_of_code(written)
    assert not re.search(r"[<>!\[\]]|bold|heading", outside), outside
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {3}
    assert all(one.isprintable() or one == "\n" for one in written)


def outside_of_code(markdown: str) -> str:
    """The text without fenced blocks and code spans, found as CommonMark has it."""
    lines, fence = [], None
    for line in markdown.splitlines():
        mark = re.match(r" *(`{3,})(\w*)$", line)
        if fence is None and mark:
            fence = mark[1]
        elif fence is not None and mark and not mark[2] and len(mark[1]) >= len(fence):
            fence = None
        elif fence is None:
            lines.append(re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", line))
    assert fence is None
    return "\n".join(lines)


@pytest.mark.parametrize("value", HOSTILE)
def test_nothing_draws_on_the_terminal(value: str, now: datetime) -> None:
    written = as_text(report("before", value, now))
    assert all(one.isprintable() or one == "\n" for one in written)


@pytest.mark.parametrize("text", ["a", "`", "``", "a`b", "`a``b`", " ", "a|b"])
def test_a_code_span_holds_any_text(text: str) -> None:
    span = code(text)
    fence = re.match("`+", span)
    assert fence is not None
    inside = span[len(fence[0]) : -len(fence[0])]
    assert fence[0] not in re.findall("`+", inside)
    assert inside.strip() == text.strip()


def test_a_run_id_is_shown_as_it_is(now: datetime) -> None:
    found = report(1, 2, now)
    standing = Standing((RunsInFlight("x", 1, {"running": 1}, ("manual__`_*x*",)),))
    touched = impact(found.diff.old, found.diff.new, standing)
    assert touched.sentences[0] == "1 run goes on in version 1 (1 running): ``manual__`_*x*``."


def test_a_long_text_is_told_line_by_line(now: datetime) -> None:
    lines = [f"line {number}" for number in range(30)]
    written = as_text(report("\n".join(lines), "\n".join([*lines[:10], "new", *lines[11:]]), now))
    assert "      with.command:\n" in written
    assert "          -line 10\n          +new\n" in written
    assert "line 20" not in written


def test_a_line_break_at_the_end_is_seen(now: datetime) -> None:
    assert "+\n" in as_text(report("a\nb", "a\nb\n", now))


def test_what_is_very_long_is_cut(now: datetime) -> None:
    written = as_text(report("\n".join(map(str, range(500))), "\n".join(map(str, range(1000, 1500))), now))
    assert "more lines @@" in written
    assert len(written.splitlines()) < 150


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("retry_delay", 300.0, "5m"),
        ("deadline", {"after": 7200.0, "reference": "logical_date"}, "{after: 2h, reference: logical_date}"),
        ("execution_timeout", None, "none"),
        ("when", "none", '"none"'),
        ("owner", "12", '"12"'),
        ("catchup", True, "true"),
        ("with.x", ["a", 1, {"b c": None}], '[a, 1, {"b c": none}]'),
        ("schedule.cron", "0 6 * * *", '"0 6 * * *"'),
    ],
)
def test_values_are_written_as_people_write_them(path: str, value: Any, text: str) -> None:
    assert value_text(path, value) == text


def test_tasks_that_changed_alike_are_told_once(now: datetime) -> None:
    old = DagSpec("d", {name: TaskSpec(name, "empty", {}) for name in "abc"})
    new = DagSpec("d", {name: TaskSpec(name, "empty", {}, retries=2) for name in "abc"})
    written = as_text(Report(Side(old, 1), Side(new, 2), dag_diff(old, new, now), now))
    assert "  ~ 3 tasks: a, b, c\n      retries: 0 -> 2\n" in written


def test_every_kind_of_value_is_data(now: datetime, load: Callable[[str], DagSpec]) -> None:
    old, new = (load(f"tasks: {{a: {{operator: bash, with: {{command: {x}}}}}}}") for x in ("[a, b]", "x"))
    data = Report(Side(old, 1), Side(new, 2), dag_diff(old, new, now), now).to_json()
    assert data["tasks"][0]["changes"] == [
        {"path": "with.command", "kind": "changed", "old": ["a", "b"], "new": "x"},
    ]
    assert list(data) == [
        "old",
        "new",
        "now",
        "summary",
        *["same", "tasks", "settings", "params", "groups", "schedule"],
        "impact",
        "notes",
    ]

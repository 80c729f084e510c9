"""Times, durations and figures in words."""

from datetime import UTC, datetime, timedelta

import pytest

from yarrow_webserver import words

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (-1, "0.00 s"),
        (0.034, "0.03 s"),
        (1.26, "1.3 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (80, "1 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (3605, "1 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "just now"), (-59, "59 s ago"), (60, "in 1 min"), (-7300, "2 h ago"), (200_000, "in 2 d 7 h")],
)
def test_ago(seconds: float, text: str) -> None:
    assert words.ago(NOW + timedelta(seconds=seconds), NOW) == text


def test_instant_and_clock_time() -> None:
    assert words.instant(None) == ""
    assert words.instant(NOW) == "2026-01-01 12:00"
    assert words.instant(NOW + timedelta(seconds=5), "Asia/Kathmandu") == "2026-01-01 17:45:05"
    assert words.clock_time("2026-01-01T12:00:00.123456+02:00") == "10:00:00.123"
    assert words.clock_time("nonsense") == ""


def test_between() -> None:
    assert words.between(None, None, NOW) is None
    assert words.between(NOW - timedelta(seconds=5), None, NOW) == 5
    assert words.between(NOW - timedelta(seconds=5), NOW - timedelta(seconds=2), NOW) == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (27004, "27\u202f004"),
        (0.661923, "0.6619"),
        (5.0, "5"),
        (True, "true"),
        ("x", "x"),
        ([1], "[1]"),
        (None, "null"),
    ],
)
def test_figure(value: object, text: str) -> None:
    assert words.figure(value) == text


def test_pretty_keeps_short_things_on_one_line() -> None:
    assert words.pretty({"a": [1, 2], "b": "ü"}) == '{"a": [1, 2], "b": "ü"}'
    long = {"schema": [["month", "BIGINT"]] * 6, "empty": {}, "n": None}
    assert words.pretty(long) == (
        '{\n  "schema": [\n' + ",\n".join(['    ["month", "BIGINT"]'] * 6) + '\n  ],\n  "empty": {},\n  "n": null\n}'
    )


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("`a` waits for `b<i>`.", "<code>a</code> waits for <code>b&lt;i&gt;</code>."),
        ("1 < 2", "1 &lt; 2"),
        ("what is `this", "what is `this"),
    ],
)
def test_names_between_backquotes_are_code(text: str, html: str) -> None:
    assert str(words.with_code(text)) == html

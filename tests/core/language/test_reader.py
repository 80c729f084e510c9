"""Reading YAML: its types, its limits, and that nothing brings the reader down."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from yarrow.language import codes, reader
from yarrow.language.faults import MAX_FAULTS, Fault
from yarrow.language.loader import load_text
from yarrow.language.nodes import MappingNode, Node, data
from yarrow.language.reader import read, resolve
from yarrow.language.source import Source

Calls = Callable[[Callable[[], object]], int]
Ends = Callable[[Callable[[], object]], None]


def read_text(text: str) -> tuple[Node | None, list[Fault]]:
    faults: list[Fault] = []
    return read(Source("x.yaml", text), faults), faults


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("Null", None), ("NULL", None),
        ("true", True), ("True", True), ("FALSE", False),
        ("yes", "yes"), ("No", "No"), ("on", "on"), ("off", "off"), ("y", "y"),
        ("0", 0), ("-7", -7), ("+7", 7), ("123", 123), ("9223372036854775807", 9223372036854775807),
        ("9223372036854775808", "9223372036854775808"), ("9" * 5000, "9" * 5000),
        ("010", "010"), ("0x1F", "0x1F"), ("0o17", "0o17"), ("1_000", "1_000"), ("22:22", "22:22"), ("1:30", "1:30"),
        ("1.5", 1.5), ("-.5", -0.5), ("1.", 1.0), ("1e3", 1000.0), ("1E-2", 0.01), ("1.10", 1.1), ("1e999", "1e999"),
        (".inf", ".inf"), (".nan", ".nan"), ("-", "-"), ("+", "+"), (".", "."), ("1-2", "1-2"), ("1 2", "1 2"),
        ("2024-01-01", "2024-01-01"), ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"), ("١", "١"),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_quotes_make_text() -> None:
    node, faults = read_text("a: '1'\nb: \"true\"\nc: |\n  null\n")
    assert node is not None
    assert (data(node), faults) == ({"a": "1", "b": "true", "c": "null\n"}, [])


def test_keys_are_always_text() -> None:
    node, faults = read_text("on: 1\n010: 2\ntrue: 3\nnull: 4\n1: 5\n")
    assert node is not None
    assert (data(node), faults) == ({"on": 1, "010": 2, "true": 3, "null": 4, "1": 5}, [])


def test_places() -> None:
    node, _ = read_text("a:\n  - x\n  - {bé: y, c: z}\n")
    assert isinstance(node, MappingNode)
    inner = node.entries["a"].items[1]  # type: ignore[attr-defined] # it is a sequence
    assert (inner.line, inner.column) == (3, 5)
    assert (inner.keys["c"].line, inner.keys["c"].column) == (3, 13)
    assert (inner.entries["c"].line, inner.entries["c"].column) == (3, 16)


def _bomb(level: str) -> str:
    """Nine levels, each of which names the one before nine times."""
    lines = ["a: &a {x: 1}"]
    for old, new in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{new}: &{new} " + level.format(",".join([f"*{old}"] * 9)))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[" * 51 + "]" * 51, codes.TOO_DEEP),
        ("[" * 100_000, codes.TOO_DEEP),
        ("{a: " * 100_000, codes.TOO_DEEP),
        ("- " * 100_000, codes.TOO_DEEP),
        ("\n".join("  " * depth + "a:" for depth in range(2000)), codes.TOO_DEEP),
        ("a: &a " + "[" * 30 + "]" * 30 + "\nb: " + "[" * 30 + "*a" + "]" * 30, codes.TOO_DEEP),
        ("[" + "a," * 10_001 + "]", codes.TOO_MANY_NODES),
        ("".join(f"k{number}: 1\n" for number in range(100_000)), codes.TOO_MANY_NODES),
        (_bomb("[{}]"), codes.TOO_MANY_NODES),
        (_bomb("{{<<: [{}]}}"), codes.TOO_MANY_NODES),
        ("a: &a " + "x" * 900_000 + "\nb: [" + "*a," * 5000 + "]", codes.TOO_LARGE),
        ("a: &a [*a]", codes.ALIAS),
        ("a: &a {b: *a}", codes.ALIAS),
    ],
)
def test_limits_end_the_reading_soon(text: str, code: str, calls: Calls) -> None:
    node, faults = read_text(text)
    assert node is None
    assert faults[-1].code == code
    assert calls(lambda: read_text(text)) < 25 * reader.MAX_NODES, "some twice what the largest file takes"


@pytest.mark.parametrize(
    "text", ["a: [1, {b: 'x'}]\nc: &k |\n  t\nd: *k\n", "a: 1\na: 2\n", "a: {{ x }}\n", "[" * 60, "a: *b", "a: @x"]
)
def test_without_libyaml_it_is_only_slower(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node, faults = read_text(text)
    monkeypatch.setattr(reader, "_Parser", yaml.SafeLoader)
    other, others = read_text(text)
    assert (node is None) == (other is None)
    assert node is None or other is None or data(node) == data(other)
    assert [(fault.code, fault.line, fault.column) for fault in faults] == [
        (fault.code, fault.line, fault.column) for fault in others
    ]


def test_fifty_levels_are_allowed() -> None:
    node, faults = read_text("[" * 50 + "]" * 50)
    assert node is not None
    assert faults == []


def test_a_mebibyte_of_anything_is_read_or_refused_soon(ends: Ends) -> None:
    size = 1024 * 1024
    texts = [
        *(
            piece * (size // len(piece))
            for piece in ("a", "a: ", "{", '"', "- a\n", "#", "\n", "? ", "&a ", "{{", "-", "*")
        ),
        *(piece * (size // len(piece)) for piece in ("!file ", "a: x\n y\n", "\ta", "a\n", "\u2028", ": ", "{{ a }} ")),
        "a: |\n" + "  x\n" * (size // 4),
        "a: >\n" + "  x\n" * (size // 4),
        "a: '" + "''" * (size // 2 - 10) + "'",
        'a: "' + "\\n" * (size // 2 - 10) + '"',
        "a: [" + "{" * 20 + "," * (size - 100),
        "%YAML 1.2\n" * 1000,
        "a: '" + "{{ " * (size // 3 - 10) + "'",
        "a: !" + "x" * (size - 10),
    ]

    def load() -> None:
        for text in texts:
            result = load_text(text, "x.yaml")
            assert result.faults
            assert all(len(str(fault)) < 5000 for fault in result.faults)

    ends(load)


def test_many_faults_are_named_up_to_a_limit_and_soon(ends: Ends) -> None:
    tasks = "".join(f"  task_{number}: {{operator: nothing, depends_on: [tsak_{number}]}}\n" for number in range(1500))
    texts = [
        "".join(f"key_{number}: 1\n" for number in range(9000)),
        f"tasks:\n{tasks}",
        "tasks: {a: {operator: stage, with: {plan: [" + "{low: x}," * 300 + "]}}}",
        "tasks: {a: {operator: shell, with: {command: [" + "1," * 300 + "]}}}",
        "tasks:\n"
        + "".join(f"  t{n}: {{operator: choose, with: {{follow: ['{{{{ xcom.u{n} }}}}']}}}}\n" for n in range(900)),
        "tasks:\n" + "".join(f"  t{n}: {{operator: nothing, depends_on: [t{(n + 1) % 1200}]}}\n" for n in range(1200)),
        "tasks: {a: {operator: shell, with: {command: ["
        + ",".join("'" + f"{{{{ x{n} }}}}" * 5000 + "'" for n in range(16))
        + "]}}}",
        "tasks:\n"
        + "".join(
            f"  t{n}: {{operator: nothing, depends_on: [{', '.join(f't{m}' for m in range(n))}]}}\n" for n in range(130)
        ),
    ]

    def load() -> None:
        for text in texts[:-1]:
            assert 1 <= len(load_text(text, "x.yaml").faults) <= MAX_FAULTS

    ends(load)


_SCRAPS = """
    tasks: ;operator: shell;with: ;command: ;depends_on: [a];{{ xcom.a }};{{;}};{%;';";>;[;];{;};*a;&a ;!file
    - ;? ;: ;, ;#;!file x.yaml;@daily;schedule: ;0 0 * * *;params: ;default: ;when: ;<<: ;|;null;1e9;a;dag_id: ;%
    timezone: ;start_date: ;2024-01-01;every: ;5m;catchup: true;default_args: ;retries: 3"""
_SPACES = ["\n", "\n  ", "\n    ", "\n      ", "\t", "\u2028", "é"]
_PIECES = st.sampled_from(_SPACES) | st.sampled_from(_SCRAPS.replace("\n    ", ";").split(";"))


def _check_loads(text: str) -> None:
    result = load_text(text, "x.yaml")
    assert (result.spec is None) == any(fault.severity == "error" for fault in result.faults)
    lines = text.count("\n") + text.count("\r") + text.count("\u2028") + text.count("\u2029") + text.count("\x85") + 2
    for fault in result.faults:
        assert fault.code in codes.CODES
        assert 1 <= fault.line <= lines
        assert fault.column >= 1
        assert fault.message.endswith((".", "?")), fault.message


@settings(max_examples=400, deadline=2000)
@given(st.lists(_PIECES, max_size=40).map("".join))
@example("tasks: {a: {operator: shell, with: {command: '{{'}}}")
def test_the_loader_never_raises_on_scraps_of_dags(text: str) -> None:
    _check_loads(text)


@settings(max_examples=300, deadline=2000)
@given(st.text(max_size=300))
@example("\ud800")
@example("a: \ufeff")
@example("'\\ud800'")
def test_the_loader_never_raises_on_any_text(text: str) -> None:
    _check_loads(text)


@settings(max_examples=200, deadline=2000)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
        max_leaves=20,
    ),
    st.sampled_from(["tasks", "params", "schedule", "default_args", "dst", "dag_id", "tags", "start_date", "timezone"]),
)
def test_the_loader_never_raises_on_any_data(value: Any, key: str) -> None:
    _check_loads(f"{key}: {json.dumps(value, allow_nan=False)}\n" if _is_finite(value) else f"{key}: .nan\n")


def _is_finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True

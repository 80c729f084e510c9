"""Reads the file of tests beside a DAG file: given outcomes and results, and what is expected to follow from them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from yarrow.jsontypes import Json
from yarrow.language import codes
from yarrow.language.containers import AnyJson, Field, ListOf, MapOf, Record, Union
from yarrow.language.faults import Fault, TooManyFaults
from yarrow.language.files import TESTS_SUFFIXES, decode, read_bytes, shown_path
from yarrow.language.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yarrow.language.reader import read
from yarrow.language.scalars import Date, Enum, Text
from yarrow.language.shape import INVALID, Findings, did_you_mean
from yarrow.language.source import Source
from yarrow.language.spec import DagSpec
from yarrow.states import FINISHED_RUN_STATES, FINISHED_TASK_STATES, TaskState

_OUTCOMES: Final = ("success", "failed", "skipped")
_FINAL: Final = tuple(sorted(str(state) for state in FINISHED_TASK_STATES if state is not TaskState.REMOVED))
_INSTANCE: Final = re.compile(r"\[[0-9]+\]$")
_TASKS: Final = ListOf(Text(nonempty=True))
_EXPECT: Final = Record(
    {
        "run": Field(Enum(tuple(sorted(str(state) for state in FINISHED_RUN_STATES))), doc="How the run ends."),
        "tasks": Field(
            MapOf(Enum(_FINAL)), doc="How tasks end, by task id; `load[2]` is one instance of a mapped task."
        ),
        "branches": Field(MapOf(_TASKS), doc="What branches choose, by task id."),
        "order": Field(_TASKS, doc="Tasks that start, in this order; others may start between them."),
        "rendered": Field(MapOf(MapOf(AnyJson())), doc="Rendered parameters, by task id and parameter."),
    }
)
_TEST: Final = Record(
    {
        "name": Field(Text(nonempty=True), required=True, doc="A sentence."),
        "logical_date": Field(Date(), doc="ISO 8601; local time of the DAG without an offset."),
        "params": Field(MapOf(AnyJson()), doc="Params that are not at their default."),
        "variables": Field(MapOf(Text()), doc="Variables that rendered parameters name."),
        "outcomes": Field(
            MapOf(Union([Enum(_OUTCOMES), _TASKS])),
            doc="How tasks end, by task id: success, failed or skipped; of a branch also the list of what it chooses. "
            "`load[2]` is one instance of a mapped task. Others succeed.",
        ),
        "xcoms": Field(MapOf(AnyJson()), doc="Results of tasks, by task id; of a mapped task the list of them."),
        "expect": Field(_EXPECT, required=True, doc="What is to follow."),
    }
)
_FILE: Final = Record({"tests": Field(ListOf(_TEST, minimum=1), required=True)})


@dataclass(frozen=True, slots=True)
class Expected:
    """What is to follow; what is empty is not looked at."""

    run: str | None = None
    tasks: Mapping[str, str] = field(default_factory=dict)
    branches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    rendered: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DagTest:
    """One test of a DAG."""

    name: str
    file: str
    line: int
    expect: Expected
    logical_date: str | None = None
    params: Mapping[str, Json] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    outcomes: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)  # a state, or what a branch chooses
    xcoms: Mapping[str, Json] = field(default_factory=dict)


def file_of_tests(dag_file: Path) -> Path | None:
    """The file of tests of a DAG file: `late_flights.tests.yaml` beside `late_flights.yaml`; None: there is none."""
    for suffix in TESTS_SUFFIXES:
        path = dag_file.with_name(dag_file.stem + suffix)
        if path.exists():
            return path
    return None


def load_tests(path: Path, spec: DagSpec) -> tuple[list[DagTest], list[Fault]]:
    """Returns the tests of a file; a test with a fault is left out.

    Args:
        path: The file of tests.
        spec: The DAG that they are for: tasks, params and parameters that it has not are faults.
    """
    file = shown_path(path)
    try:
        source = decode(read_bytes(path), file)
    except (OSError, ValueError) as error:
        return [], [Fault(file, 1, 1, codes.UNREADABLE, f"The file can't be read: {error}.")]
    if isinstance(source, Fault):
        return [], [source]
    found = Findings()
    tests: list[DagTest] = []
    with suppress(TooManyFaults):
        tests = _tests(source, spec, found)
    return tests, sorted(set(found.faults))


def _tests(source: Source, spec: DagSpec, found: Findings) -> list[DagTest]:
    tree = read(source, found.faults, None)
    if tree is None:
        if not found.faults:
            found.faults.append(source.fault((1, 1), codes.EMPTY, "The file is empty.", "It needs `tests:`."))
        return []
    values = _FILE.check(tree, found, "The file")
    entry = tree.entries.get("tests") if isinstance(tree, MappingNode) else None
    nodes = entry.items if isinstance(entry, SequenceNode) else []
    before = len(found.faults)
    for node in nodes:
        if isinstance(node, MappingNode):
            _check_names(node, spec, found)
    if values is not INVALID and len(found.faults) == before:
        found.faults.extend(_without_expectations(nodes))
    if values is INVALID or len(found.faults) > before:
        return []
    return [_test(value, node, source) for value, node in zip(values["tests"], nodes, strict=True)]


def _test(value: Mapping[str, Any], node: Node, source: Source) -> DagTest:
    expect = value["expect"]
    outcomes = {
        task_id: tuple(outcome) if isinstance(outcome, list) else outcome
        for task_id, outcome in value.get("outcomes", {}).items()
    }
    return DagTest(
        name=value["name"],
        file=source.file,
        line=node.line,
        expect=Expected(
            run=expect.get("run"),
            tasks=expect.get("tasks", {}),
            branches={name: tuple(chosen) for name, chosen in expect.get("branches", {}).items()},
            order=tuple(expect.get("order", ())),
            rendered=expect.get("rendered", {}),
        ),
        logical_date=value.get("logical_date"),
        params=value.get("params", {}),
        variables=value.get("variables", {}),
        outcomes=outcomes,
        xcoms=value.get("xcoms", {}),
    )


def _without_expectations(nodes: Collection[Node]) -> Iterator[Fault]:
    for node in nodes:
        expect = node.entries["expect"] if isinstance(node, MappingNode) else node
        if isinstance(expect, MappingNode) and not expect.entries:
            message = "The test expects nothing, so that it always passes."
            yield expect.fault(codes.BAD_VALUE, message, "Write `run: success`, or the states of `tasks`.")


def _check_names(node: MappingNode, spec: DagSpec, found: Findings) -> None:
    """Whether the tasks and params that a test names are there."""
    _keys(node.entries.get("params"), spec.params, "param", found)
    _keys(node.entries.get("outcomes"), spec.tasks, "task", found, instances=True)
    _keys(node.entries.get("xcoms"), spec.tasks, "task", found)
    expect = node.entries.get("expect")
    if not isinstance(expect, MappingNode):
        return
    for part in ("tasks", "branches", "rendered"):
        _keys(expect.entries.get(part), spec.tasks, "task", found, instances=part == "tasks")
    order = expect.entries.get("order")
    for item in order.items if isinstance(order, SequenceNode) else []:
        if isinstance(item, ScalarNode) and isinstance(item.value, str):
            _known(item, item.value, spec.tasks, "task", found)
    rendered = expect.entries.get("rendered")
    for task_id, parameters in rendered.entries.items() if isinstance(rendered, MappingNode) else ():
        if task_id in spec.tasks:
            _keys(parameters, spec.tasks[task_id].arguments, "parameter", found)


def _keys(node: Node | None, known: Collection[str], what: str, found: Findings, *, instances: bool = False) -> None:
    """Whether all keys are known; with `instances` also those such as `load[2]`."""
    if isinstance(node, MappingNode):
        for name in node.entries:
            _known(node.keys[name], _INSTANCE.sub("", name) if instances else name, known, what, found)


def _known(place: Node, name: str, known: Collection[str], what: str, found: Findings) -> None:
    if name not in known:
        code = codes.UNKNOWN_TASK if what == "task" else codes.UNKNOWN_PARAM
        found.faults.append(place.fault(code, f"The DAG has no {what} `{name[:100]}`.", did_you_mean(name, known)))

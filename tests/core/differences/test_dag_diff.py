"""What is found to differ between two versions of a DAG."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from yarrow.differences.changes import Change, changes
from yarrow.differences.dag_diff import DagDiff, TaskDiff, dag_diff
from yarrow.differences.words import summary
from yarrow.language.spec import CacheSpec, DagSpec, DeadlineSpec, ScheduleSpec, TaskSpec

Compare = Callable[..., DagDiff]

BASE = """
dag_id: orders
tags: [daily, demo]
schedule: "@daily"
start_date: 2026-01-01
params: {limit: {type: integer, default: 10}}
tasks:
  load: {operator: bash, with: {command: "echo 1"}, retries: 1}
  check: {operator: bash, with: {command: "test 1"}, depends_on: [load]}
  report: {operator: bash, with: {command: "echo done"}, depends_on: [load, check]}
"""


def edited(*edits: tuple[str, str]) -> str:
    text = BASE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    "edits",
    [
        [("tasks:", "# A comment\ntasks:")],
        [("[daily, demo]", "[demo, daily]")],
        [("[load, check]", "[check, load]")],
        [
            (
                '{operator: bash, with: {command: "echo 1"}, retries: 1}',
                "{retries: 1, with: {command: 'echo 1'}, operator: bash}",
            )
        ],
        [("type: integer, default: 10", "default: 10, type: integer")],
        [("retries: 1", "retries: 1, retry_delay: 5m, pool: default_pool")],
        [("dag_id: orders\n", ""), ("tags:", "dag_id: orders\ntags:")],
        [("retries: 1", "retries: 1, retry_on: []")],
    ],
    ids=["comment", "tags", "depends_on", "keys", "params", "defaults", "order of the DAG's keys", "an empty list"],
)
def test_no_change_of_meaning(load: Callable[[str], DagSpec], compare: Compare, edits: list[tuple[str, str]]) -> None:
    old, new = load(BASE), load(edited(*edits))
    assert old.version == new.version
    assert compare(old, new).empty
    assert summary(compare(old, new)) == "no semantic change"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("outlets: [a, b]", "outlets: [b, a]"),
        ("retry_on: [Timeout, ValueError]", "retry_on: [ValueError, Timeout]"),
        ("no_retry_on: [Timeout, ValueError]", "no_retry_on: [ValueError, Timeout]"),
        ("on_failure: [log, ops]", "on_failure: [ops, log]"),
        ("expand: {n: [1, 2]}", "expand: {'n': [1, 2]}"),
    ],
)
def test_the_order_of_what_is_a_set_makes_no_version(load: Callable[[str], DagSpec], old: str, new: str) -> None:
    one, other = (load(edited(("retries: 1", words))) for words in (old, new))
    assert one.version == other.version


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('["0 6 * * *", "0 7 * * *"]', '["0 7 * * *", "0 6 * * *"]'),
        ("{datasets: [a, b]}", "{datasets: [b, a]}"),
    ],
)
def test_the_order_within_a_schedule_makes_no_version(load: Callable[[str], DagSpec], old: str, new: str) -> None:
    one, other = (load(edited(('"@daily"', words))) for words in (old, new))
    assert one.schedule is not None
    assert one.schedule != other.schedule
    assert one.version == other.version


def test_the_order_of_tasks_makes_no_version(load: Callable[[str], DagSpec]) -> None:
    lines = BASE.rstrip().splitlines()
    other = load("\n".join([*lines[:-3], *reversed(lines[-3:])]))
    assert other.version == load(BASE).version


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("{a: [1, 2], b: [3, 4]}", "{b: [3, 4], a: [1, 2]}", "expand (order)"),
        ("{n: [1, 2]}", "{n: [2, 1]}", "expand.n"),
    ],
)
def test_an_order_that_numbers_the_instances_counts(compare: Compare, old: str, new: str, path: str) -> None:
    diff = compare(*(edited(("retries: 1", f"expand: {words}")) for words in (old, new)))
    assert [change.path for change in diff.tasks[0].changes] == [path]
    assert diff.old.version != diff.new.version


def test_the_keys_that_a_task_is_mapped_over_count_in_order(load: Callable[[str], DagSpec]) -> None:
    one, same, other = (
        load(edited(("retries: 1", f"expand: {words}")))
        for words in ("{n: {x: 1, y: 2}}", "{n: {x: 1, y: 2}}", "{n: {y: 2, x: 1}}")
    )
    assert one.version == same.version != other.version


def test_added_and_removed(compare: Compare) -> None:
    diff = compare(
        BASE,
        edited(
            ('  check: {operator: bash, with: {command: "test 1"}', "  look: {operator: empty"),
            ("[load, check]", "[load, look]"),
        ),
    )
    assert diff.tasks == (
        TaskDiff("look", "added", "empty", upstream_added=("load",)),
        TaskDiff("report", "changed", "bash", upstream_added=("look",), upstream_removed=("check",)),
        TaskDiff("check", "removed", "bash", upstream_removed=("load",)),
    )
    assert summary(diff) == "1 task added, 1 removed, 1 rewired"


def test_renamed(compare: Compare) -> None:
    diff = compare(BASE, BASE.replace("check", "verify"))
    assert diff.tasks == (TaskDiff("verify", "renamed", "bash", "check"),)
    assert summary(diff) == "1 task renamed"


def test_a_chain_that_names_its_xcoms_is_renamed_as_a_whole(compare: Compare) -> None:
    text = """
tasks:
  get: {operator: bash, with: {command: "echo 1"}}
  sum: {operator: bash, with: {command: [echo, "{{ xcom.get }} {{ xcom['get'] }}", "{{ xcom.get_more }}"]}}
  end: {operator: bash, with: {command: [echo, "{{ xcom.sum }}"]}, when: "xcom.get > 0"}
  get_more: {operator: bash, with: {command: "echo 2"}}
"""
    new = text.replace("get:", "fetch-it:").replace("xcom.get ", "xcom['fetch-it'] ").replace("['get']", "['fetch-it']")
    diff = compare(text, new.replace("sum", "total"))
    assert [(one.kind, one.was, one.task_id, one.rewired) for one in diff.tasks] == [
        ("renamed", "get", "fetch-it", False),
        ("renamed", "sum", "total", False),
        ("changed", None, "end", False),
    ]
    assert [change.path for change in diff.tasks[2].changes] == ["with.command", "when"]


def test_tasks_that_are_all_alike_are_not_called_renamed(compare: Compare) -> None:
    old = "tasks:\n  a: {operator: empty}\n  b: {operator: empty}\n"
    new = "tasks:\n  c: {operator: empty}\n  d: {operator: empty}\n"
    assert sorted(one.kind for one in compare(old, new).tasks) == ["added", "added", "removed", "removed"]


def test_those_that_are_alike_are_told_apart_by_what_is_before_them(compare: Compare) -> None:
    old = "tasks:\n  a: {operator: empty}\n  b: {operator: empty, depends_on: [a]}\n"
    assert [
        (one.was, one.task_id)
        for one in compare(old, old.replace("b", "c").replace("a:", "d:").replace("[a]", "[d]")).tasks
    ] == [
        ("a", "d"),
        ("b", "c"),
    ]


@pytest.mark.parametrize(
    ("written", "change"),
    [
        ("retries: 2", Change("retries", "changed", 1, 2)),
        ("retries: 1, retry_delay: 1h", Change("retry_delay", "changed", 300.0, 3600.0)),
        ("retries: 1, trigger_rule: all_done", Change("trigger_rule", "changed", "all_success", "all_done")),
        ("retries: 1, pool: gpu", Change("pool", "changed", "default_pool", "gpu")),
        ("retries: 1, queue: gpu", Change("queue", "changed", "default", "gpu")),
        ("retries: 1, when: params.limit > 3", Change("when", "changed", None, "params.limit > 3")),
        ("retries: 1, setup: true", Change("setup", "changed", False, True)),
        ("retries: 1, cache: true", Change("cache", "changed", None, {"ttl": None, "key": None})),
        ("retries: 1, outlets: [x]", Change("outlets", "changed", [], ["x"])),
    ],
)
def test_a_setting_of_a_task(compare: Compare, written: str, change: Change) -> None:
    (task,) = compare(BASE, edited(("retries: 1", written))).tasks
    (found,) = task.changes
    assert (task.task_id, task.kind, found.path, found.kind, found.new) == (
        "load",
        "changed",
        change.path,
        change.kind,
        change.new,
    )
    assert list(found.old) == list(change.old) if isinstance(change.old, list) else found.old == change.old


def test_arguments_by_their_path(compare: Compare) -> None:
    old = edited(('"echo 1"}', '"echo 1", env: {A: "1", B: "2"}}'))
    new = edited(('"echo 1"}', '"echo 1", env: {A: "1", B: "3", C: "4"}}'))
    assert compare(old, new).tasks[0].changes == (
        Change("with.env.B", "changed", "2", "3"),
        Change("with.env.C", "added", new="4"),
    )


def test_another_operator(compare: Compare) -> None:
    (task,) = compare(BASE, edited(('bash, with: {command: "echo done"}', "empty"))).tasks
    assert task.changes == (
        Change("operator", "changed", "bash", "empty"),
        Change("with.command", "removed", old="echo done"),
    )


def test_an_xcom_that_is_named_is_told_by_the_argument(compare: Compare) -> None:
    new = edited(('{command: "test 1"}', '{command: [echo, "{{ xcom.load }}"]}'))
    assert [change.path for change in compare(BASE, new).tasks[0].changes] == ["with.command"]


def test_params(compare: Compare) -> None:
    new = edited(("default: 10}}", "default: 10, maximum: 20}, name: {type: string, default: x}}"))
    added, changed = sorted(compare(BASE, new).params, key=lambda part: part.kind)
    assert (added.name, added.kind) == ("name", "added")
    assert (changed.name, changed.changes) == ("limit", (Change("maximum", "added", new=20),))
    assert summary(compare(BASE, new)) == "params limit, name changed"
    assert {part.name: part.kind for part in compare(new, BASE).params} == {"limit": "changed", "name": "removed"}


def test_groups(compare: Compare) -> None:
    old = "tasks: {g: {tasks: {a: {operator: empty}}}}"
    new = "tasks: {g: {doc_md: New, tasks: {a: {operator: empty}}}, h: {tasks: {b: {operator: empty}}}}"
    assert [(part.name, part.kind) for part in compare(old, new).groups] == [("g", "changed"), ("h", "added")]


def test_settings_of_the_dag(compare: Compare) -> None:
    diff = compare(BASE, edited(("tags: [daily, demo]", "owner: me\ntags: [daily, x]\nmax_active_runs: 2")))
    assert diff.settings == (
        Change("owner", "changed", None, "me"),
        Change("tags", "changed", ["daily", "demo"], ["daily", "x"]),
        Change("max_active_runs", "changed", 16, 2),
    )
    assert summary(diff) == "settings owner, tags, max_active_runs changed"


def test_another_dag_id_is_a_difference(compare: Compare) -> None:
    diff = compare(BASE, edited(("dag_id: orders", "dag_id: sales")))
    assert diff.settings == (Change("dag_id", "changed", "orders", "sales"),)


def test_numbers_and_truths_are_different_values() -> None:
    assert [list(changes("x", 1, other)) for other in (1, True, 1.0)] == [
        [],
        [Change("x", "changed", 1, True)],
        [Change("x", "changed", 1, 1.0)],
    ]


def test_lists_of_mappings_by_their_items() -> None:
    old: list[Any] = [{"op": "a"}, {"op": "b"}, {"op": "c", "n": 1}]
    assert list(changes("with.steps", old, [*old[:2], {"op": "c", "n": 2}])) == [
        Change("with.steps[2].n", "changed", 1, 2)
    ]
    assert list(changes("with.steps", old, [old[0], *old[2:]])) == [Change("with.steps[1]", "removed", old={"op": "b"})]
    assert list(changes("with.steps", [old[0], *old[2:]], old)) == [Change("with.steps[1]", "added", new={"op": "b"})]


def test_a_key_that_is_no_name_is_quoted() -> None:
    assert [change.path for change in changes("with", {"a b": 1}, {"a b": 2})] == ['with["a b"]']


def test_a_long_chain_of_alike_tasks_is_renamed_as_a_whole(now: datetime) -> None:
    def chain(letter: str) -> DagSpec:
        upstream: list[tuple[str, ...]] = [()] + [(f"{letter}{number}",) for number in range(999)]
        tasks = [TaskSpec(f"{letter}{number}", "empty", {}, upstream=upstream[number]) for number in range(1000)]
        return DagSpec("d", {task.task_id: task for task in tasks})

    found = dag_diff(chain("a"), chain("b"), now).tasks
    assert [(one.was, one.task_id, one.rewired) for one in found] == [(f"a{n}", f"b{n}", False) for n in range(1000)]


OTHERS: dict[str, Any] = {"bool": True, "int": 7, "float": 7.5, "str": "x", "tuple": ("x",), "Mapping": {"x": {"y": 1}}}
NAMED: dict[str, Any] = {
    "deadline": DeadlineSpec(60.0),
    "cache": CacheSpec(),
    "schedule": ScheduleSpec(cron="@daily"),
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "end_date": datetime(2026, 1, 1, tzinfo=UTC),
    "groups": {"x": None},
    "semantics": "trigger",
    "mode": "any",
    "gap": "skip",
    "fold": "both",
    "timezone": "Europe/Zurich",
    "cron": "0 6 * * *",
}


def other_value(field: dataclasses.Field[Any]) -> Any:
    """A value of a field that is not its default."""
    if field.name in NAMED:
        return NAMED[field.name]
    return next(value for start, value in OTHERS.items() if str(field.type).startswith(start))


@pytest.mark.parametrize("field", dataclasses.fields(TaskSpec)[1:], ids=lambda field: field.name)
def test_every_field_of_a_task_alone_is_a_difference(compare: Compare, field: dataclasses.Field[Any]) -> None:
    task = TaskSpec("a", "bash", {})
    x = TaskSpec("x", "empty", {})
    old, new = (
        DagSpec("d", {"x": x, "a": one})
        for one in (task, dataclasses.replace(task, **{field.name: other_value(field)}))
    )
    (found,) = compare(old, new).tasks
    assert found.task_id == "a"
    assert found.rewired or [change.path.split(".")[0] for change in found.changes] == [
        "with" if field.name == "arguments" else field.name
    ]


@pytest.mark.parametrize(
    "field",
    [one for one in dataclasses.fields(DagSpec) if one.name not in ("dag_id", "tasks")],
    ids=lambda field: field.name,
)
def test_every_field_of_a_dag_alone_is_a_difference(compare: Compare, field: dataclasses.Field[Any]) -> None:
    old = DagSpec("d", {"x": TaskSpec("x", "empty", {})})
    diff = compare(old, dataclasses.replace(old, **{field.name: other_value(field)}))
    assert not diff.empty
    assert summary(diff) != "no semantic change"


@pytest.mark.parametrize("field", [one.name for one in dataclasses.fields(ScheduleSpec)][3:])
def test_every_field_of_a_schedule_alone_is_a_difference(compare: Compare, field: str) -> None:
    old = ScheduleSpec(datasets=("a", "b")) if field == "mode" else ScheduleSpec(cron="@hourly")
    specs = [
        DagSpec("d", {"x": TaskSpec("x", "empty", {})}, schedule=one)
        for one in (old, dataclasses.replace(old, **{field: NAMED[field]}))
    ]
    schedule = compare(*specs).schedule
    assert schedule is not None
    assert [change.path for change in schedule.changes] == [f"schedule.{field}"]

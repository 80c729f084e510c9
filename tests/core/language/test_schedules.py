"""What `schedule`, `dst` and `catchup` may say, and what is said about them when they don't go together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from yarrow.language import codes
from yarrow.language.spec import DagSpec, ScheduleSpec

Load = Callable[..., Any]

TASKS = "tasks: {a: {operator: nothing}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0 6 * * 1-5, 0 10 * * 6]", ScheduleSpec(cron=("0 6 * * 1-5", "0 10 * * 6"))),
        (
            "{cron: ['@daily', '@hourly'], semantics: trigger}",
            ScheduleSpec(cron=("@daily", "@hourly"), semantics="trigger"),
        ),
        ("['@daily']", ScheduleSpec(cron="@daily")),
        ("['@daily', '@daily']", ScheduleSpec(cron="@daily")),
        ("0 0 L * 5#3", ScheduleSpec(cron="0 0 L * 5#3")),
        ("'@continuous'", ScheduleSpec(cron="@continuous")),
        ("{datasets: [a]}", ScheduleSpec(datasets=("a",))),
        ("{datasets: [b/x:1, a, a], mode: any}", ScheduleSpec(datasets=("b/x:1", "a"), mode="any")),
    ],
)
def test_schedules(load: Load, text: str, expected: ScheduleSpec) -> None:
    spec = load(f"schedule: {text}\n{TASKS}").spec
    assert spec is not None
    assert spec.schedule == expected
    assert DagSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("text", "code", "line", "column", "words"),
    [
        ("schedule: ['@daily', 61 * * * *]\n", codes.BAD_SCHEDULE, 1, 22, "between 0 and 59"),
        ("schedule: {cron: ['@daily', '@once']}\n", codes.BAD_SCHEDULE, 1, 29, "It stands alone."),
        ("schedule: ['@continuous', '@daily']\n", codes.BAD_SCHEDULE, 1, 12, "It stands alone."),
        ("schedule: []\n", codes.BAD_VALUE, 1, 11, "must not be empty"),
        ("schedule: {cron: []}\n", codes.BAD_VALUE, 1, 18, "must not be empty"),
        ("schedule: {datasets: []}\n", codes.BAD_VALUE, 1, 22, "must not be empty"),
        ("schedule: {datasets: [a, -b]}\n", codes.BAD_ID, 1, 26, "is not allowed"),
        ("schedule: {datasets: a}\n", codes.WRONG_TYPE, 1, 22, "must be a list"),
        ("schedule: {datasets: [a], mode: some}\n", codes.BAD_VALUE, 1, 33, "must be one of `all`, `any`"),
        ("schedule: {datasets: [a], every: 5m}\n", codes.BAD_SCHEDULE, 1, 12, "either `every` or `datasets`, not both"),
        ("schedule: {datasets: [a], semantics: trigger}\n", codes.UNKNOWN_KEY, 1, 27, "`semantics`"),
        ("schedule: {cron: '@daily', mode: any}\n", codes.UNKNOWN_KEY, 1, 28, "`mode`"),
        ("schedule: {semantics: trigger}\n", codes.MISSING_KEY, 1, 11, "nor `datasets`"),
        ("schedule: 0 0 * * * *\n", codes.BAD_SCHEDULE, 1, 11, "Seconds and years are not supported."),
        ("schedule: R 0 * * *\n", codes.BAD_SCHEDULE, 1, 11, "`R` (a random value) is not supported"),
        ("schedule: 0 0 ? * 1\n", codes.BAD_SCHEDULE, 1, 11, "`?` is not supported"),
        ("schedule: 0 0 15W * *\n", codes.BAD_SCHEDULE, 1, 11, "`W` (the nearest weekday) is not supported"),
        ("schedule: '@continuous'\nmax_active_runs: 2\n", codes.BAD_SCHEDULE, 2, 18, "has one run at a time"),
        ("max_catchup_runs: 0\n", codes.BAD_VALUE, 1, 19, "must be at least 1"),
    ],
)
def test_what_is_refused(load: Load, text: str, code: str, line: int, column: int, words: str) -> None:
    (fault,) = load(text + TASKS).faults
    assert (fault.code, fault.severity, fault.line, fault.column) == (code, "error", line, column)
    assert words in fault.message


@pytest.mark.parametrize(
    ("text", "code", "line", "words"),
    [
        ("schedule: {datasets: [a]}\ncatchup: true\n", codes.NO_EFFECT, 2, "`catchup` has no effect: a run comes when"),
        ("schedule: '@continuous'\ncatchup: true\n", codes.NO_EFFECT, 2, "`catchup` has no effect: with `@continuous`"),
        ("catchup: true\n", codes.NO_EFFECT, 1, "without a `schedule`"),
        ("schedule: '@daily'\nmax_catchup_runs: 3\n", codes.NO_EFFECT, 2, "without `catchup: true`"),
        ("schedule: {every: 5m}\ndst: {gap: skip}\n", codes.NO_EFFECT, 2, "`every` keeps its distance"),
        ("schedule: {datasets: [a]}\ndst: {gap: skip}\n", codes.NO_EFFECT, 2, "names no local times"),
        ("schedule: '@once'\ndst: {gap: skip}\n", codes.NO_EFFECT, 2, "names no local times"),
        ("schedule: {datasets: [a]}\nstart_date: 2026-01-01\n", codes.NO_EFFECT, 2, "`start_date` has no effect"),
        ("schedule: {datasets: [a]}\nend_date: 2026-01-01\n", codes.NO_EFFECT, 2, "`end_date` has no effect"),
    ],
)
def test_what_has_no_effect_is_a_warning(load: Load, text: str, code: str, line: int, words: str) -> None:
    result = load(text + TASKS)
    (fault,) = result.faults
    assert (fault.code, fault.severity, fault.line) == (code, "warning", line)
    assert words in fault.message
    assert result.spec is not None


def test_continuous_has_one_run_at_a_time(load: Load) -> None:
    assert load(f"schedule: '@continuous'\n{TASKS}").spec.max_active_runs == 1
    assert load(f"schedule: '@continuous'\nmax_active_runs: 1\n{TASKS}").spec.max_active_runs == 1


def test_a_dag_that_waits_for_itself_is_a_warning(load: Load) -> None:
    result = load("schedule: {datasets: [x]}\ntasks: {a: {operator: nothing, outlets: [x]}}\n")
    (fault,) = result.faults
    assert (fault.severity, fault.message) == ("warning", "The task `a` publishes `x`, for which the DAG itself waits.")

"""The keys that say how tasks and runs behave: what they come to in the spec, and which of them do not fit together."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from yarrow.language import codes, elsewhere, grammar
from yarrow.language.loader import LoadResult
from yarrow.language.spec import CacheSpec, DagSpec, DeadlineSpec, TaskSpec

Load = Callable[[str], LoadResult]


def spec_of(result: LoadResult) -> DagSpec:
    assert [fault for fault in result.faults if fault.severity == "error"] == []
    assert result.spec is not None
    return result.spec


def task_of(load: Load, keys: str) -> TaskSpec:
    result = load(f"tasks:\n  a: {{operator: stage, {keys}}}\n")
    assert result.faults == []
    return spec_of(result).tasks["a"]


@pytest.mark.parametrize(
    ("keys", "field", "value"),
    [
        ("retries: 1, retry_on: [TimeoutError, ExitCode.99]", "retry_on", ("TimeoutError", "ExitCode.99")),
        ("retries: 1, no_retry_on: [pkg.mod.Error]", "no_retry_on", ("pkg.mod.Error",)),
        ("soft_fail: true", "soft_fail", True),
        ("pool_slots: 3", "pool_slots", 3),
        ("weight_rule: absolute", "weight_rule", "absolute"),
        ("max_active_tis_per_dag: 2", "max_active_tis_per_dag", 2),
        ("max_active_tis_per_dagrun: 1", "max_active_tis_per_dagrun", 1),
        ("depends_on_past: true", "depends_on_past", True),
        ("wait_for_downstream: true", "depends_on_past", True),
        ("setup: true", "setup", True),
        ("outlets: [a, 's3://b/c', a]", "outlets", ("a", "s3://b/c")),
        ("cache: true", "cache", CacheSpec()),
        ("cache: false", "cache", None),
        ("cache: {ttl: 7d, key: '{{ ds }}'}", "cache", CacheSpec(604800.0, "{{ ds }}")),
        ("deadline: 2h", "deadline", DeadlineSpec(7200.0)),
        ("deadline: {after: 0s, from: average}", "deadline", DeadlineSpec(0.0, "average")),
        ("on_failure: log", "on_failure", ("log",)),
        ("on_retry: [slack, 'https://example.org/x?y=1']", "on_retry", ("slack", "https://example.org/x?y=1")),
        ("on_success: 'mailto://me:you@example.org'", "on_success", ("mailto://me:you@example.org",)),
        ("deadline: 1h, on_deadline: log", "on_deadline", ("log",)),
    ],
)
def test_keys_of_a_task(load: Load, keys: str, field: str, value: object) -> None:
    task = task_of(load, keys)
    assert getattr(task, field) == value
    # What they all come to survives being kept.
    spec = DagSpec("x", {"a": task})
    assert DagSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_keys_of_a_dag(load: Load) -> None:
    result = load(
        """
        schedule: "@daily"
        start_date: 2024-01-01
        catchup: true
        max_catchup_runs: 5
        dagrun_timeout: 2h
        max_consecutive_failed_dag_runs: 3
        fail_fast: true
        run_state: all_tasks
        deadline: {after: 1h, from: queued_at}
        on_success: log
        on_failure: [log, pager, log]
        on_retry: log
        on_deadline: https://example.org/late
        tasks: {a: {operator: nothing}}
        """
    )
    assert result.faults == []
    spec = spec_of(result)
    assert (spec.max_catchup_runs, spec.dagrun_timeout, spec.max_consecutive_failed_dag_runs) == (5, 7200.0, 3)
    assert (spec.fail_fast, spec.run_state, spec.deadline) == (True, "all_tasks", DeadlineSpec(3600.0, "queued_at"))
    assert (spec.on_success, spec.on_failure, spec.on_retry) == (("log",), ("log", "pager"), ("log",))
    assert spec.on_deadline == ("https://example.org/late",)


def test_default_args_set_what_tasks_have_in_common(load: Load) -> None:
    keys = "retries: 2, retry_on: [OSError], pool_slots: 2, depends_on_past: true, on_failure: log, deadline: 1h"
    spec = spec_of(load(f"default_args: {{{keys}}}\ntasks: {{a: {{operator: nothing, pool_slots: 1}}}}\n"))
    task = spec.tasks["a"]
    assert (task.retry_on, task.pool_slots, task.depends_on_past) == (("OSError",), 1, True)
    assert (task.on_failure, task.deadline) == (("log",), DeadlineSpec(3600.0))


@pytest.mark.parametrize("key", ["expand", "setup", "teardown", "on_failure_fail_dagrun", "outlets", "cache", "when"])
def test_what_only_a_task_itself_can_say(load: Load, key: str) -> None:
    (fault,) = load(f"default_args: {{{key}: true}}\ntasks: {{a: {{operator: nothing}}}}\n").faults
    assert (fault.code, fault.hint) == (codes.UNKNOWN_KEY, "It is a key of a task, not of `default_args`.")


def test_a_teardown_has_a_rule_of_its_own(load: Load) -> None:
    result = load(
        """
        run_state: all_tasks
        default_args: {trigger_rule: none_failed}
        tasks:
          up: {operator: nothing, setup: true}
          work: {operator: nothing, depends_on: [up]}
          down: {operator: nothing, depends_on: [up, work], teardown: true, on_failure_fail_dagrun: true}
          down_too: {operator: nothing, depends_on: [up, work], teardown: true, trigger_rule: all_success}
        """
    )
    spec = spec_of(result)
    assert result.faults == []
    rules = {task_id: task.trigger_rule for task_id, task in spec.tasks.items()}
    assert rules == {
        "up": "none_failed",
        "work": "none_failed",
        "down": "all_done_setup_success",
        "down_too": "all_success",
    }
    assert spec.tasks["down"].on_failure_fail_dagrun


CONTRADICTIONS = [
    ("a: {operator: nothing, setup: true, teardown: true}", "teardown", "can't be a setup and a teardown at once"),
    ("a: {operator: nothing, on_failure_fail_dagrun: true}", "on_failure_fail_dagrun", "is for teardowns"),
    ("a: {operator: nothing, trigger_rule: all_done_setup_success}", "trigger_rule", "is for teardowns, and `a` is"),
    ("a: {operator: short_circuit, cache: true, with: {condition: true}}", "cache", "steers the run"),
    ("a: {operator: approval, cache: {ttl: 1d}, with: {message: Go on?}}", "cache", "asks a person"),
    ("a: {operator: wait_until, cache: true, with: {at: '2024-01-01'}}", "cache", "waits for something outside"),
]


@pytest.mark.parametrize(("task", "key", "words"), CONTRADICTIONS, ids=[words for _, _, words in CONTRADICTIONS])
def test_contradictions(load: Load, task: str, key: str, words: str) -> None:
    text = f"tasks:\n  {task}\n"
    found = [fault for fault in load(text).faults if fault.code == codes.CONTRADICTION]
    assert len(found) == 1
    assert words in found[0].message
    assert found[0].hint is not None
    # It is the value of that key which is pointed at.
    line = text.splitlines()[found[0].line - 1]
    assert line[: found[0].column - 1].endswith(f"{key}: ")


def test_fail_fast_needs_all_success(load: Load) -> None:
    text = """
        fail_fast: true
        default_args: {trigger_rule: %s}
        tasks:
          a: {operator: nothing, setup: true, trigger_rule: all_success}
          b: {operator: nothing, depends_on: [a]}
          c: {operator: nothing, depends_on: [a, b], teardown: true}
        """
    assert load(text % "all_success").faults == []
    (fault,) = load(text % "all_done").faults
    assert (fault.code, fault.severity) == (codes.CONTRADICTION, "error")
    assert "that of `b` is `all_done`" in fault.message


USELESS = [
    ("tasks: {a: {operator: nothing, retry_on: [OSError]}}", "`retry_on` has no effect"),
    ("tasks: {a: {operator: nothing, retries: 0, no_retry_on: [OSError]}}", "`no_retry_on` has no effect"),
    ("tasks: {a: {operator: nothing, max_map_length: 5}}", "the task `a` has no `expand`"),
    ("tasks: {g: {max_map_length: 5, tasks: {a: {operator: nothing}}}}", "the group `g` has no `expand`"),
    ("tasks: {a: {operator: nothing, on_deadline: log}}", "the task `a` has no `deadline`"),
    ("on_deadline: log\ntasks: {a: {operator: nothing}}", "neither the DAG nor any of its tasks has a `deadline`"),
]


@pytest.mark.parametrize(("text", "words"), USELESS)
def test_settings_without_effect(load: Load, text: str, words: str) -> None:
    (fault,) = load(text + "\n").faults
    assert (fault.code, fault.severity) == (codes.USELESS, "warning")
    assert words in fault.message


def test_whom_the_dag_tells_of_deadlines_is_told_of_those_of_its_tasks_too(load: Load) -> None:
    text = "on_deadline: log\ntasks: {a: {operator: nothing, deadline: 1h}, b: {operator: nothing}}\n"
    assert load(text).faults == []


def test_defaults_of_all_tasks_need_not_mean_each(load: Load) -> None:
    text = "default_args: {retry_on: [OSError], max_map_length: 4, on_deadline: log}\ntasks: {a: {operator: nothing}}\n"
    assert load(text).faults == []


WRONG = [
    ("retry_on: OSError", codes.WRONG_TYPE, "Write a list of one: [OSError]."),
    ("retry_on: [not a class]", codes.BAD_ID, "names a class of errors"),
    ("pool_slots: 0", codes.BAD_VALUE, "at least 1"),
    ("weight_rule: upstrem", codes.BAD_VALUE, "Did you mean `upstream`?"),
    ("outlets: [' a']", codes.BAD_ID, "letters, digits"),
    ("outlets: ['{{ ds }}']", codes.NO_TEMPLATE_HERE, "can't be a template"),
    ("deadline: soon", codes.BAD_DURATION, "not a duration"),
    ("deadline: {from: queued_at}", codes.MISSING_KEY, "needs the key `after`"),
    ("deadline: {after: 1h, from: start}", codes.BAD_VALUE, "`logical_date`, `data_interval_end`, `queued_at`"),
    ("cache: 7d", codes.WRONG_TYPE, "true or false or a mapping"),
    ("cache: {ttl: 0s}", codes.BAD_DURATION, "longer than"),
    ("cache: {key: '{{ nonsense }}'}", codes.UNKNOWN_NAME, "no name `nonsense`"),
    ("on_failure: 'not a target'", codes.BAD_ID, "the id of a connection, or a URL"),
    ("on_failure: '{{ var.hook }}'", codes.NO_TEMPLATE_HERE, "can't be a template"),
    ("on_failure: [log, 5]", codes.WRONG_TYPE, "must be text"),
]


@pytest.mark.parametrize(("keys", "code", "words"), WRONG)
def test_wrong_values(load: Load, keys: str, code: str, words: str) -> None:
    faults = load(f"tasks: {{a: {{operator: stage, {keys}}}}}\n").faults
    assert [fault.code for fault in faults] == [code]
    assert words in str(faults[0])


def test_the_key_of_a_cache_counts_as_a_template_of_the_task(load: Load) -> None:
    task = spec_of(
        load(
            """
            tasks:
              a: {operator: stage}
              b: {operator: stage, cache: {key: "{{ xcom.a.rows }}-{{ var.model }}"}}
            """
        )
    ).tasks["b"]
    assert (task.xcoms, task.upstream, task.variables) == (("a",), ("a",), ("model",))


@pytest.mark.parametrize("key", sorted(elsewhere.KEYS))
def test_words_from_elsewhere_are_no_keys_and_are_translated(load: Load, key: str) -> None:
    (fault,) = load(f"tasks: {{a: {{operator: nothing, {key}: 1}}}}\n").faults
    if key not in grammar.DAG:
        assert (fault.code, fault.hint) == (codes.UNKNOWN_KEY, elsewhere.KEYS[key])
    assert key not in grammar.TASK
    assert key not in grammar.GROUP

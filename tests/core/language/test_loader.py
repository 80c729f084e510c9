"""What a DAG file compiles to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from yarrow import Context, Operator, registry
from yarrow.language import codes
from yarrow.language.deployment import Known
from yarrow.language.lint import lint_paths
from yarrow.language.loader import LoadResult, load_file, load_text
from yarrow.language.spec import DagSpec, ScheduleSpec
from yarrow.operator import ArgumentPath

Load = Callable[[str], LoadResult]
Folder = Callable[[Mapping[str, str | bytes]], Path]
LoadIn = Callable[[Mapping[str, str | bytes]], LoadResult]

FULL = """\
    # yaml-language-server: $schema=../dag.schema.json
    dag_id: late_flights
    description: Score every departure of the month for delay
    owner: flight-ops
    tags: [demo, inference]
    doc_md: |
      # Late flights
    schedule: "@monthly"
    timezone: America/New_York
    dst: {gap: skip, fold: both}
    start_date: 2013-01-01
    end_date: 2014-01-01T00:00:00Z
    catchup: true
    max_active_runs: 3
    max_active_tasks: 5
    params:
      threshold: {type: number, default: 0.5, minimum: 0, maximum: 1}
    default_args: {retries: 2, retry_delay: 10s, retry_exponential_backoff: 2, owner: ops}
    tasks:
      ingest:
        operator: shell
        with: {command: "get {{ var.flights_zip }}"}
      validate:
        operator: stage
        retries: 0
        with: {input: "{{ xcom.ingest }}", columns: {origin: {valid_values: [JFK, 1], on_fail: warn}}}
      score:
        operator: stage
        queue: inference
        pool: gpu
        priority_weight: 10
        trigger_rule: none_failed
        execution_timeout: 2h
        max_retry_delay: 1d
        when: "{{ xcom.validate.rows > 0 }}"
        doc_md: Scores.
        with: {input: "{{ xcom.validate.valid }}", sql: "select {{ braces }}", conn_id: warehouse}
      publish:
        operator: shell
        depends_on: [score]
        with:
          command: [publish, "{{ conn.s3.host }}", "{{ params.threshold }}", "out/{{ ds }}.parquet"]
"""


def spec_of(result: LoadResult) -> DagSpec:
    assert result.faults == []
    assert result.spec is not None
    return result.spec


def upstream(result: LoadResult) -> dict[str, tuple[str, ...]]:
    return {task.task_id: task.upstream for task in spec_of(result).tasks.values()}


def test_a_whole_dag(load: Load) -> None:
    spec = spec_of(load(FULL))
    assert (spec.dag_id, spec.owner, spec.tags) == ("late_flights", "flight-ops", ("demo", "inference"))
    assert spec.schedule == ScheduleSpec(cron="@monthly", timezone="America/New_York", gap="skip", fold="both")
    assert spec.start_date == datetime(2013, 1, 1, 5, tzinfo=UTC)
    assert spec.end_date == datetime(2014, 1, 1, tzinfo=UTC)
    assert (spec.catchup, spec.max_active_runs, spec.max_active_tasks) == (True, 3, 5)
    assert spec.params == {"threshold": {"type": "number", "default": 0.5, "minimum": 0, "maximum": 1}}
    assert list(spec.tasks) == ["ingest", "validate", "score", "publish"]

    ingest, validate, score, publish = spec.tasks.values()
    assert (ingest.retries, ingest.retry_delay, ingest.retry_exponential_backoff, ingest.owner) == (2, 10.0, 2, "ops")
    assert ingest.variables == ("flights_zip",)
    assert (validate.retries, validate.upstream, validate.xcoms) == (0, ("ingest",), ("ingest",))
    assert (score.queue, score.pool, score.priority_weight, score.trigger_rule) == (
        "inference",
        "gpu",
        10,
        "none_failed",
    )
    assert (score.execution_timeout, score.max_retry_delay) == (7200.0, 86400.0)
    assert (score.when, score.when_xcoms) == ("xcom.validate.rows > 0", ("validate",))
    assert score.connections == ("warehouse",)
    assert score.arguments["sql"] == "select {{ braces }}"
    assert (publish.upstream, publish.xcoms, publish.connections) == (("score",), (), ("s3",))
    assert publish.arguments["command"] == [
        "publish",
        "{{ conn.s3.host }}",
        "{{ params.threshold }}",
        "out/{{ ds }}.parquet",
    ]


def test_the_least_dag(load: Load) -> None:
    spec = spec_of(load("tasks: {a: {operator: nothing}}"))
    assert spec.dag_id == "my_dag"
    assert spec.schedule is None
    task = spec.tasks["a"]
    assert (task.retries, task.retry_delay, task.queue, task.pool) == (0, 300.0, "default", "default_pool")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'@daily'", ScheduleSpec(cron="@daily")),
        ("0 6 * * 1-5", ScheduleSpec(cron="0 6 * * 1-5")),
        ("{cron: 0 6 * * *, semantics: trigger}", ScheduleSpec(cron="0 6 * * *", semantics="trigger")),
        ("{every: 15m}", ScheduleSpec(every=900.0)),
        ("null", None),
        ("", None),
    ],
)
def test_schedules(load: Load, text: str, expected: ScheduleSpec | None) -> None:
    assert spec_of(load(f"schedule: {text}\ntasks: {{a: {{operator: nothing}}}}")).schedule == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-31T02:30:00", datetime(2024, 3, 31, 1, 30, tzinfo=UTC)),
        ("2024-07-01 06:00", datetime(2024, 7, 1, 4, tzinfo=UTC)),
        ("2024-07-01T06:00:00-07:00", datetime(2024, 7, 1, 13, tzinfo=UTC)),
    ],
)
def test_dates_without_an_offset_are_local(load: Load, text: str, expected: datetime) -> None:
    spec = spec_of(load(f"start_date: {text}\ntimezone: Europe/Berlin\ntasks: {{a: {{operator: nothing}}}}"))
    assert spec.start_date == expected


def test_groups_give_ids_defaults_and_dependencies(load: Load) -> None:
    result = load(
        """\
        default_args: {retries: 1, queue: slow}
        tasks:
          start: {operator: nothing}
          prepare:
            doc_md: Gets everything ready.
            depends_on: [start]
            default_args: {retries: 5}
            tasks:
              left: {operator: nothing}
              right: {operator: nothing, retries: 0}
              inner:
                depends_on: [left]
                tasks:
                  one: {operator: nothing}
                  two: {operator: nothing, depends_on: [one]}
              after: {operator: nothing, depends_on: [inner, prepare.right]}
              loose: {operator: nothing}
          end: {operator: nothing, depends_on: [prepare]}
        """
    )
    assert upstream(result) == {
        "start": (),
        "prepare.left": ("start",),
        "prepare.right": ("start",),
        "prepare.inner.one": ("prepare.left",),
        "prepare.inner.two": ("prepare.inner.one",),
        "prepare.after": ("prepare.inner.two", "prepare.right"),
        "prepare.loose": ("start",),
        "end": ("prepare.after", "prepare.loose"),
    }
    spec = spec_of(result)
    assert spec.groups == {"prepare": "Gets everything ready.", "prepare.inner": None}
    assert [spec.tasks[name].retries for name in ("start", "prepare.left", "prepare.right", "prepare.inner.one")] == [
        1,
        5,
        0,
        5,
    ]
    assert spec.tasks["prepare.inner.two"].queue == "slow"


def test_a_neighbour_comes_before_a_full_id(load: Load) -> None:
    result = load(
        """\
        tasks:
          a: {operator: nothing}
          g:
            tasks:
              a: {operator: nothing}
              b: {operator: nothing, depends_on: [a]}
        """
    )
    assert upstream(result)["g.b"] == ("g.a",)


def test_an_xcom_in_a_group_makes_edges_before_leaves_are_counted(load: Load) -> None:
    result = load(
        """\
        tasks:
          g:
            tasks:
              a: {operator: stage}
              b: {operator: stage, with: {rows: "{{ xcom.g.a.rows }}"}}
          end: {operator: nothing, depends_on: [g]}
        """
    )
    assert upstream(result) == {"g.a": (), "g.b": ("g.a",), "end": ("g.b",)}


def test_groups_in_a_circle(load: Load) -> None:
    result = load(
        """\
        tasks:
          g: {depends_on: [h], tasks: {a: {operator: nothing}}}
          h: {depends_on: [g], tasks: {b: {operator: nothing}}}
        """
    )
    assert [(fault.code, fault.line) for fault in result.faults] == [(codes.CYCLE, 2)]
    assert "g.a → h.b → g.a" in result.faults[0].message


def test_tasks_keep_the_order_of_the_file_where_they_can(load: Load) -> None:
    spec = spec_of(
        load("tasks: {c: {operator: nothing, depends_on: [a]}, b: {operator: nothing}, a: {operator: nothing}}")
    )
    assert list(spec.tasks) == ["b", "a", "c"]


def test_only_rendered_parameters_are_looked_at(load: Load) -> None:
    spec = spec_of(load("tasks: {a: {operator: stage, with: {sql: '{{ no.such }} {% if %}'}}}"))
    assert spec.tasks["a"].upstream == ()


def test_an_expression_parameter(load: Load) -> None:
    spec = spec_of(load("tasks: {a: {operator: stage}, b: {operator: stage, with: {condition: xcom.a.rows > 3}}}"))
    assert spec.tasks["b"].xcoms == ("a",)


@pytest.mark.parametrize("when", ["params.n > 1", "{{ params.n > 1 }}", "{{- params.n > 1 -}}", " {{params.n > 1}} "])
def test_when_may_have_braces(when: str, load: Load) -> None:
    result = load(f"params: {{n: {{default: 1}}}}\ntasks: {{a: {{operator: nothing, when: '{when}'}}}}\n")
    assert result.spec is not None
    assert result.spec.tasks["a"].when == "params.n > 1"


def test_values_within_values(load: Load) -> None:
    spec = spec_of(
        load("tasks: {a: {operator: stage, with: {pair: [1, b], plan: [{op: drop, columns: [x]}], rows: 3.0}}}")
    )
    assert spec.tasks["a"].arguments == {"pair": [1, "b"], "plan": [{"op": "drop", "columns": ["x"]}], "rows": 3}


def test_an_operator_s_check_sees_templates_unrendered(load: Load) -> None:
    text = "params: {x: {default: []}}\ntasks: {a: {operator: choose, with: {follow: '{{ params.x }}'}}}"
    assert spec_of(load(text)).tasks["a"].arguments == {"follow": "{{ params.x }}"}


def test_an_operator_s_check_that_fails_is_a_fault(load: Load) -> None:
    class Clumsy(Operator):
        """Fails to check."""

        @classmethod
        def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> list[tuple[ArgumentPath, str]]:
            raise KeyError("x")

        def execute(self, context: Context) -> None:
            raise NotImplementedError

    with registry.register("clumsy", Clumsy):
        result = load("tasks:\n  a: {operator: clumsy}\n")
    assert [(fault.code, fault.line) for fault in result.faults] == [(codes.BROKEN_OPERATOR, 2)]


def test_a_param_that_holds_braces_is_only_data(load: Load) -> None:
    spec = spec_of(load("params: {a: {default: '{{ 1 + 1 }}'}}\ntasks: {a: {operator: nothing}}"))
    assert spec.params["a"]["default"] == "{{ 1 + 1 }}"


def test_aliases_repeat_values(load: Load) -> None:
    spec = spec_of(load("tasks:\n  a: &same {operator: shell, with: {command: ls}}\n  b: *same\n"))
    assert spec.tasks["b"].arguments == {"command": "ls"}


def test_spec_survives_json(load: Load) -> None:
    spec = spec_of(load(FULL))
    again = DagSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.version == spec.version
    assert list(again.tasks) == list(spec.tasks)


def test_json_leaves_defaults_out(load: Load) -> None:
    spec = spec_of(load("tasks: {a: {operator: nothing}}"))
    assert spec.to_json() == {"dag_id": "my_dag", "tasks": {"a": {"operator": "nothing"}}}


def test_the_version_is_that_of_the_meaning(load: Load) -> None:
    one = spec_of(load("owner: me\ntasks:\n  a: {operator: nothing, retries: 1}\n  b: {operator: nothing}\n"))
    same = spec_of(
        load(
            "# hello\ntasks:\n  b: {operator: 'nothing'}\n  a:\n    retries: 1\n    operator: nothing\nowner: \"me\"\n"
        )
    )
    other = spec_of(load("owner: me\ntasks:\n  a: {operator: nothing, retries: 2}\n  b: {operator: nothing}\n"))
    assert one.version == same.version
    assert one.version != other.version


def test_unknown_queue_and_pool_are_warnings() -> None:
    text = "default_args: {pool: gpu}\ntasks:\n  a: {operator: nothing, queue: infrence}\n"
    result = load_text(text, "a.yaml", known=Known(queues=["default", "inference"], pools={"default_pool": 128}))
    assert result.spec is not None
    assert [(fault.code, fault.line, fault.column, fault.severity) for fault in result.faults] == [
        (codes.UNKNOWN_POOL, 3, 3, "warning"),
        (codes.UNKNOWN_QUEUE, 3, 33, "warning"),
    ]


# Files


def test_files_become_part_of_the_dag(load_in: LoadIn) -> None:
    result = load_in(
        {
            "team/dag.yaml": """\
                doc_md: !file ../docs/about.md
                tasks:
                  a: {operator: shell, with: {command: !file run.sh}}
                  b: {operator: stage, with: {steps: !file steps.yaml, sql: !file sql/q.sql}}
                """,
            "docs/about.md": "# About\n",
            "team/run.sh": "echo {{ xcom.b.rows }}\n",
            "team/steps.yaml": "- {op: one}\n- {op: two, text: !file sql/q.sql}\n",
            "team/sql/q.sql": "select 1 -- {{ not_a_template }}\n",
        }
    )
    # The SQL within the steps is rendered, and its template fails in its own file.
    assert [(fault.code, Path(fault.file).name, fault.line, fault.column) for fault in result.faults] == [
        (codes.UNKNOWN_NAME, "q.sql", 1, 16)
    ]
    assert result.included == ("docs/about.md", "team/run.sh", "team/sql/q.sql", "team/steps.yaml")


def test_the_content_hash_covers_included_files(load_in: LoadIn, folder: Folder) -> None:
    dag = "tasks: {a: {operator: shell, with: {command: !file run.sh}}}\n"
    first = load_in({"dag.yaml": dag, "run.sh": "echo 1\n"})
    second = load_in({"dag.yaml": dag, "run.sh": "echo 2\n"})
    assert spec_of(first).tasks["a"].arguments["command"] == "echo 1\n"
    assert first.content_hash != second.content_hash
    assert spec_of(first).version != spec_of(second).version


def test_a_fault_in_a_fragment_names_the_fragment(load_in: LoadIn) -> None:
    result = load_in(
        {
            "dag.yaml": "tasks: !file parts/tasks.yaml\n",
            "parts/tasks.yaml": "a:\n  operator: shell\n  with: {comand: x}\nb: {{ x }}\n",
        }
    )
    assert [(fault.code, Path(fault.file).parts[-2:], fault.line, fault.column) for fault in result.faults] == [
        (codes.UNKNOWN_PARAMETER, ("parts", "tasks.yaml"), 3, 10),
        (codes.UNQUOTED_TEMPLATE, ("parts", "tasks.yaml"), 4, 4),
    ]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("missing.sql", "there is no such file"),
        ("../outside.sql", "leads outside of the DAG folder"),
        ("link.sql", "leads outside of the DAG folder"),
        ("/etc/passwd", "must be relative"),
        ("'{{ ds }}.sql'", "can't be a template"),
        ("''", "a path is missing"),
        ("sub", "can't be read"),
        ("pipe.sql", "not a regular file"),
        ("large.sql", "larger than 1 MiB"),
        ("dag.yaml", "includes itself"),
    ],
)
def test_references_that_can_not_be_followed(folder: Folder, reference: str, message: str) -> None:
    root = folder({"dag.yaml": f"doc_md: !file {reference}\ntasks: {{a: {{operator: nothing}}}}\n", "sub/x": ""})
    (root.parent / "outside.sql").write_text("secret")
    (root / "link.sql").symlink_to(root.parent / "outside.sql")
    (root / "large.sql").write_bytes(b"x" * (1024 * 1024 + 1))
    os.mkfifo(root / "pipe.sql")
    result = load_file(root / "dag.yaml", root)
    assert [fault.code for fault in result.faults] == [codes.FILE_REFERENCE]
    assert message in result.faults[0].message
    assert (result.faults[0].line, result.faults[0].column) == (1, 9)


def test_an_empty_fragment_is_a_fault_after_any_other_fault(load_in: LoadIn) -> None:
    result = load_in({"a.yaml": "owner: me\nowner: me\ntasks: !file tasks.yaml\n", "tasks.yaml": ""})
    assert [(Path(fault.file).name, fault.code) for fault in result.faults] == [
        ("a.yaml", codes.DUPLICATE_KEY),
        ("tasks.yaml", codes.EMPTY),
    ]


def test_a_binary_include_is_a_fault_of_that_file(load_in: LoadIn) -> None:
    result = load_in({"dag.yaml": "doc_md: !file x.md\ntasks: {a: {operator: nothing}}\n", "x.md": b"\xff\xff"})
    assert [(fault.code, Path(fault.file).name) for fault in result.faults] == [(codes.NOT_TEXT, "x.md")]


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"\xff\xfet\x00", codes.NOT_TEXT, "UTF-16"),
        (b"\xfe\xff\x00t", codes.NOT_TEXT, "UTF-16"),
        (b"\xff\xfe\x00\x00t", codes.NOT_TEXT, "UTF-32"),
        (b"owner: a\nx: \x00", codes.NOT_TEXT, "binary"),
        (b"owner: \xe9\n", codes.NOT_TEXT, "byte 0xe9"),
        (b"#" * (1024 * 1024 + 1), codes.TOO_LARGE, "larger than 1 MiB"),
        (b"", codes.EMPTY, "empty"),
    ],
)
def test_files_that_are_no_text(load_in: LoadIn, content: bytes, code: str, message: str) -> None:
    result = load_in({"dag.yaml": content})
    assert [fault.code for fault in result.faults] == [code]
    assert message in result.faults[0].message
    assert result.spec is None


def test_a_byte_order_mark_is_no_harm(load_in: LoadIn) -> None:
    assert load_in({"dag.yaml": b"\xef\xbb\xbftasks: {a: {operator: nothing}}\r\n"}).faults == []


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        assert [fault.code for fault in load_file(path, tmp_path).faults] == [codes.UNREADABLE]


def test_the_dag_id_comes_from_the_name_of_the_file(load_in: LoadIn) -> None:
    assert load_in({"sub/my-dag.v2.yaml": "tasks: {a: {operator: nothing}}"}).dag_id == "my-dag.v2"
    result = load_in({"my dag.yaml": "tasks: {a: {operator: nothing}}"})
    assert [fault.code for fault in result.faults] == [codes.BAD_ID]


def test_two_files_with_one_dag_id(folder: Folder) -> None:
    root = folder(
        {
            "a.yaml": "tasks: {a: {operator: nothing}}",
            "b.yaml": "owner: me\ndag_id: a\ntasks: {a: {operator: nothing}}",
            "c.yaml": "tasks: !file d.yaml",
            "d.yaml": "a: {operator: nothing}",
        }
    )
    faults = lint_paths(root / name for name in ("b.yaml", "a.yaml", "c.yaml", "d.yaml"))
    assert [(Path(fault.file).name, fault.line, fault.column, fault.code) for fault in faults] == [
        ("b.yaml", 2, 9, codes.DUPLICATE_DAG_ID)
    ]
    assert "a.yaml and " in faults[0].message
    assert "b.yaml" in faults[0].message

"""`expand` and `map`: what tasks and groups may be mapped over, and what the names in their templates stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from yarrow.language import codes
from yarrow.language.loader import LoadResult, load_text
from yarrow.language.spec import DagSpec
from yarrow.mapping import names_map

Load = Callable[[str], LoadResult]


def spec_of(result: LoadResult) -> DagSpec:
    assert result.faults == []
    assert result.spec is not None
    return result.spec


def test_a_mapped_task(load: Load) -> None:
    spec = spec_of(
        load(
            """
            params: {days: {type: array, default: [1]}}
            tasks:
              files: {operator: stage}
              score:
                operator: stage
                expand: {part: "{{ xcom.files.parts }}", mode: [fast, safe], day: "{{ params.days }}"}
                max_map_length: 50
                when: map.mode == 'fast' and ds > '2024-01-01'
                with: {input: "{{ map.part }}-{{ map.mode }}-{{ map_index }}", steps: "{{ map.day.steps }}"}
            """
        )
    )
    task = spec.tasks["score"]
    assert task.expand == {"part": "{{ xcom.files.parts }}", "mode": ["fast", "safe"], "day": "{{ params.days }}"}
    assert (task.expand_xcoms, task.upstream, task.xcoms, task.when_xcoms) == (("files",), ("files",), (), ())
    assert (task.mapped, task.map_group, task.max_map_length) == (True, None, 50)
    assert task.when is not None
    assert names_map(task.when)
    assert not names_map("xcom.map.rows > 1 and params.map")


def test_a_mapped_group(load: Load) -> None:
    spec = spec_of(
        load(
            """
            tasks:
              files: {operator: stage}
              each:
                expand: {part: "{{ xcom.files.parts }}"}
                max_map_length: 7
                tasks:
                  read: {operator: stage, with: {input: "{{ map.part }}"}}
                  deep: {tasks: {check: {operator: stage, when: "xcom.each.read.rows > map.part.least"}}}
                  write: {operator: stage, with: {input: "{{ xcom.each.deep.check.valid }}"}}
              all: {operator: stage, with: {steps: "{{ xcom.each.write }}", input: "{{ xcom.each.read[0].rows }}"}}
            """
        )
    )
    inside = [task for task_id, task in spec.tasks.items() if task_id.startswith("each.")]
    assert [task.task_id for task in inside] == ["each.read", "each.deep.check", "each.write"]
    for task in inside:
        assert task.expand == {"part": "{{ xcom.files.parts }}"}
        assert (task.expand_xcoms, task.map_group, task.max_map_length) == (("files",), "each", 7)
    # Only its first tasks come directly after what it is mapped over: the rules of the others are not disturbed.
    assert [task.upstream for task in inside] == [("files",), ("each.read",), ("each.deep.check",)]
    assert not spec.tasks["all"].mapped
    assert spec.groups == {"each": None, "each.deep": None}


def test_max_map_length_from_default_args(load: Load) -> None:
    spec = spec_of(
        load(
            """
            default_args: {max_map_length: 3}
            tasks:
              a: {operator: nothing, expand: {x: [1, 2, 3]}}
              g: {expand: {x: [1]}, tasks: {b: {operator: nothing}}}
              c: {operator: nothing}
            """
        )
    )
    assert {task_id: task.max_map_length for task_id, task in spec.tasks.items()} == {"a": 3, "g.b": 3, "c": 1024}


def test_a_mapping_counts_as_a_list(load: Load) -> None:
    result = load("tasks: {a: {operator: nothing, expand: {x: {one: 1, two: 2}}}}\n")
    assert spec_of(result).tasks["a"].expand == {"x": {"one": 1, "two": 2}}


FILES = "  files: {operator: stage}\n"
MAPPED = "  many: {operator: stage, expand: {x: [1, 2]}}\n"
FAULTS = [
    # What is never a list.
    ("  a: {operator: nothing, expand: {x: 5}}", codes.NEVER_A_LIST, "`expand.x` is never a list: it is the number 5"),
    ("  a: {operator: nothing, expand: {x: xcom.files}}", codes.NEVER_A_LIST, 'put it in braces: "{{ xcom.files }}"'),
    ("  a: {operator: nothing, expand: {x: null}}", codes.NEVER_A_LIST, "it is null"),
    ("  a: {operator: nothing, expand: {x: 'p-{{ ds }}'}}", codes.NEVER_A_LIST, "text around the braces"),
    ("  a: {operator: nothing, expand: {x: '{{ ds }}'}}", codes.NEVER_A_LIST, "`ds` is a text"),
    ("  a: {operator: nothing, expand: {x: '{{ logical_date }}'}}", codes.NEVER_A_LIST, "`logical_date` is a date"),
    ("  a: {operator: nothing, expand: {x: '{{ params.n }}'}}", codes.NEVER_A_LIST, "the param `n` is of type integer"),
    ("  a: {operator: nothing, expand: {x: '{{ xcom.files.rows }}'}}", codes.NEVER_A_LIST, "is a whole number"),
    ("  a: {operator: nothing, expand: {x: '{{ xcom.files.report.note }}'}}", codes.NEVER_A_LIST, "is text or null"),
    ("  a: {operator: nothing, expand: {x: '{{ xcom.many[0].rows }}'}}", codes.NEVER_A_LIST, "is a whole number"),
    ("  a: {operator: nothing, expand: {x: '{{ 5 }}'}}", codes.NEVER_A_LIST, "the expression gives a number"),
    ("  a: {operator: nothing, expand: {x: '{{ none }}'}}", codes.NEVER_A_LIST, "the expression gives null"),
    ("  a: {operator: nothing, expand: {x: '{{ -params.n }}'}}", codes.NEVER_A_LIST, "the expression gives a number"),
    ("  a: {operator: nothing, expand: {x: '{{ xcom.files == 1 }}'}}", codes.NEVER_A_LIST, "gives true or false"),
    ("  a: {operator: nothing, expand: {x: '{{ xcom.many | length }}'}}", codes.NEVER_A_LIST, "gives a number"),
    ("  a: {operator: nothing, expand: {x: '{{ [params.n] | join }}'}}", codes.NEVER_A_LIST, "gives a text"),
    ("  a: {operator: nothing, expand: {x: '{{ params.n + 1 }}'}}", codes.NEVER_A_LIST, "gives a number"),
    ("  a: {operator: nothing, expand: {x: '{{ params.n ~ 1 }}'}}", codes.NEVER_A_LIST, "gives a text"),
    ("  a: {operator: nothing, expand: {x: '{{ macros.ds_add(ds, 1) }}'}}", codes.NEVER_A_LIST, "gives a text"),
    # How it is written.
    ("  a: {operator: nothing, expand: {}}", codes.BAD_VALUE, "`expand` must not be empty"),
    ("  a: {operator: nothing, expand: [1]}", codes.WRONG_TYPE, "expand: {item: [...]}"),
    ("  a: {operator: nothing, expand: '{{ xcom.files }}'}", codes.WRONG_TYPE, 'expand: {item: "{{ ... }}"}'),
    ("  a: {operator: nothing, expand: {a-b: [1]}}", codes.BAD_ID, "the name `a-b` is not allowed"),
    ("  a: {operator: nothing, expand: {x: ['{{ ds }}']}}", codes.NO_TEMPLATE_HERE, "nothing is rendered"),
    ("  a: {operator: nothing, expand: {x: [1, 2], y: [1, 2]}, max_map_length: 3}", codes.BAD_MAPPING, "4 instances"),
    # What its templates may name.
    ("  a: {operator: nothing, expand: {x: '{{ var.list }}'}}", codes.NAME_NOT_HERE, "`expand` is evaluated before"),
    ("  a: {operator: nothing, expand: {x: '{{ [task_id] }}'}}", codes.NAME_NOT_HERE, "`task_id` is known only"),
    ("  a: {operator: nothing, expand: {x: '{{ map.x }}'}}", codes.UNKNOWN_NAME, "`map` is what `expand` gives"),
    ("  a: {operator: nothing, expand: {x: '{{ xcom.a }}'}}", codes.NOT_UPSTREAM, "the task's own XCom"),
    (
        "  a: {operator: nothing, expand: {x: '{{ xcom.fils.parts }}'}}",
        codes.UNKNOWN_XCOM_TASK,
        "Did you mean `files`?",
    ),
    (
        "  g: {expand: {x: '{{ xcom.g.a }}'}, tasks: {a: {operator: stage}}}",
        codes.NOT_UPSTREAM,
        "which is in it",
    ),
    # Who may be mapped, and where.
    ("  a: {operator: short_circuit, expand: {x: [1]}, with: {condition: true}}", codes.BAD_MAPPING, "`short_circuit`"),
    ("  a: {operator: approval, expand: {x: [1]}, with: {message: Go on?}}", codes.BAD_MAPPING, "by itself"),
    ("  g: {expand: {x: [1]}, tasks: {a: {operator: nothing, expand: {y: [1]}}}}", codes.BAD_MAPPING, "group `g`"),
    (
        "  g: {expand: {x: [1]}, tasks: {h: {expand: {y: [1]}, tasks: {a: {operator: nothing}}}}}",
        codes.BAD_MAPPING,
        "The group `g.h` is in the mapped group `g`",
    ),
    (
        "  g: {expand: {x: [1]}, tasks: {h: {tasks: {a: {operator: nothing, expand: {y: [1]}}}}}}",
        codes.BAD_MAPPING,
        "The task `g.h.a` is in the mapped group `g`",
    ),
    (
        "  g: {expand: {x: [1]}, tasks: {b: {operator: branch, with: {conditions: []}}}}\n"
        "  after: {operator: nothing, depends_on: [g.b]}",
        codes.BAD_MAPPING,
        "`after` comes directly after `g.b`",
    ),
    # What `map` is.
    ("  a: {operator: stage, with: {input: '{{ map.x }}'}}", codes.UNKNOWN_NAME, "known only in a mapped task"),
    ("  a: {operator: nothing, when: map.x > 1}", codes.UNKNOWN_NAME, "known only in a mapped task"),
    ("  a: {operator: stage, expand: {part: [1]}, with: {input: '{{ map.prt }}'}}", codes.UNKNOWN_NAME, "`part`?"),
    ("  a: {operator: nothing, expand: {part: [1]}, when: map.y > 1}", codes.UNKNOWN_NAME, "It has `part`."),
    ("  a: {operator: stage, expand: {part: [1]}, with: {input: '{{ part }}'}}", codes.UNKNOWN_NAME, "`map.part`"),
    ("  a: {operator: stage, with: {input: '{{ item }}'}}", codes.UNKNOWN_NAME, "Write `map.name`"),
    # What a mapped task gives others.
    (
        "  a: {operator: stage, with: {input: '{{ xcom.many.rows }}'}}",
        codes.UNKNOWN_OUTPUT,
        "it is mapped: a list, one item per instance. Write `xcom.many[0].rows`",
    ),
    ("  a: {operator: stage, with: {input: '{{ xcom.many[0].rws }}'}}", codes.UNKNOWN_OUTPUT, "Did you mean `rows`?"),
    ("  a: {operator: nothing, when: xcom.many.rows > 1}", codes.UNKNOWN_OUTPUT, "it is mapped"),
]


@pytest.mark.parametrize(("task", "code", "words"), FAULTS, ids=[task.strip() for task, _, _ in FAULTS])
def test_faults(load: Load, task: str, code: str, words: str) -> None:
    result = load(f"params: {{n: {{type: integer, default: 1}}}}\ntasks:\n{FILES}{MAPPED}{task}\n")
    assert [fault.code for fault in result.faults] == [code], result.faults
    assert words in str(result.faults[0])
    assert result.faults[0].severity == "error"
    assert result.faults[0].line >= 5


@pytest.mark.parametrize("name", ["xcom.files.valid", "xcom.files", "params", "xcom.many", "params.n | default([])"])
def test_what_may_be_a_list_is_let_through(load: Load, name: str) -> None:
    mapped = f"  a: {{operator: nothing, expand: {{x: '{{{{ {name} }}}}'}}}}\n"
    assert load(f"params: {{n: {{default: 1}}}}\ntasks:\n{FILES}{MAPPED}{mapped}").faults == []


def test_a_line_that_a_command_prints_is_no_list(load: Load) -> None:
    text = """
        tasks:
          names: {operator: bash, with: {command: ls%s}}
          each: {operator: nothing, expand: {name: "{{ xcom.names%s }}"}}
        """
    (fault,) = load(text % ("", "")).faults
    assert (fault.code, fault.severity, fault.line) == (codes.NEVER_A_LIST, "warning", 4)
    assert "the last line that `names` prints is a text. Give `names` the parameter `output: json`" in str(fault)
    assert load(text % (", output: json", "")).faults == []
    assert load(text % ("", " | fromjson")).faults == []
    assert load(text.replace("}}\n          each", "}, expand: {x: [1]}}\n          each") % ("", "")).faults == []


def test_an_empty_list_is_a_warning(load: Load) -> None:
    (fault,) = load("tasks: {a: {operator: nothing, expand: {x: [], y: [1]}}}\n").faults
    assert (fault.code, fault.severity) == (codes.ALWAYS_SKIPPED, "warning")
    assert "`expand.x` is empty" in fault.message


def test_a_branch_in_a_mapped_group(load: Load) -> None:
    spec = spec_of(
        load(
            """
            tasks:
              g:
                expand: {x: [1, 2]}
                tasks:
                  b: {operator: branch, with: {conditions: [{if: "{{ map.x > 1 }}", then: [g.c]}]}}
                  c: {operator: nothing, depends_on: [b]}
              done: {operator: nothing, depends_on: [g]}
            """
        )
    )
    assert spec.tasks["done"].upstream == ("g.c",)


def test_a_question_names_what_is_known_without_a_worker(load: Load) -> None:
    text = """
        params: {limit: {default: 1}}
        tasks:
          count: {operator: stage}
          ask: {operator: approval, with: {message: "%s"}}
        """
    task = spec_of(load(text % "{{ xcom.count.rows }} of {{ params.limit }} on {{ ds }}?")).tasks["ask"]
    assert (task.xcoms, task.upstream) == (("count",), ("count",))
    for name in ("var.x", "conn.x.host", "try_number"):
        (fault,) = load(text % f"{{{{ {name} }}}}").faults
        assert fault.code == codes.NAME_NOT_HERE
        assert "a question is evaluated before a worker" in fault.message


@pytest.mark.parametrize(
    ("task", "place"),
    [
        ("{operator: empty, when: \"'LONG' == 'x'\"}", "when"),
        ("{operator: bash, expand: {n: \"{{ ['LONG'] }}\"}, with: {command: echo}}", "expand"),
        ('{operator: approval, with: {message: "{{ ds }} LONG"}}', "question"),
    ],
)
def test_what_the_scheduler_evaluates_has_to_be_short(task: str, place: str) -> None:
    def faults(length: int) -> list[str]:
        text = task.replace("LONG", "x" * length)
        return [str(fault) for fault in load_text(f"tasks:\n  t: {text}\n", "d.yaml").faults]

    assert faults(4000) == [], place
    [fault] = faults(4200)
    assert "more than 4,096 characters" in fault

"""The published JSON Schema says the same as the loader, as far as a schema can."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from yarrow.jsontypes import Json
from yarrow.language.faults import Fault
from yarrow.language.files import dag_files
from yarrow.language.loader import load_file, load_text
from yarrow.language.nodes import Node, data
from yarrow.language.reader import read
from yarrow.language.schema import dag_schema
from yarrow.language.source import Source

EXAMPLES = dag_files(Path(__file__).parents[3] / "dags", [])

GOOD = [
    "tasks: {a: {operator: nothing}}",
    "schedule: {every: 15m, semantics: trigger}\ntasks: {a: {operator: nothing}}",
    "schedule: {cron: 0 0 * * *}\ndst: {gap: skip}\ntasks: {a: {operator: nothing}}",
    "schedule: '@Daily'\ntimezone: US/Eastern\ntasks: {a: {operator: nothing, execution_timeout: 0.5s}}",
    "schedule: ' */5 0-3,22-2/2 * jan,Feb MON-5 '\ntasks: {a: {operator: nothing}}",
    "schedule: 0 0 L,15 * 5#3,MONL\ntasks: {a: {operator: nothing}}",
    "schedule: '@continuous'\ntasks: {a: {operator: nothing}}",
    "schedule: [0 6 * * 1-5, 0 10 * * 6]\ntasks: {a: {operator: nothing}}",
    "schedule: {cron: ['@daily', '@hourly'], semantics: trigger}\ntasks: {a: {operator: nothing}}",
    "schedule: {datasets: ['a/b:c.d-e'], mode: any}\ntasks: {a: {operator: nothing}}",
    "schedule: '@once'\nstart_date: 2024-01-01\ntasks: {a: {operator: nothing}}",
    "schedule: null\ntasks: {a: {operator: shell, with: {command: '{{ ds }}'}}}",
    "tasks: {g: {depends_on: [b], tasks: {h: {tasks: {a: {operator: nothing}}}}}, b: {operator: nothing}}",
    "params: {n: {default: 1}}\ntasks: {a: {operator: stage, with: {rows: '{{ params.n }}', steps: '{{ params.n }}'}}}",
    "params: {a: {type: [string, 'null'], default: null}}\ntasks: {a: {operator: nothing}}",
    "params: {a: {anyOf: [{type: number}], default: 1}}\ntasks: {a: {operator: nothing}}",
    "start_date: 2024-01-01T06:00+02:00\ndefault_args: {retry_delay: 90s}\ntasks: {a: {operator: nothing}}",
    "tasks: {a: {operator: stage, with: {condition: params.n > 1}}}\nparams: {n: {default: 1}}",
    "tasks: {a: {operator: nothing, expand: {x: [1, {y: 2}], z: {k: 1}}, max_map_length: 5}}",
    "tasks: {g: {expand: {x: '{{ params.n }}'}, tasks: {a: {operator: nothing, when: map.x > 1}}}}\n"
    "params: {n: {default: [1]}}",
    "tasks: {a: {operator: nothing, retries: 1, retry_on: [OSError, HttpStatus.503], soft_fail: true, pool_slots: 2}}",
    "tasks: {a: {operator: nothing, setup: true}, b: {operator: nothing, depends_on: [a], teardown: true,"
    " trigger_rule: all_done_setup_success, on_failure_fail_dagrun: true}}",
    "tasks: {a: {operator: nothing, outlets: ['s3://b/c'], cache: {ttl: 7d, key: '{{ ds }}'}}}",
    "tasks: {a: {operator: nothing, cache: true, deadline: 2h, on_deadline: [log, https://example.org]}}",
    "deadline: {after: 2h, from: queued_at}\non_failure: log\nfail_fast: true\ntasks: {a: {operator: nothing}}",
    "run_state: all_tasks\ndagrun_timeout: 1h\nmax_consecutive_failed_dag_runs: 2\ntasks: {a: {operator: nothing}}",
    "tasks: {a: {operator: nothing, weight_rule: upstream, max_active_tis_per_dag: 1, depends_on_past: true}}",
]
BAD = [
    "owner: me",
    "tasks: {}",
    "tasks: [a]",
    "retires: 2\ntasks: {a: {operator: nothing}}",
    "tasks: {a: {operator: nothing, retires: 2}}",
    "tasks: {a: {operator: nothing, expand: [1]}}",
    "tasks: {a: {retries: 2}}",
    "tasks: {a: {operator: nothign}}",
    "tasks: {a: {operator: nothing, retries: many}}",
    "tasks: {a: {operator: nothing, retries: -1}}",
    "tasks: {a: {operator: nothing, retry_delay: 300}}",
    "tasks: {a: {operator: nothing, retry_delay: 5 minutes}}",
    "tasks: {a: {operator: nothing, trigger_rule: all}}",
    "tasks: {a: {operator: nothing, depends_on: b}, b: {operator: nothing}}",
    "tasks: {a.b: {operator: nothing}}",
    "tasks: {a: {operator: shell}}",
    "tasks: {a: {operator: shell, with: {comand: ls}}}",
    "tasks: {a: {operator: shell, with: {env: {}}}}",
    "tasks: {a: {operator: shell, with: {command: 3}}}",
    "tasks: {a: {operator: stage, with: {rows: x}}}",
    "tasks: {a: {operator: stage, with: {rows: 0}}}",
    "tasks: {a: {operator: stage, with: {columns: {x: {mni: 1}}}}}",
    "tasks: {a: {operator: nothing, with: {x: 1}}}",
    "tasks: {g: {tasks: {}}}",
    "tasks: {g: {retries: 1, tasks: {a: {operator: nothing}}}}",
    "tasks: {a: {operator: nothing, execution_timeout: 0s}}",
    "schedule: 60 * * * *\ntasks: {a: {operator: nothing}}",
    "schedule: '* * * * * *'\ntasks: {a: {operator: nothing}}",
    "schedule: '@reboot'\ntasks: {a: {operator: nothing}}",
    "schedule: {cron: 'R * * * *'}\ntasks: {a: {operator: nothing}}",
    "timezone: Europe/Londn\ntasks: {a: {operator: nothing}}",
    "schedule: {datasets: []}\ntasks: {a: {operator: nothing}}",
    "schedule: {datasets: [-a]}\ntasks: {a: {operator: nothing}}",
    "schedule: {datasets: [a], mode: some}\ntasks: {a: {operator: nothing}}",
    "schedule: {datasets: [a], every: 5m}\ntasks: {a: {operator: nothing}}",
    "schedule: []\ntasks: {a: {operator: nothing}}",
    "schedule: ['@daily', 61 * * * *]\ntasks: {a: {operator: nothing}}",
    "schedule: 0 0 * L *\ntasks: {a: {operator: nothing}}",
    "schedule: {cron: '@daily', every: 5m}\ntasks: {a: {operator: nothing}}",
    "schedule: 5\ntasks: {a: {operator: nothing}}",
    "catchup: yes\ntasks: {a: {operator: nothing}}",
    "start_date: 1.2.2024\ntasks: {a: {operator: nothing}}",
    "dag_id: a b\ntasks: {a: {operator: nothing}}",
    "dst: {gap: jump}\ntasks: {a: {operator: nothing}}",
    "params: {a: 1}\ntasks: {a: {operator: nothing}}",
    "params: {a: {tpye: string}}\ntasks: {a: {operator: nothing}}",
    "params: {a-b: {default: 1}}\ntasks: {a: {operator: nothing}}",
    "default_args: {operator: nothing}\ntasks: {a: {operator: nothing}}",
    "max_active_runs: 0\ntasks: {a: {operator: nothing}}",
    "tasks: {a: {operator: nothing, expand: {}}}",
    "tasks: {a: {operator: nothing, expand: {x: 5}}}",
    "tasks: {a: {operator: nothing, expand: {x: text}}}",
    "tasks: {a: {operator: nothing, expand: {a-b: [1]}}}",
    "tasks: {a: {operator: nothing, retry_on: OSError}}",
    "tasks: {a: {operator: nothing, pool_slots: 0}}",
    "tasks: {a: {operator: nothing, weight_rule: sideways}}",
    "tasks: {a: {operator: nothing, cache: 7d}}",
    "tasks: {a: {operator: nothing, cache: {tll: 7d}}}",
    "tasks: {a: {operator: nothing, outlets: a}}",
    "tasks: {a: {operator: nothing, deadline: soon}}",
    "tasks: {a: {operator: nothing, deadline: {from: queued_at}}}",
    "tasks: {a: {operator: nothing, on_failure: a b}}",
    "default_args: {expand: {x: [1]}}\ntasks: {a: {operator: nothing}}",
    "default_args: {trigger_rule: all_done_setup_success}\ntasks: {a: {operator: nothing}}",
    "run_state: some\ntasks: {a: {operator: nothing}}",
    "fail_fast: 1\ntasks: {a: {operator: nothing}}",
]


def errors(text: str) -> list[str]:
    node = read(Source("x.yaml", text), [])
    assert isinstance(node, Node)
    return [error.message for error in Draft202012Validator(dag_schema()).iter_errors(data(node))]


def test_it_is_a_json_schema() -> None:
    schema = dag_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == "urn:yarrow:schema:dag"


@pytest.mark.parametrize("text", GOOD)
def test_good_files_validate(text: str) -> None:
    assert load_text(text, "x.yaml").faults == []
    assert errors(text) == []


@pytest.mark.parametrize("text", BAD)
def test_faults_that_a_schema_can_express_fail(text: str) -> None:
    assert load_text(text, "x.yaml").faults != []
    assert errors(text) != []


def test_every_key_has_a_description() -> None:
    schema = dag_schema()
    for part in (schema, schema["$defs"]["task"], schema["$defs"]["group"]):
        for name, known in part["properties"].items():
            assert "description" in known or "$ref" in known or "anyOf" in known, name


def as_an_editor_sees_it(path: Path) -> Json:
    """The data of a file in which `!file path` is the text `path`."""
    faults: list[Fault] = []
    node = read(Source(path.name, path.read_text()), faults, lambda reference, _faults: reference)
    assert isinstance(node, Node)
    assert faults == []
    return data(node)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_proved_and_validate(path: Path) -> None:
    included = {name for other in EXAMPLES for name in load_file(other, path.parent).included}
    if path.name in included:
        return  # a fragment of another example
    assert load_file(path, path.parent).faults == []
    document = as_an_editor_sees_it(path)
    assert [error.message for error in Draft202012Validator(dag_schema()).iter_errors(document)] == []


def test_a_fragment_may_stand_for_a_list_or_mapping() -> None:
    text = textwrap.dedent(
        """\
        params: params.yaml
        default_args: defaults.yml
        tasks:
          a: task.yaml
          b: {operator: stage, with: {columns: columns.yaml, steps: steps.yaml}}
          c: {operator: stage, with: with.yaml}
        """
    )
    assert errors(text) == []

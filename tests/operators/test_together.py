"""The operators as a DAG file uses them: proved by the loader, rendered and executed as on a worker."""

import sqlite3
from pathlib import Path

import pytest

from yarrow.language import codes
from yarrow.language.loader import load_text
from yarrow.testing import run_dag

DAG = """
dag_id: together
params:
  n: {type: integer, default: 3}
tasks:
  hello:
    operator: bash
    with:
      command: 'echo loading >&2; echo "{\\"n\\": $N, \\"dag\\": \\"$YARROW_DAG_ID\\"}"'
      env: {N: "{{ params.n }}"}
      output: json
  choose:
    operator: branch
    with:
      conditions:
        - {if: "{{ xcom.hello.n > 2 }}", then: [big]}
      otherwise: [small]
  big: {operator: python, depends_on: [choose], with: {callable: "builtins:sum", args: [[1, 2, "{{ xcom.hello.n }}"]]}}
  small: {operator: empty, depends_on: [choose]}
  join: {operator: empty, depends_on: [big, small], trigger_rule: none_failed_min_one_success}
  query:
    operator: sql
    depends_on: [join]
    with: {query: "SELECT $n AS n, range AS r FROM range(5)", parameters: {n: "{{ params.n }}"}}
  total: {operator: sql, with: {source: "{{ xcom.query }}", query: "SELECT sum(n * r) FROM source", output: value}}
  cities: {operator: sql, with: {conn_id: cities, query: "SELECT name FROM city", output: rows}}
  gate: {operator: short_circuit, with: {condition: "{{ xcom.total == 30 }}"}}
  call:
    operator: trigger_dag
    depends_on: [gate]
    with: {dag_id: other, params: {total: "{{ xcom.total }}"}, logical_date: "{{ ts }}"}
"""


def test_a_dag_of_all_generic_operators(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "cities.db") as database:
        database.execute("CREATE TABLE city AS SELECT 'Aarhus' AS name")
    database.close()
    connections = {"cities": f"sqlite:///{tmp_path}/cities.db"}

    result = run_dag(DAG, connections=connections, work=tmp_path)

    states = {task_id: str(task.state) for task_id, task in result.tasks.items()}
    assert states.pop("small") == "skipped"
    assert set(states.values()) == {"success"}, {task.reason for task in result.tasks.values()}
    assert result.tasks["hello"].xcom == {"n": 3, "dag": "together"}
    assert result.tasks["big"].xcom == 6
    assert result.tasks["total"].xcom == 30
    assert result.tasks["cities"].xcom == [{"name": "Aarhus"}]
    assert [(call.dag_id, call.params) for call in result.triggered] == [("other", {"total": 30})]


def test_the_other_way(tmp_path: Path) -> None:
    result = run_dag(DAG, params={"n": 1}, outcomes={"cities": None}, work=tmp_path)

    assert result.tasks["big"].state == "skipped"
    assert result.tasks["small"].state == "success"
    assert result.tasks["gate"].xcom == {"follow": []}
    assert result.tasks["call"].state == "skipped"


def test_what_can_be_known_before_is_a_fault_of_the_file() -> None:
    broken = (
        DAG.replace("then: [big]", "then: [join]")
        .replace("{conn_id: cities,", "{conn_id: cities, source: a.csv,")
        .replace('"builtins:sum"', "builtins.sum")
        .replace("output: json", "output: jsonl")
        .replace("{{ xcom.total == 30 }}", "{{ xcom.total == }}")
    )

    faults = [str(fault) for fault in load_text(broken, "f.yaml").faults]

    text = "\n".join(faults)
    for expected in (
        "`join` is not directly downstream",
        "together with `conn_id`",
        "callable",
        "jsonl",
        "xcom.total ==",
    ):
        assert expected in text, text


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{operator: http}", "either `url` or `conn_id`"),
        ("{operator: http, with: {url: 'http://h', conn_id: c}}", "either `url` or `conn_id`"),
        ("{operator: http, with: {url: 'http://h', path: /x}}", "`url` is the whole address"),
        ("{operator: http, with: {url: 'http://h', json: 1, data: x}}", "either `json` or `data`"),
        ("{operator: bash, with: {command: []}}", "an empty list"),
        ("{operator: trigger_dag, with: {dag_id: x, logical_date: soon}}", "not a date: 'soon'"),
        ("{operator: sql, with: {query: ' '}}", "The query is empty"),
    ],
)
def test_what_the_types_of_parameters_do_not_say_is_told_when_the_file_is_loaded(task: str, message: str) -> None:
    result = load_text(f"tasks: {{a: {task}}}", "x.yaml")
    assert [fault.code for fault in result.faults] == [codes.BAD_VALUE]
    assert message in result.faults[0].message


def test_a_template_in_the_text_of_a_command_is_a_warning() -> None:
    task = "{operator: bash, with: {command: 'echo {{ params.who }}'}}"
    result = load_text(f"params: {{who: {{default: me}}}}\ntasks: {{a: {task}}}", "x.yaml")
    assert [(fault.code, fault.severity) for fault in result.faults] == [(codes.ADVICE, "warning")]
    assert '`env: {WHO: ...}` and write `"$WHO"`' in result.faults[0].message
    assert result.spec is not None

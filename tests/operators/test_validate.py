"""`validate` on the real flights of July: every check, every way to fail, and what is reported."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from yarrow.dataset import read_manifest
from yarrow.errors import Fail
from yarrow_operators.validate import SAMPLES, Validate

JULY = 29_425


def check(result: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(check for check in result["report"]["checks"] if check["check"] == name)
    return found


def rows(dataset: Any, query: str) -> list[tuple[Any, ...]]:
    manifest = read_manifest(dataset["uri"])
    paths = [address.removeprefix("file://") for address in manifest.part_urls]
    with duckdb.connect() as duck:
        return duck.execute(f"SELECT {query} FROM read_parquet($paths)", {"paths": paths}).fetchall()


def test_the_one_impossible_flight_is_quarantined(context: Any, july: Any) -> None:
    result = Validate(input=july, columns={"distance": {"min": 50, "max": 6000, "on_fail": "quarantine"}}).execute(
        context
    )

    assert result["valid"]["rows"] == result["rows_out"] == JULY - 1
    assert result["quarantine"] is not None
    assert rows(result["quarantine"], "flight, origin, dest, distance, _rejected_by") == [
        (1632, "EWR", "LGA", 17, ["distance.min"])
    ]
    assert rows(result["valid"], "count(*), min(distance)") == [(JULY - 1, 94)]
    found = check(result, "distance.min")
    assert (found["outcome"], found["observed"], found["threshold"], found["failed_rows"]) == ("quarantined", 17, 50, 1)
    assert found["samples"][0]["flight"] == 1632
    assert found["samples"][0]["time_hour"].startswith("2013-07-27")
    assert check(result, "distance.max")["outcome"] == "passed"
    assert not result["report"]["passed"]
    assert context.metrics["rows_in"] == JULY
    assert context.metrics["rows_out"] == JULY - 1
    assert context.metrics["rows_rejected"] == 1
    assert context.metrics["seconds"] > 0
    json.dumps(result, allow_nan=False)


def test_nothing_rejected_copies_nothing(context: Any, july: Any) -> None:
    result = Validate(
        input=july,
        columns={"origin": {"nullable": False, "valid_values": ["JFK", "LGA", "EWR"], "on_fail": "quarantine"}},
        table={"row_count": {"min": 10_000, "max": 100_000}, "unique": ["time_hour", "carrier", "flight", "origin"]},
    ).execute(context)
    assert result["valid"] == july
    assert result["quarantine"] is None
    assert result["report"]["passed"]
    assert check(result, "table.row_count")["observed"] == JULY


def test_dropped_rows_are_in_neither_data_set(context: Any, july: Any) -> None:
    result = Validate(
        input=july,
        columns={
            "carrier": {"invalid_values": ["UA"], "on_fail": "drop"},
            "origin": {"valid_values": ["JFK", "LGA"], "on_fail": "quarantine"},
        },
    ).execute(context)
    (united, newark, both), *_ = rows(
        july,
        "count(*) FILTER (carrier = 'UA'), count(*) FILTER (origin = 'EWR'),"
        " count(*) FILTER (carrier = 'UA' AND origin = 'EWR')",
    )
    assert result["rows_quarantined"] == newark
    assert result["rows_dropped"] == united - both
    assert result["rows_out"] == JULY - newark - united + both
    assert rows(result["quarantine"], "count(*) FILTER (len(_rejected_by) = 2)") == [(both,)]
    assert len(check(result, "carrier.invalid_values")["samples"]) == SAMPLES


def test_a_warning_keeps_the_rows(context: Any, july: Any) -> None:
    result = Validate(input=july, columns={"distance": {"min": 50}}, on_fail="warn").execute(context)
    assert result["valid"] == july
    assert check(result, "distance.min")["outcome"] == "warned"


def test_a_failed_check_fails_the_task_and_keeps_the_report(context: Any, july: Any) -> None:
    with pytest.raises(
        Fail, match=r"1 of 2 checks failed: `distance.min` 50 does not hold in 1 row .observed 17"
    ) as info:
        Validate(input=july, columns={"distance": {"min": 50, "max": 6000}}).execute(context)
    assert info.value.hint is not None
    report = json.loads(Path(info.value.hint.removeprefix("The report is at file://")).read_text())
    assert report["checks"][0]["samples"][0]["distance"] == 17


def test_nulls_pass_all_but_nullable(context: Any, july: Any) -> None:
    cancelled = rows(july, "count(*) FILTER (dep_delay IS NULL)")[0][0]
    result = Validate(
        input=july,
        columns={
            "dep_delay": {"nullable": False, "min": -60, "max": 1440, "valid_values": list(range(-60, 1441))},
            "tailnum": {"regex": "^[A-Z0-9]+$", "min_length": 5, "max_length": 6},
        },
        on_fail="quarantine",
    ).execute(context)
    assert cancelled == 940
    assert check(result, "dep_delay.nullable")["failed_rows"] == result["rows_quarantined"] == cancelled
    assert [found["outcome"] for found in result["report"]["checks"]].count("passed") == 6


def test_null_rate_warns_below_and_fails_above(context: Any, july: Any) -> None:
    result = Validate(input=july, columns={"dep_delay": {"null_rate": {"warn": 0.03, "max": 0.05}}}).execute(context)
    assert check(result, "dep_delay.null_rate.warn")["outcome"] == "warned"
    assert check(result, "dep_delay.null_rate")["outcome"] == "passed"
    assert check(result, "dep_delay.null_rate")["observed"] == pytest.approx(940 / JULY)
    # A check of the table has no rows to quarantine: it fails.
    with pytest.raises(Fail, match=r"`dep_delay.null_rate` 0.01 .observed 0.03195"):
        Validate(input=july, columns={"dep_delay": {"null_rate": {"max": 0.01}, "on_fail": "quarantine"}}).execute(
            context
        )


def test_unique_keeps_the_first_of_equal_rows(context: Any, july: Any) -> None:
    result = Validate(input=july, table={"unique": ["carrier", "flight"], "on_fail": "quarantine"}).execute(context)
    distinct = rows(july, "count(DISTINCT (carrier, flight))")[0][0]
    assert result["rows_out"] == distinct
    assert check(result, "table.unique")["failed_rows"] == result["rows_quarantined"] == JULY - distinct
    assert rows(result["valid"], "count(DISTINCT (carrier, flight))") == [(distinct,)]
    # The flights come in the order of their hours, so the first of equal ones is the earliest; and the order is kept.
    key = "carrier, flight, min(epoch(time_hour)) OVER (PARTITION BY carrier, flight)"
    assert set(rows(result["valid"], "carrier, flight, epoch(time_hour)")) == set(rows(july, key))
    times = [hour for (hour,) in rows(result["valid"], "epoch(time_hour)")]
    assert times == sorted(times)
    assert [name for name, _ in result["valid"]["schema"]] == [name for name, _ in july["schema"]]


def test_unique_of_one_column_passes_over_nulls(context: Any, july: Any) -> None:
    result = Validate(input=july, columns={"tailnum": {"unique": True, "on_fail": "drop"}}).execute(context)
    planes, unknown = rows(july, "count(DISTINCT tailnum), count(*) FILTER (tailnum IS NULL)")[0]
    assert result["rows_out"] == planes + unknown


def test_conditions_in_sql(context: Any, july: Any) -> None:
    conditions = {"departs_before_it_arrives": "arr_delay IS NULL OR dep_delay IS NOT NULL", "short": "distance < 4000"}
    result = Validate(input=july, table={"sql": conditions, "on_fail": "drop"}).execute(context)
    far = rows(july, "count(*) FILTER (distance >= 4000)")[0][0]
    assert far > 0
    assert check(result, "table.sql.short")["failed_rows"] == result["rows_dropped"] == far
    assert check(result, "table.sql.departs_before_it_arrives")["outcome"] == "passed"


def test_too_many_rejected_rows_fail_the_task(context: Any, july: Any) -> None:
    rejecting = {"origin": {"valid_values": ["JFK", "LGA"], "on_fail": "quarantine"}}
    with pytest.raises(Fail, match=r"rows were rejected: 3\d\.\d\d%, more than the 1.00% of `max_reject_rate`"):
        Validate(input=july, columns=rejecting, max_reject_rate=0.01).execute(context)  # type: ignore[arg-type]


def test_bounds_of_times_are_text(context: Any, july: Any) -> None:
    result = Validate(input=july, columns={"time_hour": {"min": "2013-07-02"}}, on_fail="drop").execute(context)
    assert 0 < result["rows_dropped"] < 1100
    assert check(result, "time_hour.min")["observed"] == "2013-07-01 09:00:00+00"


def test_the_type_of_a_column(context: Any, july: Any) -> None:
    Validate(input=july, columns={"flight": {"type": "bigint"}}).execute(context)
    with pytest.raises(Fail, match="Column `flight` is BIGINT, expected VARCHAR"):
        Validate(input=july, columns={"flight": {"type": "VARCHAR"}}).execute(context)


def test_names_and_values_are_quoted(context: Any, make_context: Any, july: Any) -> None:
    from yarrow_operators.preprocess import Preprocess

    odd = 'a "b"; DROP TABLE input; --'
    renamed = Preprocess(input=july, steps=[{"op": "rename", "columns": {"origin": odd}}]).execute(make_context("odd"))
    result = Validate(input=dict(renamed), columns={odd: {"valid_values": ["it's", "JFK"], "on_fail": "drop"}}).execute(
        context
    )
    assert result["rows_out"] == rows(july, "count(*) FILTER (origin = 'JFK')")[0][0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"columns": {"orgin": {"nullable": False}}},
            "columns: there is no column `orgin`. The columns are `time_hour`",
        ),
        ({"table": {"unique": ["carrier", "nope"]}}, "table.unique: there is no column `nope`"),
        ({"columns": {"origin": {"min": 5}}}, "Column `origin` is text, so it can't be compared with the number 5"),
        ({"columns": {"origin": {"valid_values": []}}}, "the list of values is empty"),
        ({"columns": {"origin": {"regex": "("}}}, "The check `origin.regex` can't be computed: .*missing"),
        ({"table": {"sql": {"far": "distanze < 5"}}}, "The check `table.sql.far` can't be computed: .*distanze"),
    ],
)
def test_a_check_that_does_not_fit_the_data(context: Any, july: Any, arguments: Any, sentence: str) -> None:
    with pytest.raises(Fail, match=sentence):
        Validate(input=july, **arguments).execute(context)


def test_no_data_set(context: Any) -> None:
    with pytest.raises(Fail, match="Expected a data set"):
        Validate(input={"rows": 3}).execute(context)
    with pytest.raises(Fail, match="no finished data set"):
        Validate(input=str(context.work_dir)).execute(context)

"""Validates a data set: every check in one SQL pass, then the rows are split into valid and quarantined ones."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from yarrow import Context, Operator, param, urls
from yarrow.dataset import DatasetManifest, DatasetXCom
from yarrow.errors import Fail
from yarrow.jsontypes import Json
from yarrow_operators.checks import (
    OUTCOMES,
    Check,
    ColumnChecks,
    OnFail,
    Outcome,
    TableChecks,
    compile_checks,
    helper_columns,
    numbered,
)
from yarrow_operators.ducks import connect, literal, schema_of, small_rows, view_input, write_dataset
from yarrow_operators.fingerprint import fingerprints

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SAMPLES = 20
"""How many failing rows of a check the report shows."""

_TABLE = "input"


class CheckResult(TypedDict):
    """What one check found."""

    check: str
    column: str | None
    on_fail: str
    outcome: str
    observed: Json
    threshold: Json
    failed_rows: int
    samples: list[dict[str, Json]]


class Report(TypedDict):
    """What a validation found."""

    rows: int
    passed: bool
    checks: list[CheckResult]


class Validate(Operator):
    """Checks columns and the table, and passes on the rows that are good.

    A check that does not hold does what `on_fail` says: `warn` only reports it, `drop` leaves the failing rows out,
    `quarantine` moves them to a second data set with the names of the checks in the column `_rejected_by`, `fail` fails
    the task for good. A check of the whole table (`row_count`, `null_rate`) has no failing rows: it fails the task
    unless it only warns. A null passes all checks of a column but `nullable: false`. Of equal rows `unique` rejects all
    but the first. When nothing is rejected, `valid` is the input itself and no row is copied.
    """

    input: dict[str, Json] | str = param(doc="The data set: the XCom of a task, or the address of a data set's folder.")
    columns: dict[str, ColumnChecks] = param(
        default={},
        doc="The checks of each column: `type`, `nullable`, `null_rate: {warn, max}`, `valid_values`, `invalid_values`,"
        " `min`, `max`, `min_length`, `max_length`, `regex` (RE2; not anchored), `unique`, `on_fail`.",
    )
    table: TableChecks = param(
        default={},
        doc="The checks of the table: `row_count: {min, max}`, `unique: [columns]`, `sql: {name: condition}` (each row"
        " must satisfy it), `on_fail`.",
    )
    on_fail: OnFail = param(default="fail", doc="What a check does that does not say it itself.")
    max_reject_rate: float = param(
        default=1.0,
        minimum=0,
        maximum=1,
        doc="The share of rows that may be dropped and quarantined; above it the task fails.",
    )

    class Outputs(TypedDict):
        valid: DatasetXCom
        quarantine: DatasetXCom | None
        report: Report
        rows_in: int
        rows_out: int
        rows_quarantined: int
        rows_dropped: int

    def cache_inputs(self, context: Context) -> Json:
        return {"operator": super().cache_inputs(context), "datasets": fingerprints(self.input)}

    def execute(self, context: Context) -> Outputs:
        started = time.perf_counter()
        with connect(context) as connection:
            dataset = view_input(connection, _TABLE, self.input)
            schema = dict(schema_of(connection, f"SELECT * FROM {_TABLE}"))
            checks = compile_checks(schema, self.columns, self.table, self.on_fail)
            _prove(connection, checks)
            report = _measure(connection, checks)
            _tell(context, report)
            rejecting = _rejecting(checks, report)
            self._judge(context, report)
            valid, quarantine = _split(connection, context, dataset, rejecting)
        rows_quarantined = quarantine.rows if quarantine else 0
        rows_dropped = dataset.rows - valid.rows - rows_quarantined
        self._limit(context, report, rows_quarantined + rows_dropped)
        context.metric("rows_in", dataset.rows)
        context.metric("rows_out", valid.rows)
        context.metric("rows_rejected", rows_quarantined + rows_dropped)
        context.metric("rows_quarantined", rows_quarantined)
        context.metric("checks_failed", sum(check["outcome"] != "passed" for check in report["checks"]))
        context.metric("seconds", time.perf_counter() - started)
        return {
            "valid": valid.to_json(),
            "quarantine": quarantine.to_json() if quarantine else None,
            "report": report,
            "rows_in": dataset.rows,
            "rows_out": valid.rows,
            "rows_quarantined": rows_quarantined,
            "rows_dropped": rows_dropped,
        }

    def _judge(self, context: Context, report: Report) -> None:
        failed = [check for check in report["checks"] if check["outcome"] == "failed"]
        if failed:
            sentences = "; ".join(_sentence(check) for check in failed)
            number = f"{len(failed)} of {len(report['checks'])} checks"
            raise Fail(f"{number} failed: {sentences}.", hint=_kept(context, report))

    def _limit(self, context: Context, report: Report, rejected: int) -> None:
        rate = rejected / report["rows"] if report["rows"] else 0.0
        if rate > self.max_reject_rate:
            raise Fail(
                f"{rejected:,} of {report['rows']:,} rows were rejected: {rate:.2%}, more than the"
                f" {self.max_reject_rate:.2%} of `max_reject_rate`.",
                hint=_kept(context, report),
            )


def _prove(connection: DuckDBPyConnection, checks: Sequence[Check]) -> None:
    """Finds the check whose SQL or regular expression is wrong, before any row is read."""
    import duckdb

    for check in checks:
        try:
            if check.name.endswith(".regex"):
                connection.execute(f"SELECT regexp_matches('', {literal(check.threshold)})").fetchall()
            schema_of(connection, f"SELECT {check.failing or check.observed} FROM {numbered(_TABLE, [check])}")
        except duckdb.Error as error:
            raise Fail(f"The check `{check.name}` can't be computed: {error}") from error


def _measure(connection: DuckDBPyConnection, checks: Sequence[Check]) -> Report:
    """Computes all checks in one pass, then fetches samples of those that do not hold."""
    wanted = ["count(*) AS rows"]
    for index, check in enumerate(checks):
        wanted += [f"{check.observed} AS observed_{index}", f"{check.failed_rows or 'NULL'} AS failed_{index}"]
    row: dict[str, Any] = small_rows(connection, f"SELECT {', '.join(wanted)} FROM {_TABLE}")[0]
    found = [
        _result(connection, check, row[f"observed_{index}"], row[f"failed_{index}"] or 0)
        for index, check in enumerate(checks)
    ]
    return {"rows": row["rows"], "passed": all(check["outcome"] == "passed" for check in found), "checks": found}


def _result(connection: DuckDBPyConnection, check: Check, observed: Json, failed_rows: int) -> CheckResult:
    outcome: Outcome = "passed"
    samples: list[dict[str, Json]] = []
    if not check.holds(observed, failed_rows):
        # A check of the table has no rows to take out: short of a warning it fails.
        outcome = OUTCOMES[check.on_fail] if check.failing or check.on_fail == "warn" else "failed"
        if check.failing:
            samples = small_rows(
                connection,
                f"SELECT {_columns([check])} FROM {numbered(_TABLE, [check])} WHERE {check.failing} LIMIT {SAMPLES}",
            )
    return {
        "check": check.name,
        "column": check.column,
        "on_fail": check.on_fail,
        "outcome": outcome,
        "observed": observed,
        "threshold": check.threshold,
        "failed_rows": failed_rows,
        "samples": samples,
    }


def _rejecting(checks: Sequence[Check], report: Report) -> list[Check]:
    """The checks that take rows out of this table."""
    return [
        check
        for check, result in zip(checks, report["checks"], strict=True)
        if check.rejects and result["failed_rows"] > 0
    ]


def _split(
    connection: DuckDBPyConnection, context: Context, dataset: DatasetManifest, rejecting: Sequence[Check]
) -> tuple[DatasetManifest, DatasetManifest | None]:
    """The valid rows, and the quarantined ones if there are any."""
    if not rejecting:
        return dataset, None
    table = numbered(_TABLE, rejecting)
    columns = _columns(rejecting)
    valid = write_dataset(
        connection,
        f"SELECT {columns} FROM {table} WHERE NOT ({_any(rejecting)})",
        context,
        uri=context.output_uri("valid"),
    )
    quarantining = [check for check in rejecting if check.on_fail == "quarantine"]
    if not quarantining:
        return valid, None
    reasons = ", ".join(f"CASE WHEN {check.failing} THEN {literal(check.name)} END" for check in rejecting)
    quarantine = write_dataset(
        connection,
        f"SELECT {columns}, list_filter([{reasons}], lambda name: name IS NOT NULL) AS _rejected_by"
        f" FROM {table} WHERE {_any(quarantining)}",
        context,
        uri=context.output_uri("quarantine"),
    )
    return valid, quarantine


def _columns(checks: Sequence[Check]) -> str:
    extra = helper_columns(checks)
    return f"* EXCLUDE ({', '.join(extra)})" if extra else "*"


def _any(checks: Sequence[Check]) -> str:
    return " OR ".join(str(check.failing) for check in checks)


def _tell(context: Context, report: Report) -> None:
    for check in report["checks"]:
        if check["outcome"] != "passed":
            context.log.warning("%s: %s", check["outcome"], _sentence(check))
    passed = sum(check["outcome"] == "passed" for check in report["checks"])
    context.log.info("%d of %d checks passed on %s rows", passed, len(report["checks"]), f"{report['rows']:,}")


def _sentence(check: CheckResult) -> str:
    text = f"`{check['check']}` {_shown(check['threshold'])}"
    if check["failed_rows"]:
        text += f" does not hold in {check['failed_rows']:,} row{'' if check['failed_rows'] == 1 else 's'}"
    if check["observed"] != check["failed_rows"]:
        text += f" (observed {_shown(check['observed'])})"
    return text


def _shown(value: Json) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _kept(context: Context, report: Report) -> str:
    """Keeps the report of a validation that fails, which has no XCom, and tells where."""
    address = urls.join(context.output_uri("report"), "report.json")
    content: Any = report
    urls.write_bytes(address, json.dumps(content, indent=1, ensure_ascii=False).encode())
    return f"The report is at {address}"

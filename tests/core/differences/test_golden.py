"""How edits of the example DAGs are told, as text, as Markdown and as JSON, against what was read over once.

With YARROW_WRITE_GOLDEN=1 the files are written anew, to be read over with `git diff`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from yarrow.differences.dag_diff import dag_diff
from yarrow.differences.impact import ActiveBackfill, Dataset, RunsInFlight, Standing, impact
from yarrow.differences.markdown import as_markdown
from yarrow.differences.report import Report, Side
from yarrow.differences.text import as_text
from yarrow.language.spec import DagSpec
from yarrow.schedules.upcoming import Progress

GOLDEN = Path(__file__).with_name("golden")
NOW = datetime(2013, 6, 10, 12, tzinfo=UTC)
PROGRESS = Progress(NOW, datetime(2013, 5, 1, 4, tzinfo=UTC), datetime(2013, 6, 1, 4, tzinfo=UTC))

Edits = Sequence[tuple[str, str]]
CASES: dict[str, tuple[str, Edits]] = {
    "tasks": (
        "late_flights",
        [
            ("retries: 2,", "retries: 3,"),
            ("row_count: {min: 10000}", "row_count: {min: 20000}"),
            (
                "  features:\n",
                "  clean: {operator: empty, depends_on: [validate]}\n  features:\n    depends_on: [clean]\n",
            ),
            ("  publish:\n", "  deliver:\n    outlets: [late]\n"),
        ],
    ),
    "renamed": (
        "late_flights",
        [
            ("  features:\n", "  prepare:\n"),
            ("xcom.features", "xcom.prepare"),
            ("query: !file sql/flights_of_month.sql", 'query: "SELECT *\\nFROM flights\\n"'),
        ],
    ),
    "settings": (
        "late_flights",
        [
            ("tags: [demo, inference]", "tags: [night, inference]"),
            ("max_active_runs: 3", "max_active_runs: 5\ndagrun_timeout: 90m"),
            ("The model has seen January alone", "The model has seen January and `February | March`"),
            ("  threshold: {type: number, default: 0.5", "  threshold: {type: number, default: 0.6"),
            ("params:\n", "params:\n  carrier: {type: string, default: UA}\n"),
        ],
    ),
    "schedule": (
        "late_flights",
        [('schedule: "@monthly"', 'schedule: "0 6 1,15 * *"')],
    ),
    "nothing": (
        "late_flights",
        [
            ("tags: [demo, inference]", "# The order of tags is none.\ntags: [inference, demo]"),
            ("catchup: true\nmax_active_runs: 3\n", "max_active_runs: 3\ncatchup: true\n"),
        ],
    ),
    "other_dag": ("hello", []),
}
STANDING = Standing(
    (RunsInFlight("0" * 64, 2, {"running": 1, "queued": 2}, ("scheduled__2013-04-01T04:00:00+00:00", "by_hand")),),
    (ActiveBackfill(4, 7, 3),),
    {"late": Dataset(("mails", "release_ranking"))},
)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, example: Callable[..., DagSpec]) -> tuple[str, Report]:
    name = str(request.param)
    old = example("late_flights")
    new = example(CASES[name][0], *CASES[name][1])
    diff = dag_diff(old, new, NOW, PROGRESS)
    touched = None if diff.empty else impact(old, new, STANDING)
    return name, Report(Side(old, 3), Side(new, file=f"dags/{new.dag_id}.yaml"), diff, NOW, touched, ("A note.",))


@pytest.mark.parametrize("suffix", ["txt", "md", "json"])
def test_golden(case: tuple[str, Report], suffix: str) -> None:
    name, report = case
    written = {
        "txt": lambda: as_text(report),
        "md": lambda: as_markdown(report),
        "json": lambda: json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n",
    }[suffix]()
    file = GOLDEN / f"{name}.{suffix}"
    if os.environ.get("YARROW_WRITE_GOLDEN") == "1":
        file.write_text(written)
    assert written == file.read_text()


def test_edits_that_mean_nothing_make_no_version(example: Callable[..., DagSpec]) -> None:
    name, edits = CASES["nothing"]
    assert example(name, *edits).version == example(name).version

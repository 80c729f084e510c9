"""The pages, on a real store."""

import dataclasses
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from flask.testing import FlaskClient

from yarrow.language.spec import DagSpec, ScheduleSpec, TaskSpec
from yarrow.plans.requests import BackfillRequest, ClearRequest, MarkRequest
from yarrow.protocol import LogLine
from yarrow.states import TaskState
from yarrow_webserver import pages

Page = Callable[..., str]


def text_of(html: str) -> str:
    """What a reader sees of the main part, in one line."""
    main = html.partition("<main")[2].partition("</main>")[0]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", main)).split())


def links(html: str) -> list[str]:
    return [unescape(link) for link in re.findall(r'href="([^"]*)"', html)]


# Home


def test_an_empty_deployment_says_what_to_do(page: Page) -> None:
    text = text_of(page("/"))

    assert "No DAGs yet" in text
    assert "No scheduler is running." in text
    assert "No worker is running." in text


def test_home_lists_dags_with_their_last_runs_and_next_run(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec(), deployment.spec("paused"), deployment.spec("by_hand", schedule=None))
    deployment.store.catalog.set_paused("paused", True, "ada")
    due = datetime(2026, 1, 1, 5, tzinfo=UTC)
    deployment.store.catalog.set_schedule(
        deployment.store.catalog.dag("flights"), next_logical_date=due, next_run_after=due
    )
    first = deployment.trigger()
    for _ in range(3):
        deployment.step()
    second = deployment.trigger()

    html = page("/")
    text = text_of(html)

    assert "flights demo Score every departure @monthly America/New_York in 4 h" in text
    assert "by_hand demo Score every departure none only when triggered no runs yet" in text
    assert "paused demo Score every departure @monthly America/New_York paused no runs yet" in text
    assert "2026-01-01 05:00 UTC, 2026-01-01 00:00 America/New_York" in html
    runs = [link for link in links(html) if link.startswith("/runs/")]
    assert runs == [f"/runs/{first.id}", f"/runs/{second.id}"]
    assert re.findall(r'rect class="f-(\w+)"', html) == ["success", "running"]


def test_home_shows_files_with_faults(deployment: Any, page: Page) -> None:
    deployment.break_file("a.yaml", faults=7)
    for number in range(30):
        deployment.break_file(f"b{number:02}.yaml")

    text = text_of(page("/"))

    assert "31 files with faults" in text
    assert "a.yaml:3:5 unknown key `retires` 0 Did you mean `retries`? YRW012" in text
    assert "and 2 more in a.yaml" in text
    assert "and 11 more files" in text


def test_home_is_paged_and_searched(deployment: Any, page: Page) -> None:
    deployment.publish(*(deployment.spec(f"dag_{number:03}", tags=("odd",) * (number % 2)) for number in range(60)))

    assert "60" in text_of(page("/"))
    assert "/dags/dag_024" in links(page("/"))
    assert "/dags/dag_025" not in links(page("/"))
    assert "/dags/dag_025" in links(page("/?page=2"))
    assert "Page 3 of 3" in text_of(page("/?page=3"))
    odd = page("/?q=ODD+dag_00")
    assert [link for link in links(odd) if "/dags/" in link] == [f"/dags/dag_00{n}" for n in (1, 3, 5, 7, 9)]
    assert "No DAG has “<x>”" in text_of(page("/?q=<x>"))
    for odd_query in ("page=0", "page=-1", "page=x", "page=99999999999999999999999", "page=٣"):
        page(f"/?{odd_query}")


# A DAG


def test_a_dag_shows_its_runs_by_its_tasks(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    run = deployment.trigger()
    deployment.step()
    deployment.step("failed", reason="no such file", retryable=False)

    html = page("/dags/flights")

    assert "@monthly America/New_York" in text_of(html)
    cells = re.findall(r'class="cell f-(\w+)" href="([^"]*)"', html)
    assert cells == [
        ("success", f"/runs/{run.id}/tasks/ingest"),
        ("failed", f"/runs/{run.id}/tasks/score"),
        ("upstream_failed", f"/runs/{run.id}/tasks/publish"),
    ]


def test_a_dag_without_runs_and_one_whose_file_is_gone(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    assert "No runs yet. yarrow dags trigger flights" in text_of(page("/dags/flights"))

    deployment.trigger()
    deployment.store.catalog.deactivate(["flights"])
    assert "its file is gone" in text_of(page("/dags/flights"))
    assert "/dags/flights" not in links(page("/"))


def test_tasks_of_an_older_version_keep_their_row(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    deployment.trigger()
    newer = deployment.spec()
    deployment.publish(dataclasses.replace(newer, tasks={"ingest": newer.tasks["ingest"]}))

    assert "score gone" in text_of(page("/dags/flights"))


def test_runs_of_a_dag_are_paged(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec(max_active_runs=1))
    runs = []
    for number in range(pages.RUNS_PER_PAGE + 3):
        runs.append(deployment.trigger(logical_date=datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=number)))

    newest = page("/dags/flights")
    older = next(link for link in links(newest) if "before=" in link)

    assert f"/runs/{runs[-1].id}" in links(newest)
    assert f"/runs/{runs[2].id}" not in links(newest)
    assert f"/runs/{runs[2].id}" in links(page(older))
    assert "No older runs" in text_of(page("/dags/flights?before=1"))


def test_code_is_the_text_of_a_version(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    deployment.publish(deployment.spec(description="Another"), source="newer: text\n")

    newest, first = page("/dags/flights/code"), page("/dags/flights/code?version=1")

    assert "newer: text" in text_of(newest)
    assert "version 2" in text_of(newest)
    assert "ingest: {operator: bash} # <b>first</b>" in text_of(first)
    assert "<b>" not in first


# A run


def test_a_run_shows_its_tasks(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    run = deployment.trigger(params={}, logical_date=datetime(2025, 3, 1, tzinfo=UTC))
    deployment.step(seconds=80, metrics={"rows_in": 27004, "auc": 0.66192})
    deployment.step("failed", reason="no such file <b>", retryable=False, seconds=5)

    html = page(f"/runs/{run.id}")
    text = text_of(html)

    assert "2025-03-01 00:00 failed manual__2025-03-01T00:00:00+00:00" in text
    assert "manual by cli:ada" in text
    assert "ingest success 1 of 2 1 min 20 s rows in 27 004 auc 0.6619" in text
    assert "score no such file <b> failed 1 of 1 5.0 s" in text
    assert "1 failed 1 upstream failed 1 success" in text
    assert "<b> " not in html.replace("<b>27", "").replace("<b>0.6", "")
    assert "running → failed" in text  # the history


def test_a_result_of_an_earlier_run_is_shown_as_cached(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    run = deployment.trigger()
    deployment.step(cached=True, cache_key="a" * 64)
    deployment.step()

    text = text_of(page(f"/runs/{run.id}"))

    assert "ingest cached success" in text or "ingest success cached" in text
    assert text.count("cached") == 1, "only of the task that was not executed"


def test_a_page_refreshes_while_something_happens(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    run = deployment.trigger()
    deployment.step()
    assert 'data-refresh="2"' in page(f"/runs/{run.id}")
    assert 'data-refresh="2"' in page("/dags/flights")

    deployment.step("failed", retryable=False)
    assert "data-refresh" not in page(f"/runs/{run.id}")
    assert 'data-refresh="10"' in page("/dags/flights")


# A task


def test_a_task_shows_tries_xcom_metrics_and_log(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    run = deployment.trigger()
    deployment.step("failed", reason="first try failed")
    deployment.clock.advance(600)
    deployment.step(xcom={"rows": 5, "what": "<i>"}, has_xcom=True, metrics={"rows_out": 5})

    html = page(f"/runs/{run.id}/tasks/ingest")
    text = text_of(html)

    assert "ingest success" in text
    assert re.search("Try 1 failed 11 min ago 30 s [^ ]+ first try failed", text)
    assert "rows out 5" in text
    assert '{"rows": 5, "what": "<i>"}' in text
    assert "line of ingest" in text
    assert links(html).count(f"/runs/{run.id}/tasks/ingest?try=1") == 1
    assert "<i>" not in html
    assert "This try wrote nothing." in text_of(page(f"/runs/{run.id}/tasks/ingest?try=9"))


def test_what_was_before_a_clear_stays_in_sight(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    run = deployment.trigger()
    deployment.step()
    once = text_of(page(f"/runs/{run.id}/tasks/ingest"))
    assert "Attempt State" not in once, "what is told above already"
    request = ClearRequest(dag_id=run.dag_id, run_ids=(run.run_id,), tasks="ingest", reason="bad input")
    deployment.store.plans.carry_out(request, who="ann")
    text = text_of(page(f"/runs/{run.id}/tasks/ingest"))
    assert "ingest none" in text
    assert "Attempt State Started Duration Worker Reason Try 1 success" in text
    assert "line of ingest" in text


def test_a_run_of_a_backfill_tells_its_place_and_that_it_has_no_tasks_yet(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    dates = (datetime(2025, 2, 1, 5, tzinfo=UTC), datetime(2025, 4, 1, 4, tzinfo=UTC))
    request = BackfillRequest(dag_id="flights", from_date=dates[0], to_date=dates[1], tasks="score+")
    deployment.store.plans.carry_out(request, who="ann")
    deployment.store.backfills.pause(1, "ann")
    run = deployment.store.runs.list("flights")[1]

    text = text_of(page(f"/runs/{run.id}"))

    assert "Kind backfill by ann Backfill 1, run 2 of 3, only score+ paused Started not yet Duration – Tasks –" in text
    assert "The run has not started: its tasks are made when it does." in text
    assert "Changed by hand" not in text
    assert "flights" in text_of(page("/dags/flights"))


def test_a_run_tells_what_people_did_to_it(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    run = deployment.trigger()
    deployment.step()
    assert "Changed by hand" not in text_of(page(f"/runs/{run.id}"))
    names = {"dag_id": run.dag_id, "run_ids": (run.run_id,)}
    deployment.store.plans.carry_out(ClearRequest(**names, tasks="ingest", reason="<bad> input"), who="ann")
    deployment.clock.advance(60)
    deployment.store.plans.carry_out(MarkRequest(**names, runs=True, state="failed"), who="bob")

    text = text_of(page(f"/runs/{run.id}"))

    deeds = (
        "Changed by hand just now Marked by bob. ingest, publish, score 1 min ago Cleared by ann: <bad> input ingest"
    )
    assert deeds in text.replace(" ,", ",")
    assert '<p class="reason">Marked by bob.</p>' in page(f"/runs/{run.id}")
    deployment.store.plans.carry_out(MarkRequest(**names, runs=True, state="success"), who="bob")
    assert '<p class="lead">Marked by bob.</p>' in page(f"/runs/{run.id}"), "it is no fault"


def test_what_ended_before_a_run_started_again_has_no_place_in_its_time(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    run = deployment.trigger()
    for _ in range(3):
        deployment.step()
    deployment.clock.advance(3600)
    names = {"dag_id": run.dag_id, "run_ids": (run.run_id,)}
    deployment.store.plans.carry_out(ClearRequest(**names, tasks="publish"), who="ann")
    deployment.store.runs.start_due()
    deployment.step(seconds=10)

    html = page(f"/runs/{run.id}")

    assert re.findall(r'class="f-success" x="([\d.]+)%" width="([\d.]+)%"', html) == [("0.0", "100.0")]


def test_a_long_log_is_paged(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    run = deployment.trigger()
    deployment.step()
    lines = [LogLine("2026-01-01T00:00:00.5+00:00", "stderr", f"n{n} <u>") for n in range(pages.LOG_LINES + 10)]
    deployment.logs.append("flights", run.run_id, "ingest", -1, 1, lines)

    first = page(f"/runs/{run.id}/tasks/ingest")
    further = next(link for link in links(first) if "offset=" in link)
    second = page(further)

    assert "00:00:00.500 n0 <u>" in text_of(first)
    assert first.count('<li class="from-stdout"') + first.count('<li class="from-stderr"') == pages.LOG_LINES
    assert f"n{pages.LOG_LINES + 9} <u>" in text_of(second)
    assert not [link for link in links(second) if "offset=" in link]
    for odd in ("offset=-5", "offset=x", "offset=99999999999999999999", "try=-1", "map_index=x"):
        page(f"/runs/{run.id}/tasks/ingest?{odd}")


def test_a_task_that_has_not_begun(deployment: Any, page: Page) -> None:
    deployment.publish(deployment.spec())
    run = deployment.trigger()

    text = text_of(page(f"/runs/{run.id}/tasks/publish"))

    assert "not yet" in text
    assert "Nothing yet." in text
    assert "XCom" not in text


# What is common to all


@pytest.mark.parametrize(
    "path",
    [
        "/dags/none",
        "/dags/none/code",
        "/dags/flights/code?version=7",
        "/runs/999",
        "/runs/1/tasks/none",
        "/runs/x",
        "/no",
    ],
)
def test_what_is_not_there_is_a_page_of_its_own(deployment: Any, client: FlaskClient, path: str) -> None:
    deployment.publish(deployment.spec())
    deployment.trigger()

    answer = client.get(path, headers={"Accept": "text/html"})

    assert answer.status_code == 404
    assert "Not Found" in text_of(answer.text)
    assert client.get(path).json.keys() == {"error"}  # type: ignore[union-attr] # it is JSON without a browser


def test_names_cannot_break_a_page(deployment: Any, page: Page) -> None:
    nasty = '"><script>alert(1)</script>'
    deployment.publish(deployment.spec(description=nasty, owner=nasty, tags=(nasty,)), source=nasty)
    run = deployment.trigger(run_id=nasty)
    deployment.step("failed", reason=nasty, retryable=False, metrics={nasty: 1})
    deployment.break_file(nasty)

    for path in ("/", "/dags/flights", "/dags/flights/code", f"/runs/{run.id}", f"/runs/{run.id}/tasks/ingest"):
        html = page(path)
        assert "<script>alert" not in html
        assert nasty.encode() not in html.encode()


@pytest.mark.parametrize("path", ["/", "/dags/flights", "/dags/flights/code", "/runs/1", "/runs/1/tasks/ingest"])
def test_the_number_of_queries_does_not_grow_with_the_data(
    deployment: Any, page: Page, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.publish(*(deployment.spec(f"other_{number}") for number in range(40)), deployment.spec())
    deployment.trigger()
    for number in range(40):
        deployment.trigger(logical_date=datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=number))
        deployment.trigger(f"other_{number}")
    reads = 0
    database = deployment.store._database
    read = database.read

    def counted(work: Any, *rest: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(work, *rest, **more)

    monkeypatch.setattr(database, "read", counted)
    page(path)

    assert reads <= pages.DAGS_PER_PAGE + 10


def test_an_open_approval_stands_on_the_home_page(page: Any, deployment: Any) -> None:
    message = "Publish <b>{{ ds }}</b>?"
    ask = TaskSpec("ask", "approval", {"message": message, "timeout": "1d", "default": "reject"})
    deployment.publish(DagSpec("release", {"ask": ask}))
    run = deployment.trigger("release", run_id="r1")
    deployment.decide()
    text = page("/")
    assert "1 approval waits for an answer" in text
    assert "Publish &lt;b&gt;" in text
    assert "yarrow approvals approve release r1 ask" in text
    assert "awaiting input" in page(f"/runs/{run.id}")
    deployment.store.approvals.answer("release", "r1", "ask", approve=True, who="ada")
    assert "approval" not in page("/")


def test_an_approval_reads_as_waiting(page: Any, deployment: Any) -> None:
    ask = TaskSpec("ask", "approval", {"message": "Publish?", "timeout": "2d", "default": "approve"})
    deployment.publish(DagSpec("release", {"ask": ask}))
    run = deployment.trigger("release", run_id="r1")
    deployment.decide()
    deployment.clock.advance(90)

    assert "ask awaiting input closes in 1 d 23 h waiting 1 min 30 s" in text_of(page(f"/runs/{run.id}"))
    assert f"/runs/{run.id}/tasks/ask" in links(page("/"))
    text = text_of(page(f"/runs/{run.id}/tasks/ask"))
    assert "Publish? yarrow approvals approve release r1 ask or reject" in text
    assert "Has waited 1 min 30 s Without an answer counts as approved in 1 d 23 h" in text
    assert "Try" not in text
    assert "Log" not in text

    deployment.store.approvals.answer("release", "r1", "ask", approve=False, who="ada", comment="not <b>today")
    text = text_of(page(f"/runs/{run.id}/tasks/ask"))
    assert "Waited 1 min 30 s Answer rejected by ada Comment not <b>today" in text
    assert "yarrow approvals" not in text


# Mapped tasks


def mapped_dag(count: int) -> DagSpec:
    work = TaskSpec("work", "bash", {"command": "true"}, expand={"n": list(range(count))}, max_map_length=count)
    return DagSpec("many", {"work": work, "after": TaskSpec("after", "bash", {}, upstream=("work",))})


def test_a_mapped_task_is_one_line_of_its_run(page: Page, deployment: Any) -> None:
    deployment.publish(mapped_dag(500))
    run = deployment.trigger("many")
    deployment.step(seconds=10)
    deployment.step("failed", retryable=False, seconds=20)

    html = page(f"/runs/{run.id}")
    text = text_of(html)

    assert len(html) < 50_000
    assert "Tasks 1 failed 15 queued 483 scheduled 1 upstream failed 1 success" in text
    assert "work × 500 1 failed 15 queued 483 scheduled 1 success 30 s" in text
    assert "work[0]" not in text.partition("History")[0]
    assert "work[0] none → scheduled" in text.partition("History")[2]
    assert f"These are the first {pages.HISTORY} lines: yarrow runs watch many" in text
    assert f"/runs/{run.id}/tasks/work?state=failed" in links(html)
    grid = page("/dags/many")
    [cell] = re.findall(r'class="cell f-failed" href="([^"]*)" title="([^"]*)"', grid)
    assert cell[0] == f"/runs/{run.id}/tasks/work"
    assert "1 failed, 15 queued, 483 scheduled, 1 success" in cell[1]


def test_the_instances_of_a_mapped_task_are_paged_by_state(page: Page, deployment: Any) -> None:
    deployment.publish(mapped_dag(250))
    run = deployment.trigger("many")
    deployment.step("failed", reason="no luck", retryable=False)
    path = f"/runs/{run.id}/tasks/work"

    first, last, failed = page(path), page(f"{path}?page=3"), page(f"{path}?state=failed")

    assert 'work[0] {"n": 0} no luck failed 1 of 1' in text_of(first)
    assert "work[99]" in text_of(first)
    assert "work[100]" not in text_of(first)
    assert "Page 3 of 3" in text_of(last)
    assert "work[249]" in text_of(last)
    assert re.findall(r"work\[\d+\]", text_of(failed)) == ["work[0]"]
    assert "work[0]" in text_of(page(f"{path}?state=odd"))
    assert next(link for link in links(first) if "map_index=" in link) == f"{path}?map_index=0"


def test_each_instance_of_a_mapped_task_has_its_page(page: Page, deployment: Any) -> None:
    deployment.publish(mapped_dag(3))
    run = deployment.trigger("many")
    deployment.step(xcom="nought", has_xcom=True)
    path = f"/runs/{run.id}/tasks/work"

    text = text_of(page(f"{path}?map_index=0"))

    assert "work[0] success" in text
    assert 'Map {"n": 0}' in text
    assert '"nought"' in text
    assert path in links(page(f"{path}?map_index=0"))
    assert "work[2] queued" in text_of(page(f"{path}?map_index=2"))


def test_the_legend_names_every_state(page: Page, deployment: Any) -> None:
    deployment.publish(deployment.spec())
    deployment.trigger()
    html = page("/dags/flights")
    legend = html.partition('class="legend"')[2].partition("</p>")[0]
    assert set(re.findall(r'<i class="f-(\w+)"', legend)) == set(TaskState)


def test_a_dag_that_data_sets_start_says_so(page: Page, deployment: Any) -> None:
    deployment.publish(deployment.spec(schedule=ScheduleSpec(datasets=("flights", "planes"), mode="any")))
    assert "any of flights, planes America/New_York when published" in text_of(page("/"))

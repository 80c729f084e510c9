from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deciding import dag, task
from yarrow.errors import UsageError
from yarrow.plans.selector import parse

DAG = dag(
    task("ingest"),
    task("g.clean", "ingest"),
    task("g.inner.join", "g.clean"),
    task("g2.other", "ingest"),
    task("score", "g.inner.join", "g2.other"),
    task("report", "score"),
    tags=("nightly", "team a"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("score", ["score"]),
        ("+score", ["ingest", "g.clean", "g.inner.join", "g2.other", "score"]),
        ("score+", ["score", "report"]),
        ("+score+", ["ingest", "g.clean", "g.inner.join", "g2.other", "score", "report"]),
        ("+g.clean+", ["ingest", "g.clean", "g.inner.join", "score", "report"]),
        ("g.*", ["g.clean", "g.inner.join"]),
        ("g.inner.*", ["g.inner.join"]),
        ("+g.inner.*", ["ingest", "g.clean", "g.inner.join"]),
        ("g2.*+", ["g2.other", "score", "report"]),
        ("*o*", ["g.inner.join", "g2.other", "score", "report"]),
        ("*", ["ingest", "g.clean", "g.inner.join", "g2.other", "score", "report"]),
        ("report,ingest", ["ingest", "report"]),
        ("report ingest", ["ingest", "report"]),
        (" report , \n ingest,,", ["ingest", "report"]),
        ("report report", ["report"]),
        ("tag:nightly", ["ingest", "g.clean", "g.inner.join", "g2.other", "score", "report"]),
        ("tag:weekly,score", ["score"]),
    ],
)
def test_selects_in_the_order_of_the_tasks(text: str, expected: list[str]) -> None:
    assert list(parse(text).of(DAG)) == expected


def test_tells_why_each_task_is_selected() -> None:
    assert parse("+g.clean+ score").whys(DAG) == {
        "ingest": "upstream of g.clean",
        "g.clean": "selected",
        "g.inner.join": "downstream of g.clean",
        "score": "selected",
        "report": "downstream of g.clean",
    }


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("scores", "The DAG `d` has no task `scores`.", "Did you mean `score`?"),
        ("score,reprot+", "The DAG `d` has no task `reprot`.", "Did you mean `report`?"),
        ("claen", "The DAG `d` has no task `claen`.", "Did you mean `g.clean`?"),
        ("join", "The DAG `d` has no task `join`.", "Did you mean `g.inner.join`?"),
        ("g", "The DAG `d` has no task `g`.", "`g` is a task group: `g.*` selects its tasks."),
        ("g.iner.*", "The DAG `d` has no task group `g.iner`.", "Did you mean `g.inner.*`?"),
        ("*x*", "The DAG `d` has no task whose id is like `*x*`.", None),
        ("tag:weekly", "The DAG `d` has no task that `tag:weekly` selects.", "Its tags are `nightly`, `team a`."),
        ("score.*", "The DAG `d` has no task group `score`.", None),
    ],
)
def test_refuses_what_the_dag_has_not(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text).of(DAG)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize("text", ["", " , ", "+", "a++", "++a", "a + b", "a[1]", "tag:", "a/b", "Ä", "a\x00", "+tag:+"])
def test_refuses_what_is_no_selector(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "selector" in caught.value.message


def test_says_how_one_instance_is_chosen() -> None:
    with pytest.raises(UsageError, match="chosen by its map index"):
        parse("a[3]")


@given(st.text(max_size=40))
def test_reads_or_refuses_any_text(text: str) -> None:
    try:
        selector = parse(text)
    except UsageError:
        return
    assert parse(str(selector)) == selector


@given(st.lists(st.sampled_from(["ingest", "+score", "score+", "g.*", "+g.*+", "*o*", "tag:nightly"]), min_size=1))
def test_a_union_selects_what_its_parts_do(parts: list[str]) -> None:
    expected = {task_id for part in parts for task_id in parse(part).of(DAG)}
    assert parse(",".join(parts)).of(DAG) == tuple(task_id for task_id in DAG.tasks if task_id in expected)

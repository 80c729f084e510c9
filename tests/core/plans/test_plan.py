from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning import FIRST, NOW, by_chance, situation
from small_dags import Maker
from yarrow.errors import UsageError
from yarrow.plans.clearing import plan_clear
from yarrow.plans.marking import plan_mark
from yarrow.plans.plan import (
    Estimate,
    Need,
    Plan,
    PoolUse,
    RunAction,
    RunChange,
    TaskAction,
    TaskChange,
    differences,
)
from yarrow.plans.requests import (
    BackfillRequest,
    ClearRequest,
    MarkRequest,
    Request,
    request_from_json,
    request_to_json,
)

TASK = TaskChange("a", -1, TaskAction.CLEAR, "failed", "none", "selected", 2, "a#2", loses_xcom=True)
RUN = RunChange(
    "r0", FIRST, RunAction.CLEAR, from_state="failed", to_state="queued", version="v", tasks=(TASK,), task_count=1
)
PLAN = Plan("p1", ClearRequest(dag_id="d", run_ids=("r0",)), (RUN,), NOW, "ann")
MADE = RunChange(
    "backfill__1",
    FIRST,
    RunAction.CREATE,
    to_state="queued",
    data_interval_start=FIRST,
    data_interval_end=FIRST + timedelta(days=1),
    version="v",
    task_count=3,
    needs=(Need("b", "a", "xcom", there=False),),
)
ESTIMATE = Estimate(3, 12.5, 1, 3, (PoolUse("p", 4, 2, 3, 8.0), PoolUse("q", 0, 0, 1, None)), "forwards, 10 at once")


def through_json(plan: Plan) -> Plan:
    return Plan.from_json(json.loads(json.dumps(plan.to_json())))


# Plans as JSON.


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, runs=()),
        replace(PLAN, runs=(RUN, MADE), estimate=ESTIMATE, notes=("It is paused.",)),
        replace(PLAN, applied_at=NOW, applied_by="bob", result={"backfill_id": 7}),
    ],
)
def test_a_plan_comes_back_from_json(plan: Plan) -> None:
    found = through_json(plan)
    assert found == plan
    assert found.digest == plan.digest == plan.to_json()["digest"]


@given(st.integers(0, 2**32), st.booleans())
def test_any_plan_comes_back_from_json(seed: int, marks: bool) -> None:
    rng = random.Random(seed)
    spec = Maker(rng).case().spec
    where = situation(by_chance(spec, rng, 0), by_chance(spec, rng, 1))
    request: Request
    if marks:
        request = MarkRequest(dag_id="d", run_ids=("r0",), future=True, state=rng.choice(["success", "failed"]))
        runs = plan_mark(request, where)
    else:
        request = ClearRequest(dag_id="d", from_date=FIRST, only_failed=rng.random() < 0.5, reason="why")
        runs = plan_clear(request, where)
    plan = Plan("p1", request, tuple(runs), NOW, "ann")
    found = through_json(plan)
    assert found == plan
    assert found.digest == plan.digest


def test_a_run_without_changes_is_not_effective() -> None:
    skipped = replace(RUN, run_id="r1", action=RunAction.SKIP, reason="because", tasks=())
    plan = replace(PLAN, runs=(RUN, skipped))
    assert list(plan.effective) == [RUN]
    assert list(plan.task_changes) == [(RUN, TASK)]


# The digest.


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "p2"},
        {"planned_at": FIRST},
        {"planned_by": "bob"},
        {"estimate": ESTIMATE},
        {"notes": ("It is paused.",)},
        {"applied_at": NOW, "applied_by": "bob", "result": {"backfill_id": 1}},
        {"runs": [replace(RUN, tasks=[TASK])]},
    ],
)
def test_the_digest_is_not_of_when_and_by_whom(fields: dict[str, Any]) -> None:
    assert replace(PLAN, **fields).digest == PLAN.digest


@pytest.mark.parametrize(
    "changed",
    [
        replace(PLAN, request=ClearRequest(dag_id="d", run_ids=("r0",), reason="x")),
        replace(PLAN, runs=(RUN, MADE)),
        replace(PLAN, runs=()),
        *(
            replace(PLAN, runs=(replace(RUN, **one),))
            for one in (
                {"action": RunAction.MARK},
                {"reason": "x"},
                {"from_state": "success"},
                {"to_state": "running"},
                {"version": "w"},
                {"tasks": ()},
                {"task_count": 2},
                {"needs": MADE.needs},
                {"logical_date": NOW},
            )
        ),
        *(
            replace(PLAN, runs=(replace(RUN, tasks=(replace(TASK, **one),)),))
            for one in (
                {"task_id": "b"},
                {"map_index": 0},
                {"action": TaskAction.COLLAPSE},
                {"from_state": "success"},
                {"to_state": "success"},
                {"why": "x"},
                {"try_number": 3},
                {"attempt_id": "a#3"},
                {"loses_xcom": False},
            )
        ),
    ],
)
def test_the_digest_is_of_all_that_is_to_be_done(changed: Plan) -> None:
    assert changed.digest != PLAN.digest
    assert differences(PLAN, changed) or changed.request != PLAN.request


def test_the_digest_of_a_plan_is_always_the_same() -> None:
    assert PLAN.digest == "a53574588221bd55d2f479e17815c98ef555fd78f47b724dfa1d8c64523ef59b"


# What is another way than before.


def task_of(**fields: Any) -> tuple[RunChange]:
    return (replace(RUN, tasks=(replace(TASK, **fields),)),)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ((RUN,), []),
        ((), ["r0 is not concerned any more"]),
        ((RUN, MADE), ["backfill__1 is concerned too: create"]),
        (
            (replace(RUN, action=RunAction.SKIP, reason="nothing failed", tasks=()),),
            ["r0: clear, and now skip (nothing failed)", "a of r0 was failed and would not be changed any more"],
        ),
        ((replace(RUN, from_state="running", to_state="running"),), ["r0 was failed and is running"]),
        ((replace(RUN, from_state=None),), ["r0 was failed and is not there"]),
        ((replace(RUN, version="w"),), ["r0 would have another version of the DAG"]),
        ((replace(RUN, to_state="success"),), ["r0 would be success afterwards, and not queued"]),
        ((replace(RUN, needs=MADE.needs),), ["what r0 needs of tasks that are not selected is not the same any more"]),
        ((replace(RUN, task_count=2),), ["r0 would be changed in another way"]),
        (task_of(from_state="success"), ["a of r0 was failed and is success"]),
        (task_of(attempt_id="a#3"), ["a of r0 has run again meanwhile"]),
        (task_of(to_state="removed"), ["a of r0 would be changed in another way"]),
        (
            (replace(RUN, tasks=(TASK, replace(TASK, task_id="m", map_index=2))),),
            ["m[2] of r0 would be changed too: it is failed"],
        ),
    ],
)
def test_says_what_is_another_way(runs: tuple[RunChange, ...], expected: list[str]) -> None:
    assert differences(PLAN, replace(PLAN, runs=runs)) == expected


def test_says_at_most_so_much() -> None:
    many = replace(PLAN, runs=[replace(RUN, run_id=f"r{place}") for place in range(1_500)])
    found = differences(many, replace(PLAN, runs=()), most=3)
    assert found == ["r0 is not concerned any more", "r1 is not concerned any more", "and 1,498 other changes"]
    assert len(differences(many, replace(PLAN, runs=()), most=1_500)) == 1_500


# Requests as JSON.

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
MOMENTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=2))]), min_value=datetime(1970, 1, 2))
SCOPES: dict[str, st.SearchStrategy[Any]] = {
    "dag_id": TEXTS,
    "run_ids": st.lists(TEXTS, max_size=2).map(tuple),
    "from_date": st.none() | MOMENTS.filter(lambda moment: moment.year < 9999),
    "tasks": st.none() | TEXTS,
    "map_index": st.none() | st.integers(-(2**31) + 1, 2**31 - 1),
    "downstream": st.booleans(),
    "only_failed": st.booleans(),
    "reason": st.none() | TEXTS,
}
REQUESTS: st.SearchStrategy[Request] = (
    st.builds(ClearRequest, **SCOPES, latest_version=st.booleans())
    | st.builds(MarkRequest, **SCOPES, state=TEXTS, runs=st.booleans())
    | st.builds(
        BackfillRequest,
        dag_id=TEXTS,
        from_date=st.just(FIRST),
        to_date=st.just(NOW),
        params=st.dictionaries(TEXTS, TEXTS | st.integers() | st.none(), max_size=2),
        run_backwards=st.booleans(),
    )
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("2026-01-01T00:00:00Z"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@given(REQUESTS)
def test_a_request_comes_back_from_json(request_: Request) -> None:
    assert request_from_json(json.loads(json.dumps(request_to_json(request_)))) == request_


@given(
    st.sampled_from(["clear", "mark", "backfill"]) | ANYTHING,
    st.dictionaries(
        st.sampled_from(["dag_id", "run_ids", "from_date", "to_date", "map_index", "past", "params", "state", "x"]),
        ANYTHING,
    ),
)
def test_anything_is_a_request_or_refused(kind: Any, fields: dict[str, Any]) -> None:
    try:
        found = request_from_json({"kind": kind, **fields})
    except UsageError:
        return
    assert request_from_json(request_to_json(found)) == found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "`kind` is one of clear, mark, backfill, not None."),
        ({"kind": ["clear"]}, "`kind` is one of clear, mark, backfill, not ['clear']."),
        ({"kind": "clear"}, "A request to clear needs `dag_id`."),
        ({"kind": "mark", "dag_id": "d"}, "A request to mark needs `state`."),
        ({"kind": "backfill", "dag_id": "d", "from_date": "2026-01-01T00Z"}, "A request to backfill needs `to_date`."),
        ({"kind": "clear", "dag_id": "d", "state": "success"}, "A request to clear has no field 'state'."),
        ({"kind": "clear", "dag_id": 1}, "`dag_id` is text, not 1."),
        ({"kind": "clear", "dag_id": None}, "`dag_id` is text, not None."),
        ({"kind": "clear", "dag_id": "d\0"}, "`dag_id` holds a character that is none: 'd\\x00'."),
        ({"kind": "clear", "dag_id": "d", "run_ids": "r"}, "`run_ids` is a list of texts, not 'r'."),
        (
            {"kind": "clear", "dag_id": "d", "run_ids": ["\ud800"]},
            "`run_ids` holds a character that is none: '\\ud800'.",
        ),
        ({"kind": "clear", "dag_id": "d", "past": 1}, "`past` is true or false, not 1."),
        ({"kind": "clear", "dag_id": "d", "map_index": True}, "`map_index` is a whole number, not True."),
        ({"kind": "clear", "dag_id": "d", "map_index": 10**30}, "`map_index` is too large a number."),
        ({"kind": "clear", "dag_id": "d", "from_date": "soon"}, "`from_date` is a moment in ISO 8601, not 'soon'."),
        (
            {"kind": "clear", "dag_id": "d", "from_date": "2026-01-01"},
            "`from_date` needs an offset from UTC, such as 2026-01-01T00:00:00+00:00.",
        ),
        (
            {"kind": "clear", "dag_id": "d", "from_date": "0001-01-01T00:00:00+05:00"},
            "`from_date` is out of the range of dates: 0001-01-01T00:00:00+05:00.",
        ),
        ({"kind": "backfill", "params": []}, "`params` is an object, not []."),
    ],
)
def test_says_what_is_wrong_with_a_request(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        request_from_json(data)
    assert caught.value.message == message

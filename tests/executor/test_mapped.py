"""Mapped tasks with a real worker: what each instance finds, and what those after it find of all."""

from __future__ import annotations

from typing import Any

import pytest

from yarrow.states import TaskState

pytestmark = pytest.mark.slow


def test_instances_have_their_values_and_the_next_task_has_all_their_results(deployment: Any) -> None:
    deployment.start_worker("-c", "2")
    days = deployment.function("days", "def run():\n    return ['mon', 'tue', 'wed']\n")
    # The second result is too large for the database, so that one element of the list is a reference.
    work = deployment.function(
        "work",
        "def run(day, place, index):\n"
        "    if (day, place) == ('wed', 'b'):\n"
        "        raise ValueError(day)\n"
        "    return {'of': f'{day}-{place}-{index}', 'pad': 'x' * (100_000 if day == 'tue' else 0)}\n",
    )
    collect = deployment.function(
        "collect", "def run(results):\n    return [[r['of'], len(r['pad'])] for r in results]\n"
    )
    kwargs = {"day": "{{ map.day }}", "place": "{{ map.place }}", "index": "{{ map_index }}"}
    run = deployment.start(
        "mapped",
        days={"arguments": {"callable": days}},
        t={
            "arguments": {"callable": work, "kwargs": kwargs},
            "expand": {"day": "{{ xcom.days }}", "place": ["a", "b"]},
            "expand_xcoms": ("days",),
            "upstream": ("days",),
        },
        all={
            "arguments": {"callable": collect, "kwargs": {"results": "{{ xcom.t }}"}},
            "upstream": ("t",),
            "xcoms": ("t",),
            "trigger_rule": "all_done",
        },
    )
    assert run.wait(task_id="all", seconds=40).state == TaskState.SUCCESS
    assert run.xcom("all") == [
        ["mon-a-0", 0],
        ["mon-b-1", 0],
        ["tue-a-2", 100_000],
        ["tue-b-3", 100_000],
        ["wed-a-4", 0],
    ]
    failed = deployment.store.runs.task_instance("mapped", run.run_id, "t", 5)
    assert failed.state == TaskState.FAILED

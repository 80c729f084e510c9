"""What tasks need against what a deployment has: queues, pools and the time that past runs took."""

from __future__ import annotations

import textwrap

import pytest

from yarrow.language import codes
from yarrow.language.deployment import Known, critical_paths
from yarrow.language.faults import Fault
from yarrow.language.loader import load_text
from yarrow.language.spec import DagSpec, TaskSpec

CHAIN = "tasks: {a: {operator: stage}, b: {operator: stage, depends_on: [a]}, c: {operator: stage}}\n"
TOOK = {("x", "a"): 3600.0, ("x", "b"): 1800.0, ("x", "c"): 600.0, ("other", "c"): 99_999.0}


def faults(text: str, **known: object) -> list[Fault]:
    result = load_text(textwrap.dedent(text), "x.yaml", known=Known(**known))  # type: ignore[arg-type]
    assert result.spec is not None, result.faults
    assert all(fault.severity == "warning" for fault in result.faults)
    return result.faults


def test_more_slots_than_the_pool_has() -> None:
    text = "tasks: {a: {operator: stage, pool: gpu, pool_slots: %d}, b: {operator: stage, pool_slots: 3}}\n"
    pools = {"gpu": 2, "default_pool": 3}
    assert faults(text % 2, pools=pools) == []
    (fault,) = faults(text % 3, pools=pools)
    assert (fault.code, fault.column) == (codes.POOL_TOO_SMALL, 53)
    assert fault.message == "The task `a` takes 3 slots, and the pool `gpu` has 2: it would never run."
    assert faults(text % 3) == []  # nothing is known of the pools


def test_a_pool_that_is_the_default() -> None:
    (fault,) = faults("default_args: {pool_slots: 5}\ntasks: {a: {operator: stage}}\n", pools={"default_pool": 4})
    assert fault.code == codes.POOL_TOO_SMALL


def test_a_queue_that_no_worker_serves() -> None:
    text = "tasks: {a: {operator: stage, queue: gpu}, b: {operator: stage}}\n"
    assert faults(text, served=["default", "gpu"]) == []
    assert faults(text, served=["*"]) == []
    (fault,) = faults(text, served=["default"])
    assert (fault.code, fault.hint) == (codes.UNSERVED_QUEUE, "Queues that are served: default.")
    assert fault.message == "No worker serves the queue `gpu` of the task `a` at the moment."
    assert [fault.hint for fault in faults(text, served=[])] == ["No worker is there."] * 2


def test_critical_paths() -> None:
    tasks = {
        "a": TaskSpec("a", "x", {}),
        "b": TaskSpec("b", "x", {}, upstream=("a",)),
        "c": TaskSpec("c", "x", {}, upstream=("a",)),
        "d": TaskSpec("d", "x", {}, upstream=("b", "c")),
    }
    found = critical_paths(DagSpec("x", tasks), {"a": 1.0, "b": 5.0, "c": 2.0})
    assert found == {"a": (1.0, ("a",)), "b": (6.0, ("a", "b")), "c": (3.0, ("a", "c")), "d": (6.0, ("a", "b"))}


@pytest.mark.parametrize("after", ["90m", "2h"])
def test_a_deadline_that_past_runs_met(after: str) -> None:
    assert faults(f"deadline: {after}\n{CHAIN}", durations=TOOK) == []


def test_a_deadline_below_the_critical_path() -> None:
    (fault,) = faults(f"deadline: {{after: 80m, from: queued_at}}\n{CHAIN}", durations=TOOK)
    assert (fault.code, fault.line, fault.column) == (codes.DEADLINE_TOO_SHORT, 1, 11)
    assert fault.message == (
        "The deadline of the DAG is 80m after `queued_at`, and past runs took 90m on the way a → b."
    )
    assert faults(f"deadline: 80m\n{CHAIN}") == []  # nothing is known of past runs
    assert faults(f"deadline: {{after: 0s, from: average}}\n{CHAIN}", durations=TOOK) == []


def test_the_deadline_of_a_task_counts_up_to_its_end() -> None:
    text = CHAIN.replace("a: {operator: stage}", "a: {operator: stage, deadline: %s}")
    assert faults(text % "1h", durations=TOOK) == []
    (fault,) = faults(text % "59m", durations=TOOK)
    assert "of the task `a` is 59m after `logical_date`, and past runs took 1h on the way a." in fault.message


def test_a_run_starts_when_its_data_interval_has_ended() -> None:
    text = "schedule: '@daily'\ndeadline: %s\n" + CHAIN
    (fault,) = faults(text % "25h", durations=TOOK)
    assert "25h after `logical_date`, of which the data interval leaves 1h, and past runs took 90m" in fault.message
    assert faults(text % "26h", durations=TOOK) == []
    assert faults(text % "{after: 90m, from: data_interval_end}", durations=TOOK) == []
    # Whatever the tasks take.
    (fault,) = faults(text % "2h")
    assert fault.message.startswith("The deadline of the DAG always passes: a run starts when its data interval has")
    assert fault.hint == "Write `{after: 2h, from: data_interval_end}`, or a longer time."


@pytest.mark.parametrize("schedule", ["{cron: '@daily', semantics: trigger}", "null", "{datasets: [a]}", "'@once'"])
def test_a_run_that_starts_at_its_logical_date(schedule: str) -> None:
    assert faults(f"schedule: {schedule}\ndeadline: 2h\n{CHAIN}", durations=TOOK) == []


def test_the_shortest_interval_is_what_counts() -> None:
    text = "schedule: '@monthly'\nstart_date: 2024-01-01\ndeadline: %s\n" + CHAIN
    assert faults(text % "30d", durations=TOOK) == []  # February leaves a day
    assert [fault.code for fault in faults(text % "29d")] == [codes.DEADLINE_TOO_SHORT]

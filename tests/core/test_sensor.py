"""The base of sensors: when they look, when they give up, and what they find."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from yarrow import Context, Fail, NotYet, Reschedule, Sensor, param, sensor
from yarrow.language.parameters import parameters
from yarrow.registry import operator_class, register
from yarrow.states import TaskState
from yarrow.testing import FrozenClock, load_dag, run_dag

START = datetime(2026, 1, 1, tzinfo=UTC)


class Probe(Sensor):
    """Finds what the test wants."""

    answers: ClassVar[list[Any]] = []
    number: int = param(default=0, doc="Any.")

    def poke(self, context: Context) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with register("probe", Probe):
        yield


def look(answer: Any, *, seconds: float = 0, **fields: Any) -> Any:
    """One look, so many seconds after the start of the try."""
    Probe.answers = [answer]
    context = SimpleNamespace(now=lambda: START + timedelta(seconds=seconds), first_started_at=START)
    return Probe(**fields).execute(cast(Context, context))


@pytest.mark.parametrize("answer", [None, False, 0, "", [], {}, NotYet("Two are missing.")])
def test_a_false_answer_puts_it_off(answer: Any) -> None:
    with pytest.raises(Reschedule) as caught:
        look(answer, seconds=5, poke_interval="30s")
    assert caught.value.until == START + timedelta(seconds=35)
    expected = "Two are missing." if isinstance(answer, NotYet) else "What it waits for is not there yet."
    assert caught.value.message == expected


@pytest.mark.parametrize(("answer", "result"), [(True, None), ({"rows": 1}, {"rows": 1}), (7, 7), ("x", "x")])
def test_a_true_answer_is_the_result(answer: Any, result: Any) -> None:
    assert look(answer) == result


def test_a_minute_and_seven_days_when_nothing_is_said() -> None:
    with pytest.raises(Reschedule) as caught:
        look(None, seconds=6 * 86400)
    assert caught.value.until == START + timedelta(days=6, seconds=60)
    with pytest.raises(Fail, match="Waited for 7d in vain"):
        look(None, seconds=7 * 86400)


def test_the_last_look_is_at_the_deadline() -> None:
    with pytest.raises(Reschedule) as caught:
        look(None, seconds=95, poke_interval="10s", timeout="100s")
    assert caught.value.until == START + timedelta(seconds=100)
    with pytest.raises(Fail, match=r"Waited for 100s in vain\. Two are missing") as failed:
        look(NotYet("Two are missing."), seconds=100, poke_interval="10s", timeout="100s")
    assert type(failed.value).__name__ == "SensorTimeout"
    assert look({"rows": 1}, seconds=100, timeout="100s") == {"rows": 1}, "what is there in the end counts"


def test_its_parameters_are_those_of_every_sensor_and_its_own() -> None:
    assert list(parameters(Probe).fields) == ["poke_interval", "timeout", "number"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("poke_interval: 10", "Write `10s`"),
        ("poke_interval: soon", "`soon` is not a duration"),
        ("poke_interval: 500ms", "must be at least a second"),
        ('timeout: "{{ params.x }}"', "can't be a template"),
    ],
)
def test_durations_are_checked_when_the_file_is_loaded(given: str, sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        load_dag(f"tasks:\n  t:\n    operator: probe\n    with: {{{given}}}\n")


SENSORS = {
    "wait_for_file": "path: a.csv",
    "wait_for_sql": "query: select 1",
    "wait_for_http": "url: http://localhost/",
    "wait_for_task": "dag_id: other",
    "wait_until": "time: '06:00'",
}


@pytest.mark.parametrize("name", SENSORS)
def test_every_sensor_has_an_interval_a_timeout_and_soft_fail(name: str) -> None:
    text = f"tasks:\n  t:\n    operator: {name}\n    soft_fail: true\n    with: {{{SENSORS[name]}, timeout: 2h, %s}}\n"
    task = load_dag(text % "poke_interval: 30s").tasks["t"]
    assert issubclass(operator_class(name), Sensor)
    assert (task.arguments["poke_interval"], task.arguments["timeout"], task.soft_fail) == ("30s", "2h", True)
    with pytest.raises(Exception, match="`poke_interval` must be at least a second"):
        load_dag(text % "poke_interval: 10ms")


DAG = """
start_date: 2026-01-01
tasks:
  wait:
    operator: probe
    {fields}
    with: {{poke_interval: 10m, timeout: {timeout}}}
"""


def test_in_one_process_time_is_skipped_between_looks() -> None:
    Probe.answers = [None, NotYet("One is missing."), {"rows": 3}]
    clock = FrozenClock()
    result = run_dag(DAG.format(fields="", timeout="1h"), clock=clock)
    task = result.tasks["wait"]
    assert (task.state, task.xcom, task.tries) == (TaskState.SUCCESS, {"rows": 3}, 1)
    assert [line.removeprefix("INFO ").split(" Looking")[0] for line in task.log] == [
        "What it waits for is not there yet.",
        "One is missing.",
    ]


@pytest.mark.parametrize(
    ("fields", "timeout", "state", "reason"),
    [
        ("retries: 3", "1h", TaskState.FAILED, "Waited for 1h in vain."),
        ("soft_fail: true", "1h", TaskState.SKIPPED, "Waited for 1h in vain."),
        ("retries: 3", "7d", TaskState.FAILED, "It has looked 100 times"),
    ],
)
def test_a_sensor_that_waits_in_vain(fields: str, timeout: str, state: TaskState, reason: str) -> None:
    Probe.answers = [None]
    task = run_dag(DAG.format(fields=fields, timeout=timeout)).tasks["wait"]
    assert (task.state, task.tries) == (state, 1)
    assert task.reason is not None
    assert reason in task.reason


def test_an_error_in_a_look_is_a_failure_as_any_other() -> None:
    Probe.answers = [None, ConnectionError("away"), None, {"rows": 3}]
    task = run_dag(DAG.format(fields="retries: 1", timeout="1h")).tasks["wait"]
    assert (task.state, task.tries) == (TaskState.SUCCESS, 2)


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = textwrap.dedent((sensor.__doc__ or "").partition("::\n\n")[2])
    module = ModuleType("example_of_a_sensor")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(text, module.__name__, "exec", dont_inherit=True), vars(module))
    with register("wait_for_flag", module.WaitForFlag):
        dag = f"tasks:\n  t:\n    operator: wait_for_flag\n    with: {{path: {tmp_path / 'flag'}, timeout: 1m}}\n"
        result = run_dag(dag)
        assert result.tasks["t"].reason == f"Waited for 1m in vain. `{tmp_path / 'flag'}` is not there."
        (tmp_path / "flag").touch()
        assert run_dag(dag).tasks["t"].xcom == {"path": str(tmp_path / "flag")}

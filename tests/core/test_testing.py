"""DAGs run in one process: `yarrow.testing` as users have it, and what `yarrow dags test` stands on."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from yarrow import Context, Fail, Interrupted, Operator, Skip, param
from yarrow.config import Config
from yarrow.dag_result import Event, Moved, Printed, Progressed
from yarrow.errors import InvalidParams, NotFound, UsageError
from yarrow.inline import Inline
from yarrow.registry import register
from yarrow.states import RunState, TaskState
from yarrow.testing import FrozenClock, Tries, load_dag, run_dag

ETL = """
dag_id: etl
schedule: "@daily"
start_date: 2026-01-01
timezone: America/New_York
params:
  limit: {type: integer, default: 3}
tasks:
  extract: {operator: say, with: {value: {rows: "{{ params.limit }}", day: "{{ ds }}"}}}
  load:
    operator: say
    retries: 2
    retry_delay: 1h
    with: {value: "{{ xcom.extract.rows }} rows of {{ xcom.extract.day }}"}
  report: {operator: say, when: "xcom.extract.rows > 1", depends_on: [load], with: {value: done}}
  alert: {operator: say, trigger_rule: one_failed, depends_on: [load], with: {value: help}}
"""


class Say(Operator):
    """Says something and returns it."""

    value: Any = param(default=None, doc="What to say.")

    def execute(self, context: Context) -> Any:
        sys.stdout.write(f"printed {self.value}\n")
        context.log.info("logged %s", self.value)
        logging.getLogger("some.library").info("in passing")
        sys.stderr.write("on stderr\n")
        sys.stdout.write("no end")
        context.progress(1, 2)
        context.metric("said", 1)
        return self.value


@pytest.fixture(autouse=True)
def operators() -> Iterator[None]:
    with register("say", Say):
        yield


def states(result: Any) -> dict[str, str]:
    return {task_id: str(task.state) for task_id, task in result.tasks.items()}


def test_a_dag_is_run() -> None:
    result = run_dag(ETL, clock=FrozenClock(datetime(2026, 3, 5, 12, tzinfo=UTC)))
    assert result.success
    assert result.state is RunState.SUCCESS
    assert result.logical_date == datetime(2026, 3, 4, 5, tzinfo=UTC), "the newest complete interval"
    assert result.data_interval_end == datetime(2026, 3, 5, 5, tzinfo=UTC)
    assert states(result) == {"extract": "success", "load": "success", "report": "success", "alert": "skipped"}
    assert result.tasks["load"].xcom == "3 rows of 2026-03-04"
    assert result.tasks["load"].tries == 1
    assert result.tasks["report"].metrics == {"said": 1}
    assert result.tasks["alert"].reason == "no upstream task failed (trigger rule `one_failed`)"


def test_what_a_task_prints_and_logs_is_kept() -> None:
    result = run_dag(ETL)
    assert result.tasks["report"].log == (
        "printed done",
        "INFO logged done",
        "INFO in passing",
        "on stderr",
        "no end",
    )


def test_a_logical_date_and_params_are_given() -> None:
    result = run_dag(ETL, logical_date=datetime(2026, 2, 1, 5, tzinfo=UTC), params={"limit": 1})
    assert result.tasks["load"].xcom == "1 rows of 2026-02-01"
    assert result.tasks["report"].state is TaskState.SKIPPED
    assert result.data_interval_end == datetime(2026, 2, 2, 5, tzinfo=UTC)
    with pytest.raises(InvalidParams, match="limit"):
        run_dag(ETL, params={"limit": "many"})


def test_retries_are_not_waited_for() -> None:
    class Flaky(Operator):
        """Fails twice."""

        def execute(self, context: Context) -> str:
            count = context.work_dir / "count"
            count.write_text((count.read_text() if count.exists() else "") + "x")
            if context.try_number < 3:
                raise ConnectionError("refused")
            return count.read_text()

    with register("flaky", Flaky):
        result = run_dag("tasks: {only: {operator: flaky, retries: 2, retry_delay: 1h}}\ndag_id: x")
    assert (result.tasks["only"].state, result.tasks["only"].tries) == (TaskState.SUCCESS, 3)
    assert result.tasks["only"].xcom == "xxx", "the work folder survives a retry"
    assert [line for line in result.tasks["only"].log if line.startswith("ConnectionError")] == [
        "ConnectionError: refused"
    ] * 2


def test_outcomes() -> None:
    result = run_dag(ETL, outcomes={"extract": {"rows": 9, "day": "?"}, "load": Fail("disk full")})
    assert states(result) == {
        "extract": "success",
        "load": "failed",
        "report": "upstream_failed",
        "alert": "success",
    }
    assert result.tasks["load"].tries == 1
    assert result.tasks["load"].reason == "disk full"
    assert result.state is RunState.FAILED
    assert result.reason == "task `load` failed"


def test_outcomes_of_tries() -> None:
    result = run_dag(ETL, outcomes={"load": Tries(TimeoutError("slow"), TimeoutError, 7)})
    assert (result.tasks["load"].xcom, result.tasks["load"].tries) == (7, 3)
    result = run_dag(ETL, outcomes={"load": TimeoutError("slow")})
    assert (result.tasks["load"].state, result.tasks["load"].tries) == (TaskState.FAILED, 3)
    assert run_dag(ETL, outcomes={"extract": Skip("no file")}).tasks["load"].state is TaskState.SKIPPED
    with pytest.raises(ValueError, match="at least one"):
        Tries()
    with pytest.raises(UsageError, match="`lod`"):
        run_dag(ETL, outcomes={"lod": 1})


def test_branches_and_short_circuits() -> None:
    text = """
    dag_id: choice
    tasks:
      choose:
        operator: branch
        with: {conditions: [{if: "{{ params.left }}", then: [left]}], otherwise: [right]}
      left: {operator: say, depends_on: [choose]}
      right: {operator: say, depends_on: [choose]}
      gate: {operator: short_circuit, depends_on: [left], with: {condition: "{{ not params.left }}"}}
      far: {operator: empty, depends_on: [gate], trigger_rule: all_done}
    params: {left: {type: boolean, default: true}}
    """
    text = textwrap.dedent(text)
    chosen = run_dag(text)
    assert states(chosen) == {
        "choose": "success", "left": "success", "right": "skipped", "gate": "success", "far": "skipped",
    }  # fmt: skip
    other = run_dag(text, params={"left": False})
    assert (other.tasks["left"].state, other.tasks["right"].state) == (TaskState.SKIPPED, TaskState.SUCCESS)
    told = run_dag(text, outcomes={"choose": {"follow": ["right"]}})
    assert told.tasks["left"].reason == "branch `choose` did not choose it"


def test_variables_connections_and_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
    dag_id: secrets
    tasks:
      tell: {operator: say, with: {value: ["{{ var.home }}", "{{ conn.db.password }}"]}}
    """
    result = run_dag(
        textwrap.dedent(text), variables={"home": "/data"}, connections={"db": "postgresql://me:hunter2@h/x"}
    )
    assert result.tasks["tell"].xcom == ["/data", "hunter2"]
    assert result.tasks["tell"].log[0] == "printed ['/data', '***']"
    monkeypatch.setenv("YARROW_VAR_HOME", "/elsewhere")
    result = run_dag(textwrap.dedent(text))
    assert result.tasks["tell"].state is TaskState.FAILED
    assert result.tasks["tell"].reason is not None
    assert "YARROW_CONN_DB" in result.tasks["tell"].reason


def test_another_dag_is_noted_and_not_started() -> None:
    text = "dag_id: x\ntasks: {go: {operator: trigger_dag, with: {dag_id: other, params: {day: '{{ ds }}'}}}}"
    result = run_dag(text)
    assert [(run.dag_id, run.params) for run in result.triggered] == [("other", {"day": "2026-01-01"})]
    assert result.tasks["go"].xcom == {"dag_id": "other", "run_id": "inline__other__1"}


def test_a_task_that_claims_to_be_interrupted_for_ever() -> None:
    result = run_dag(ETL, outcomes={"extract": Interrupted("again")})
    assert result.tasks["extract"].state is TaskState.FAILED


def test_priority_comes_before_the_order_of_the_file() -> None:
    moves: list[Event] = []
    spec = load_dag(
        "dag_id: x\ntasks:\n  a: {operator: say}\n  b: {operator: say, priority_weight: 5}\n  c: {operator: say}"
    )
    Inline(work=Path("unused"), echo=False, notify=moves.append).run(spec)
    ran = [move.task_id for move in moves if isinstance(move, Moved) and move.state is TaskState.RUNNING]
    assert ran == ["b", "a", "c"]


def test_faults_of_the_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="<text>:2:"):
        run_dag("dag_id: x\ntasks: {a: {operator: nonsense}}")
    with pytest.raises(UsageError, match="no such file"):
        run_dag(tmp_path / "gone.yaml")


def test_a_text_needs_no_dag_id() -> None:
    assert run_dag("tasks: {a: {operator: empty}}").dag_id == "text"


def test_a_file_is_run(tmp_path: Path) -> None:
    path = tmp_path / "etl.yaml"
    path.write_text(ETL)
    assert run_dag(path).success
    assert run_dag(str(path)).success


def test_a_frozen_clock() -> None:
    clock = FrozenClock(datetime(2026, 1, 1, tzinfo=UTC))
    assert clock.advance(90) == clock() == datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC)
    with pytest.raises(ValueError, match="aware"):
        FrozenClock(datetime(2026, 1, 1))


# One task.


def test_callables_are_found_where_a_worker_finds_them(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "my_features.py").write_text("def build():\n    return 7\n")
    spec = load_dag("tasks: {a: {operator: python, with: {callable: 'my_features:build'}}}")
    config = Config(worker_python_path=(str(tmp_path / "lib"),))
    before = list(sys.path)
    inline = Inline(work=tmp_path, config=config, echo=False)
    assert inline.run(spec).tasks["a"].xcom == 7
    del sys.modules["my_features"]
    assert inline.run_task(spec, "a").tasks["a"].xcom == 7
    assert sys.path == before


def test_one_task_runs_alone(tmp_path: Path) -> None:
    inline = Inline(work=tmp_path, echo=False)
    result = inline.run_task(load_dag(ETL), "load", xcoms={"extract": {"rows": 2, "day": "today"}})
    assert list(result.tasks) == ["load"]
    assert result.tasks["load"].xcom == "2 rows of today"
    assert inline.run_task(load_dag(ETL), "alert").success, "whatever its trigger rule says"
    assert inline.run_task(load_dag(ETL), "report").success, "whatever its `when` says"


def test_one_task_is_tried_once(tmp_path: Path) -> None:
    def broken(task: Any, try_number: int) -> Operator:
        class Broken(Operator):
            def execute(self, context: Context) -> None:
                raise ValueError("no")

        return Broken()

    result = Inline(work=tmp_path, echo=False, instead=broken).run_task(load_dag(ETL), "load", xcoms={"extract": {}})
    assert (result.state, result.tasks["load"].tries) == (RunState.FAILED, 1)


def test_one_task_needs_its_xcoms(tmp_path: Path) -> None:
    inline = Inline(work=tmp_path, echo=False)
    with pytest.raises(UsageError, match="needs the XCom of `extract`"):
        inline.run_task(load_dag(ETL), "load")
    with pytest.raises(NotFound, match="no task `lod`"):
        inline.run_task(load_dag(ETL), "lod")


# What is shown while it runs.


def test_events_and_echo(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    events: list[Event] = []
    clock = FrozenClock()
    Inline(work=tmp_path, notify=events.append, clock=clock).run(load_dag("dag_id: x\ntasks: {a: {operator: say}}"))
    assert [event for event in events if not isinstance(event, Printed)] == [
        Moved("a", TaskState.SCHEDULED, 0, None),
        Moved("a", TaskState.RUNNING, 1, None),
        Progressed("a", 1, 2, "rows"),
        Moved("a", TaskState.SUCCESS, 1, None),
    ]
    assert Printed("a", "printed None") in events
    out, err = capfd.readouterr()
    assert out == "printed None\nno end"
    assert err.splitlines() == ["INFO logged None", "INFO in passing", "on stderr"]
    assert clock.now == FrozenClock().now
    assert logging.getLogger().level == logging.WARNING


def test_a_keyboard_interrupt_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_dag(ETL, outcomes={"extract": KeyboardInterrupt})


@pytest.mark.slow
def test_a_debugger_stops_in_the_code_of_a_task(tmp_path: Path) -> None:
    (tmp_path / "my_lib.py").write_text("def build(n):\n    answer = n + 1\n    breakpoint()\n    return answer\n")
    script = """
        from yarrow.inline import Inline
        from yarrow.testing import load_dag
        from pathlib import Path
        spec = load_dag("dag_id: x\\ntasks: {a: {operator: python, with: {callable: 'my_lib:build', args: [41]}}}")
        result = Inline(work=Path("work")).run(spec)
        print(result.state, result.tasks["a"].xcom)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        input="p 'answer is', answer\nanswer = 7\ncontinue\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join([str(tmp_path), *sys.path])},
        timeout=60,
        check=False,
    )
    assert "('answer is', 42)" in done.stdout, done.stderr
    assert done.stdout.endswith("success 7\n")


def test_the_states_of_a_retry_are_told(tmp_path: Path) -> None:
    events: list[Event] = []
    spec = load_dag("dag_id: x\ntasks: {a: {operator: say, retries: 1, retry_delay: 1h}}")

    class Failing(Operator):
        def execute(self, context: Context) -> None:
            raise OSError("no")

    Inline(work=tmp_path, echo=False, notify=events.append, instead=lambda task, try_number: Failing()).run(spec)
    assert [(event.state, event.try_number) for event in events if isinstance(event, Moved)] == [
        (TaskState.SCHEDULED, 0),
        (TaskState.RUNNING, 1),
        (TaskState.UP_FOR_RETRY, 1),
        (TaskState.SCHEDULED, 1),
        (TaskState.RUNNING, 2),
        (TaskState.FAILED, 2),
    ]

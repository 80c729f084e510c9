"""One attempt, from the assignment to the report."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict

import pytest

from yarrow import Context, Fail, Interrupted, Operator, Reschedule, Skip, param, urls, xcom
from yarrow.attempt import Surroundings, discard_work, execute
from yarrow.context import CachedResult
from yarrow.dataset import publish
from yarrow.errors import NotFound
from yarrow.jsontypes import Json
from yarrow.operator import OtherState
from yarrow.protocol import Assignment, Report
from yarrow.registry import register
from yarrow.states import AttemptState

START = datetime(2026, 1, 2, 3, tzinfo=UTC)


class Probe(Operator):
    """Shows what it was given, then does what the test wants."""

    value: Json = param(default=None, doc="Anything.")
    raw: str = param(default="", doc="Never rendered.", template=False)
    number: int = param(default=0, doc="A number.", maximum=10)

    behaviour: ClassVar[Any] = staticmethod(lambda probe, context: {"value": probe.value, "raw": probe.raw})

    def execute(self, context: Context) -> Any:
        return type(self).behaviour(self, context)


class Declared(Probe):
    class Outputs(TypedDict):
        rows: int
        note: NotRequired[str]


class Steering(Probe):
    control: ClassVar[bool] = True


@dataclass
class Recorder:
    """The services of a worker that only remembers."""

    told: list[Any] = field(default_factory=list)
    stop: bool = False
    cache: dict[str, CachedResult] = field(default_factory=dict)

    def progress(self, done: float, total: float | None, unit: str) -> None:
        self.told.append(("progress", done, total, unit))

    def metric(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self.told.append(("metric", name, value, dict(labels)))

    def trigger_dag(self, dag_id: str, params: Mapping[str, Json], logical_date: datetime | None) -> str:
        self.told.append(("trigger", dag_id, dict(params), logical_date))
        return "manual__7"

    def task_state(self, dag_id: str, task_id: str | None, logical_date: datetime) -> OtherState | None:
        self.told.append(("state", dag_id, task_id, logical_date))
        return OtherState("manual__8", "success")

    def cached_result(self, key: str) -> CachedResult | None:
        self.told.append(("cache", key))
        return self.cache.get(key)

    def interrupted(self) -> bool:
        return self.stop


@pytest.fixture(autouse=True)
def operators(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with register("probe", Probe), register("declared", Declared), register("steering", Steering):
        yield monkeypatch


def assignment(**fields: Any) -> Assignment:
    known: dict[str, Any] = {
        "attempt_id": "a1",
        "token": "t",
        "dag_id": "flights",
        "run_id": "scheduled__1",
        "task_id": "score",
        "map_index": -1,
        "try_number": 1,
        "max_tries": 3,
        "identity": "f00d",
        "operator": "probe",
        "arguments": {},
        "queue": "default",
        "execution_timeout": None,
        "logical_date": "2026-01-01T05:00:00+00:00",
        "data_interval_start": "2026-01-01T05:00:00+00:00",
        "data_interval_end": "2026-01-02T05:00:00+00:00",
        "timezone": "America/New_York",
        "params": {"limit": 5},
        "xcoms": {},
        "variables": {},
        "connections": {},
        "lease": 60.0,
        "dag_tasks": ("left", "right"),
    }
    return Assignment(**{**known, **fields})


@dataclass
class Bench:
    """Runs attempts in a folder."""

    root: Path
    services: Recorder = field(default_factory=Recorder)
    lines: list[str] = field(default_factory=list)

    def surroundings(self, **fields: Any) -> Surroundings:
        known = {
            "work_root": self.root / "work",
            "objects_url": f"file://{self.root}/objects",
            "xcom_inline_limit": 1000,
        }
        return Surroundings(**{**known, **fields})

    def run(self, task: Assignment, **surroundings: Any) -> Report:
        log = logging.Logger("task")
        handler = logging.Handler()
        handler.emit = lambda record: self.lines.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]  # a handler of one line
        log.addHandler(handler)
        ticks = iter([START, START + timedelta(seconds=2)])
        config = self.surroundings(**surroundings)
        return execute(task, config=config, services=self.services, log=log, clock=lambda: next(ticks, START))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def behave(monkeypatch: pytest.MonkeyPatch, behaviour: Any) -> None:
    monkeypatch.setattr(Probe, "behaviour", staticmethod(behaviour))


def raising(error: BaseException) -> Any:
    def behaviour(probe: Probe, context: Context) -> Any:
        raise error

    return behaviour


def test_the_happy_path(bench: Bench) -> None:
    report = bench.run(
        assignment(arguments={"value": {"n": "{{ params.limit * 2 }}", "day": "{{ ds }}"}, "raw": "{{ x }}"})
    )
    assert report == Report(
        "a1",
        AttemptState.SUCCESS,
        xcom={"value": {"n": 10, "day": "2026-01-01"}, "raw": "{{ x }}"},
        has_xcom=True,
        started_at="2026-01-02T03:00:00+00:00",
        ended_at="2026-01-02T03:00:02+00:00",
    )


def test_templates_see_everything_that_the_task_was_given(bench: Bench, tmp_path: Path) -> None:
    address = xcom.spill([1, 2, 3], f"file://{tmp_path}/objects", "k", 0)
    names = {
        "small": "{{ xcom.a.b }}",
        "large": "{{ xcom['group.big'][2] }}",
        "var": "{{ var.home }}",
        "host": "{{ conn.db.host }}:{{ conn.db.port }}/{{ conn.db.schema }}?{{ conn.db.extra.mode }}",
        "who": "{{ dag_id }} {{ task_id }} {{ run_id }} {{ try_number }} {{ map_index }}",
        "ts": "{{ ts }}",
    }
    report = bench.run(
        assignment(
            arguments={"value": names},
            xcoms={"a": {"b": "B"}, "group.big": address},
            variables={"home": "/data"},
            connections={"db": "postgresql://me:hunter2@db.example:5432/sales?mode=ro"},
        )
    )
    assert isinstance(report.xcom, Mapping)
    assert report.xcom["value"] == {
        "small": "B",
        "large": 3,
        "var": "/data",
        "host": "db.example:5432/sales?ro",
        "who": "flights score scheduled__1 1 -1",
        "ts": "2026-01-01T00:00:00-05:00",
    }


def test_no_result_is_no_xcom(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, lambda probe, context: None)
    report = bench.run(assignment())
    assert (report.state, report.has_xcom) == (AttemptState.SUCCESS, False)


@pytest.mark.parametrize("value", [0, "", [], {}, False])
def test_an_empty_result_is_an_xcom(bench: Bench, operators: pytest.MonkeyPatch, value: Any) -> None:
    behave(operators, lambda probe, context: value)
    report = bench.run(assignment())
    assert (report.xcom, report.has_xcom) == (value, True)


def test_a_large_xcom_is_spilled(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, lambda probe, context: "x" * 2000)
    report = bench.run(assignment())
    assert xcom.is_reference(report.xcom)
    assert xcom.resolve(report.xcom) == "x" * 2000


# How it fails.


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"arguments": {"value": "{{ xcom.gone.x }}"}}, "`xcom.gone.x`: there is no XCom of that task"),
        ({"arguments": {"number": "{{ params.limit * 3 }}"}}, "`number` must be at most 10"),
        ({"arguments": {"colour": 1}}, "the operator has no parameter `colour`"),
        ({"xcoms": {"a": {"$ref": "file:///nowhere/x.json"}}}, "gone from the object store"),
    ],
)  # fmt: skip
def test_what_another_try_would_not_mend(bench: Bench, fields: dict[str, Any], reason: str) -> None:
    report = bench.run(assignment(**fields))
    assert (report.state, report.retryable) == (AttemptState.FAILED, False)
    assert report.reason is not None
    assert reason in report.reason
    assert bench.lines == [f"ERROR {report.reason}"]


def test_an_unknown_operator(bench: Bench) -> None:
    report = bench.run(assignment(operator="prob"))
    assert report.state == AttemptState.FAILED
    assert report.reason == "There is no operator `prob`. Did you mean `probe`?"


def test_an_unexpected_error_is_retryable_and_its_traceback_is_logged(
    bench: Bench, operators: pytest.MonkeyPatch
) -> None:
    behave(operators, raising(ValueError("bad\nvalue\x00 \x1b[31mred")))
    report = bench.run(assignment())
    assert (report.state, report.retryable) == (AttemptState.FAILED, True)
    assert report.reason == "ValueError: bad value [31mred"
    (text,) = bench.lines
    assert text.startswith("ERROR Traceback (most recent call last):")
    assert "test_attempt.py" in text
    assert "core/yarrow/attempt.py" not in text


def test_an_error_without_a_message_or_with_a_broken_one(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    class Sly(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    behave(operators, raising(KeyError()))
    assert bench.run(assignment()).reason == "KeyError"
    behave(operators, raising(Sly()))
    assert bench.run(assignment()).reason == "Sly: (its message can't be shown)"


def test_a_long_reason_is_cut(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, raising(ValueError("x" * 5000)))
    reason = bench.run(assignment()).reason
    assert reason is not None
    assert len(reason) == 1000
    assert reason.endswith("…")


def test_secrets_are_masked_in_reason_and_traceback(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, raising(RuntimeError("login me:hunter2 refused, token s3cr3t-token")))
    report = bench.run(
        assignment(
            connections={"db": "postgresql://me:hunter2@h/x"}, variables={"api_token": "s3cr3t-token", "home": "/data"}
        )
    )
    assert report.reason == "RuntimeError: login me:*** refused, token ***"
    assert "hunter2" not in bench.lines[0]
    assert "s3cr3t" not in bench.lines[0]


def test_the_words_of_an_operator(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, raising(Skip("no new files")))
    report = bench.run(assignment())
    assert (report.state, report.reason) == (AttemptState.SKIPPED, "no new files")
    behave(operators, raising(Fail("the file is broken", hint="Send it again.")))
    report = bench.run(assignment())
    assert (report.state, report.retryable) == (AttemptState.FAILED, False)
    assert report.reason == "the file is broken Send it again."
    behave(operators, raising(Interrupted()))
    assert bench.run(assignment()).state == AttemptState.CANCELLED


def test_an_error_behind_a_fail_shows_where_it_came_from(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    def behaviour(probe: Probe, context: Context) -> None:
        try:
            list[int]().pop()
        except IndexError as error:
            raise Fail("no second row") from error

    behave(operators, behaviour)
    assert bench.run(assignment()).reason == "no second row"
    assert "IndexError" in bench.lines[0]


def test_sys_exit(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, lambda probe, context: sys.exit())
    assert bench.run(assignment()).state == AttemptState.SUCCESS
    behave(operators, lambda probe, context: sys.exit(3))
    report = bench.run(assignment())
    assert (report.state, report.reason) == (AttemptState.FAILED, "The task called sys.exit(3).")


@pytest.mark.parametrize("signal", [KeyboardInterrupt, type("WorkerShutdown", (SystemExit,), {}), GeneratorExit])
def test_what_is_meant_for_the_process_passes_through(
    bench: Bench, operators: pytest.MonkeyPatch, signal: type[BaseException]
) -> None:
    behave(operators, raising(signal()))
    with pytest.raises(signal):
        bench.run(assignment())


def test_what_is_not_json_fails(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, lambda probe, context: {"at": START})
    report = bench.run(assignment())
    assert (report.state, report.retryable) == (AttemptState.FAILED, False)
    assert report.reason is not None
    assert report.reason.startswith("`result.at` is a datetime")


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"rows": 1}, None),
        ({"rows": 1, "note": "", "more": 2}, None),
        ({"note": "x"}, "The operator `declared` declares the outputs `rows` but did not return them."),
        (None, "The operator `declared` declares the outputs `rows`, `note` but returned nothing."),
        ([1], "The operator `declared` declares the outputs `rows`, `note` but returned [1] instead of an object."),
    ],
)
def test_declared_outputs_have_to_be_there(
    bench: Bench, operators: pytest.MonkeyPatch, result: Any, reason: str | None
) -> None:
    behave(operators, lambda probe, context: result)
    assert bench.run(assignment(operator="declared")).reason == reason


@pytest.mark.parametrize(
    ("result", "follow"), [({"follow": ["left"]}, ["left"]), ({"follow": []}, []), ({"follow": None}, None), ({}, None)]
)
def test_what_a_control_operator_chose(bench: Bench, operators: pytest.MonkeyPatch, result: Any, follow: Any) -> None:
    behave(operators, lambda probe, context: result)
    report = bench.run(assignment(operator="steering"))
    assert (report.state, report.follow, report.xcom) == (AttemptState.SUCCESS, follow, result)
    assert bench.run(assignment()).follow is None, "another operator's `follow` steers nothing"


@pytest.mark.parametrize("follow", ["left", [["left"]], ["elsewhere"], 5])
def test_a_choice_that_makes_no_sense(bench: Bench, operators: pytest.MonkeyPatch, follow: Any) -> None:
    behave(operators, lambda probe, context: {"follow": follow})
    report = bench.run(assignment(operator="steering"))
    assert (report.state, report.retryable) == (AttemptState.FAILED, False)


# Waiting.


def test_a_task_that_has_to_wait_is_put_off(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    later = datetime(2026, 1, 2, 5, 30, tzinfo=timezone(timedelta(hours=2)))
    behave(operators, raising(Reschedule(later, "The file is not there.")))
    report = bench.run(assignment(try_number=3))
    assert (report.state, report.resume_at) == (AttemptState.DEFERRED, "2026-01-02T03:30:00+00:00")
    assert report.reason == "The file is not there."
    assert bench.lines == ["INFO The file is not there. Looking again at 2026-01-02 03:30:00+00:00."]


@pytest.mark.parametrize("until", [datetime(2026, 1, 2), "tomorrow", None])
def test_a_task_that_does_not_say_for_how_long_fails(bench: Bench, operators: pytest.MonkeyPatch, until: Any) -> None:
    behave(operators, raising(Reschedule(until)))
    report = bench.run(assignment())
    assert (report.state, report.retryable) == (AttemptState.FAILED, False)
    assert report.reason is not None
    assert "needs an aware datetime" in report.reason


def test_a_try_knows_when_it_began(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, lambda probe, context: [context.first_started_at.isoformat(), context.now().isoformat()])
    report = bench.run(assignment(first_started_at="2026-01-01T23:00:00+00:00"))
    assert report.xcom == ["2026-01-01T23:00:00+00:00", "2026-01-02T03:00:02+00:00"]


# Mapped tasks.


def test_a_mapped_task_instance_finds_its_value(bench: Bench) -> None:
    report = bench.run(
        assignment(arguments={"value": "{{ map.day }}/{{ map_index }}"}, map_value={"day": "monday"}, map_index=2)
    )
    assert report.xcom == {"value": "monday/2", "raw": ""}


def test_the_xcom_of_a_mapped_task_is_the_list_of_its_values(bench: Bench, tmp_path: Path) -> None:
    large = xcom.spill([1, 2, 3], f"file://{tmp_path}/objects", "k", 0)
    report = bench.run(
        assignment(
            arguments={"value": "{{ xcom.scores }}"},
            xcoms={"scores": [7, large, {"rows": 1}]},
            mapped_xcoms=("scores",),
        )
    )
    assert report.xcom == {"value": [7, [1, 2, 3], {"rows": 1}], "raw": ""}


# What an error is called.


def test_a_failure_says_what_it_is_called(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, raising(ConnectionRefusedError()))
    assert bench.run(assignment()).kinds == ["ConnectionRefusedError", "ConnectionError", "OSError", "Exception"]


# The result cache.


def test_without_a_cache_nobody_is_asked(bench: Bench) -> None:
    report = bench.run(assignment())
    assert (report.cache_key, report.cached, bench.services.told) == (None, False, [])


def test_a_result_is_kept_and_taken_from_there_the_next_time(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    behave(operators, lambda probe, context: runs.append(1) or {"rows": 5})
    task = assignment(cache={"ttl": 60.0, "key": None})
    first = bench.run(task)
    assert first.cache_key is not None
    assert (first.cached, bench.services.told) == (False, [("cache", first.cache_key)])

    bench.services.cache[first.cache_key] = CachedResult("a0", "scheduled__0", True, {"rows": 5})
    second = bench.run(task)
    assert (second.state, second.cached, second.cache_key) == (AttemptState.SUCCESS, True, first.cache_key)
    assert (second.xcom, second.has_xcom, runs) == ({"rows": 5}, True, [1])
    assert bench.lines == ["INFO Result taken from the cache: attempt a0 of run scheduled__0."]


def test_a_failure_is_not_kept(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, raising(ValueError("x")))
    assert bench.run(assignment(cache={})).cache_key is None


def test_the_key_of_the_author_stands_for_the_parameters(bench: Bench) -> None:
    def key(cache: dict[str, Any], **arguments: Any) -> str | None:
        return bench.run(assignment(cache=cache, arguments=arguments)).cache_key

    own = {"key": "{{ ds }}-{{ params.limit }}"}
    assert key(own, number=1) == key(own, number=2)
    assert key(own, number=1) != key({"key": "{{ ds }}"}, number=1)
    assert key({}, number=1) != key({}, number=2)
    assert key({}, value="{{ params.limit }}") == key({}, value=5), "what was rendered counts"
    report = bench.run(assignment(cache={"key": "{{ xcom.gone }}"}))
    assert (report.state, report.retryable) == (AttemptState.FAILED, False)


def test_a_cached_data_set_that_is_gone_is_made_again(
    bench: Bench, operators: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifest = publish(f"file://{tmp_path}/set/", [], [("a", "BIGINT")])
    behave(operators, lambda probe, context: {"rows": 1})
    task = assignment(cache={})
    key = bench.run(task).cache_key
    assert key is not None
    found = CachedResult("a0", "r0", True, {"valid": manifest.to_json()})
    bench.services.cache[key] = found
    assert bench.run(task).cached
    bench.services.cache[key] = found._replace(xcom=xcom.spill(found.xcom, f"file://{tmp_path}/objects", "k", 0))
    assert bench.run(task).cached, "a result that is kept by reference is looked into"
    urls.remove(f"file://{tmp_path}/set/_manifest.json")
    report = bench.run(task)
    assert (report.cached, report.xcom, report.cache_key) == (False, {"rows": 1}, key)
    assert "is gone" in bench.lines[-1]


def test_a_cached_choice_steers_as_the_first_one_did(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, lambda probe, context: {"follow": ["left"]})
    task = assignment(operator="steering", cache={})
    key = bench.run(task).cache_key
    assert key is not None
    bench.services.cache[key] = CachedResult("a0", "r0", True, {"follow": ["left"]})
    report = bench.run(task)
    assert (report.cached, report.follow) == (True, ["left"])


def test_an_operator_that_cannot_tell_its_inputs_is_executed(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    operators.setattr(Probe, "cache_inputs", lambda self, context: raising(OSError("no such file"))(self, context))
    report = bench.run(assignment(cache={}))
    assert (report.state, report.cache_key) == (AttemptState.SUCCESS, None)
    assert bench.lines == ["WARNING The cache is not used: OSError: no such file"]


# The context.


def test_the_context(bench: Bench, operators: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def behaviour(probe: Probe, context: Context) -> None:
        seen.update(
            who=(context.dag_id, context.run_id, context.task_id, context.map_index, context.try_number),
            dates=(context.logical_date, context.data_interval_start, context.data_interval_end),
            params=context.params,
            downstream=context.downstream,
            work_dir=context.work_dir,
            outputs=(context.output_uri(), context.output_uri("valid")),
            connection=context.connection("db").password,
            run=context.trigger_dag("other", params={"x": 1}, logical_date=None),
            state=context.task_state("other", "t", context.logical_date),
            times=(context.timezone, context.first_started_at),
            cpus=context.cpus,
            folder=context.dags_folder,
        )
        context.progress(5, 10)
        context.metric("rows_in", 5)
        context.metric("rows_in", 2, origin="JFK", carrier="AA")
        context.metric("share", 0.5)
        context.metric("broken", float("nan"))
        context.check_interrupted()

    behave(operators, behaviour)
    report = bench.run(assignment(connections={"db": "postgresql://u:p%40ss@h/x"}), cpus=3, dags_folder=Path("/dags"))
    day = datetime(2026, 1, 1, 5, tzinfo=UTC)
    assert report.state == AttemptState.SUCCESS
    assert seen == {
        "who": ("flights", "scheduled__1", "score", -1, 1),
        "dates": (day, day, day + timedelta(days=1)),
        "params": {"limit": 5},
        "downstream": ("left", "right"),
        "work_dir": tmp_path / "work/f00d",
        "outputs": (
            f"file://{tmp_path}/objects/datasets/f00d/output/",
            f"file://{tmp_path}/objects/datasets/f00d/valid/",
        ),
        "connection": "p@ss",
        "run": "manual__7",
        "state": ("manual__8", "success"),
        "times": ("America/New_York", START),
        "cpus": 3,
        "folder": Path("/dags"),
    }
    assert report.metrics == {"rows_in": 5, "rows_in{carrier=AA,origin=JFK}": 2, "share": 0.5}
    assert bench.services.told == [
        ("trigger", "other", {"x": 1}, None),
        ("state", "other", "t", day),
        ("progress", 5, 10, "rows"),
        ("metric", "rows_in", 5, {}),
        ("metric", "rows_in", 2, {"origin": "JFK", "carrier": "AA"}),
        ("metric", "share", 0.5, {}),
    ]
    assert bench.lines == ["WARNING The metric broken is nan and was left out."]


def test_only_named_connections_are_given(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    caught: list[NotFound] = []

    def behaviour(probe: Probe, context: Context) -> None:
        try:
            context.connection("other")
        except NotFound as error:
            caught.append(error)

    behave(operators, behaviour)
    bench.run(assignment(connections={"db": "postgresql://h/x"}))
    assert "was not given the connection `other`" in str(caught[0])


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
def test_the_name_of_an_output(bench: Bench, operators: pytest.MonkeyPatch, name: str) -> None:
    behave(operators, lambda probe, context: context.output_uri(name))
    assert bench.run(assignment()).state == AttemptState.FAILED


def test_an_interruption(bench: Bench, operators: pytest.MonkeyPatch) -> None:
    behave(operators, lambda probe, context: context.check_interrupted())
    bench.services.stop = True
    assert bench.run(assignment()).state == AttemptState.CANCELLED


# The work folder.


@pytest.mark.parametrize(
    ("report", "try_number", "kept"),
    [
        (Report("a1", AttemptState.SUCCESS), 1, False),
        (Report("a1", AttemptState.SKIPPED), 1, False),
        (Report("a1", AttemptState.FAILED), 1, True),
        (Report("a1", AttemptState.FAILED), 3, False),
        (Report("a1", AttemptState.FAILED, retryable=False), 1, False),
        (Report("a1", AttemptState.CANCELLED), 3, True),
        (Report("a1", AttemptState.LOST), 3, True),
        (Report("a1", AttemptState.DEFERRED), 3, True),
    ],
)
def test_the_work_folder_lives_as_long_as_there_may_be_another_try(
    tmp_path: Path, report: Report, try_number: int, kept: bool
) -> None:
    folder = tmp_path / "f00d"
    folder.mkdir()
    (folder / "part").write_text("x")
    discard_work(replace(assignment(), try_number=try_number), report, tmp_path)
    assert folder.exists() is kept
    discard_work(assignment(identity="never-made"), report, tmp_path)

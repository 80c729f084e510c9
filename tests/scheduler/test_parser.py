"""The processes that parse: what a file may do to them, and that the others get parsed all the same."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path

import pytest

from yarrow.config import Config
from yarrow.language import codes
from yarrow_scheduler import parse
from yarrow_scheduler.parsed import Request
from yarrow_scheduler.parser import Parser, ParserClosed, ParserUnavailable

GOOD = "tasks: {a: {operator: bash, with: {command: 'true'}}}\n"

# Runs in the child before anything else does: a parser with all the mistakes that ours must not have.
_SABOTAGE = """
import os, signal, sys
from yarrow.language import loader
good, alarm = loader.load_file, signal.alarm
signal.alarm = lambda seconds: alarm(1 if seconds else 0)
def load_file(path, root, **known):
    if "abort" in path.name: os.abort()
    if "exit" in path.name: os._exit(3)
    if "raise" in path.name: raise RecursionError("too deep")
    if "memory" in path.name: return bytearray(64 * 1024**3)
    if "hang" in path.name:
        while True: pass
    if "once" in path.name:
        mark = path.with_suffix(".seen")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return good(path, root, **known)
loader.load_file = load_file
"""


@pytest.fixture
def make_parser(config: Config) -> Iterator[Callable[..., Parser]]:
    made: list[Parser] = []

    def make(*names: str, processes: int = 1) -> Parser:
        for name in names:
            (config.dags_folder / name).write_text(GOOD)
        made.append(Parser(config, processes=processes))
        return made[-1]

    yield make
    for parser in made:
        parser.close()


@pytest.fixture
def sabotaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sabotage").mkdir()
    (tmp_path / "sabotage" / "sitecustomize.py").write_text(_SABOTAGE)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "sabotage"), *sys.path])


def test_outcomes_come_in_order(make_parser: Callable[..., Parser]) -> None:
    names = [f"d{number:03}.yaml" for number in range(90)]
    parser = make_parser(*names, processes=2)
    outcomes = list(parser.parse(names))
    assert [outcome.path for outcome in outcomes] == names
    assert [outcome.spec.dag_id for outcome in outcomes if outcome.spec] == [name[:4] for name in names]


def test_nothing_to_parse_starts_nothing(make_parser: Callable[..., Parser]) -> None:
    assert list(make_parser().parse([])) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("abort.yaml", "SIGABRT"),
        ("exit.yaml", "exit code 3"),
        ("raise.yaml", "RecursionError"),
        ("memory.yaml", "MemoryError"),
        ("hang.yaml", "did not come to an end"),
    ],
)
@pytest.mark.usefixtures("sabotaged")
def test_what_breaks_the_parser_is_a_fault_of_its_file(
    make_parser: Callable[..., Parser], name: str, words: str
) -> None:
    names = ["good1.yaml", name, "good2.yaml"]
    outcomes = list(make_parser(*names).parse(names))
    assert [outcome.path for outcome in outcomes] == names
    assert [outcome.spec is None for outcome in outcomes] == [False, True, False]
    (fault,) = outcomes[1].faults
    assert (fault.code, fault.file) == (codes.PARSER_BROKE, name)
    assert words in fault.message


@pytest.mark.slow
@pytest.mark.usefixtures("sabotaged")
def test_a_process_that_is_killed_once_is_no_fault_of_the_file(make_parser: Callable[..., Parser]) -> None:
    (outcome,) = make_parser("once.yaml").parse(["once.yaml"])
    assert outcome.spec is not None


@pytest.mark.slow
def test_a_process_that_cannot_start_is_no_fault_of_any_file(
    make_parser: Callable[..., Parser], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "yarrow_scheduler.py").write_text("raise SystemExit(7)")
    parser = make_parser("a.yaml")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [str(tmp_path / "broken"), *sys.path])
        with pytest.raises(ParserUnavailable, match=r"exit code \d"):
            list(parser.parse(["a.yaml"]))
    (outcome,) = parser.parse(["a.yaml"])
    assert outcome.spec is not None, "and the next time it works"


@pytest.mark.slow
@pytest.mark.usefixtures("sabotaged")
def test_closing_ends_a_parse_that_is_under_way(make_parser: Callable[..., Parser]) -> None:
    parser = make_parser("good.yaml", "hang.yaml")
    outcomes = parser.parse(["good.yaml", "hang.yaml"])
    raised: list[BaseException] = []

    def work() -> None:
        try:
            list(outcomes)
        except ParserClosed as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    parser.close()
    thread.join(5)
    assert len(raised) == 1
    with pytest.raises(ParserClosed):
        list(parser.parse(["good.yaml"]))


def test_an_idle_parser_has_no_process(make_parser: Callable[..., Parser]) -> None:
    parser = make_parser("a.yaml")
    list(parser.parse(["a.yaml"]))
    assert len(parser._idle) == 1
    process = parser._idle[0]._process
    parser.rest()
    assert process.returncode == 0
    (outcome,) = parser.parse(["a.yaml"])
    assert outcome.spec is not None


def test_the_served_end_answers_until_the_other_is_closed(config: Config) -> None:
    (config.dags_folder / "a.yaml").write_text(GOOD)
    ours, theirs = Pipe()
    guarded: list[int] = []
    serving = threading.Thread(target=parse.serve, args=(theirs, guarded.append))
    serving.start()
    assert ours.recv() == "ready"
    ours.send(Request(config.dags_folder, ["a.yaml", "gone.yaml"], ("default",), {"default_pool": 128}))
    good, gone = ours.recv(), ours.recv()
    ours.close()
    serving.join(10)
    theirs.close()
    assert not serving.is_alive()
    assert good.spec.tasks["a"].operator == "bash"
    assert gone.faults[0].file == "gone.yaml"
    assert guarded == [parse.FILE_SECONDS, 0, parse.FILE_SECONDS, 0]


@pytest.mark.slow
def test_the_child_ends_with_its_parent(make_parser: Callable[..., Parser]) -> None:
    parser = make_parser("a.yaml")
    list(parser.parse(["a.yaml"]))
    child = parser._idle[0]
    child._connection.close()  # what the death of the parent does
    deadline = time.monotonic() + 10
    while child._process.poll() is None:
        assert time.monotonic() < deadline
    assert child._process.returncode == 0
    parser._idle.clear()

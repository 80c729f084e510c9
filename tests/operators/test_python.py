"""The python operator, with real modules."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from yarrow.errors import Fail, Skip
from yarrow_operators.python import Python


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of user modules on the module search path, forgotten afterwards."""
    folder = tmp_path / "lib"
    package = folder / "their_lib"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "features.py").write_text(
        """
import yarrow

LIMIT = 3

def build(day, times=1, *, tags=()):
    return {"day": day, "times": times, "tags": list(tags)}

def with_context(context, factor):
    context.log.info("in the function")
    return [context.dag_id, factor]

class Model:
    @staticmethod
    def score(x):
        return x * 2

async def later():
    return 1

def skips():
    raise yarrow.Skip("nothing new")

def breaks():
    raise KeyError("column")
"""
    )
    (package / "broken.py").write_text("import no_such_dependency\n")
    (package / "wrong.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_arguments_and_the_returned_value(context: Any) -> None:
    task = Python(callable="their_lib.features:build", args=["2013-01-01"], kwargs={"times": 2, "tags": ["a"]})

    assert task.execute(context) == {"day": "2013-01-01", "times": 2, "tags": ["a"]}


def test_a_parameter_named_context_gets_the_context(context: Any) -> None:
    task = Python(callable="their_lib.features:with_context", kwargs={"factor": 2})

    assert task.execute(context) == ["flights", 2]
    assert task.kwargs == {"factor": 2}


def test_a_dotted_function(context: Any) -> None:
    assert Python(callable="their_lib.features:Model.score", args=[4]).execute(context) == 8


def test_a_function_that_does_not_tell_its_signature(context: Any) -> None:
    assert Python(callable="builtins:max", args=[1, 3, 2]).execute(context) == 3


def test_what_the_function_raises_is_left_to_the_worker(context: Any) -> None:
    with pytest.raises(Skip, match="nothing new"):
        Python(callable="their_lib.features:skips").execute(context)
    with pytest.raises(KeyError):
        Python(callable="their_lib.features:breaks").execute(context)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Python(callable="no_lib.features:build"), "no module `no_lib` on this worker. Searched: .*worker_python_path"),
        (Python(callable="their_lib.nothing:f"), "no module `their_lib.nothing` on this worker"),
        (Python(callable="their_lib.broken:f"), "it needs the module `no_such_dependency`"),
        (Python(callable="their_lib.wrong:f"), "`their_lib.wrong` can't be imported: SyntaxError: .*wrong.py, line 1"),
        (Python(callable="their_lib.features:no"), r"has no `no`. It was loaded from .*features\.py"),
        (Python(callable="their_lib.features:LIMIT"), "is not a function but int"),
        (Python(callable="their_lib.features:later"), "is an async function"),
        (
            Python(callable="their_lib.features:build", kwargs={"time": 2}),
            r"missing a required argument: 'day'. Its signature is build\(day, times=1, \*, tags=\(\)\)",
        ),
    ],
)
def test_a_mistake_is_explained_and_not_retried(context: Any, task: Python, message: str) -> None:
    with pytest.raises(Fail, match=message):
        task.execute(context)

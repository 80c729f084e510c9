"""What the tests of the core share: two ways to tell that work is bounded, on a slow machine too."""

import multiprocessing
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

Work = Callable[[], object]


@pytest.fixture
def calls() -> Callable[[Work], int]:
    """Counts the function calls, Python's and C's, that some work makes: the same on every machine."""

    def count(work: Work) -> int:
        found = 0

        def profile(_frame: FrameType, event: str, _argument: Any) -> None:
            nonlocal found
            if event in ("call", "c_call"):
                found += 1

        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            work()
        finally:
            sys.setprofile(before)
        return found

    return count


@pytest.fixture
def ends() -> Callable[[Work], None]:
    """Does some work in a process of its own, which is killed when it hangs for a minute.

    It is for work that goes on in C, where no call can be counted. The work takes a small part of the minute.
    """

    def run(work: Work) -> None:
        process = multiprocessing.get_context("fork").Process(target=work)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: the child uses none of them
            process.start()
        process.join(60)
        code = process.exitcode
        process.kill()
        process.join()
        assert code == 0, "it hangs" if code is None else "it failed: see above"

    return run

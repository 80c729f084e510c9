"""What errors are called in `retry_on`."""

from __future__ import annotations

from typing import Any

import pytest

from yarrow import Fail, YarrowError
from yarrow.error_kinds import error_kinds


class ApiError(Exception):
    def __init__(self, kinds: Any = ()) -> None:
        self.kinds = kinds


class Throttled(ApiError, TimeoutError):
    pass


def behind(error: YarrowError, cause: BaseException) -> YarrowError:
    error.__cause__ = cause
    return error


def test_the_class_and_those_above_it_with_and_without_their_module() -> None:
    assert error_kinds(Throttled()) == [
        "Throttled",
        f"{__name__}.Throttled",
        "ApiError",
        f"{__name__}.ApiError",
        "TimeoutError",
        "OSError",
        "Exception",
    ]


def test_what_the_error_says_of_itself_comes_first() -> None:
    assert error_kinds(ApiError(("Api.429", "Api")))[:3] == ["Api.429", "Api", "ApiError"]


@pytest.mark.parametrize("kinds", ["text", 5, None, [5, None]])
def test_what_is_no_list_of_names_is_passed_over(kinds: Any) -> None:
    assert error_kinds(ApiError(kinds))[0] == "ApiError"


def test_a_yarrow_error_is_also_what_it_stands_for() -> None:
    kinds = error_kinds(behind(YarrowError("the database is away"), ConnectionResetError()))
    assert kinds[:2] == ["YarrowError", "yarrow.errors.YarrowError"]
    assert {"ConnectionResetError", "ConnectionError", "OSError"} <= set(kinds)
    assert len(kinds) == len(set(kinds))


def test_the_cause_of_another_error_is_its_own_affair() -> None:
    error = ValueError()
    error.__cause__ = KeyError()
    assert "KeyError" not in error_kinds(error)


def test_a_circle_of_causes_ends() -> None:
    first, second = Fail("a"), YarrowError("b")
    behind(first, behind(second, first))
    assert "Fail" in error_kinds(first)

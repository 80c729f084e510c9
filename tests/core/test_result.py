"""What an operator may return."""

from __future__ import annotations

import decimal
import enum
import json
from collections import OrderedDict
from datetime import date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarrow.errors import Fail
from yarrow.result import plain_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(json_values)
def test_json_comes_through_unchanged(value: Any) -> None:
    assert plain_json(value) == value
    assert json.loads(json.dumps(plain_json(value))) == value


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def test_what_is_like_json_becomes_json() -> None:
    value = OrderedDict(
        pair=(1, 2), colour=Colour.RED, level=Level.HIGH, share=np.float64(0.5), rows=np.int64(7), yes=np.bool_(True)
    )
    plain = plain_json(value)
    assert plain == {"pair": [1, 2], "colour": "red", "level": 3, "share": 0.5, "rows": 7, "yes": True}
    assert isinstance(plain, dict)
    assert [type(item) for item in plain.values()] == [list, str, int, float, int, bool]


def endless() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (float("nan"), "`result` is nan"),
        ({"scores": [1.0, float("inf")]}, "`result.scores[1]` is inf"),
        (np.float32("nan"), "`result` is nan"),
        ({"at": datetime(2026, 1, 1)}, "`result.at` is a datetime, which is not JSON. Return `value.isoformat()`."),
        ([{"day": date(2026, 1, 1)}], "`result[0].day` is a date"),
        ({"tags": {"a", "b"}}, "`result.tags` is a set, which is not JSON. Return a sorted list."),
        ({"a b": b"x"}, "`result['a b']` is a bytes"),
        ({"sum": decimal.Decimal(1)}, "`result.sum` is a Decimal"),
        ({"table": np.zeros(3)}, "`result.table` is a ndarray"),
        ({1: "one"}, "`result` has the key 1"),
        ({"x": {None: 1}}, "`result.x` has the key None"),
        ({"text": "\ud800"}, "`result.text` is not valid text"),
        ({"\udfff": 1}, "is not valid text"),
        (endless(), "nested more than 100 deep, or holds itself"),
        pytest.param(10**5000, "`result` is an integer of more than 4000 digits", id="a long integer"),
        ((number for number in range(3)), "`result` is a generator"),
        (object(), "`result` is a object, which is not JSON. Return text, numbers, lists and objects."),
    ],
)
def test_what_is_not_json_is_named_with_its_place(value: Any, sentence: str) -> None:
    with pytest.raises(Fail) as caught:
        plain_json(value)
    assert sentence in str(caught.value)

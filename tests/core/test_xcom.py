"""Large XCom values travel by reference."""

import json
import uuid
from pathlib import Path

import pytest

from yarrow import xcom
from yarrow.errors import Fail
from yarrow.jsontypes import Json

KEY = "late_flights/scheduled__2013-01-01T00:00:00+00:00/validate/0/1"


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "JFK", ["JFK", 1], {"a": {"b": [None]}}])
def test_a_small_value_stays_itself(tmp_path: Path, value: Json) -> None:
    assert xcom.spill(value, f"file://{tmp_path}", KEY, 1024) == value
    assert xcom.resolve(value) == value
    assert list(tmp_path.iterdir()) == []


def test_a_large_value_goes_to_the_object_store(tmp_path: Path) -> None:
    value: Json = {"airports": ["Zürich"] * 1000}
    spilled = xcom.spill(value, f"file://{tmp_path}", KEY, 1024)
    assert xcom.is_reference(spilled)
    assert spilled == {"$ref": f"file://{tmp_path}/xcom/{KEY}.json"}
    assert xcom.resolve(spilled) == value


def test_the_limit_counts_bytes_of_utf8(tmp_path: Path) -> None:
    value = "ü" * 10
    assert xcom.spill(value, str(tmp_path), KEY, 22) == value
    assert xcom.is_reference(xcom.spill(value, str(tmp_path), KEY, 21))


def test_a_value_that_looks_like_a_reference_is_not_followed(tmp_path: Path) -> None:
    value: Json = {"$ref": "/etc/passwd"}
    assert xcom.resolve(xcom.spill(value, str(tmp_path), KEY, 1024)) == value


@pytest.mark.parametrize("value", [{1, 2}, {"a": b"x"}, float("nan"), [float("inf")]])
def test_what_is_not_json_is_refused_by_name(tmp_path: Path, value: object) -> None:
    with pytest.raises(Fail, match=f"The XCom `{KEY.replace('+', '.')}` is not JSON"):
        xcom.spill(value, str(tmp_path), KEY, 1024)  # type: ignore[arg-type]  # that is the point


def test_what_is_too_large_is_refused_by_name_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xcom, "LARGEST", 100)
    value = "x" * 200
    size = len(json.dumps(value))
    with pytest.raises(Fail, match=f"{size} bytes of JSON; at most 100 are kept"):
        xcom.spill(value, str(tmp_path), KEY, 10)


def test_a_reference_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(Fail, match="is gone from the object store"):
        xcom.resolve({"$ref": f"{tmp_path}/none.json"})


def test_a_key_stays_in_the_store(tmp_path: Path) -> None:
    with pytest.raises(Fail, match="leads out of its folder"):
        xcom.spill("x" * 100, str(tmp_path), "../../a", 10)


@pytest.fixture(params=["folder", "objects"])
def objects_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/objects" if request.param == "folder" else f"memory://objects-{uuid.uuid4().hex}"


def spilled(objects_url: str, key: str) -> str:
    value = xcom.spill("x" * 100, objects_url, key, 10)
    assert isinstance(value, dict)
    return str(value["$ref"])


def test_a_large_value_is_discarded_and_its_neighbours_stay(objects_url: str) -> None:
    first, second = spilled(objects_url, "task/1"), spilled(objects_url, "task/2")
    xcom.discard(first, objects_url)
    with pytest.raises(Fail, match="is gone"):
        xcom.resolve({"$ref": first})
    assert xcom.resolve({"$ref": second}) == "x" * 100
    xcom.discard(first, objects_url)  # it is gone already


def test_no_empty_folder_stays(tmp_path: Path) -> None:
    xcom.discard(spilled(str(tmp_path), "task/1"), str(tmp_path))
    assert list((tmp_path / "xcom").iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "{objects}/datasets/task/1.json",
        "{objects}/xcom/../datasets/task/1.json",
        "{objects}/xcom//etc/1.json",
        "{objects}/xcom/",
        "{objects}/xcom/task",
        "{objects}2/xcom/task/1.json",
        "/etc/passwd",
        "../1.json",
        "",
    ],
)
def test_what_only_claims_to_be_a_large_value_is_not_removed(tmp_path: Path, path: str) -> None:
    objects_url = f"file://{tmp_path}/objects"
    other = tmp_path / "objects/datasets/task/1.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    with pytest.raises(Fail, match="so it stays"):
        xcom.discard(path.format(objects=objects_url), objects_url)
    assert other.exists()

"""Data sets: parts first, the manifest last, and nothing is trusted without it."""

import hashlib
import json
import shutil
from pathlib import Path

import fsspec
import pytest

from yarrow import urls
from yarrow.dataset import MANIFEST, DatasetError, DatasetManifest, Part, open_dataset, publish, read_manifest

SCHEMA = [("carrier", "VARCHAR"), ("flight", "BIGINT")]


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    folder = tmp_path / "work"
    folder.mkdir()
    contents = [b"carrier,flight\nUA,1545\nB6,725\n", b"carrier,flight\nDL,461\n"]
    made = []
    for number, content in enumerate(contents):
        path = folder / f"{number}.csv"
        path.write_bytes(content)
        made.append(Part(path, content.count(b"\n") - 1))
    return made


@pytest.fixture(params=["local", "remote"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return f"file://{tmp_path}/objects/flights/"
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    return "memory://objects/flights/"


def test_publish_and_read_back(uri: str, parts: list[Part]) -> None:
    manifest = publish(uri, parts, SCHEMA, format="csv")

    assert manifest.rows == 3
    assert manifest.bytes == sum(part.path.stat().st_size for part in parts)
    assert manifest.parts == ("part-000000.csv", "part-000001.csv")
    assert manifest.columns == ("carrier", "flight")
    assert [urls.read_bytes(address) for address in manifest.part_urls] == [part.path.read_bytes() for part in parts]
    assert urls.names(uri) == [MANIFEST, *manifest.parts]
    assert read_manifest(uri) == manifest
    assert open_dataset(uri) == manifest
    assert DatasetManifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_the_digest_is_over_names_sizes_rows_and_contents(uri: str, parts: list[Part]) -> None:
    expected = hashlib.sha256()
    for number, part in enumerate(parts):
        content = part.path.read_bytes()
        line = f"part-{number:06d}.csv\0{len(content)}\0{part.rows}\0{hashlib.sha256(content).hexdigest()}\n"
        expected.update(line.encode())
    assert publish(uri, parts, SCHEMA, format="csv").digest == f"sha256:{expected.hexdigest()}"


def test_publishing_the_same_again_touches_nothing(tmp_path: Path, parts: list[Part]) -> None:
    folder = tmp_path / "objects"
    first = publish(str(folder), parts, SCHEMA, format="csv")
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert publish(str(folder), parts, SCHEMA, format="csv") == first
    assert {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_other_content_takes_the_place_of_the_old(uri: str, parts: list[Part]) -> None:
    old = publish(uri, parts, SCHEMA, format="csv")
    new = publish(uri, parts[1:], SCHEMA, format="csv")
    assert new.digest != old.digest
    assert new.rows == 1
    assert read_manifest(uri) == new
    assert urls.names(uri) == [MANIFEST, "part-000000.csv"]


def test_a_lost_part_is_published_again(uri: str, parts: list[Part]) -> None:
    manifest = publish(uri, parts, SCHEMA, format="csv")
    urls.remove(manifest.part_urls[1])
    assert publish(uri, parts, SCHEMA, format="csv") == manifest
    assert urls.exists(manifest.part_urls[1])


def test_parts_without_a_manifest_are_no_data_set(uri: str, parts: list[Part]) -> None:
    publish(uri, parts, SCHEMA, format="csv")
    urls.remove(urls.join(uri, MANIFEST))
    with pytest.raises(DatasetError, match="no finished data set"):
        read_manifest(uri)


def test_a_publication_that_breaks_off_leaves_no_manifest(
    tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "objects"
    publish(str(folder), parts, SCHEMA, format="csv")
    put = urls.put

    def break_off(source: Path, address: str) -> None:
        if address.endswith("000001.csv"):
            raise OSError("the disk is gone")
        put(source, address)

    monkeypatch.setattr(urls, "put", break_off)
    parts[0].path.write_bytes(b"carrier,flight\nWN,1\nWN,2\n")
    with pytest.raises(OSError, match="the disk is gone"):
        publish(str(folder), parts, SCHEMA, format="csv")
    with pytest.raises(DatasetError, match="no finished data set"):
        read_manifest(str(folder))


def test_a_copied_folder_is_a_data_set_of_its_own(tmp_path: Path, parts: list[Part]) -> None:
    publish(str(tmp_path / "a"), parts, SCHEMA, format="csv")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert read_manifest(str(tmp_path / "b")).part_urls[0] == f"{tmp_path}/b/part-000000.csv"


@pytest.mark.parametrize("value", [None, 3, [], {}, {"kind": "table"}])
def test_something_else_is_no_data_set(value: object) -> None:
    with pytest.raises(DatasetError, match="Expected a data set, got"):
        DatasetManifest.from_json(value)


@pytest.mark.parametrize("broken", [{"rows": "many"}, {"parts": [1]}, {"schema": [["a"]]}, {"digest": None}])
def test_a_broken_manifest(broken: dict[str, object]) -> None:
    whole = {"kind": "dataset", "uri": "/d/", "rows": 1, "bytes": 1, "parts": ["a"], "schema": [["a", "INTEGER"]]}
    with pytest.raises(DatasetError, match="not complete"):
        DatasetManifest.from_json({**whole, "digest": "sha256:0", **broken})


def test_a_manifest_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(DatasetError, match="is not JSON"):
        read_manifest(str(tmp_path))

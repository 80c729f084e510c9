"""Finding operators by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from yarrow import Context, Operator, registry
from yarrow.errors import BrokenOperator, NotFound


class Mine(Operator):
    """Does nothing."""

    def execute(self, context: Context) -> None:
        raise NotImplementedError


def _install(folder: Path, package: str, **operators: str) -> None:
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in operators.items())
    (info / "entry_points.txt").write_text(f"[yarrow.operators]\n{lines}")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A third-party package with operators: a good one, two broken ones and one with the name of a built-in."""
    (tmp_path / "their_operators.py").write_text(
        "from yarrow import Operator\n\nclass Good(Operator):\n    def execute(self, context): ...\n\nthing = 3\n"
    )
    (tmp_path / "their_broken_operators.py").write_text("raise RuntimeError('no licence')\n")
    _install(
        tmp_path,
        "their_package",
        good="their_operators:Good",
        odd="their_operators:thing",
        bad="their_broken_operators:Bad",
        bash="their_operators:Good",
    )
    _install(tmp_path, "another_package", good="their_operators:thing")
    if "bash" not in registry.operator_names():  # Yarrow itself is not installed, only on the path
        _install(tmp_path, "yarrow", bash="yarrow_operators.bash:Bash")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.refresh()
    yield
    registry.refresh()
    for module_name in ("their_operators", "their_broken_operators"):
        sys.modules.pop(module_name, None)


def test_an_installed_operator_is_found(installed: None) -> None:
    assert {"good", "odd", "bad", "bash"} <= set(registry.operator_names())
    assert "their_operators" not in sys.modules, "nothing is imported for the list"


def test_built_ins_can_not_be_shadowed(installed: None) -> None:
    assert registry.operator_class("bash").__module__ == "yarrow_operators.bash"
    assert any("`bash` of package `their_package` is ignored" in problem for problem in registry.problems())


def test_of_two_third_parties_the_first_by_name_wins(installed: None) -> None:
    with pytest.raises(BrokenOperator, match="another_package"):
        registry.operator_class("good")


def test_a_broken_operator_is_reported_and_harms_no_other(installed: None) -> None:
    for _ in range(2):
        with pytest.raises(BrokenOperator, match="RuntimeError: no licence"):
            registry.operator_class("bad")
        with pytest.raises(BrokenOperator, match=r"not a subclass of yarrow\.Operator"):
            registry.operator_class("odd")
    assert registry.operator_class("bash")
    assert sum("no licence" in problem for problem in registry.problems()) == 1


def test_an_unknown_name_has_a_suggestion() -> None:
    with registry.register("mine", Mine), pytest.raises(NotFound) as error:
        registry.operator_class("mien")
    assert error.value.message == "There is no operator `mien`."
    assert error.value.hint == "Did you mean `mine`?"


def test_registering_is_for_a_while() -> None:
    with registry.register("mine", Mine):
        assert registry.operator_class("mine") is Mine
        assert "mine" in registry.operator_names()
    assert "mine" not in registry.operator_names()


def test_an_entry_point_without_a_distribution_is_accepted() -> None:
    chosen, refused = registry._choose([EntryPoint("x", "a:B", registry.GROUP)])
    assert (list(chosen), refused) == (["x"], [])

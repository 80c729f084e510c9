"""What a task prints and logs in this process."""

from __future__ import annotations

import logging
import sys

import pytest

from yarrow.captured import captured
from yarrow.secrets import Masker


def test_streams_behave_like_the_ones_that_they_stand_for(capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    before = (sys.stdout.encoding, sys.stdout.isatty(), sys.stderr.fileno())
    with captured(lines.append, Masker(["hunter2"]), echo=True) as log:
        assert (sys.stdout.encoding, sys.stdout.isatty(), sys.stderr.fileno()) == before
        assert sys.stdout.writable()
        sys.stdout.write("one\ntwo, with hunter2\nthr")
        sys.stdout.flush()
        sys.stdout.write("ee")
        log.warning("a\nb")
        logging.getLogger("a.library").debug("left out")
    assert lines == ["one", "two, with ***", "WARNING a", "b", "three"]
    out, err = capfd.readouterr()
    assert out == "one\ntwo, with ***\nthree"
    assert err == "WARNING a\nb\n"


def test_a_message_that_can_not_be_formatted_stops_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    with captured(lines.append, Masker([]), echo=False) as log:
        log.warning("%d", "three")  # type: ignore[misc]  # wrong on purpose
        log.warning("next")
    assert "WARNING next" in lines
    assert "Logging error" in "".join(lines)


def test_everything_is_put_back() -> None:
    root = logging.getLogger()
    before = (sys.stdout, sys.stderr, root.level, list(root.handlers))
    with pytest.raises(KeyError), captured([].append, Masker([]), echo=False):
        raise KeyError
    assert (sys.stdout, sys.stderr, root.level, list(root.handlers)) == before

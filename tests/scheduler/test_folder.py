"""The thread beside the loop: it looks again and again, sooner to confirm, and never gives up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from yarrow.config import Config
from yarrow.errors import StoreError
from yarrow_scheduler.catalog import Refresh
from yarrow_scheduler.folder import FolderWatch
from yarrow_scheduler.parser import Parser, ParserClosed

Outcome = Refresh | Exception


class ScriptedCatalog:
    """Answers with one outcome after the other, and tells when it has no more."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes
        self.looks = 0
        self.done = threading.Event()

    def refresh(self, on_change: Callable[[], None]) -> Refresh:
        self.looks += 1
        outcome = self.outcomes.pop(0) if self.outcomes else Refresh(0)
        if not self.outcomes:
            self.done.set()
        if isinstance(outcome, Exception):
            raise outcome
        if outcome.published:
            on_change()
        return outcome


@pytest.fixture
def watch(config: Config) -> Iterator[Callable[..., ScriptedCatalog]]:
    watches: list[FolderWatch] = []

    def start(outcomes: list[Outcome], interval: float, on_change: Callable[[], None] = lambda: None) -> Any:
        catalog: Any = ScriptedCatalog(outcomes)
        watches.append(FolderWatch(catalog, Parser(config), interval, on_change))
        watches[-1].start()
        return catalog

    yield start
    for one in watches:
        one.close()
        assert not one._thread.is_alive()


def test_it_looks_again_after_the_interval(watch: Callable[..., ScriptedCatalog]) -> None:
    catalog = watch([Refresh(0), Refresh(0), Refresh(0)], 0.01)
    assert catalog.done.wait(10)


def test_it_looks_sooner_to_confirm_that_a_file_is_gone(watch: Callable[..., ScriptedCatalog]) -> None:
    catalog = watch([Refresh(0, look_again=True), Refresh(0, deactivated=1)], 3600.0)
    assert catalog.done.wait(10)


def test_a_change_wakes_the_loop(watch: Callable[..., ScriptedCatalog]) -> None:
    woken = threading.Event()
    watch([Refresh(1, 1, 1)], 3600.0, woken.set)
    assert woken.wait(10)


def test_a_failure_is_told_and_tried_again(
    watch: Callable[..., ScriptedCatalog], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yarrow_scheduler.folder._LONGEST_PAUSE", 0.01)
    with caplog.at_level(logging.ERROR):
        catalog = watch([StoreError("The disk is full."), RuntimeError("a bug"), Refresh(0)], 0.01)
        assert catalog.done.wait(10)
    expected, unexpected = caplog.records
    assert "The disk is full." in expected.getMessage()
    assert expected.exc_info is None, "people need no traceback for what is known"
    assert unexpected.exc_info is not None


def test_it_ends_when_the_parser_was_closed(watch: Callable[..., ScriptedCatalog]) -> None:
    catalog = watch([Refresh(0), ParserClosed(), Refresh(0), Refresh(0)], 0.01)
    assert not catalog.done.wait(0.3)
    assert catalog.looks == 2

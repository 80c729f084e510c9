"""The minder's threads: logs, reports and heartbeats on their way to a server that is there, away, or against them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from yarrow.errors import Refused
from yarrow.protocol import Heartbeat, HeartbeatReply, LogLine, Report
from yarrow_executor.client import Rejected, Unreachable
from yarrow_executor.heart import Heart, Identity
from yarrow_executor.reporter import Reporter
from yarrow_executor.shipper import LogShipper
from yarrow_executor.slots import SlotTable, ticks
from yarrow_executor.spool import Envelope, Spool


class Server:
    """Stands in for the client: takes what it is given, unless `error` is set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.lines: dict[str, list[str]] = {}
        self.requests: list[int] = []  # lines of each
        self.reports: list[tuple[str, str]] = []
        self.delivered: list[str] = []  # their states
        self.refuse: set[str] = set()  # tokens
        self.beats: list[Heartbeat] = []
        self.stop: dict[str, str] = {}

    def _check(self) -> None:
        if self.error:
            raise self.error

    def logs(self, batches: Sequence[tuple[str, Sequence[LogLine]]]) -> None:
        self._check()
        self.requests.append(sum(len(lines) for _, lines in batches))
        for token, lines in batches:
            self.lines.setdefault(token, []).extend(line.text for line in lines)

    def finish(self, report: Report, token: str, worker_id: str) -> None:
        self._check()
        if token in self.refuse:
            raise Refused("it is another's")
        self.reports.append((report.attempt_id, worker_id))
        self.delivered.append(report.state)

    def heartbeat(self, heartbeat: Heartbeat) -> HeartbeatReply:
        self.beats.append(heartbeat)
        self._check()
        return HeartbeatReply(self.stop, 0.05)


def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def line(text: str) -> LogLine:
    return LogLine("now", "stdout", text)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def shipper(server: Server) -> Iterator[LogShipper]:
    shipper = LogShipper(server, limit=100_000)  # type: ignore[arg-type]  # it stands in for a client
    thread = threading.Thread(target=shipper.run)
    thread.start()
    yield shipper
    shipper.finish()
    thread.join(10)
    assert not thread.is_alive()


def test_lines_travel_together_and_in_order(server: Server, shipper: LogShipper) -> None:
    for number in range(50):
        shipper.add("t1", [line(str(number))])
        shipper.add("t2", [line(str(number))])
    until(lambda: len(server.lines.get("t1", [])) == len(server.lines.get("t2", [])) == 50)
    assert server.lines["t1"] == server.lines["t2"] == [str(number) for number in range(50)]
    assert len(server.requests) <= 3


def test_lines_wait_for_a_server_that_is_away(server: Server, shipper: LogShipper) -> None:
    server.error = Unreachable("away")
    shipper.add("t1", [line("one")])
    shipper.add("t1", [line("two")])
    shipper.close("t1")
    server.error = None
    until(lambda: server.lines.get("t1") == ["one", "two"])


def test_lines_that_are_not_wanted_do_not_stop_the_others(server: Server, shipper: LogShipper) -> None:
    server.error = Rejected(413, "too large")
    shipper.add("t1", [line("one")])
    until(lambda: not shipper._buffers["t1"].lines)
    server.error = None
    shipper.add("t1", [line("two")])
    until(lambda: server.lines.get("t1") == ["two"])


def test_each_look_of_an_attempt_that_was_put_off_has_its_own_token(server: Server, shipper: LogShipper) -> None:
    server.error = Unreachable("away")
    shipper.add("t1", [line("first look")])
    shipper.close("t1")
    shipper.add("t2", [line("second look")])
    server.error = None
    until(lambda: server.lines == {"t1": ["first look"], "t2": ["second look"]})
    shipper.close("t2")
    until(lambda: not shipper._buffers)


def test_a_log_that_is_too_long_is_cut_off(server: Server, shipper: LogShipper) -> None:
    for _ in range(20):
        shipper.add("t1", [line("x" * 10_000)])
    assert shipper.full("t1")
    assert not shipper.full("t2")
    until(lambda: "cut off" in server.lines.get("t1", [""])[-1])
    assert 9 <= len(server.lines["t1"]) <= 11


def test_what_does_not_fit_into_the_buffer_is_counted(server: Server) -> None:
    shipper = LogShipper(server, limit=100_000_000)  # type: ignore[arg-type]  # it stands in for a client
    for _ in range(100):
        shipper.add("t1", [line("x" * 100_000)])
    buffer = shipper._buffers["t1"]
    assert buffer.size <= 8 * 1024 * 1024
    assert buffer.missing == 100 - len(buffer.lines)
    missing = buffer.missing
    buffer.take(4_000_000)
    shipper.add("t1", [line("fits")])
    assert f"{missing} lines are missing here" in buffer.lines[-2].text
    assert buffer.lines[-1].text == "fits"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path, "w1")
    spool.open()
    yield spool
    spool.close()


@pytest.fixture
def reporter(server: Server, spool: Spool) -> Iterator[Reporter]:
    reporter = Reporter(server, spool)  # type: ignore[arg-type]  # it stands in for a client
    thread = threading.Thread(target=reporter.run)
    thread.start()
    yield reporter
    reporter.finish(0.5)
    thread.join(10)
    assert not thread.is_alive()


def envelope(attempt_id: str) -> Envelope:
    return Envelope(Report(attempt_id, "failed"), "token", "w1")


def test_reports_are_repeated_until_they_are_taken_and_lie_on_disk_meanwhile(
    server: Server, reporter: Reporter, spool: Spool
) -> None:
    server.error = Unreachable("away")
    reporter.send(envelope("a1"))
    until(lambda: spool.pending() == [envelope("a1")])
    assert reporter.undelivered() == ["a1"], "the worker still answers for it"
    server.error = None
    until(lambda: server.reports == [("a1", "w1")])
    until(lambda: not reporter.undelivered() and not spool.pending())


@pytest.mark.parametrize("error", [Refused("too late"), Rejected(400, "no report")])
def test_reports_that_are_refused_are_dropped(
    server: Server, reporter: Reporter, spool: Spool, error: Exception
) -> None:
    server.error = error
    spool.put(envelope("a1"))
    reporter.look()
    until(lambda: not reporter.undelivered() and not spool.pending())
    assert server.reports == []


def test_an_old_report_on_an_attempt_that_was_put_off_does_not_take_the_new_one_along(
    server: Server, reporter: Reporter, spool: Spool
) -> None:
    old, new = Envelope(Report("a1", "deferred"), "old", "w1"), Envelope(Report("a1", "success"), "new", "w1")
    server.refuse = {"old"}
    server.error = Unreachable("away")
    reporter.send(old)
    reporter.send(new)
    until(lambda: len(spool.pending()) == 2)
    server.error = None
    until(lambda: server.reports == [("a1", "w1")])
    until(lambda: not reporter.undelivered() and not spool.pending())
    assert server.delivered == ["success"]


def test_reports_in_another_version_are_left_for_the_next_worker(
    server: Server, reporter: Reporter, spool: Spool
) -> None:
    server.error = Rejected(426, "update it")
    reporter.send(envelope("a1"))
    until(lambda: not reporter.undelivered())
    assert spool.pending() == [envelope("a1")]


def test_what_cannot_be_delivered_before_the_end_stays_on_disk(server: Server, spool: Spool) -> None:
    server.error = Unreachable("away")
    reporter = Reporter(server, spool)  # type: ignore[arg-type]  # it stands in for a client
    reporter.send(envelope("a1"))
    reporter.finish(0.3)
    reporter.run()
    assert spool.pending() == [envelope("a1")]


class Beating:
    """A heart with what it reports to."""

    def __init__(self, server: Server, reporter: Reporter) -> None:
        self.table = SlotTable(2)
        self.stops: list[dict[str, str]] = []
        self.rejections: list[Rejected] = []
        self.heart = Heart(
            Identity("w1", "host", 7, ("default",)),
            self.table,
            server,  # type: ignore[arg-type]  # it stands in for a client
            reporter,
            interval=0.05,
            on_stop=lambda reasons: self.stops.append(dict(reasons)),
            on_rejected=self.rejections.append,
        )
        self.thread = threading.Thread(target=self.heart.run)
        self.thread.start()


@pytest.fixture
def beating(server: Server, reporter: Reporter) -> Iterator[Beating]:
    beating = Beating(server, reporter)
    yield beating
    beating.heart.end()
    beating.thread.join(10)
    assert not beating.thread.is_alive()


def run(table: SlotTable, attempt_id: str) -> float:
    now = ticks()
    table.slots[1].run(8, attempt_id, "token", started=0.0, timeout=0.0, lease=60.0, claimed=now)
    return now


def test_a_heartbeat_names_what_runs_and_renews_its_lease(server: Server, beating: Beating) -> None:
    assert beating.heart.lease_until("a1") == 0.0
    began = run(beating.table, "a1")
    beating.table.slots[1].progress(2, 4, "rows")
    until(lambda: beating.heart.lease_until("a1") > began + 60)
    beat = server.beats[-1]
    assert (beat.worker_id, beat.queues, beat.slots, beat.pid) == ("w1", ("default",), 2, 7)
    assert [(attempt.attempt_id, attempt.done) for attempt in beat.attempts] == [("a1", 2)]
    assert not beat.stopping


def test_reports_on_their_way_are_named_as_well(server: Server, beating: Beating, reporter: Reporter) -> None:
    server.error = Unreachable("away")
    reporter.send(envelope("a9"))
    until(lambda: [attempt.attempt_id for attempt in server.beats[-1].attempts] == ["a9"] if server.beats else False)


def test_without_an_answer_no_lease_is_renewed(server: Server, beating: Beating) -> None:
    server.error = Unreachable("away")
    run(beating.table, "a1")
    before = len(server.beats)
    until(lambda: len(server.beats) > before + 2)
    assert beating.heart.lease_until("a1") == 0.0


def test_stop_requests_and_rejections_are_passed_on(server: Server, beating: Beating) -> None:
    server.stop = {"a1": "cancelled"}
    run(beating.table, "a1")
    until(lambda: beating.stops)
    assert beating.stops[0] == {"a1": "cancelled"}
    server.error = Rejected(401, "wrong token")
    until(lambda: beating.rejections)


def test_a_stop_that_was_meant_for_an_earlier_look_is_not_passed_on(server: Server, beating: Beating) -> None:
    run(beating.table, "a1")
    until(lambda: server.beats and server.beats[-1].attempts)

    def answer(heartbeat: Heartbeat) -> HeartbeatReply:
        # While the answer is on its way the attempt is put off, claimed again and runs here once more.
        beating.table.slots[1].run(8, "a1", "fresh", started=0.0, timeout=0.0, lease=60.0, claimed=ticks())
        return HeartbeatReply({"a1": "it is not this worker's any more"}, 60.0)

    server.heartbeat = answer  # type: ignore[method-assign]  # it answers once
    until(lambda: beating.table.slots[1].read().token == "fresh")
    beating.heart.end()
    server.heartbeat = lambda heartbeat: HeartbeatReply({}, 0.05)  # type: ignore[method-assign]
    beating.thread.join(5)
    assert beating.stops == []


def test_the_last_heartbeat_says_goodbye(server: Server, reporter: Reporter) -> None:
    beating = Beating(server, reporter)
    until(lambda: server.beats)
    beating.heart.end()
    beating.thread.join(5)
    assert server.beats[-1].stopping

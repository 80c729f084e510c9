"""How long a failed task waits."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from yarrow.language.spec import TaskSpec
from yarrow.retries import LONGEST_DELAY, retry_delay, ruled_out_by

DATE = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN = TaskSpec(task_id="t", operator="empty", arguments={}, retry_delay=10.0)
BACKOFF = replace(PLAIN, retry_exponential_backoff=2.0)


def test_without_backoff_the_delay_is_constant_and_has_no_jitter() -> None:
    assert [retry_delay(PLAIN, "d", DATE, number) for number in (1, 2, 9)] == [10.0, 10.0, 10.0]
    assert retry_delay(replace(PLAIN, retry_delay=0.0), "d", DATE, 1) == 0.0
    assert retry_delay(replace(PLAIN, retry_delay=2 * LONGEST_DELAY), "d", DATE, 1) == 2 * LONGEST_DELAY


@pytest.mark.parametrize("number", range(1, 12))
def test_backoff_grows_and_jitter_adds_less_than_as_much_again(number: int) -> None:
    least = 10 * 2 ** (number - 1)
    delay = retry_delay(BACKOFF, "d", DATE, number)
    assert least <= delay < 2 * least


def test_the_jitter_is_the_same_every_time_and_differs_between_tasks() -> None:
    delays = [retry_delay(replace(BACKOFF, retry_delay=600.0, task_id=f"t{n}"), "d", DATE, 1) for n in range(50)]
    again = [retry_delay(replace(BACKOFF, retry_delay=600.0, task_id=f"t{n}"), "d", DATE, 1) for n in range(50)]
    assert delays == again
    assert len(set(delays)) > 40
    assert max(delays) - min(delays) > 300


def test_the_jitter_does_not_depend_on_how_the_instant_is_written() -> None:
    elsewhere = DATE.astimezone(timezone(timedelta(hours=5)))
    assert retry_delay(BACKOFF, "d", DATE, 3) == retry_delay(BACKOFF, "d", elsewhere, 3)


def test_a_known_value() -> None:
    # 40 + int(sha1("d#t#2026-01-01T00:00:00+00:00#3"), 16) % 40
    assert retry_delay(BACKOFF, "d", DATE, 3) == 55.0


def test_the_caps() -> None:
    assert retry_delay(BACKOFF, "d", DATE, 60) == LONGEST_DELAY
    assert retry_delay(BACKOFF, "d", DATE, 5000) == LONGEST_DELAY
    assert retry_delay(replace(BACKOFF, max_retry_delay=15.0), "d", DATE, 4) == 15.0
    assert retry_delay(replace(PLAIN, max_retry_delay=4.0), "d", DATE, 1) == 4.0


def test_a_backoff_below_a_second_waits_at_least_one() -> None:
    assert retry_delay(replace(BACKOFF, retry_delay=0.01), "d", DATE, 1) == 1.0


def test_instances_of_a_mapped_task_have_a_jitter_each_and_others_none_of_it() -> None:
    wide = replace(BACKOFF, retry_delay=600.0)
    assert retry_delay(wide, "d", DATE, 1) == retry_delay(wide, "d", DATE, 1, -1)
    delays = {retry_delay(wide, "d", DATE, 1, index) for index in range(-1, 50)}
    assert len(delays) > 40
    assert all(600 <= delay < 1200 for delay in delays)


def test_kinds_of_errors_rule_out_another_try() -> None:
    choosy = replace(PLAIN, retry_on=("OSError", "HttpStatus.503"), no_retry_on=("FileNotFoundError",))
    assert ruled_out_by(PLAIN, ["ValueError"]) is None
    assert ruled_out_by(choosy, ["TimeoutError", "OSError"]) is None
    assert ruled_out_by(choosy, ["ValueError"]) == "retry_on"
    assert ruled_out_by(choosy, []) == "retry_on"
    assert ruled_out_by(choosy, ["FileNotFoundError", "OSError"]) == "no_retry_on"

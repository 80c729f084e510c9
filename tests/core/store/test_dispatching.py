from datetime import timedelta

import pytest

from yarrow.errors import Refused


def test_a_queued_attempt_wants_a_message_until_it_has_one(stage) -> None:
    stage.begin()
    stage.store.attempts.grant(10)
    (row,) = stage.store.attempts.to_publish({"default": 5})
    assert stage.store.attempts.to_publish({"default": 5}) == [row]  # a publish that failed is repeated as it is
    assert stage.store.attempts.outstanding() == {}
    assert stage.store.attempts.waiting() == {"default": 1}
    stage.store.attempts.mark_published([row], stage.clock() + timedelta(seconds=60))
    assert stage.store.attempts.to_publish({"default": 5}) == []
    assert stage.store.attempts.outstanding() == {"default": 1}
    assert stage.store.attempts.get(row.attempt_id).dispatch_count == 1


def test_room_is_kept_for_each_queue(stage) -> None:
    spec = stage.dag(
        tasks=[stage.task(f"t{number}", priority_weight=number) for number in range(4)] + [stage.task("g", queue="gpu")]
    )
    stage.begin(spec, *spec.tasks)
    stage.store.attempts.grant(10)
    rows = stage.store.attempts.to_publish({"default": 2, "gpu": 0, "other": 3})
    names = [stage.store.attempts.get(row.attempt_id).task_id for row in rows]
    assert names == ["t3", "t2"]
    assert [row.queue for row in stage.store.attempts.to_publish({"gpu": 1})] == ["gpu"]


def test_an_overdue_message_is_sent_again_and_the_old_one_is_void(stage) -> None:
    stage.begin()
    attempt_id, old = stage.dispatch()
    stage.clock.advance(60)
    assert stage.store.attempts.waiting() == {"default": 1}
    (row,) = stage.store.attempts.to_publish({"default": 5})
    assert row.attempt_id == attempt_id
    assert row.nonce != old
    with pytest.raises(Refused, match="only its newest message counts"):
        stage.store.attempts.claim(attempt_id, old, "w1", 60)
    assert stage.store.attempts.claim(attempt_id, row.nonce, "w1", 60).task_id == "a"
    assert "attempt.dispatch" in [line.kind for line in stage.store.runs.events("d", "r")]


def test_marking_what_has_been_claimed_changes_nothing(stage) -> None:
    stage.begin()
    stage.store.attempts.grant(10)
    rows = stage.store.attempts.to_publish({"default": 5})
    stage.store.attempts.claim(rows[0].attempt_id, rows[0].nonce, "w1", 60)
    stage.store.attempts.mark_published(rows, stage.clock() + timedelta(seconds=60))
    assert stage.store.attempts.get(rows[0].attempt_id).dispatch_deadline is None
    stage.store.attempts.mark_published([], stage.clock())


def test_the_next_deadline_is_the_earliest_of_all(stage) -> None:
    assert stage.store.attempts.next_deadline() is None
    stage.begin()
    hour = stage.clock() + timedelta(hours=1)
    assert stage.store.attempts.next_deadline() == hour  # scheduled, up to queued_timeout
    attempt_id, nonce = stage.dispatch()
    assert stage.store.attempts.next_deadline() == stage.clock() + timedelta(seconds=60)  # its message
    stage.store.attempts.claim(attempt_id, nonce, "w1", 45)
    assert stage.store.attempts.next_deadline() == stage.clock() + timedelta(seconds=45)  # its lease

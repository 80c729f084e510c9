"""The operator that a person decides."""

from typing import Any

import pytest

from yarrow import Fail
from yarrow.errors import UsageError
from yarrow.language.parameters import parameters
from yarrow.testing import load_dag
from yarrow_operators.approval import Approval


def test_a_worker_does_not_decide(context: Any) -> None:
    with pytest.raises(Fail, match="decided by a person"):
        Approval(message="Go on?").execute(context)


def test_what_downstream_tasks_may_name() -> None:
    outputs: Any = parameters(Approval).outputs
    assert set(outputs.fields) == {"approved", "by", "comment", "at"}
    load_dag("""
tasks:
  ask: {operator: approval, with: {message: "Publish {{ ds }}?", timeout: 1h, default: reject, on_reject: fail}}
  tell: {operator: bash, with: {command: [echo, "{{ xcom.ask.by }}"]}}
""")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ('message: " "', "The message is empty"),
        ("message: Go?, timeout: soon", "`soon` is not a duration"),
        ("message: Go?, timeout: 0s", "must be longer than nothing"),
        ("message: Go?, default: approve", "answers when the `timeout` is over"),
        ("message: Go?, timeout: 1h, default: yes", "`approve`, `reject`"),
        ("message: Go?, on_reject: stop", "`skip`, `fail`"),
        ("timeout: 1h", "message"),
    ],
)
def test_it_is_checked_when_its_file_is_loaded(given: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        load_dag(f"tasks:\n  ask:\n    operator: approval\n    with: {{{given}}}\n")

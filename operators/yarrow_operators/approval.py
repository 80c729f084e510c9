"""Asks a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict

from yarrow import Context, Duration, Fail, Operator, param
from yarrow.language.durations import parse_duration
from yarrow.language.template import is_template
from yarrow.operator import ArgumentPath


class Approval(Operator):
    """Waits until a person approves or rejects, or until the deadline answers for them.

    The task never reaches a worker: while it is `awaiting_input` it holds no slot of anything. It is answered
    with `yarrow approvals` or over the API. Rejected, all downstream of it is skipped as by `short_circuit`, unless
    `on_reject: fail`.
    """

    message: str = param(
        doc="The question. Its templates may name what `when:` may: the run, its params and XComs.",
        examples=("Publish {{ xcom.score.rows }} scores of {{ ds }}?",),
    )
    timeout: Duration | None = param(
        default=None, doc="How long to wait for an answer; by default for ever.", examples=("24h",)
    )
    default: Literal["approve", "reject"] | None = param(
        default=None,
        doc="The answer when the time is over. Without one the task fails then.",
        template=False,
    )
    on_reject: Literal["skip", "fail"] = param(
        default="skip",
        doc="What a rejection does: skip all that is downstream, or fail the task, without another try.",
        template=False,
    )

    class Outputs(TypedDict):
        approved: bool
        by: str
        comment: str | None
        at: str

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """A question without words, a deadline at once, and a default for a deadline that never comes."""
        if not str(arguments.get("message", "")).strip():
            yield ("message",), "The message is empty."
        timeout = arguments.get("timeout")
        if isinstance(timeout, str) and not is_template(timeout) and parse_duration(timeout) == 0:
            yield ("timeout",), "`timeout` must be longer than nothing."
        if arguments.get("default") is not None and timeout is None:
            yield ("default",), "`default` answers when the `timeout` is over, which is not given."

    def execute(self, context: Context) -> Outputs:
        raise Fail("An approval is decided by a person, and never executed by a worker.")

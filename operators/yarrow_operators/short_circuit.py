"""Goes on only when a condition holds."""

from __future__ import annotations

from typing import ClassVar, TypedDict

from yarrow import Context, Operator, param


class ShortCircuit(Operator):
    """Skips everything downstream, near and far, unless the condition is true."""

    control: ClassVar[bool] = True

    condition: bool = param(doc="Whether to go on.", examples=("{{ xcom.count > 0 }}",))

    class Outputs(TypedDict):
        follow: list[str] | None

    def execute(self, context: Context) -> Outputs:
        context.log.info("The condition is %s.", "true: going on" if self.condition else "false: the rest is skipped")
        return {"follow": None if self.condition else []}

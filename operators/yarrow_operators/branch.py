"""Chooses which downstream tasks run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypedDict

from yarrow import Context, Fail, Operator, param
from yarrow.operator import ArgumentPath

# In functional form because `if` is a keyword.
Condition = TypedDict("Condition", {"if": bool, "then": list[str]})


class Branch(Operator):
    """Runs the tasks of the first condition that is true, and skips the other tasks directly downstream.

    A task that is also downstream of a chosen one is not skipped. A task that joins the branches needs the trigger rule
    `none_failed_min_one_success`.
    """

    control: ClassVar[bool] = True

    conditions: list[Condition] = param(
        doc="Tried in this order: `if` is a template that gives true or false, `then` lists tasks directly downstream.",
        examples=([{"if": "{{ xcom.drift.share > params.limit }}", "then": ["retrain"]}],),
    )
    otherwise: list[str] = param(
        default=[], doc="The tasks to run when no condition is true. By default none: all are skipped."
    )

    class Outputs(TypedDict):
        follow: list[str]

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """Every task that is named must be directly downstream: choosing another would change nothing."""
        named: list[tuple[ArgumentPath, str]] = [
            (("conditions", number, "then", place), task_id)
            for number, condition in enumerate(arguments["conditions"])
            for place, task_id in enumerate(condition["then"])
        ]
        named += [(("otherwise", place), task_id) for place, task_id in enumerate(arguments.get("otherwise", []))]
        for path, task_id in named:
            if task_id not in downstream:
                yield path, _not_downstream(task_id, downstream)

    def execute(self, context: Context) -> Outputs:
        chosen = self.otherwise
        for number, condition in enumerate(self.conditions, start=1):
            if condition["if"]:
                chosen = condition["then"]
                context.log.info("Condition %d is true: following %s.", number, ", ".join(chosen) or "nothing")
                break
        else:
            context.log.info("No condition is true: following %s.", ", ".join(chosen) or "nothing")
        for task_id in chosen:
            if task_id not in context.downstream:
                raise Fail(_not_downstream(task_id, context.downstream))
        return {"follow": list(dict.fromkeys(chosen))}


def _not_downstream(task_id: str, downstream: Sequence[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in downstream) or "none"
    return (
        f"`{task_id}` is not directly downstream of the branch, so it can't be chosen. Directly downstream: {listed}."
    )

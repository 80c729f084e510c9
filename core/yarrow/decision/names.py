"""Tells which names the expressions of a run's task instances may use, and whether their `when` is true."""

from __future__ import annotations

from collections.abc import Mapping

from yarrow.decision.decisions import RunView
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.language.template import compile_expression, run_names
from yarrow.mapping import Instance, Xcoms


class Names:
    """The names of a run; what all task instances share is worked out when the first of them asks."""

    def __init__(self, spec: DagSpec, run: RunView, xcoms: Mapping[Instance, Json]) -> None:
        self._spec = spec
        self._run = run
        self._xcoms = Xcoms(spec, xcoms)
        self._shared: Mapping[str, object] | None = None

    def of(self, task: TaskSpec, map_index: int, map_value: Mapping[str, Json] | None) -> Mapping[str, object]:
        """The names that the expressions of an instance may use."""
        if self._shared is None:
            run = self._run
            names = run_names(
                dag_id=run.dag_id,
                run_id=run.run_id,
                logical_date=run.logical_date,
                data_interval_start=run.data_interval_start,
                data_interval_end=run.data_interval_end,
                timezone=self._spec.timezone,
            )
            self._shared = {**names, "params": run.params}
        names = {**self._shared, "xcom": self._xcoms.seen_by(task, map_index)}
        return names if map_value is None else {**names, "map": map_value}


def holds(when: str, names: Mapping[str, object]) -> bool:
    """Whether a `when` is true. Raises TemplateError if it can't be evaluated."""
    return bool(compile_expression(when).render(names))

"""Runs of a real store, moved as a scheduler and a worker would, and its tables as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from yarrow.decide import decide
from yarrow.language.loader import load_text
from yarrow.protocol import Report
from yarrow.store import Store
from yarrow.store.records import ClaimedAttempt, RunRecord
from yarrow.store.tables import metadata

WORKER = "w" * 16


@dataclass
class Played:
    """Moves the runs of a store."""

    store: Store

    def publish(self, *texts: str) -> None:
        """Publishes DAG files."""
        for text in texts:
            loaded = load_text(text, "shown.yaml")
            assert loaded.spec is not None, loaded.faults
            self.store.catalog.publish([(loaded.spec, text, f"{loaded.spec.dag_id}.yaml")])

    def run(self, dag_id: str, run_id: str, date: datetime, outcomes: Sequence[str] = ()) -> RunRecord:
        """A run whose tasks end so, one after the other; what is left over waits."""
        run = self.store.runs.trigger(dag_id, run_id=run_id, logical_date=date, who="test")
        self.store.runs.start_due()
        for outcome in outcomes:
            self.step(outcome)
        self.decide()
        return self.store.runs.by_id(run.id)

    def decide(self) -> None:
        """Decides on every run that wants it."""
        for id in self.store.runs.undecided():
            snapshot = self.store.runs.snapshot(id)
            assert snapshot is not None
            found = snapshot
            decisions = decide(
                found.spec, found.record.view, found.tasks, self.store.runs._database.now(None), found.xcoms
            )
            self.store.runs.apply(id, decisions, found.record.change_seq)

    def claim(self) -> ClaimedAttempt:
        """A worker takes the next task."""
        self.decide()
        self.store.attempts.grant(32)
        claimed = self.store.attempts.next_for("default", WORKER, 600.0)
        assert claimed is not None
        return claimed

    def step(self, outcome: str = "success") -> None:
        """The next task is executed; a success leaves an XCom, a failure is not tried again."""
        claimed = self.claim()
        values: dict[str, Any] = {"has_xcom": True, "xcom": 1} if outcome == "success" else {"retryable": False}
        self.store.attempts.finish(Report(claimed.attempt_id, outcome, **values), claimed.nonce, WORKER)
        self.decide()

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """The states of the tasks of a run, by their ids."""
        run = self.store.runs.get(dag_id, run_id)
        return {one.task_id: one.state.value for one in self.store.runs.task_instances(run.id)}

    def tables(self, *without: str) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables but these."""
        return self.store.runs._database.read(
            lambda connection: {
                name: sorted(map(tuple, connection.execute(select(table)).all()), key=repr)
                for name, table in metadata.tables.items()
                if name not in without
            }
        )

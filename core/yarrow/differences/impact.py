"""What a change of a DAG touches where it is deployed: runs in flight, backfills, and the DAGs that wait for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yarrow.differences.words import code
from yarrow.language.spec import DagSpec
from yarrow.schedules.words import join_words


@dataclass(frozen=True, slots=True)
class RunsInFlight:
    """The queued and running runs of one version."""

    version: str
    number: int  # of the version
    states: Mapping[str, int]  # queued, running -> how many
    run_ids: Sequence[str]  # the oldest few

    def to_json(self) -> dict[str, Any]:
        """`{version, number, states, run_ids}`."""
        return {
            "version": self.version,
            "number": self.number,
            "states": dict(self.states),
            "run_ids": list(self.run_ids),
        }


@dataclass(frozen=True, slots=True)
class ActiveBackfill:
    """A backfill that has runs which have not ended."""

    id: int
    queued: int
    running: int

    def to_json(self) -> dict[str, Any]:
        """`{id, queued, running}`."""
        return {"id": self.id, "queued": self.queued, "running": self.running}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Who has to do with a data set, but for the DAG that changes."""

    waiting: Sequence[str] = ()  # the DAGs whose schedule names it
    publishers: Sequence[str] = ()  # the DAGs with a task that publishes it


@dataclass(frozen=True, slots=True)
class Standing:
    """How a DAG stands in a deployment."""

    in_flight: Sequence[RunsInFlight] = ()
    backfills: Sequence[ActiveBackfill] = ()
    datasets: Mapping[str, Dataset] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DatasetChange:
    """A data set that a DAG publishes or waits for in one version and not in the other."""

    dataset: str
    change: str  # published, not published, awaited or not awaited: in the new version, and not so in the old one
    waiting: Sequence[str]
    publishers: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """`{dataset, change, waiting, publishers}`."""
        return {
            "dataset": self.dataset,
            "change": self.change,
            "waiting": list(self.waiting),
            "publishers": list(self.publishers),
        }

    @property
    def words(self) -> str | None:
        """What it means to others, in a sentence; None: nothing."""
        name, waiting = f"The data set `{self.dataset}`", _listed(self.waiting)
        if self.change == "published":
            return f"{name} is published now: {waiting or 'nobody'} {_waits(self.waiting)} for it."
        if self.change == "not published":
            verb = "publish" if len(self.publishers) > 1 else "publishes"
            others = f"; {_listed(self.publishers)} still {verb} it" if self.publishers else ""
            if not waiting:
                return f"{name} is not published any more: nobody waits for it."
            return f"{name} is not published by this DAG any more, and {waiting} {_waits(self.waiting)} for it{others}."
        if self.change == "awaited" and not self.publishers:
            return f"{name} is waited for now, and no other DAG publishes it."
        return None


@dataclass(frozen=True, slots=True)
class Impact:
    """What a change of a DAG touches where it is deployed."""

    in_flight: Sequence[RunsInFlight]  # of other versions than the new one
    backfills: Sequence[ActiveBackfill]
    datasets: Sequence[DatasetChange]

    def to_json(self) -> dict[str, Any]:
        """`{in_flight, backfills, datasets, sentences}`: `RunsInFlight`, `ActiveBackfill`, `DatasetChange`, text."""
        return {
            "in_flight": [runs.to_json() for runs in self.in_flight],
            "backfills": [backfill.to_json() for backfill in self.backfills],
            "datasets": [change.to_json() for change in self.datasets],
            "sentences": self.sentences,
        }

    @property
    def sentences(self) -> list[str]:
        """All of it, for people."""
        return [
            *(_in_flight_words(runs) for runs in self.in_flight),
            *(_backfill_words(backfill) for backfill in self.backfills),
            *(change.words for change in self.datasets if change.words),
            "Deploying reruns nothing: past runs keep their states, and every run keeps its version.",
        ]


def named_datasets(*specs: DagSpec) -> set[str]:
    """The data sets that any of these versions publishes or waits for."""
    return {name for spec in specs for name in (*outlets(spec), *_awaited(spec))}


def outlets(spec: DagSpec) -> set[str]:
    """The data sets that tasks of the DAG publish."""
    return {name for task in spec.tasks.values() for name in task.outlets}


def impact(old: DagSpec, new: DagSpec, standing: Standing) -> Impact:
    """What it touches when `new` becomes the version of the DAG that new runs get."""
    return Impact(
        tuple(runs for runs in standing.in_flight if runs.version != new.version),
        tuple(standing.backfills),
        tuple(_dataset_changes(old, new, standing.datasets)),
    )


def _awaited(spec: DagSpec) -> set[str]:
    return set(spec.schedule.datasets) if spec.schedule is not None else set()


def _dataset_changes(old: DagSpec, new: DagSpec, known: Mapping[str, Dataset]) -> Iterator[DatasetChange]:
    for word, before, after in (("published", outlets(old), outlets(new)), ("awaited", _awaited(old), _awaited(new))):
        for name in sorted(before ^ after):
            dataset = known.get(name, Dataset())
            change = word if name in after else f"not {word}"
            yield DatasetChange(name, change, dataset.waiting, dataset.publishers)


def _in_flight_words(runs: RunsInFlight) -> str:
    count = sum(runs.states.values())
    states = ", ".join(f"{number:,} {state}" for state, number in sorted(runs.states.items(), reverse=True))
    verb = "run goes on" if count == 1 else "runs go on"
    more = count - len(runs.run_ids)
    named = ", ".join(code(run_id) for run_id in runs.run_ids) + (f" and {more:,} more" if more else "")
    return f"{count:,} {verb} in version {runs.number} ({states}): {named}."


def _backfill_words(backfill: ActiveBackfill) -> str:
    count = backfill.queued + backfill.running
    runs = "1 run" if count == 1 else f"{count:,} runs"
    verb, own = ("keeps", "its version") if count == 1 else ("keep", "their versions")
    return f"Backfill {backfill.id} has {runs} left ({backfill.queued:,} queued), which {verb} {own}."


def _listed(names: Iterable[str]) -> str:
    return join_words([code(name) for name in names])


def _waits(names: Sequence[str]) -> str:
    return "wait" if len(names) > 1 else "waits"

"""What holds for any two versions: empty exactly when they are the same, and the same seen from the other side."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from small_dags import Maker
from yarrow.differences.dag_diff import dag_diff
from yarrow.language.spec import DagSpec, ScheduleSpec, TaskSpec
from yarrow.plans.compatibility import compatibility

NOW = datetime(2026, 8, 2, 12, tzinfo=UTC)
PAIRS = 400


def test_empty_exactly_when_the_versions_are_the_same_and_mirrored_by_the_way_back() -> None:
    seen: Counter[bool] = Counter()
    kinds: Counter[str] = Counter()
    for seed in range(PAIRS):
        rng = random.Random(seed)
        old = Maker(rng).case().spec
        new = Maker(rng).case().spec if rng.random() < 0.2 else changed(old, rng)
        forth, back = dag_diff(old, new, NOW), dag_diff(new, old, NOW)
        same = old.version == new.version
        seen[same] += 1
        kinds.update(task.kind for task in forth.tasks)
        assert forth.empty == same, (seed, forth.to_json())
        assert dag_diff(old, old, NOW).empty
        assert normal(mirrored(forth.to_json())) == normal(back.to_json()), seed
        if same:
            assert compatibility(old, new) == []
    assert min(seen[True], seen[False]) > PAIRS // 10
    assert min(kinds[kind] for kind in ("added", "removed", "renamed", "changed")) > PAIRS // 20


def changed(spec: DagSpec, rng: random.Random) -> DagSpec:
    """The spec with up to three edits, some of which mean nothing."""
    for _ in range(rng.randint(1, 3)):
        spec = rng.choice(EDITS)(spec, rng)
    return spec


def _reordered(spec: DagSpec, rng: random.Random) -> DagSpec:
    tasks = list(spec.tasks.values())
    rng.shuffle(tasks)
    return dataclasses.replace(spec, tasks={task.task_id: task for task in tasks}, tags=("b", "a"))


def _tagged(spec: DagSpec, rng: random.Random) -> DagSpec:
    return dataclasses.replace(spec, tags=tuple(rng.sample(["a", "b"], 2)))


def _with_upstream_turned(spec: DagSpec, rng: random.Random) -> DagSpec:
    return _with_task(spec, rng, lambda task: dataclasses.replace(task, upstream=task.upstream[::-1]))


def _renamed(spec: DagSpec, rng: random.Random) -> DagSpec:
    old = rng.choice(list(spec.tasks))
    names = {old: f"{old}x"}
    tasks = [
        dataclasses.replace(
            task,
            task_id=names.get(task.task_id, task.task_id),
            upstream=tuple(names.get(name, name) for name in task.upstream),
            expand_xcoms=tuple(names.get(name, name) for name in task.expand_xcoms),
        )
        for task in spec.tasks.values()
    ]
    return dataclasses.replace(spec, tasks={task.task_id: task for task in tasks})


def _without_a_task(spec: DagSpec, rng: random.Random) -> DagSpec:
    gone = rng.choice(list(spec.tasks))
    tasks = [
        dataclasses.replace(task, upstream=tuple(name for name in task.upstream if name != gone))
        for task in spec.tasks.values()
        if task.task_id != gone
    ]
    return dataclasses.replace(spec, tasks={task.task_id: task for task in tasks}) if tasks else spec


def _with_another_argument(spec: DagSpec, rng: random.Random) -> DagSpec:
    values: list[Any] = [[1, 2, {"a": 1}], [1, {"a": 1}], {"a": {"b": True}}, {"a": {"b": 1}}, "x\ny", None]
    more = {"x": rng.choice(values)}
    return _with_task(spec, rng, lambda task: dataclasses.replace(task, arguments={**task.arguments, **more}))


def _with_another_setting(spec: DagSpec, rng: random.Random) -> DagSpec:
    fields: list[dict[str, Any]] = [
        {"retries": 3},
        {"trigger_rule": "all_done"},
        {"connections": ("c",)},
        {"xcoms": ("t0",)},
        {"pool": "gpu"},
        {"outlets": ("a", "b")},
        {"outlets": ("b", "a")},
    ]
    return _with_task(spec, rng, lambda task: dataclasses.replace(task, **rng.choice(fields)))


def _with_another_schedule(spec: DagSpec, rng: random.Random) -> DagSpec:
    schedules = [
        None,
        ScheduleSpec(cron="@daily"),
        ScheduleSpec(cron="0 * * * *", semantics="trigger"),
        ScheduleSpec(cron=("0 6 * * *", "0 7 * * *")),
        ScheduleSpec(cron=("0 7 * * *", "0 6 * * *")),
        ScheduleSpec(every=900.0),
        ScheduleSpec(datasets=("a", "b")),
        ScheduleSpec(cron="@once"),
    ]
    start = rng.choice([None, datetime(2026, 1, 1, tzinfo=UTC)])
    return dataclasses.replace(spec, schedule=rng.choice(schedules), start_date=start, catchup=rng.random() < 0.5)


def _with_other_params(spec: DagSpec, rng: random.Random) -> DagSpec:
    params = {**spec.params, "x": {"type": "integer", "default": rng.choice([1, 2])}}
    return dataclasses.replace(spec, params=params)


def _with_other_groups(spec: DagSpec, rng: random.Random) -> DagSpec:
    return dataclasses.replace(spec, groups=rng.choice([{}, {"g": None}, {"g": "Doc"}]))


def _rewired(spec: DagSpec, rng: random.Random) -> DagSpec:
    """A task without its first upstream task, or after the first task of the DAG."""
    first = next(iter(spec.tasks))
    return _with_task(
        spec,
        rng,
        lambda task: dataclasses.replace(task, upstream=task.upstream[1:] or (first,) * (task.task_id != first)),
    )


def _with_other_settings(spec: DagSpec, rng: random.Random) -> DagSpec:
    fields: list[dict[str, Any]] = [
        {"owner": "me"},
        {"catchup": True},
        {"run_state": "all_tasks"},
        {"on_failure": ("log", "x")},
    ]
    return dataclasses.replace(spec, **rng.choice(fields))


def _with_task(spec: DagSpec, rng: random.Random, edit: Callable[[TaskSpec], TaskSpec]) -> DagSpec:
    task = edit(spec.tasks[rng.choice(list(spec.tasks))])
    return dataclasses.replace(spec, tasks={**spec.tasks, task.task_id: task})


EDITS: list[Callable[[DagSpec, random.Random], DagSpec]] = [
    _reordered,
    _tagged,
    _with_upstream_turned,
    _with_upstream_turned,
    _with_upstream_turned,
    _renamed,
    _without_a_task,
    _with_another_argument,
    _with_another_setting,
    _with_another_schedule,
    _with_other_params,
    _with_other_groups,
    _with_other_settings,
    _rewired,
    _rewired,
]

KINDS = {"added": "removed", "removed": "added"}


def mirrored(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the way back should tell, from what the way there tells."""
    schedule = data["schedule"]
    return {
        "same": data["same"],
        "tasks": [_mirrored_task(task) for task in data["tasks"]],
        "settings": [_mirrored_change(change) for change in data["settings"]],
        "params": [_mirrored_part(part) for part in data["params"]],
        "groups": [_mirrored_part(part) for part in data["groups"]],
        "schedule": schedule
        and {
            "changes": [_mirrored_change(change) for change in schedule["changes"]],
            "words": {"old": schedule["words"]["new"], "new": schedule["words"]["old"]},
            "fires": [
                {**fire, "kind": KINDS.get(fire["kind"], fire["kind"]), "old": fire["new"], "new": fire["old"]}
                for fire in schedule["fires"]
            ],
            "consequences": schedule["consequences"],  # without the progress of runs they are the same
        },
    }


def _mirrored_task(task: Mapping[str, Any]) -> dict[str, Any]:
    operator = next((change["old"] for change in task["changes"] if change["path"] == "operator"), task["operator"])
    return {
        "task_id": task["was"] or task["task_id"],
        "was": task["task_id"] if task["was"] else None,
        "kind": KINDS.get(task["kind"], task["kind"]),
        "operator": operator,
        "upstream_added": task["upstream_removed"],
        "upstream_removed": task["upstream_added"],
        "changes": [_mirrored_change(change) for change in task["changes"]],
    }


def _mirrored_part(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": part["name"],
        "kind": KINDS.get(part["kind"], part["kind"]),
        "changes": [_mirrored_change(change) for change in part["changes"]],
    }


def _mirrored_change(change: Mapping[str, Any]) -> dict[str, Any]:
    other = {"path": change["path"], "kind": KINDS.get(change["kind"], change["kind"])}
    return other | {{"old": "new", "new": "old"}[side]: change[side] for side in ("old", "new") if side in change}


def normal(value: Any) -> Any:
    """The data with its lists of things in one order, and tuples as lists."""
    if isinstance(value, Mapping):
        return {key: normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [normal(item) for item in value]
        return sorted(items, key=repr) if items and isinstance(items[0], dict) else items
    return value

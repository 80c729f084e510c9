"""How a plan to backfill is carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from yarrow.errors import Conflict
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec
from yarrow.params import run_params
from yarrow.plans.backfilling import selected_tasks
from yarrow.plans.partial import cut_out
from yarrow.plans.plan import RunAction, RunChange
from yarrow.plans.requests import BackfillRequest
from yarrow.states import RunState
from yarrow.store import clearing, deadlines
from yarrow.store.catalog import read_dag
from yarrow.store.database import Database, Raced, insert_new
from yarrow.store.specs import Specs
from yarrow.store.tables import backfill, dag, dag_run, dag_version, task_instance
from yarrow.store.transitions import append, history_line, run_event

RUN_TYPE = "backfill"

_LOCK_DAG = select(dag.c.dag_id).where(dag.c.dag_id == bindparam("dag_id")).with_for_update()
_ADD = insert(backfill).returning(backfill.c.id)
_SOURCE = select(dag_version.c.source).where(
    dag_version.c.dag_id == bindparam("dag_id"), dag_version.c.version == bindparam("version")
)
_LOWEST_NUMBER = select(func.min(dag_version.c.number)).where(dag_version.c.dag_id == bindparam("dag_id"))
_MADE = select(
    dag_run.c.run_id, dag_run.c.run_type, dag_run.c.logical_date, dag_run.c.data_interval_end, dag_run.c.queued_at
).where(dag_run.c.backfill_id == bindparam("id"))
_THIS_RUN = (dag_run.c.dag_id == bindparam("of_dag_id"), dag_run.c.run_id == bindparam("of_run_id"))
_TAKE_OVER = (
    update(dag_run)
    .where(*_THIS_RUN)
    .values(
        backfill_id=bindparam("new_id"), backfill_place=bindparam("new_place"), priority_class=bindparam("new_class")
    )
)
_REPLACE_PARAMS = update(dag_run).where(*_THIS_RUN).values(params=bindparam("new_params"))
_CLASS_OF_TASKS = (
    update(task_instance)
    .where(task_instance.c.dag_run_id.in_(select(dag_run.c.id).where(*_THIS_RUN)))
    .values(priority_class=bindparam("new_class"))
)


def begin(
    database: Database,
    specs: Specs,
    connection: Connection,
    plan_id: str,
    request: BackfillRequest,
    runs: Sequence[RunChange],
    who: str,
    at: datetime,
) -> int:
    """Makes the backfill and its runs, the new ones without task instances: these are made when the run starts.

    The runs of the span are locked, as in `situations.load`.

    Returns:
        The id of the backfill.

    Raises:
        Conflict: A run of another logical date has the run_id of one that is to be made.
        Raced: The DAG has got another version just now.
    """
    connection.execute(_LOCK_DAG, {"dag_id": request.dag_id})
    newest = specs.get(connection, request.dag_id, read_dag(connection, request.dag_id).version)
    places = {run.run_id: place for place, run in enumerate((run for run in runs if _happens(run)), 1)}
    id: int = connection.execute(_ADD, _backfill_row(plan_id, request, len(places), who, at)).scalar_one()
    created = [run for run in runs if run.action is RunAction.CREATE]
    if created:
        spec = cut_out(newest, selected_tasks(request, newest))
        if any(run.version != spec.version for run in created):
            raise Raced  # another version came between the plan and the lock
        if spec.version != newest.version:
            _add_cut(database, connection, newest, spec, at)
        params = run_params(spec, request.params)
        rows = [_run_row(request, run, id, places[run.run_id], params, who, at) for run in created]
        _create(database, connection, spec, rows, id)
    if rerun := [run for run in runs if _happens(run) and run.action is not RunAction.CREATE]:
        clearing.carry_out(specs, connection, request.dag_id, rerun, request.reason, who, at)
        _take_over(specs, connection, request, rerun, id, places)
    reason = f"backfill {id}, plan {plan_id}: {len(places):,} run{'' if len(places) == 1 else 's'}"
    append(connection, [history_line("backfill.created", at=at, who=who, dag_id=request.dag_id, reason=reason)])
    return id


def _happens(run: RunChange) -> bool:
    return run.action is not RunAction.SKIP


def _backfill_row(plan_id: str, request: BackfillRequest, count: int, who: str, at: datetime) -> dict[str, Any]:
    return {
        "dag_id": request.dag_id,
        "plan_id": plan_id,
        "from_date": request.from_date,
        "to_date": request.to_date,
        "reprocess": request.reprocess,
        "tasks": request.tasks,
        "params": dict(request.params),
        "max_active_runs": request.max_active_runs,
        "run_backwards": request.run_backwards,
        "priority_class": request.priority_class,
        "run_count": count,
        "is_paused": False,
        "created_at": at,
        "created_by": who,
    }


# Runs that it makes


def _add_cut(database: Database, connection: Connection, newest: DagSpec, spec: DagSpec, at: datetime) -> None:
    """Adds the version that is a part of the newest, unless there is one that is the same."""
    names = {"dag_id": newest.dag_id, "version": newest.version}
    lowest: int = connection.execute(_LOWEST_NUMBER, {"dag_id": newest.dag_id}).scalar_one()
    row = {
        "dag_id": newest.dag_id,
        "version": spec.version,
        "number": min(lowest, 0) - 1,
        "cut_from": newest.version,
        "spec": spec.to_json(),
        "source": connection.execute(_SOURCE, names).scalar_one(),
        "created_at": at,
    }
    connection.execute(insert_new(database, dag_version), row)


def _run_row(
    request: BackfillRequest,
    run: RunChange,
    id: int,
    place: int,
    params: Mapping[str, Json],
    who: str,
    at: datetime,
) -> dict[str, Any]:
    return {
        "dag_id": request.dag_id,
        "run_id": run.run_id,
        "run_type": RUN_TYPE,
        "version": run.version,
        "state": RunState.QUEUED,
        "logical_date": run.logical_date,
        "data_interval_start": run.data_interval_start,
        "data_interval_end": run.data_interval_end,
        "run_after": run.data_interval_end,
        "params": params,
        "triggered_by": who,
        "queued_at": at,
        "backfill_id": id,
        "backfill_place": place,
        "priority_class": request.priority_class,
    }


def _create(database: Database, connection: Connection, spec: DagSpec, rows: Sequence[dict[str, Any]], id: int) -> None:
    connection.execute(insert_new(database, dag_run), rows)
    made = connection.execute(_MADE, {"id": id}).all()
    run_ids = {run.run_id for run in made}
    if taken := [row["run_id"] for row in rows if row["run_id"] not in run_ids]:
        raise Conflict(
            f"The DAG {spec.dag_id!r} has a run {taken[0]!r} already, of another logical date.",
            hint="Leave its logical date out of the span, or delete that run.",
        )
    append(
        connection,
        [
            run_event(
                (row["dag_id"], row["run_id"]), None, RunState.QUEUED, row["queued_at"], row["triggered_by"], None
            )
            for row in rows
        ],
    )
    deadlines.add(database, connection, spec, *made)


# Runs that there are


def _take_over(
    specs: Specs,
    connection: Connection,
    request: BackfillRequest,
    runs: Sequence[RunChange],
    id: int,
    places: Mapping[str, int],
) -> None:
    """Makes runs that were cleared those of the backfill."""
    names = [{"of_dag_id": request.dag_id, "of_run_id": run.run_id} for run in runs]
    values = [{"new_id": id, "new_place": places[run.run_id], "new_class": request.priority_class} for run in runs]
    connection.execute(_TAKE_OVER, [{**name, **value} for name, value in zip(names, values, strict=True)])
    connection.execute(_CLASS_OF_TASKS, [{**name, "new_class": request.priority_class} for name in names])
    if request.params:
        params = {
            version: run_params(specs.get(connection, request.dag_id, version), request.params)
            for version in {str(run.version) for run in runs}
        }
        connection.execute(
            _REPLACE_PARAMS,
            [{**name, "new_params": params[str(run.version)]} for name, run in zip(names, runs, strict=True)],
        )

"""Executes one attempt of a task: resolve, load, render, check, execute, classify, spill."""

from __future__ import annotations

import logging
import shutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from yarrow import xcom
from yarrow.clock import Clock
from yarrow.connections import Connection
from yarrow.context import AttemptContext, CachedResult, Services, Surroundings, work_dir
from yarrow.error_kinds import error_kinds
from yarrow.errors import Fail, Interrupted, Reschedule, Skip, TemplateError, YarrowError
from yarrow.jsontypes import Json
from yarrow.language.containers import Record
from yarrow.language.parameters import parameters, render_arguments
from yarrow.language.template import render_value, run_names
from yarrow.operator import Operator
from yarrow.protocol import Assignment, Report
from yarrow.registry import operator_class
from yarrow.result import plain_json
from yarrow.result_cache import result_key, still_there
from yarrow.secrets import Masker, masker_for
from yarrow.states import AttemptState

__all__ = ["Services", "Surroundings", "discard_work", "execute"]

_LONGEST_REASON = 1000  # characters
_DEEPEST_TRACEBACK = 40  # frames
_OUR_PACKAGES = ("yarrow", "yarrow_operators", "yarrow_executor")


def execute(
    assignment: Assignment,
    *,
    config: Surroundings,
    services: Services,
    log: logging.Logger,
    clock: Clock,
    operator: Operator | None = None,
) -> Report:
    """Executes one attempt and says how it ended; whatever the task raises ends up in the report.

    Args:
        assignment: The attempt.
        config: Where it works.
        services: What it may ask for while it runs.
        log: Gets what the task logs, and the traceback of an unexpected error.
        clock: Tells when it started and ended.
        operator: Executed in place of the one that the assignment names; nothing is rendered for it then.

    Raises:
        BaseException: Only what is no `Exception`, such as `KeyboardInterrupt`, is passed on to the caller.
    """
    started_at = clock()
    context = AttemptContext(assignment, config, services, log, clock, started_at)
    try:
        if operator is not None:
            report = _conclude(assignment, operator, _perform(operator, context), config)
        else:
            report = _run(assignment, config, services, context)
    except Exception as error:  # noqa: BLE001 - the outer edge of a task: whatever it raises is its outcome
        report = _classify(assignment, error, log)
    return replace(report, metrics=context.metrics, started_at=started_at.isoformat(), ended_at=clock().isoformat())


def discard_work(assignment: Assignment, report: Report, work_root: Path) -> None:
    """Removes the work folder of a task instance that gets no further try. Call it once the report is accepted."""
    over = report.state in (AttemptState.SUCCESS, AttemptState.SKIPPED)
    given_up = report.state == AttemptState.FAILED and (
        not report.retryable or assignment.try_number >= assignment.max_tries
    )
    if over or given_up:
        shutil.rmtree(work_dir(assignment, work_root), ignore_errors=True)


def _run(assignment: Assignment, config: Surroundings, services: Services, context: AttemptContext) -> Report:
    """Makes the operator of the task, and executes it unless an earlier attempt has come to its result already."""
    names = _names(assignment)
    kind = operator_class(assignment.operator)
    rendered = render_arguments(kind, assignment.arguments, names)
    operator = kind(**rendered)
    key = _cache_key(assignment, operator, rendered, names, context)
    if key is not None and (found := services.cached_result(key)) is not None:
        if still_there(found.xcom):
            context.log.info("Result taken from the cache: attempt %s of run %s.", found.attempt_id, found.run_id)
            return _cached(assignment, operator, found, key)
        context.log.info("The cached result of run %s is not used: a data set that it names is gone.", found.run_id)
    return replace(_conclude(assignment, operator, _perform(operator, context), config), cache_key=key)


def _cache_key(
    assignment: Assignment,
    operator: Operator,
    rendered: Mapping[str, Json],
    names: Mapping[str, Any],
    context: AttemptContext,
) -> str | None:
    """The key of the result; None when the task has no cache, or its operator can't tell what it depends on."""
    if assignment.cache is None:
        return None
    own_key = render_value(assignment.cache.get("key"), names)
    try:
        return result_key(assignment, operator, rendered, own_key, context)
    except Exception as error:  # noqa: BLE001 - a third party's cache_inputs may raise anything; the task can do without
        reason = _reason(error, masker_for(assignment.connections, assignment.variables))
        context.log.warning("The cache is not used: %s", reason)
        return None


def _cached(assignment: Assignment, operator: Operator, found: CachedResult, key: str) -> Report:
    """The report of an attempt whose result an earlier one came to."""
    value = xcom.resolve(found.xcom) if found.has_xcom else None
    return Report(
        assignment.attempt_id,
        AttemptState.SUCCESS,
        xcom=found.xcom,
        has_xcom=found.has_xcom,
        follow=_follow(assignment, value) if operator.control else None,
        cache_key=key,
        cached=True,
    )


def _names(assignment: Assignment) -> Mapping[str, Any]:
    """Everything that the templates of the task may name."""
    names = run_names(
        dag_id=assignment.dag_id,
        run_id=assignment.run_id,
        logical_date=datetime.fromisoformat(assignment.logical_date),
        data_interval_start=datetime.fromisoformat(assignment.data_interval_start),
        data_interval_end=datetime.fromisoformat(assignment.data_interval_end),
        timezone=assignment.timezone,
    )
    if assignment.map_value is not None:
        names["map"] = assignment.map_value
    return {
        **names,
        "task_id": assignment.task_id,
        "try_number": assignment.try_number,
        "map_index": assignment.map_index,
        "xcom": {task_id: _xcom(assignment, task_id) for task_id in assignment.xcoms},
        "params": assignment.params,
        "var": assignment.variables,
        "conn": {conn_id: _parts(conn_id, uri) for conn_id, uri in assignment.connections.items()},
    }


def _xcom(assignment: Assignment, task_id: str) -> Json:
    """The XCom of an upstream task; that of a mapped one is a list of values, each of which may be a reference."""
    value = assignment.xcoms[task_id]
    if task_id in assignment.mapped_xcoms and isinstance(value, Sequence) and not isinstance(value, str):
        return [xcom.resolve(item) for item in value]
    return xcom.resolve(value)


def _parts(conn_id: str, uri: str) -> Mapping[str, Any]:
    """A connection as templates see it."""
    connection = Connection.from_uri(conn_id, uri)
    names = ("host", "port", "login", "password", "schema", "uri", "extra")
    return {name: getattr(connection, name) for name in names}


def _perform(operator: Operator, context: AttemptContext) -> Any:
    """The task itself. `sys.exit()` in it means what it means at the end of a program."""
    try:
        return operator.execute(context)
    except SystemExit as error:
        if type(error) is not SystemExit:  # a subclass is somebody's signal to this process
            raise
        if error.code in (None, 0):
            return None
        raise Fail(f"The task called sys.exit({error.code!r}).") from error


def _conclude(assignment: Assignment, operator: Operator, result: Any, config: Surroundings) -> Report:
    """The report of an attempt that came to its end."""
    value = plain_json(result)
    _check_outputs(assignment.operator, operator, value)
    follow = _follow(assignment, value) if operator.control else None
    if value is None:
        return Report(assignment.attempt_id, AttemptState.SUCCESS, follow=follow)
    key = f"{assignment.identity}/{assignment.attempt_id}"
    kept = xcom.spill(value, config.objects_url, key, config.xcom_inline_limit)
    return Report(assignment.attempt_id, AttemptState.SUCCESS, xcom=kept, has_xcom=True, follow=follow)


def _check_outputs(name: str, operator: Operator, value: Json) -> None:
    """Downstream templates were proved against the declared outputs, so they have to be there."""
    outputs = parameters(type(operator)).outputs
    if not isinstance(outputs, Record):
        return
    required = [field for field, declared in outputs.fields.items() if declared.required]
    if not isinstance(value, Mapping):
        listed = ", ".join(f"`{field}`" for field in outputs.fields)
        raise Fail(f"The operator `{name}` declares the outputs {listed} but returned {_kind(value)}.")
    missing = [f"`{field}`" for field in required if field not in value]
    if missing:
        raise Fail(f"The operator `{name}` declares the outputs {', '.join(missing)} but did not return them.")


def _kind(value: Json) -> str:
    return "nothing" if value is None else f"{value!r:.60} instead of an object"


def _follow(assignment: Assignment, value: Json) -> Sequence[str] | None:
    """What a control operator chose: some direct downstream tasks, nothing at all, or None to go on as usual."""
    chosen = value.get("follow") if isinstance(value, Mapping) else None
    if chosen is None:
        return None
    if not isinstance(chosen, Sequence) or isinstance(chosen, str):
        raise Fail(f"The result's `follow` is a list of task ids or null, not {chosen!r:.80}.")
    strange = [task_id for task_id in chosen if task_id not in assignment.dag_tasks]
    if strange:
        listed = ", ".join(f"`{task_id}`" for task_id in assignment.dag_tasks) or "none"
        raise Fail(f"`{strange[0]}` can't be chosen, it is not directly downstream. Directly downstream: {listed}.")
    return [str(task_id) for task_id in chosen]


def _classify(assignment: Assignment, error: Exception, log: logging.Logger) -> Report:
    """The report of an attempt that raised."""
    masker = masker_for(assignment.connections, assignment.variables)
    reason = _reason(error, masker)
    if isinstance(error, Skip):
        log.info("Skipped: %s", reason)
        return Report(assignment.attempt_id, AttemptState.SKIPPED, reason=reason)
    if isinstance(error, Reschedule) and _is_moment(error.until):
        until = error.until.astimezone(UTC)
        log.info("%s Looking again at %s.", reason, until.isoformat(sep=" ", timespec="seconds"))
        return Report(assignment.attempt_id, AttemptState.DEFERRED, reason=reason, resume_at=until.isoformat())
    if isinstance(error, Interrupted):
        log.info("Interrupted; it will run again.")
        return Report(assignment.attempt_id, AttemptState.CANCELLED, reason=reason)
    if isinstance(error, Reschedule):
        reason = (
            f"Reschedule needs an aware datetime, such as `context.now() + timedelta(minutes=5)`, not {error.until!r}."
        )
    if isinstance(error, YarrowError) and not _is_users(error):
        log.error("%s", reason)
    else:
        log.error("%s", masker.mask(_traceback(error)))
    return Report(
        assignment.attempt_id,
        AttemptState.FAILED,
        reason=reason,
        retryable=not isinstance(error, Fail | TemplateError | Reschedule),
        kinds=error_kinds(error),
    )


def _is_moment(value: object) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None


def _is_users(error: YarrowError) -> bool:
    """Whether an unexpected error is behind one of ours, so that its traceback is worth showing."""
    cause = error.__cause__
    if cause is None or isinstance(cause, YarrowError):
        return False
    frames = traceback.walk_tb(cause.__traceback__)
    return any(_package(frame) not in (*_OUR_PACKAGES, *sys.stdlib_module_names) for frame, _ in frames)


def _reason(error: Exception, masker: Masker) -> str:
    """The error on one line, without secrets and control characters."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - the __str__ of a user's exception may raise anything
        message = "(its message can't be shown)"
    if not isinstance(error, YarrowError):
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    line = masker.mask(" ".join("".join(c if c.isprintable() else " " for c in message).split()))
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 1]}…"


def _traceback(error: BaseException) -> str:
    """The traceback from where the user's code begins."""
    begin = _users_part(error.__traceback__)
    shown = error.with_traceback(begin) if begin is not None else error
    return "".join(traceback.format_exception(shown, limit=-_DEEPEST_TRACEBACK)).rstrip()


def _users_part(part: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of Yarrow that it begins with; None when there are no others."""
    while part is not None and _package(part.tb_frame) in _OUR_PACKAGES:
        part = part.tb_next
    return part


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]

"""Runs a shell command."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from yarrow import Context, Fail, Operator, Skip, YarrowError, param
from yarrow.jsontypes import Json
from yarrow.language.template import template_names
from yarrow.operator import ArgumentPath
from yarrow_operators.process import ProcessTree

_FROM_ELSEWHERE = frozenset({"params", "xcom", "map", "var", "conn"})
"""What a template may put in that the author of the DAG file did not write."""
_MAX_JSON_OUTPUT = 8 * 1024 * 1024  # characters of standard output kept for `output: json`


class ExitCode(YarrowError):
    """A command ended with an exit code that says it failed."""

    def __init__(self, code: int, hint: str | None) -> None:
        super().__init__(f"The command ended with exit code {code}.", hint=hint)
        self.kinds = (f"ExitCode.{code}",)


class Bash(Operator):
    """Runs a command and streams what it prints into the task's log.

    A text is run by bash and stops at the first command that fails, also inside a pipe (`-e -o pipefail`). A list is a
    program and its arguments, run without any shell.

    Don't put values into the text of a command: what is in a parameter or an XCom could then be executed. Pass them
    with `env` and write `"$NAME"`, or use a list. The command also finds `YARROW_DAG_ID`, `YARROW_RUN_ID`,
    `YARROW_TASK_ID`, `YARROW_TRY_NUMBER`, `YARROW_LOGICAL_DATE`, `YARROW_DATA_INTERVAL_START`,
    `YARROW_DATA_INTERVAL_END`, `YARROW_PARAMS` (JSON) and `YARROW_WORK_DIR` in its environment, beside the worker's
    own variables other than `YARROW_...`, which hold Yarrow's secrets.

    When the task ends or is stopped, every process that it started ends with it.

    For `retry_on` and `no_retry_on` a command that failed is an `ExitCode`, and one that ended with 75 an
    `ExitCode.75`.
    """

    command: str | list[str] = param(
        doc="A text for bash, or a list of a program and its arguments.",
        examples=('curl --fail --output "$FILE" "$URL"', ["python", "-m", "my_lib.build", "--day", "{{ ds }}"]),
    )
    env: dict[str, Json] = param(
        default={},
        doc="Environment variables. A value that is not a text is passed as JSON.",
        examples=({"THRESHOLD": "{{ params.threshold }}"},),
    )
    cwd: str | None = param(
        default=None, doc="The folder to run in. By default the task's own work folder, which survives retries."
    )
    output: Literal["last_line", "json", "none"] = param(
        default="last_line",
        doc="The XCom: the last line of standard output that is not empty, the whole of standard output read as one "
        "JSON document, or nothing.",
    )
    skip_on_exit_code: int | None = param(
        default=99, minimum=1, maximum=255, doc="The exit code that says: there was nothing to do, skip this task."
    )

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """A list without a program."""
        if arguments["command"] == []:
            yield ("command",), "`command` is an empty list: give a program and its arguments."

    @classmethod
    def advise(cls, arguments: Mapping[str, Any]) -> Iterator[tuple[ArgumentPath, str]]:
        """A value from elsewhere in the text of a command is read by the shell: `; rm -rf ~` would be executed."""
        command = arguments.get("command")
        if not isinstance(command, str):
            return
        paths = [path for path in template_names(command) if path[0] in _FROM_ELSEWHERE]
        if paths:
            named = " and ".join(f"`{'.'.join(path)}`" for path in paths[:3])
            variable = re.sub(r"\W", "_", paths[0][-1]).upper()
            yield (
                ("command",),
                f"A template puts {named} into the text of a command, and bash would execute what is in it. "
                f'Pass it with `env: {{{variable}: ...}}` and write `"${variable}"`, or give the command as a list.',
            )

    def execute(self, context: Context) -> Json:
        lines = _Output(self.output)
        with self._start(context) as process:
            for stream, line in process.lines(context.check_interrupted):
                file = sys.stdout if stream == "stdout" else sys.stderr
                file.write(line + "\n")
                file.flush()
                if stream == "stdout":
                    lines.add(line)
            code = process.returncode
        if code != 0:
            self._raise_for(code)
        return lines.value()

    def _start(self, context: Context) -> ProcessTree:
        argv = self.command if isinstance(self.command, list) else ["bash", "-e", "-o", "pipefail", "-c", self.command]
        if not argv:
            raise Fail("`command` is an empty list.", hint="Give a program and its arguments.")
        folder = Path(self.cwd) if self.cwd else context.work_dir
        if not folder.is_dir():
            raise Fail(f"The folder `{folder}` of `cwd` does not exist on this worker.")
        try:
            return ProcessTree(argv, cwd=folder, env=self._environment(context))
        except FileNotFoundError as error:
            raise Fail(f"There is no program `{argv[0]}` on this worker.") from error
        except PermissionError as error:
            raise Fail(f"The program `{argv[0]}` may not be executed on this worker.") from error
        except (OSError, ValueError) as error:
            raise Fail(f"The command can't be started: {error}.") from error

    def _environment(self, context: Context) -> dict[str, str]:
        # The worker's settings are not the command's; by its attempt the worker finds what a command leaves behind.
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("YARROW_") or name == "YARROW_ATTEMPT_ID"
        }
        told = {
            "YARROW_DAG_ID": context.dag_id,
            "YARROW_RUN_ID": context.run_id,
            "YARROW_TASK_ID": context.task_id,
            "YARROW_TRY_NUMBER": str(context.try_number),
            "YARROW_LOGICAL_DATE": context.logical_date.isoformat(),
            "YARROW_DATA_INTERVAL_START": context.data_interval_start.isoformat(),
            "YARROW_DATA_INTERVAL_END": context.data_interval_end.isoformat(),
            "YARROW_PARAMS": _as_text(dict(context.params)),
            "YARROW_WORK_DIR": str(context.work_dir),
        }
        return inherited | told | {name: _as_text(value) for name, value in self.env.items()}

    def _raise_for(self, code: int) -> None:
        if code == self.skip_on_exit_code:
            raise Skip(f"The command ended with exit code {code}: nothing to do.")
        if code < 0:
            raise YarrowError(f"The command was ended by signal {-code} ({_signal_name(-code)}).")
        hint = {126: "It may not be executed.", 127: "A program was not found."}.get(code)
        if code > 128 and (name := _signal_name(code - 128)) != "unknown":
            hint = f"A program in it was ended by {name}."
        raise ExitCode(code, hint)


class _Output:
    """What becomes the XCom."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._last: str | None = None
        self._lines: list[str] = []
        self._size = 0

    def add(self, line: str) -> None:
        if line.strip():
            self._last = line.strip()
        if self._kind == "json":
            self._size += len(line) + 1
            if self._size > _MAX_JSON_OUTPUT:
                raise Fail(
                    f"The command printed more than {_MAX_JSON_OUTPUT // 1024 // 1024} MiB, too much for an XCom.",
                    hint="Write the data to a file and print its address.",
                )
            self._lines.append(line)

    def value(self) -> Json:
        if self._kind == "last_line":
            return self._last
        if self._kind == "none":
            return None
        try:
            value: Json = json.loads("\n".join(self._lines))
        except ValueError as error:
            raise Fail(
                f"`output: json` needs one JSON document on standard output: {error}.",
                hint="Print everything else to standard error (`>&2`).",
            ) from error
        return value


def _as_text(value: Json | Mapping[str, Json]) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"

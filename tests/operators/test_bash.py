"""The bash operator, with real shells."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yarrow.error_kinds import error_kinds
from yarrow.errors import Fail, Interrupted, Skip, YarrowError
from yarrow_operators.bash import Bash


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter when it ends between opening and reading
        return False
    return state != "Z"


def test_the_last_line_is_the_xcom_and_everything_is_in_the_log(
    context: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    value = Bash(command="echo one; echo oops >&2; echo two; echo").execute(context)

    assert value == "two"
    printed = capfd.readouterr()
    assert printed.out == "one\ntwo\n\n"
    assert printed.err == "oops\n"


def test_output_json_and_none(context: Any) -> None:
    assert Bash(command="""echo '{"a": [1,'; echo '2]}'""", output="json").execute(context) == {"a": [1, 2]}
    assert Bash(command="echo x", output="none").execute(context) is None
    assert Bash(command="true").execute(context) is None


def test_output_that_is_not_json_says_so(context: Any) -> None:
    with pytest.raises(Fail, match="needs one JSON document"):
        Bash(command="echo loading; echo '{}'", output="json").execute(context)


def test_a_list_is_run_without_a_shell(context: Any) -> None:
    assert Bash(command=["printf", "%s", "$(id) ; `id`"]).execute(context) == "$(id) ; `id`"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("echo {{ params.who }}", "`params.who`"),
        ("echo {{ xcom.a.rows + 1 }} {{ ds }} {{ var.b | upper }}", "`xcom.a.rows` and `var.b`"),
        ("curl -u me:{{ conn.api.password }} x", "`conn.api.password`"),
        ("cat {{ map.path }}", "`map.path`"),
        ("echo {{ ds }} {{ run_id }}", None),
        (["echo", "{{ params.who }}"], None),
        ('echo "$WHO"', None),
    ],
)
def test_a_value_spliced_into_the_text_of_a_command_is_advised_against(command: Any, told: str | None) -> None:
    advice = list(Bash.advise({"command": command, "env": {"WHO": "{{ params.who }}"}}))
    assert [path for path, _ in advice] == [("command",)] * (told is not None)
    assert told is None or told in advice[0][1]


def test_values_reach_the_command_as_environment_variables_and_stay_text(context: Any) -> None:
    nasty = "$(touch pwned); `touch pwned` '\" --flag\n{{ 7 * 7 }}"
    value = Bash(
        command="""python3 -c 'import os, json; print(json.dumps([os.environ[n] for n in ("A", "B", "C", "D")]))'""",
        env={"A": nasty, "B": 0.5, "C": {"x": [True, None]}, "D": "ü"},
        output="json",
    ).execute(context)

    assert value == [nasty, "0.5", '{"x": [true, null]}', "ü"]
    assert list(context.work_dir.iterdir()) == []


def test_the_command_knows_its_run_and_not_the_secrets_of_yarrow(context: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("YARROW_CONN_DB", "postgres://u:hunter22@h/db")
    monkeypatch.setenv("SHELL_TOOL", "kept")
    context.params = {"threshold": 0.5}
    value = Bash(
        command="""echo "$YARROW_DAG_ID $YARROW_LOGICAL_DATE $YARROW_PARAMS $SHELL_TOOL ${YARROW_CONN_DB-none}" """
    ).execute(context)

    assert value == 'flights 2013-01-01T00:00:00+00:00 {"threshold": 0.5} kept none'


def test_it_runs_in_the_work_folder_or_in_cwd(context: Any, tmp_path: Path) -> None:
    assert Bash(command="pwd").execute(context) == str(context.work_dir)
    assert Bash(command="pwd", cwd=str(tmp_path)).execute(context) == str(tmp_path)
    with pytest.raises(Fail, match="does not exist"):
        Bash(command="pwd", cwd=str(tmp_path / "no")).execute(context)


@pytest.mark.parametrize("command", ["false; echo on", "false | cat; echo on", "exit 1"])
def test_it_stops_at_the_first_command_that_fails(context: Any, command: str) -> None:
    with pytest.raises(YarrowError, match="exit code 1") as caught:
        Bash(command=command).execute(context)

    assert not isinstance(caught.value, Fail)  # it may be retried


def test_the_reason_names_what_went_wrong(context: Any) -> None:
    with pytest.raises(YarrowError, match=r"exit code 127. A program was not found"):
        Bash(command="no-such-program").execute(context)
    with pytest.raises(YarrowError, match=r"signal 9 .SIGKILL"):
        Bash(command="kill -KILL $$").execute(context)
    with pytest.raises(YarrowError, match=r"exit code 143. A program in it was ended by SIGTERM"):
        Bash(command="bash -c 'kill -TERM $$'; exit").execute(context)
    with pytest.raises(Fail, match="no program `no-such-program`"):
        Bash(command=["no-such-program"]).execute(context)
    with pytest.raises(Fail, match="may not be executed"):
        Bash(command=["/etc/passwd"]).execute(context)
    with pytest.raises(Fail, match="empty list"):
        Bash(command=[]).execute(context)


def test_an_exit_code_that_skips(context: Any) -> None:
    with pytest.raises(Skip, match="exit code 99"):
        Bash(command="exit 99").execute(context)
    with pytest.raises(Skip):
        Bash(command="exit 3", skip_on_exit_code=3).execute(context)
    with pytest.raises(YarrowError, match="exit code 99"):
        Bash(command="exit 99", skip_on_exit_code=None).execute(context)


def test_lines_arrive_while_the_command_runs(context: Any, monkeypatch: Any) -> None:
    """The command waits for a file that the test makes when it has seen the first line."""
    seen: list[str] = []

    class Out:
        def write(self, text: str) -> None:
            seen.append(text)
            (context.work_dir / "go").touch()

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stdout", Out())
    Bash(command="echo first; until [ -e go ]; do sleep 0.01; done; echo second").execute(context)

    assert seen == ["first\n", "second\n"]


def test_what_is_not_text_and_what_is_very_long_is_readable(context: Any, capfd: pytest.CaptureFixture[str]) -> None:
    Bash(command=r"printf 'a\xffb\r\nprogress 1\rprogress 2\nno end'").execute(context)
    assert capfd.readouterr().out.splitlines() == ["a\\xffb", "progress 1", "progress 2", "no end"]

    Bash(command="head -c 200000 /dev/zero | tr '\\0' x", output="none").execute(context)
    lines = capfd.readouterr().out.splitlines()
    assert sum(len(line) for line in lines) == 200_000
    assert max(len(line) for line in lines) <= 65_536


def test_too_much_json_is_refused(context: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Fail, match="more than 8 MiB"):
        Bash(command="head -c 9000000 /dev/zero | tr '\\0' x; sleep 60", output="json").execute(context)


def test_what_runs_on_in_the_background_ends_with_the_command(context: Any) -> None:
    pid = Bash(command="(sleep 30; touch ended) & echo $!").execute(context)
    quiet = Bash(command="(sleep 30; touch ended) >/dev/null 2>&1 & echo $!").execute(context)

    assert eventually(lambda: not alive(int(pid)))
    assert eventually(lambda: not alive(int(quiet)))
    assert not (context.work_dir / "ended").exists(), "nobody waited for it, and nobody let it finish"


def test_an_interruption_ends_the_whole_tree(context: Any) -> None:
    pids = context.work_dir / "pids"
    context.interrupt = pids.exists
    command = "sleep 60 & (sleep 60 & echo $! >> pids.new); echo $! $$ >> pids.new; mv pids.new pids; wait"

    with pytest.raises(Interrupted):
        Bash(command=command).execute(context)

    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 3
    assert eventually(lambda: not any(alive(pid) for pid in started))


def test_a_command_may_tidy_up_when_it_is_interrupted(context: Any) -> None:
    context.interrupt = (context.work_dir / "ready").exists

    with pytest.raises(Interrupted):
        Bash(command="trap 'touch tidied; exit 1' TERM; touch ready; while :; do sleep 0.01; done").execute(context)

    assert (context.work_dir / "tidied").exists()


@pytest.mark.slow
def test_a_command_that_ignores_the_interruption_is_killed(context: Any) -> None:
    context.interrupt = (context.work_dir / "pid").exists

    with pytest.raises(Interrupted):
        Bash(command="trap '' TERM; echo $$ > pid.new; mv pid.new pid; while :; do sleep 0.05; done").execute(context)

    assert not alive(int((context.work_dir / "pid").read_text()))


def test_a_command_that_closes_its_output_is_waited_for(context: Any) -> None:
    Bash(command="exec >&- 2>&-; sleep 0.2; touch done").execute(context)

    assert (context.work_dir / "done").exists()


@pytest.mark.slow
def test_the_tree_ends_when_the_worker_process_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from yarrow_operators.process import ProcessTree
command = "sleep 60 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"
with ProcessTree(["bash", "-c", command], cwd=Path("/"), env={{"PATH": {os.environ["PATH"]!r}}}) as tree:
    for line in tree.lines(lambda: None):
        pass
"""
    worker = subprocess.Popen([sys.executable, "-c", script])
    try:
        assert eventually(pids.exists)
        started = [int(pid) for pid in pids.read_text().split()]
        assert all(alive(pid) for pid in started)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    assert eventually(lambda: not any(alive(pid) for pid in started))


def test_a_failed_command_is_called_by_its_exit_code(context: Any) -> None:
    with pytest.raises(YarrowError) as caught:
        Bash(command="exit 75").execute(context)
    assert {"ExitCode.75", "ExitCode", "yarrow_operators.bash.ExitCode"} <= set(error_kinds(caught.value))

"""Simulating a run: outcomes, choices, unknown XComs, approvals, and the order of things."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from yarrow.decide import PastView, decide
from yarrow.errors import InvalidParams, UsageError
from yarrow.simulate import Outcome, Simulation, simulate
from yarrow.states import RunState, TaskState
from yarrow.testing import load_dag

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAILED, SKIPPED = Outcome(TaskState.FAILED), Outcome(TaskState.SKIPPED)

BRANCH = """
tasks:
  count: {operator: python, with: {callable: "lib:count"}}
  choose:
    operator: branch
    with:
      conditions: [{if: "{{ xcom.count > params.limit }}", then: [many]}]
      otherwise: [few]
  many: {operator: bash, with: {command: "true"}, depends_on: [choose]}
  few: {operator: bash, with: {command: "true"}, depends_on: [choose]}
  join:
    operator: bash
    with: {command: "true"}
    depends_on: [many, few]
    trigger_rule: none_failed_min_one_success
params: {limit: {type: integer, default: 10}}
"""


def run(text: str, **settings: Any) -> Simulation:
    return simulate(load_dag(f"dag_id: d\n{text}"), now=NOW, **settings)


def states(simulation: Simulation) -> dict[str, str]:
    return {task_id: str(state) for task_id, state in simulation.tasks.items()}


def reasons(simulation: Simulation) -> dict[str, str | None]:
    return {one.task_id: one.reason for one in simulation.instances}


def instances(simulation: Simulation) -> dict[tuple[str, int], str]:
    return {(one.task_id, one.map_index): str(one.state) for one in simulation.instances}


# Outcomes


def test_tasks_without_an_outcome_succeed() -> None:
    found = run("tasks: {a: {operator: bash, with: {command: 'true'}}}")
    assert (found.state, states(found)) == (RunState.SUCCESS, {"a": "success"})
    assert found.notes == ()


def test_a_failure_uses_up_all_tries_and_costs_no_time() -> None:
    found = run(
        """
tasks:
  a: {operator: bash, with: {command: "true"}, retries: 3, retry_delay: 20h}
  b: {operator: bash, with: {command: "true"}, depends_on: [a]}
""",
        outcomes={"a": FAILED},
    )
    assert states(found) == {"a": "failed", "b": "upstream_failed"}
    assert found.state is RunState.FAILED
    assert found.reason == "task `a` failed"
    assert [one.tries for one in found.instances] == [4, 0]
    assert reasons(found) == {"a": "as given", "b": "upstream task `a` failed"}


def test_a_failure_is_one_that_is_worth_a_retry() -> None:
    text = "tasks: {a: {operator: bash, with: {command: 'true'}, retries: 1, retry_on: [OSError]}}"
    assert run(text, outcomes={"a": FAILED}).instances[0].tries == 2


def test_soft_fail_ends_as_skipped() -> None:
    text = "tasks: {a: {operator: bash, with: {command: 'true'}, retries: 1, soft_fail: true}}"
    found = run(text, outcomes={"a": FAILED})
    assert states(found) == {"a": "skipped"}
    assert reasons(found) == {"a": "as given (soft_fail)"}


def test_a_skip_is_no_failure() -> None:
    text = """
tasks:
  a: {operator: bash, with: {command: "true"}, retries: 3}
  b: {operator: bash, with: {command: "true"}, depends_on: [a]}
"""
    found = run(text, outcomes={"a": SKIPPED})
    assert (found.state, states(found)) == (RunState.SUCCESS, {"a": "skipped", "b": "skipped"})
    assert found.instances[0].tries == 1


def test_a_task_with_nothing_to_execute_can_be_told_to_fail() -> None:
    found = run("tasks: {a: {operator: empty}}", outcomes={"a": FAILED})
    assert states(found) == {"a": "failed"}


def test_sensors_succeed_at_once() -> None:
    found = run("tasks: {a: {operator: wait_until, with: {at: '2030-01-01T00:00:00Z'}}}")
    assert states(found) == {"a": "success"}


def test_dagrun_timeout_counts_what_retries_wait_for() -> None:
    found = run(
        """
dagrun_timeout: 1h
tasks:
  a: {operator: bash, with: {command: "true"}, retries: 3, retry_delay: 40m}
""",
        outcomes={"a": FAILED},
    )
    assert found.state is RunState.FAILED
    assert states(found) == {"a": "skipped"}
    assert found.instances[0].tries == 2
    assert "dagrun_timeout" in (found.reason or "")


# Choices


def test_a_branch_is_executed_over_given_xcoms_and_params() -> None:
    found = run(BRANCH, xcoms={"count": 7})
    assert states(found) == {
        "count": "success",
        "choose": "success",
        "many": "skipped",
        "few": "success",
        "join": "success",
    }
    assert found.instances[1].follow == ("few",)
    assert found.xcoms["choose", -1] == {"follow": ["few"]}
    assert found.notes == ()
    assert run(BRANCH, xcoms={"count": 7}, params={"limit": 5}).instances[1].follow == ("many",)


def test_a_branch_over_an_unknown_xcom_follows_everything_and_says_so() -> None:
    found = run(BRANCH)
    assert set(states(found).values()) == {"success"}
    [note] = found.notes
    assert "`choose` goes on to everything" in note
    assert "the XCom of `count`, which was not given" in note


def test_the_choice_of_a_branch_can_be_given() -> None:
    found = run(BRANCH, outcomes={"choose": Outcome(follow=("many",))})
    assert (states(found)["many"], states(found)["few"]) == ("success", "skipped")
    assert found.notes == ()
    nothing = run(BRANCH, outcomes={"choose": Outcome(follow=())})
    assert (states(nothing)["many"], states(nothing)["few"], states(nothing)["join"]) == ("skipped",) * 3


def test_a_branch_whose_condition_makes_no_sense_fails_as_it_would() -> None:
    found = run(BRANCH, xcoms={"count": "many"})
    assert states(found)["choose"] == "failed"
    assert "`>` can't compare text with a number" in (reasons(found)["choose"] or "")


SHORT = """
tasks:
  check: {operator: short_circuit, with: {condition: "{{ params.go }}"}}
  near: {operator: bash, with: {command: "true"}, depends_on: [check]}
  far: {operator: bash, with: {command: "true"}, depends_on: [near], trigger_rule: all_done}
params: {go: {type: boolean, default: true}}
"""


def test_a_short_circuit_is_executed_too() -> None:
    assert set(states(run(SHORT)).values()) == {"success"}
    assert states(run(SHORT, params={"go": False})) == {"check": "success", "near": "skipped", "far": "skipped"}
    assert states(run(SHORT, outcomes={"check": Outcome(follow=())}))["far"] == "skipped"


def test_a_choice_that_hangs_on_a_variable_is_not_looked_up() -> None:
    text = """
tasks:
  check: {operator: short_circuit, with: {condition: "{{ var.go == 'yes' }}"}}
  near: {operator: bash, with: {command: "true"}, depends_on: [check]}
"""
    found = run(text)
    assert states(found)["near"] == "success"
    assert "variable" in found.notes[0]


# Conditions and lists


WHEN = """
tasks:
  a: {operator: python, with: {callable: "lib:a"}}
  b: {operator: bash, with: {command: "true"}, when: "xcom.a.rows > 0"}
"""


def test_when_is_evaluated_over_given_xcoms() -> None:
    assert states(run(WHEN, xcoms={"a": {"rows": 0}}))["b"] == "skipped"
    assert states(run(WHEN, xcoms={"a": {"rows": 1}}))["b"] == "success"


def test_when_over_an_unknown_xcom_counts_as_true_and_that_is_said() -> None:
    found = run(WHEN)
    assert states(found)["b"] == "success"
    assert found.notes == (
        "`when` of `b` is taken as true: `xcom.a.rows > 0` names the XCom of `a`, which was not given.",
    )


def test_nothing_is_said_of_a_when_that_is_never_asked() -> None:
    found = run(WHEN, outcomes={"a": FAILED})
    assert states(found)["b"] == "upstream_failed"
    assert found.notes == ()


def test_an_xcom_counts_only_when_its_task_succeeds() -> None:
    text = WHEN.replace('when: "xcom.a.rows > 0"', 'when: "xcom.a.rows > 0", trigger_rule: all_done')
    found = run(text, outcomes={"a": FAILED}, xcoms={"a": {"rows": 1}})
    assert states(found)["b"] == "failed"
    assert "`when` can't be evaluated" in (reasons(found)["b"] or "")


MAPPED = """
tasks:
  files: {operator: python, with: {callable: "lib:files"}}
  load:
    operator: bash
    with: {command: "echo {{ map.file }}"}
    expand: {file: "{{ xcom.files }}"}
    retries: 1
  join: {operator: bash, with: {command: "true"}, depends_on: [load], trigger_rule: one_failed}
"""


def test_a_mapped_task_becomes_one_instance_for_each_value() -> None:
    found = run(MAPPED, xcoms={"files": ["x", "y", "z"]}, outcomes={"load[1]": FAILED})
    assert instances(found) == {
        ("files", -1): "success",
        ("load", 0): "success",
        ("load", 1): "failed",
        ("load", 2): "success",
        ("join", -1): "success",
    }
    assert states(found)["load"] == "failed"
    assert [one.map_value for one in found.instances[1:4]] == [{"file": name} for name in "xyz"]
    assert [one.tries for one in found.instances[1:4]] == [1, 2, 1]


def test_an_outcome_of_a_mapped_task_is_that_of_all_its_instances() -> None:
    found = run(MAPPED, xcoms={"files": ["x", "y"]}, outcomes={"load": FAILED, "load[0]": Outcome()})
    assert instances(found)["load", 0] == "success"
    assert instances(found)["load", 1] == "failed"


def test_an_empty_list_skips_the_mapped_task() -> None:
    assert states(run(MAPPED, xcoms={"files": []}))["load"] == "skipped"


def test_an_unknown_list_is_one_unknown_value_and_that_is_said() -> None:
    found = run(MAPPED)
    assert [one for one in instances(found) if one[0] == "load"] == [("load", 0)]
    assert found.notes == (
        "`load` is taken as one task instance: its `expand` names the XCom of `files`, which was not given.",
    )


def test_an_unknown_list_of_a_task_in_a_group_is_known_by_its_full_id() -> None:
    text = """
tasks:
  disk:
    tasks:
      files: {operator: python, with: {callable: "lib:files"}}
  load: {operator: bash, with: {command: "true"}, expand: {file: "{{ xcom.disk.files.found }}"}}
"""
    found = run(text)
    assert instances(found)["load", 0] == "success"
    assert found.notes == (
        "`load` is taken as one task instance: its `expand` names the XCom of `disk.files`, which was not given.",
    )


def test_a_condition_over_an_unknown_value_of_map_counts_as_true() -> None:
    found = run(MAPPED.replace("retries: 1", "when: \"map.file != 'x'\""))
    assert instances(found)["load", 0] == "success"
    assert any("`map.file`, whose value is not known" in note for note in found.notes)


def test_an_outcome_for_an_instance_that_is_not_there_is_said_to_be_unused() -> None:
    found = run(MAPPED, xcoms={"files": ["x"]}, outcomes={"load[3]": FAILED})
    assert states(found)["load"] == "success"
    assert found.notes == ("The outcome of `load[3]` is not used: there is no such task instance.",)


def test_the_xcom_of_a_mapped_task_is_given_as_the_list_of_those_of_its_instances() -> None:
    text = """
tasks:
  load:
    operator: python
    with: {callable: "lib:load", args: ["{{ map.n }}"]}
    expand: {n: [1, 2, 3]}
  total: {operator: bash, with: {command: "true"}, when: "xcom.load | sum > 4"}
"""
    assert states(run(text, xcoms={"load": [1, 1, 3]}))["total"] == "success"
    assert states(run(text, xcoms={"load": [1, 1, 1]}))["total"] == "skipped"
    partly = run(text, xcoms={"load": [1, 1]})
    assert states(partly)["total"] == "success"
    assert "the XCom of `load`, which was not given" in partly.notes[0]


GROUP = """
tasks:
  files: {operator: python, with: {callable: "lib:files"}}
  each:
    expand: {file: "{{ xcom.files }}"}
    tasks:
      check: {operator: short_circuit, with: {condition: "{{ map.file != 'b' }}"}}
      load: {operator: bash, with: {command: "true"}, depends_on: [check], when: "map.file != 'c'"}
  join: {operator: bash, with: {command: "true"}, depends_on: [each.load], trigger_rule: all_done}
"""


def test_in_a_mapped_group_each_instance_goes_its_own_way() -> None:
    found = run(GROUP, xcoms={"files": ["a", "b", "c"]})
    assert [instances(found)["each.load", index] for index in range(3)] == ["success", "skipped", "skipped"]
    assert [one.follow for one in found.instances if one.task_id == "each.check"] == [None, (), None]
    assert states(found)["join"] == "success"


def test_a_mapped_group_over_an_unknown_list_is_one_of_each_task() -> None:
    found = run(GROUP)
    assert [one for one in instances(found) if one[1] == 0] == [("each.check", 0), ("each.load", 0)]
    assert "`each.check[0]` goes on to everything that comes after it: it names `map.file`" in found.notes[2]
    assert "`when` of `each.load` is taken as true" in found.notes[3]


# Approvals

ASK = """
tasks:
  ask: {operator: approval, with: {message: "Publish {{ xcom.count }} rows?", on_reject: %s, timeout: 2h%s}}
  publish: {operator: bash, with: {command: "true"}, depends_on: [ask]}
  count: {operator: python, with: {callable: "lib:count"}}
"""


@pytest.mark.parametrize(
    ("on_reject", "outcomes", "ask", "publish"),
    [
        ("skip", {}, "success", "success"),
        ("skip", {"ask": Outcome()}, "success", "success"),
        ("skip", {"ask": FAILED}, "success", "skipped"),
        ("fail", {"ask": FAILED}, "failed", "upstream_failed"),
    ],
)
def test_an_approval_is_approved_or_rejected(
    on_reject: str, outcomes: dict[str, Outcome], ask: str, publish: str
) -> None:
    found = run(ASK % (on_reject, ""), outcomes=outcomes)
    assert (states(found)["ask"], states(found)["publish"]) == (ask, publish)


def test_one_question_of_a_mapped_group_is_answered_by_itself() -> None:
    text = """
tasks:
  each:
    expand: {part: [a, b, c]}
    tasks:
      ask: {operator: approval, with: {message: "Publish {{ map.part }}?"}}
      publish: {operator: bash, with: {command: "true"}, depends_on: [ask]}
  notes: {operator: bash, with: {command: "echo {{ xcom.each.ask | length }}"}}
"""
    found = run(text, outcomes={"each.ask[1]": FAILED})
    assert [instances(found)["each.publish", index] for index in range(3)] == ["success", "skipped", "success"]
    assert [found.xcoms["each.ask", index]["approved"] for index in range(3)] == [True, False, True]
    others = run(text, outcomes={"each.ask": FAILED, "each.ask[1]": Outcome()}, xcoms={"each.ask": ["x", "y"]})
    assert [instances(others)["each.publish", index] for index in range(3)] == ["skipped", "success", "skipped"]
    assert [others.xcoms["each.ask", index] for index in range(2)] == ["x", "y"]


def test_nobody_answers_and_the_default_is_the_answer() -> None:
    found = run(ASK % ("skip", ", default: approve"), answers={"ask": "nobody"})
    assert states(found)["publish"] == "success"
    assert found.xcoms["ask", -1] == {
        "approved": True,
        "by": "default",
        "comment": None,
        "at": (NOW + timedelta(hours=2)).isoformat(),
    }
    assert states(run(ASK % ("skip", ""), answers={"ask": "nobody"}))["ask"] == "failed"


def test_a_question_that_waits_for_ever_leaves_the_run_open() -> None:
    found = run("tasks: {ask: {operator: approval, with: {message: Sure?}}}", answers={"ask": "nobody"})
    assert (found.state, states(found)) == (RunState.RUNNING, {"ask": "awaiting_input"})


# The run before


def test_a_task_that_waits_for_the_run_before() -> None:
    text = "tasks: {a: {operator: bash, with: {command: 'true'}, depends_on_past: true}}"
    assert run(text).state is RunState.SUCCESS
    blocked = run(text, past=PastView("before", {"a": (TaskState.FAILED,)}))
    assert (blocked.state, states(blocked)) == (RunState.RUNNING, {"a": "none"})


# Order and time

ORDER = """
tasks:
  a: {operator: bash, with: {command: "true"}, weight_rule: absolute}
  b: {operator: bash, with: {command: "true"}, weight_rule: absolute, priority_weight: 5}
  c: {operator: empty, depends_on: [a]}
  d: {operator: bash, with: {command: "true"}, depends_on: [a, c]}
  e: {operator: bash, with: {command: "true"}, depends_on: [b]}
"""


def test_the_order_is_that_of_priority_and_of_what_ends_first() -> None:
    assert [task_id for task_id, _ in run(ORDER).order] == ["b", "a", "e", "c", "d"]
    first_a = run(ORDER, order=[("a", -1), ("b", -1)])
    assert [task_id for task_id, _ in first_a.order] == ["b", "a", "c", "d", "e"]


def test_which_of_two_ends_first_can_decide() -> None:
    text = """
tasks:
  a: {operator: bash, with: {command: "true"}}
  b: {operator: bash, with: {command: "true"}}
  c: {operator: bash, with: {command: "true"}, depends_on: [a, b]}
"""
    outcomes = {"a": FAILED, "b": SKIPPED}
    assert states(run(text, outcomes=outcomes, order=[("a", -1)]))["c"] == "upstream_failed"
    assert states(run(text, outcomes=outcomes, order=[("b", -1)]))["c"] == "skipped"


@pytest.mark.parametrize(("rule", "questions"), [("all_success", 3), ("one_success", 502)])
def test_nobody_is_asked_what_follows_from_each_of_many_instances(
    monkeypatch: pytest.MonkeyPatch, rule: str, questions: int
) -> None:
    asked: list[None] = []

    def counted(*arguments: Any) -> Any:
        asked.append(None)
        return decide(*arguments)

    monkeypatch.setattr("yarrow.simulate.decide", counted)
    text = f"""
tasks:
  load: {{operator: bash, with: {{command: "true"}}, expand: {{part: {list(range(500))}}}}}
  after: {{operator: bash, with: {{command: "true"}}, depends_on: [load], trigger_rule: {rule}}}
"""
    found = run(text)
    assert (set(found.tasks.values()), len(asked)) == ({"success"}, questions)
    assert states(run(text, outcomes={"load[7]": FAILED}))["after"] == (
        "upstream_failed" if rule == "all_success" else "success"
    )


def test_the_dates_are_those_of_the_newest_complete_interval_or_as_given() -> None:
    text = 'schedule: "@daily"\nstart_date: 2026-01-01\ntasks: {a: {operator: empty}}'
    assert run(text).view.logical_date == datetime(2026, 2, 28, tzinfo=UTC)
    given = run(text, logical_date=datetime(2026, 1, 5, tzinfo=UTC)).view
    assert (given.logical_date.day, given.data_interval_end.day) == (5, 6)
    assert run("tasks: {a: {operator: empty}}").view.logical_date == NOW


def test_a_simulation_reads_and_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_dag(f"dag_id: d\n{BRANCH}")
    simulate(spec, xcoms={"count": 1}, now=NOW)  # whatever is imported has been
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in ("open", "socket.connect", "subprocess.Popen", "os.mkdir"):
            opened.append(f"{event} {arguments[:1]}")

    sys.addaudithook(watch)
    simulate(spec, xcoms={"count": 1}, now=NOW)
    watching = False
    assert opened == []


# What does not fit


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"outcomes": {"chose": FAILED}},
            "There is an outcome for `chose`, but the DAG `d` has no such task. Did you mean `choose`?",
        ),
        ({"outcomes": {"x": FAILED}}, "It has `count`, `choose`, `many`, `few`, `join`."),
        ({"outcomes": {"many[1]": FAILED}}, "the task `many` is not mapped"),
        ({"outcomes": {"many": Outcome(TaskState.RUNNING)}}, "is success, failed or skipped, not running"),
        ({"outcomes": {"many": Outcome(follow=("few",))}}, "`many` can't choose what comes after it"),
        ({"outcomes": {"choose": Outcome(TaskState.FAILED, ("few",))}}, "can only choose when it succeeds"),
        (
            {"outcomes": {"choose": Outcome(follow=("meny",))}},
            "`choose` can't choose `meny`: it is not directly downstream. Did you mean `many`?",
        ),
        (
            {"outcomes": {"choose": Outcome(follow=("join",))}},
            "`choose` can't choose `join`: it is not directly downstream.",
        ),
        ({"xcoms": {"cuont": 1}}, "There is an XCom for `cuont`"),
        ({"answers": {"many": "approve"}}, "The task `many` asks nothing"),
    ],
)
def test_what_does_not_fit_the_dag_is_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(BRANCH, **settings)
    assert sentence in str(caught.value)


def test_params_are_checked() -> None:
    with pytest.raises(InvalidParams):
        run(BRANCH, params={"limit": "ten"})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"outcomes": {"ask": SKIPPED}}, "The approval `ask` can't be skipped."),
        ({"answers": {"ask": "yes"}}, "`yes` is no answer: it is approve, reject or nobody."),
    ],
)
def test_answers_are_checked(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(ASK % ("skip", ""), **settings)
    assert sentence in str(caught.value)


def test_a_short_circuit_has_no_names_to_choose() -> None:
    with pytest.raises(UsageError, match="`check=success:` cuts off"):
        run(SHORT, outcomes={"check": Outcome(follow=("near",))})


def test_the_xcom_of_a_mapped_task_must_be_a_list() -> None:
    with pytest.raises(UsageError, match="must be a list"):
        run(MAPPED, xcoms={"load": 1})


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("failed", FAILED),
        ("skipped", SKIPPED),
        ("success", Outcome()),
        ("success:", Outcome(follow=())),
        ("success:a, b", Outcome(follow=("a", "b"))),
    ],
)
def test_an_outcome_is_read_from_text(text: str, outcome: Outcome) -> None:
    assert Outcome.parse(text) == outcome


def test_an_outcome_that_is_none_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"`fialed` is no outcome.*Did you mean `failed`\?"):
        Outcome.parse("fialed")

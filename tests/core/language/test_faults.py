"""Every fault that a DAG file can have, each at its line and column, with its code, words and hint."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

from yarrow.language import codes
from yarrow.language.deployment import Known
from yarrow.language.faults import MAX_FAULTS
from yarrow.language.loader import LoadResult, load_text

Load = Callable[[str], LoadResult]


def case(name: str, text: str, code: str, line: int, column: int, message: str, hint: str | None = None) -> object:
    return pytest.param(textwrap.dedent(text).lstrip("\n"), code, line, column, message, hint, id=name)


CASES = [
    # YAML
    case("unclosed quote", "tasks: 'x", codes.SYNTAX, 1, 8, "never closed"),
    case("unclosed at the end", "tags: [\n", codes.SYNTAX, 2, 1, "`[` or `{` before it is not closed"),
    case("unclosed bracket", "tags: [a, b\nowner: me\n", codes.SYNTAX, 1, 7, "has no `]`"),
    case("bad indentation", "tasks:\n  a:\n    operator: nothing\n   retries: 2\n", codes.SYNTAX, 4, 4, "indentation"),
    case("too far in", "owner: me\n  tags: [a]\n", codes.SYNTAX, 2, 7, "indented too far"),
    case("tab", "tasks:\n\ta:\n", codes.SYNTAX, 2, 1, "A tab is used", "spaces"),
    case("colon forgotten", "owner: me\ntasks\ntags: [a]\n", codes.SYNTAX, 2, 1, "needs a `:`"),
    case("escape", 'owner: "C:\\q"\n', codes.SYNTAX, 1, 11, "escape", "single quotes"),
    case("cron unquoted", "schedule: * * * * *\n", codes.SYNTAX, 1, 11, "starts with `*`", 'Write "* * * * *".'),
    case("cron step unquoted", "schedule: */5 * * * *\n", codes.SYNTAX, 1, 11, "quoted", 'Write "*/5 * * * *".'),
    case("preset unquoted", "schedule: @daily  # each\n", codes.SYNTAX, 1, 11, "starts with `@`", 'Write "@daily".'),
    case("percent unquoted", "owner: %d\n", codes.SYNTAX, 1, 8, "starts with `%`", 'Write "%d".'),
    case("backtick unquoted", "owner: `me`\n", codes.SYNTAX, 1, 8, "a backtick", "Write"),
    case("template unquoted", "owner: {{ ds }}\n", codes.UNQUOTED_TEMPLATE, 1, 8, "`{{ ds }}` must be quoted here"),
    case(
        "template and text unquoted",
        "tasks:\n  a:\n    operator: shell\n    with: {env: {}}\n    x: {{ ds }}/a-{{ ts }}.csv\n",
        codes.UNQUOTED_TEMPLATE,
        5,
        8,
        "`{{ ds }}` must be quoted",
        'Write "{{ ds }}/a-{{ ts }}.csv".',
    ),
    case("template in a list", "tags: [a, {{ ds }}]\n", codes.UNQUOTED_TEMPLATE, 1, 11, "must be quoted"),
    case(
        "template with quotes",
        'owner: {{ params["a"] }}\n',
        codes.UNQUOTED_TEMPLATE,
        1,
        8,
        "must",
        "'{{ params[\"a\"] }}'",
    ),
    case("template as key", "{{ ds }}: 1\n", codes.UNQUOTED_TEMPLATE, 1, 1, "must be quoted"),
    case("list as key", "? [a]\n: 1\n", codes.BAD_KEY, 1, 3, "not a list"),
    case("no key", "? \n: 1\n", codes.BAD_KEY, 1, 2, "key is missing"),
    case(
        "duplicate key",
        "owner: me\ntags: [a]\nowner: you\n",
        codes.DUPLICATE_KEY,
        3,
        1,
        "`owner` is given twice: first on line 1",
    ),
    case("two documents", "owner: me\n---\nowner: you\n", codes.DOCUMENTS, 2, 1, "second YAML document"),
    case("unknown tag", "owner: !!str 1\n", codes.TAG, 1, 8, "`!!str`", "!file"),
    case(
        "python tag",
        "owner: !!python/object/apply:os.system [ls]\n",
        codes.TAG,
        1,
        8,
        "!!python/object/apply:os.system",
    ),
    case("file without a folder", "doc_md: !file x.md\n", codes.FILE_REFERENCE, 1, 9, "needs a DAG folder"),
    case(
        "unknown alias",
        "schedule: *daily\n",
        codes.ALIAS,
        1,
        11,
        "no anchor `&daily`",
        'Quote it if it is text: "*daily".',
    ),
    case("alias in itself", "tags: &a [x, *a]\n", codes.ALIAS, 1, 14, "inside the very value"),
    case("alias as key", "a: &a b\n*a : 1\n", codes.BAD_KEY, 2, 1, "can't be an alias"),
    case(
        "merge key",
        "tasks:\n  a:\n    <<: {retries: 2}\n    operator: nothing\n",
        codes.ALIAS,
        3,
        5,
        "merge key `<<`",
        "default_args",
    ),
    case("control character", "owner: a\x07\n", codes.NOT_TEXT, 1, 9, "U+0007"),
    case("not a mapping", "- a\n- b\n", codes.WRONG_TYPE, 1, 1, "a mapping of keys such as `tasks:`, not a list"),
    case("empty", "# nothing\n", codes.EMPTY, 1, 1, "empty"),
    # Keys
    case("unknown key", "retires: 2\n", codes.UNKNOWN_KEY, 1, 1, "Unknown key `retires`."),
    case(
        "unknown key of a task",
        "tasks:\n  a:\n    operator: nothing\n    retires: 2\n",
        codes.UNKNOWN_KEY,
        4,
        5,
        "Unknown key `retires`.",
        "Did you mean `retries`?",
    ),
    case(
        "task key on the DAG",
        "tasks: {a: {operator: nothing}}\nretries: 2\n",
        codes.UNKNOWN_KEY,
        2,
        1,
        "`retries`",
        "key of a task",
    ),
    case(
        "DAG key in a task",
        "tasks: {a: {operator: nothing, catchup: true}}\n",
        codes.UNKNOWN_KEY,
        1,
        32,
        "`catchup`",
        "key of the DAG",
    ),
    case(
        "operator parameter beside with",
        "tasks:\n  a:\n    operator: shell\n    command: ls\n",
        codes.UNKNOWN_KEY,
        4,
        5,
        "Unknown key `command`.",
        "put it under `with`",
    ),
    case(
        "word of Airflow",
        "schedule_interval: '@daily'\n",
        codes.UNKNOWN_KEY,
        1,
        1,
        "`schedule_interval`",
        "Write `schedule`.",
    ),
    case(
        "expand",
        "tasks: {a: {operator: nothing, expand: [1]}}\n",
        codes.WRONG_TYPE,
        1,
        40,
        "`expand` must be a mapping of names to lists, not a list.",
        "expand: {item: [...]}",
    ),
    case(
        "start date in default_args",
        "default_args: {start_date: 2024-01-01}\n",
        codes.UNKNOWN_KEY,
        1,
        16,
        "start_date",
        "key of the DAG",
    ),
    case(
        "group key",
        "tasks: {g: {tasks: {a: {operator: nothing}}, retries: 1}}\n",
        codes.UNKNOWN_KEY,
        1,
        46,
        "`retries`",
        "not of a task group",
    ),
    case(
        "group and task",
        "tasks: {g: {operator: nothing, tasks: {a: {operator: nothing}}}}\n",
        codes.UNKNOWN_KEY,
        1,
        32,
        "either a task",
    ),
    # Types
    case(
        "text for a number",
        "max_active_runs: many\n",
        codes.WRONG_TYPE,
        1,
        18,
        "`max_active_runs` must be a whole number, not the text `many`.",
    ),
    case("quoted number", "max_active_runs: '3'\n", codes.WRONG_TYPE, 1, 18, "whole number", "without quotes"),
    case("octal", "max_active_runs: 010\n", codes.WRONG_TYPE, 1, 18, "not the text `010`", "leading zero"),
    case("fraction", "max_active_runs: 1.5\n", codes.WRONG_TYPE, 1, 18, "not the number 1.5"),
    case("too small", "max_active_runs: 0\n", codes.BAD_VALUE, 1, 18, "at least 1"),
    case(
        "yes",
        "catchup: yes\n",
        codes.WRONG_TYPE,
        1,
        10,
        "must be true or false, not the text `yes`",
        "`true` or `false`",
    ),
    case("number for a text", "owner: 1.10\n", codes.WRONG_TYPE, 1, 8, "must be text, not the number 1.1", "Quote it"),
    case("text for a list", "tags: demo\n", codes.WRONG_TYPE, 1, 7, "must be a list", "[demo]"),
    case("null for a list", "tags:\n", codes.WRONG_TYPE, 1, 6, "not null"),
    case("item of a list", "tags: [a, 2]\n", codes.WRONG_TYPE, 1, 11, "`tags`[1] must be text"),
    case(
        "tasks as a list", "tasks:\n  - a\n", codes.WRONG_TYPE, 2, 3, "must be a mapping of task ids", "without a dash"
    ),
    case("task as text", "tasks: {a: nothing}\n", codes.WRONG_TYPE, 1, 12, "The task `a` must be a mapping"),
    case(
        "with as list",
        "tasks: {a: {operator: shell, with: [1]}}\n",
        codes.WRONG_TYPE,
        1,
        36,
        "`with` must be a mapping",
    ),
    case("default_args as list", "default_args: [1]\n", codes.WRONG_TYPE, 1, 15, "`default_args` must be a mapping"),
    case("params as list", "params: [1]\n", codes.WRONG_TYPE, 1, 9, "`params` must be a mapping"),
    case(
        "bad choice",
        "tasks: {a: {operator: nothing, trigger_rule: one_sucess}}\n",
        codes.BAD_VALUE,
        1,
        46,
        "`one_failed`",
        "Did you mean `one_success`?",
    ),
    case(
        "template in a key of the DAG",
        'owner: "{{ ds }}"\n',
        codes.NO_TEMPLATE_HERE,
        1,
        8,
        "needed before the task runs",
    ),
    case("bad dag_id", "dag_id: my dag\n", codes.BAD_ID, 1, 9, "`my dag`", "letters"),
    case("bad queue", "default_args: {queue: a b}\n", codes.BAD_ID, 1, 23, "`a b`"),
    case("bad task id", "tasks: {a.b: {operator: nothing}}\n", codes.BAD_ID, 1, 9, "`a.b`", "groups"),
    case(
        "duration as a number",
        "default_args: {retry_delay: 300}\n",
        codes.BAD_DURATION,
        1,
        29,
        "not the number 300",
        "`300s`",
    ),
    case(
        "bad duration", "default_args: {retry_delay: 5 min}\n", codes.BAD_DURATION, 1, 29, "`5 min` is not a duration"
    ),
    case("endless duration", "default_args: {retry_delay: 9999d}\n", codes.BAD_DURATION, 1, 29, "ten years"),
    # Tasks and operators
    case("no tasks", "owner: me\n", codes.NO_TASKS, 1, 1, "no `tasks`"),
    case("empty tasks", "tasks: {}\n", codes.NO_TASKS, 1, 8, "no tasks in `tasks`"),
    case("no operator", "tasks:\n  a: {retries: 2}\n", codes.MISSING_OPERATOR, 2, 3, "`a` names no operator"),
    case(
        "unknown operator",
        "tasks: {a: {operator: stge}}\n",
        codes.UNKNOWN_OPERATOR,
        1,
        23,
        "no operator `stge`",
        "`stage`",
    ),
    case(
        "unknown parameter",
        "tasks: {a: {operator: shell, with: {comand: ls}}}\n",
        codes.UNKNOWN_PARAMETER,
        1,
        37,
        "`shell` has no parameter `comand`",
        "`command`",
    ),
    case(
        "task key in with",
        "tasks: {a: {operator: shell, with: {command: ls, retries: 1}}}\n",
        codes.UNKNOWN_PARAMETER,
        1,
        50,
        "`retries`",
        "beside `with`",
    ),
    case(
        "missing parameter",
        "tasks:\n  a:\n    operator: shell\n    with: {env: {}}\n",
        codes.MISSING_PARAMETER,
        4,
        5,
        "lacks `command`",
    ),
    case("no with at all", "tasks:\n  a: {operator: shell}\n", codes.MISSING_PARAMETER, 2, 3, "lacks `command`"),
    case(
        "parameter of the wrong type",
        "tasks: {a: {operator: stage, with: {rows: x}}}\n",
        codes.WRONG_TYPE,
        1,
        43,
        "`rows` must be a whole number",
    ),
    case(
        "parameter out of bounds",
        "tasks: {a: {operator: stage, with: {rows: 2000}}}\n",
        codes.BAD_VALUE,
        1,
        43,
        "at most 1000",
    ),
    case(
        "nested parameter",
        "tasks: {a: {operator: stage, with: {columns: {x: {mni: 1}}}}}\n",
        codes.UNKNOWN_KEY,
        1,
        51,
        "`mni`",
        "`min`",
    ),
    case(
        "nested type",
        "tasks: {a: {operator: stage, with: {columns: {x: {min: low}}}}}\n",
        codes.WRONG_TYPE,
        1,
        56,
        "`columns`.x.min must be a number",
    ),
    case(
        "union",
        "tasks: {a: {operator: shell, with: {command: 3}}}\n",
        codes.WRONG_TYPE,
        1,
        46,
        "must be text or a list, not the number 3",
    ),
    case(
        "inside a union",
        "tasks: {a: {operator: shell, with: {command: [ls, 3]}}}\n",
        codes.WRONG_TYPE,
        1,
        51,
        "`command`[1] must be text",
    ),
    case("tuple", "tasks: {a: {operator: stage, with: {pair: [1]}}}\n", codes.WRONG_TYPE, 1, 43, "a list of 2 items"),
    case(
        "kind of a record",
        "tasks: {a: {operator: stage, with: {plan: [{op: clp, low: 1}]}}}\n",
        codes.BAD_VALUE,
        1,
        49,
        "`plan`[0].op must be one of `clip`, `drop`",
        "`clip`",
    ),
    case(
        "record of a known kind",
        "tasks: {a: {operator: stage, with: {plan: [{op: drop, columns: [a], low: 1}]}}}\n",
        codes.UNKNOWN_KEY,
        1,
        69,
        "`low`",
        "columns, op",
    ),
    case(
        "record without its kind",
        "tasks: {a: {operator: stage, with: {plan: [{low: 1}]}}}\n",
        codes.MISSING_KEY,
        1,
        44,
        "needs the key `op`",
    ),
    case(
        "template within any data",
        "tasks: {a: {operator: shell, with: {command: a, env: {x: {y: ['{{ foo }}']}}}}}\n",
        codes.UNKNOWN_NAME,
        1,
        67,
        "`foo`",
    ),
    case(
        "item of a tuple", "tasks: {a: {operator: stage, with: {pair: [1, 2]}}}\n", codes.WRONG_TYPE, 1, 47, "`pair`[1]"
    ),
    case("empty type", "params: {a: {enum: []}}\n", codes.BAD_VALUE, 1, 20, "must not be empty"),
    case("empty owner", "owner: ''\n", codes.BAD_VALUE, 1, 8, "must not be empty"),
    case(
        "group on an unknown task",
        "tasks: {g: {depends_on: [x], tasks: {a: {operator: nothing}}}}\n",
        codes.UNKNOWN_TASK,
        1,
        26,
        "`x`",
    ),
    case(
        "templated connection",
        "tasks: {a: {operator: stage, with: {conn_id: '{{ ds }}'}}}\n",
        codes.NO_TEMPLATE_HERE,
        1,
        46,
        "plain id of a connection",
    ),
    case(
        "templated key",
        "tasks: {a: {operator: shell, with: {command: a, env: {'{{ ds }}': 1}}}}\n",
        codes.NO_TEMPLATE_HERE,
        1,
        55,
        "only values are rendered",
    ),
    case(
        "operator's own check",
        "tasks: {a: {operator: choose, with: {follow: [b]}}, b: {operator: nothing}}\n",
        codes.BAD_VALUE,
        1,
        47,
        "not directly downstream",
    ),
    # The graph
    case(
        "unknown dependency",
        "tasks: {load: {operator: nothing}, b: {operator: nothing, depends_on: [laod]}}\n",
        codes.UNKNOWN_TASK,
        1,
        72,
        "`laod`",
        "`load`",
    ),
    case(
        "self-dependency",
        "tasks: {a: {operator: nothing, depends_on: [a]}}\n",
        codes.SELF_DEPENDENCY,
        1,
        45,
        "depends on itself",
    ),
    case(
        "own group",
        "tasks: {g: {tasks: {a: {operator: nothing, depends_on: [g]}}}}\n",
        codes.SELF_DEPENDENCY,
        1,
        57,
        "that it is in",
    ),
    case(
        "group on its task",
        "tasks: {g: {depends_on: [g.a], tasks: {a: {operator: nothing}}}}\n",
        codes.SELF_DEPENDENCY,
        1,
        26,
        "inside the other",
    ),
    case(
        "cycle",
        """
        tasks:
          a: {operator: nothing, depends_on: [c]}
          b: {operator: nothing, depends_on: [a]}
          c: {operator: nothing, depends_on: [b]}
        """,
        codes.CYCLE,
        2,
        39,
        "circle: a → b → c → a",
    ),
    case(
        "cycle of templates",
        """
        tasks:
          a: {operator: shell, with: {command: '{{ xcom.b }}'}}
          b: {operator: shell, with: {command: '{{ xcom.a }}'}}
        """,
        codes.CYCLE,
        2,
        44,
        "a → b → a",
    ),
    case(
        "beside with, where the operator has a check",
        "tasks: {a: {operator: choose, follow: [b]}}\n",
        codes.UNKNOWN_KEY,
        1,
        31,
        "`follow`",
        "put it under `with`",
    ),
    case(
        "short id in another group",
        "tasks: {g: {tasks: {a: {operator: nothing}}}, b: {operator: nothing, depends_on: [a]}}\n",
        codes.UNKNOWN_TASK,
        1,
        83,
        "`a`",
        "Write the full id: `g.a`.",
    ),
    # The schedule
    case("bad cron", "schedule: 61 * * * *\n", codes.BAD_SCHEDULE, 1, 11, "61"),
    case("bad preset", "schedule: '@dayly'\n", codes.BAD_SCHEDULE, 1, 11, "@dayly"),
    case(
        "bad cron in a mapping", "schedule: {cron: 99 * * * *, semantics: trigger}\n", codes.BAD_SCHEDULE, 1, 18, "99"
    ),
    case("never fires", "schedule: 0 0 30 2 *\n", codes.BAD_SCHEDULE, 1, 11, "30 2"),
    case("cron and every", "schedule: {cron: '@daily', every: 5m}\n", codes.BAD_SCHEDULE, 1, 28, "not both"),
    case("neither", "schedule: {semantics: trigger}\n", codes.MISSING_KEY, 1, 11, "neither"),
    case("unknown zone", "timezone: Europe/Londn\n", codes.UNKNOWN_TIMEZONE, 1, 11, "Did you mean `Europe/London`?"),
    case(
        "zone of the machine", "timezone: localtime\n", codes.UNKNOWN_TIMEZONE, 1, 11, "`localtime`. Use an IANA name"
    ),
    case("folder of zones", "timezone: Europe\n", codes.UNKNOWN_TIMEZONE, 1, 11, "no time zone `Europe`"),
    case(
        "end before start",
        "start_date: 2024-01-02\nend_date: 2024-01-01\n",
        codes.END_BEFORE_START,
        2,
        11,
        "is not after",
    ),
    case("bad date", "start_date: 2024-02-30\n", codes.BAD_DATE, 1, 13, "`start_date` is not a date"),
    case("another date format", "start_date: 01.02.2024\n", codes.BAD_DATE, 1, 13, "must be a date such as"),
    case(
        "date out of range", "start_date: 0001-01-01\ntimezone: Asia/Tokyo\n", codes.BAD_DATE, 1, 13, "out of the range"
    ),
    case(
        "catchup without start",
        "schedule: '@daily'\ncatchup: true\n",
        codes.CATCHUP_WITHOUT_START,
        2,
        10,
        "needs a `start_date`",
    ),
    # Params
    case("param shorthand", "params: {a: 0.5}\n", codes.WRONG_TYPE, 1, 13, "JSON Schema", "{default: ...}"),
    case("param keyword", "params: {a: {tpye: string}}\n", codes.UNKNOWN_KEY, 1, 14, "`tpye`", "`type`"),
    case("param pattern", "params: {a: {pattern: '(a+)+$'}}\n", codes.NOT_AVAILABLE, 1, 14, "`pattern`", "enum"),
    case("param reference", "params: {a: {$ref: 'https://example.org'}}\n", codes.NOT_AVAILABLE, 1, 14, "`$ref`"),
    case("param type", "params: {a: {type: text}}\n", codes.BAD_VALUE, 1, 20, "must be one of `string`"),
    case(
        "param default",
        "params: {a: {type: number, default: x}}\n",
        codes.BAD_PARAM_DEFAULT,
        1,
        37,
        "does not fit its own schema",
    ),
    case("param name", "params: {a-b: {default: 1}}\n", codes.BAD_ID, 1, 10, "`a-b`"),
    case(
        "no default",
        "schedule: '@daily'\nparams: {a: {type: number}}\n",
        codes.PARAM_WITHOUT_DEFAULT,
        2,
        10,
        "nobody to ask",
    ),
]

TEMPLATES = [
    # what the command says, code, column of the fault within it (from 1), message, hint
    ("{{ ds", codes.TEMPLATE_SYNTAX, 1, "never closed", None),
    ("a {{ ds | }} b", codes.TEMPLATE_SYNTAX, 3, "not a valid template", None),
    ("{% if x %}a{% endif %}", codes.TEMPLATE_SYNTAX, 1, "no statements", None),
    ("{{ }}", codes.TEMPLATE_SYNTAX, 1, "not a valid template", None),
    ("{{ ds is defined }}", codes.TEMPLATE_SYNTAX, 1, "no `is`", "default"),
    ("{{ 2 ** 3 }}", codes.TEMPLATE_SYNTAX, 1, "no `**`", None),
    ("{{ ds.__class__ }}", codes.TEMPLATE_SYNTAX, 7, "two underscores", None),
    ("{{ 'a' if params.day }}", codes.TEMPLATE_SYNTAX, 1, "needs an `else`", None),
    ("{{ ds | replace('a') }}", codes.TEMPLATE_SYNTAX, 1, "takes 2 arguments, not 1", None),
    ("{{ xcom[ds] }}", codes.TEMPLATE_SYNTAX, 4, "needs a name in quotes", None),
    ("{{ dss }}", codes.UNKNOWN_NAME, 4, "There is no name `dss`", "`ds`"),
    ("x/{{ execution_date }}", codes.UNKNOWN_NAME, 6, "execution_date", "logical_date"),
    ("{{ day }}", codes.UNKNOWN_NAME, 4, "There is no name `day`", "params.day"),
    ("{{ logical_date.year }}", codes.UNKNOWN_NAME, 4, "has no fields", "ds"),
    ("{{ var }}", codes.UNKNOWN_NAME, 4, "name one variable", None),
    ("{{ var.value.x }}", codes.UNKNOWN_NAME, 4, "has no fields", "Write `var.x`."),
    ("{{ conn.db }}", codes.UNKNOWN_NAME, 4, "one field of one connection", None),
    ("{{ conn.db.pasword }}", codes.UNKNOWN_NAME, 4, "no field `pasword`", "`password`"),
    ("{{ xcom.frist.rows }}", codes.UNKNOWN_XCOM_TASK, 4, "no task `frist`", "`first`"),
    ("{{ xcom.g.rows }}", codes.UNKNOWN_XCOM_TASK, 4, "no task `rows` in the group `g`", "`g.inner`"),
    ("{{ xcom.inner }}", codes.UNKNOWN_XCOM_TASK, 4, "no task `inner`", "xcom.g.inner"),
    ("{{ xcom.with-dash }}", codes.UNKNOWN_XCOM_TASK, 4, "no task `with`", "xcom['with-dash']"),
    ("{{ xcom.first.row }}", codes.UNKNOWN_OUTPUT, 4, "no field `row`", "`rows`"),
    ("{{ xcom.first.report.psased }}", codes.UNKNOWN_OUTPUT, 4, "no field `psased`", "`passed`"),
    ("{{ xcom }}", codes.UNKNOWN_XCOM_TASK, 4, "name the task", None),
    ("{{ xcom.g }}", codes.UNKNOWN_XCOM_TASK, 4, "The group `g` has no XCom", "`g.inner`"),
    ("{{ first.rows }}", codes.UNKNOWN_NAME, 4, "`first`", "Write `xcom.first`."),
    ("{{ macros }}", codes.UNKNOWN_NAME, 4, "`macros`", "macros.ds_add(ds, 1)"),
    ("{{ xcom.first.parts.x }}", codes.UNKNOWN_OUTPUT, 4, "no field `x`", "a list"),
    ("{{ xcom.first.rows.x }}", codes.UNKNOWN_OUTPUT, 4, "no field `x`", "a whole number"),
    ("{{ params.dya }}", codes.UNKNOWN_PARAM, 4, "no param `dya`", "`day`"),
    ("{{ params.day.x }}", codes.UNKNOWN_PARAM, 4, "has no fields", None),
    ("{{ macros.ds_ad(ds, 1) }}", codes.UNKNOWN_MACRO, 4, "no macro `macros.ds_ad`", "`ds_add`"),
    ("{{ ti.xcom_pull('a') }}", codes.UNKNOWN_MACRO, 4, "only macros can be called", "xcom.task_id.field"),
    ("{{ ds | uper }}", codes.UNKNOWN_FILTER, 9, "no filter `uper`", "`upper`"),
    ("{{ xcom.me }}", codes.NOT_UPSTREAM, 4, "the task's own XCom", None),
    ("{{ xcom.last.rows }}", codes.NOT_UPSTREAM, 4, "which runs after it: me → last", None),
]


@pytest.mark.parametrize(("text", "code", "line", "column", "message", "hint"), CASES)
def test_fault(text: str, code: str, line: int, column: int, message: str, hint: str | None) -> None:
    result = load_text(text, "my_dag.yaml")
    found = [fault for fault in result.faults if fault.code == code]
    assert len(found) == 1, result.faults
    fault = found[0]
    assert (fault.file, fault.line, fault.column, fault.severity) == ("my_dag.yaml", line, column, "error")
    assert message in fault.message
    assert hint is None or hint in (fault.hint or "")
    assert result.spec is None
    others = {codes.NO_TASKS, code}
    assert {fault.code for fault in result.faults} <= others, "one mistake, one fault"


@pytest.mark.parametrize(("command", "code", "column", "message", "hint"), TEMPLATES)
def test_template_fault(command: str, code: str, column: int, message: str, hint: str | None) -> None:
    quoted = "'" + command.replace("'", "''") + "'"
    # A quote that is doubled in the YAML hides the exact column: then the fault is at the start of the text.
    text = textwrap.dedent(
        f"""\
        params: {{day: {{type: string, default: x}}}}
        tasks:
          first: {{operator: stage}}
          with-dash: {{operator: nothing}}
          g: {{tasks: {{inner: {{operator: nothing}}}}}}
          me:
            operator: shell
            with:
              command: {quoted}
          last: {{operator: stage, depends_on: [me]}}
        """
    )
    result = load_text(text, "my_dag.yaml")
    # `with-dash` without brackets is a subtraction, in which `dash` is unknown as well.
    assert [fault.code for fault in result.faults] == [code, *[codes.UNKNOWN_NAME] * ("with-dash" in command)]
    fault = result.faults[0]
    assert (fault.line, fault.column) == (9, 16 + column)
    assert message in fault.message
    assert hint is None or hint in (fault.hint or "")


def test_all_faults_of_a_file_are_found_at_once(load: Load) -> None:
    result = load(
        """\
        dag_id: bad id
        schedule: 61 * * * *
        timezone: Nowhere/Land
        start_date: yesterday
        catchup: yes
        params: {x: {type: number, default: a}}
        tasks:
          a: {operator: shell, with: {comand: ls}, retires: 2}
          b: {operator: nothing, depends_on: [c], retries: -1}
          c: {operator: shell, depends_on: [b], with: {command: "{{ xcom.b }} {{ params.y }} {{ foo }}"}}
        """
    )
    assert [(fault.line, fault.code) for fault in result.faults] == [
        (1, codes.BAD_ID),
        (2, codes.BAD_SCHEDULE),
        (3, codes.UNKNOWN_TIMEZONE),
        (4, codes.BAD_DATE),
        (5, codes.WRONG_TYPE),
        (6, codes.BAD_PARAM_DEFAULT),
        (8, codes.UNKNOWN_PARAMETER),
        (8, codes.UNKNOWN_KEY),
        (9, codes.CYCLE),
        (9, codes.BAD_VALUE),
        (10, codes.UNKNOWN_PARAM),
        (10, codes.UNKNOWN_NAME),
    ]


@pytest.mark.parametrize(
    "task",
    [
        "{operator: shell, with: {comand: '{{ xcom.gret }}'}}",
        "{operator: shell, with: {command: ls, evn: {A: ['{{ xcom.gret }}']}}}",
        "{operator: shlel, with: {command: '{{ xcom.gret }}'}}",
        "{operator: shell, command: '{{ xcom.gret }}'}",
    ],
)
def test_names_are_looked_up_where_a_key_or_the_operator_is_wrong(task: str, load: Load) -> None:
    result = load(f"tasks:\n  greet: {{operator: stage}}\n  a: {task}\n")
    assert [(fault.code, fault.hint) for fault in result.faults[1:]] == [
        (codes.UNKNOWN_XCOM_TASK, "Did you mean `greet`?")
    ]
    assert result.faults[0].code in (codes.UNKNOWN_PARAMETER, codes.UNKNOWN_OPERATOR, codes.UNKNOWN_KEY)


def test_when_names_only_what_the_scheduler_knows(load: Load) -> None:
    result = load(
        """\
        tasks:
          a: {operator: stage}
          b: {operator: nothing, when: var.x == 'y'}
          c: {operator: nothing, when: try_number > 1}
          d: {operator: nothing, when: "xcom.a.rowz > 0"}
          e: {operator: nothing, when: "xcom.e.rows > 0"}
          f: {operator: nothing, when: "a } b"}
        """
    )
    assert [(fault.line, fault.column, fault.code) for fault in result.faults] == [
        (3, 32, codes.NAME_NOT_HERE),
        (4, 32, codes.NAME_NOT_HERE),
        (5, 33, codes.UNKNOWN_OUTPUT),
        (6, 33, codes.NOT_UPSTREAM),
        (7, 33, codes.TEMPLATE_SYNTAX),
    ]


def test_a_fault_in_a_block_of_text_is_at_its_own_line(load: Load) -> None:
    result = load(
        """\
        tasks:
          a:
            operator: shell
            with:
              command: |
                echo one
                echo {{ foo }} two
        """
    )
    assert [(fault.line, fault.column) for fault in result.faults] == [(7, 17)]


def test_warnings_do_not_stop_a_dag(load: Load) -> None:
    result = load("catchup: true\ndst: {gap: skip}\ntasks: {a: {operator: nothing}}\n")
    assert [(fault.line, fault.code, fault.severity) for fault in result.faults] == [
        (1, codes.NO_EFFECT, "warning"),
        (2, codes.NO_EFFECT, "warning"),
    ]
    assert result.spec is not None


def test_many_warnings_do_not_stop_a_dag_either() -> None:
    tasks = "".join(f"  t{number}: {{operator: nothing, queue: nobody}}\n" for number in range(MAX_FAULTS + 50))
    result = load_text(f"tasks:\n{tasks}", "x.yaml", known=Known(queues=["default"]))
    assert result.spec is not None
    assert len(result.faults) == MAX_FAULTS
    result = load_text(f"tasks:\n{tasks}  bad: {{operator: nothing, depends_on: [t]}}\n", "x.yaml")
    assert [fault.code for fault in result.faults] == [codes.UNKNOWN_TASK]


def test_an_operator_advises(load: Load) -> None:
    result = load(
        """\
        tasks:
          a: {operator: shell, with: {command: ls}}
          b: {operator: shell, with: {command: [ls, sudo ls], env: {}}}
        """
    )
    assert [(fault.line, fault.column, fault.code, fault.severity) for fault in result.faults] == [
        (3, 45, codes.ADVICE, "warning")
    ]
    assert result.spec is not None


def test_codes_are_all_different_and_explained() -> None:
    names = {name: value for name, value in vars(codes).items() if name.isupper() and name != "CODES"}
    assert sorted(names.values()) == sorted(codes.CODES)
    assert len(set(names.values())) == len(names)
    for code, explanation in codes.CODES.items():
        assert len(code) == 6
        assert explanation.endswith((".", ")."))

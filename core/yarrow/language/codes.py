"""The codes of faults: one table, from which the documentation is generated. A code never changes its meaning."""

from __future__ import annotations

from typing import Final

CODES: Final[dict[str, str]] = {}
"""Code -> what it stands for, in one sentence."""


def _code(code: str, explanation: str) -> str:
    CODES[code] = explanation
    return code


# The file and its YAML.
PARSER_BROKE = _code("YRW000", "The parser itself broke on the file, took too long or ran out of memory.")
UNREADABLE = _code("YRW001", "The file or folder can't be read.")
NOT_TEXT = _code("YRW002", "The file is not UTF-8 text.")
TOO_LARGE = _code("YRW003", "The file, or its text after alias expansion, is too large.")
SYNTAX = _code("YRW004", "The file is not YAML.")
TOO_DEEP = _code("YRW005", "The values are nested too deeply.")
TOO_MANY_NODES = _code("YRW006", "The file has too many values after alias expansion.")
DOCUMENTS = _code("YRW007", "The file holds more than one YAML document.")
EMPTY = _code("YRW008", "The file is empty.")
TAG = _code("YRW009", "The only tag of the DAG language is `!file`.")
ALIAS = _code("YRW010", "An alias names no anchor before it, or its own parent; or `<<` is used.")
DUPLICATE_KEY = _code("YRW011", "A key is given twice in one mapping.")
UNKNOWN_KEY = _code("YRW012", "There is no such key here.")
MISSING_KEY = _code("YRW013", "A required key is missing.")
WRONG_TYPE = _code("YRW014", "The value has the wrong type.")
BAD_VALUE = _code("YRW015", "The value has the right type, but is not allowed here.")
BAD_DURATION = _code("YRW016", "A duration is a number with a unit: `90s`, `5m`, `2h` or `1d`.")
BAD_KEY = _code("YRW017", "A key is not a piece of text.")
UNQUOTED_TEMPLATE = _code("YRW018", "A template must be quoted, because `{` opens a mapping in YAML.")
FILE_REFERENCE = _code("YRW019", "A `!file` can't be followed.")
BAD_ID = _code("YRW020", "A dag_id, task id or param name has characters that are not allowed, or is too long.")
BAD_DATE = _code("YRW021", "A date is not ISO 8601.")
NOT_AVAILABLE = _code("YRW022", "The key is not part of the DAG language of this version.")

# Tasks and operators.
NO_TASKS = _code("YRW030", "A DAG or a task group has no tasks.")
MISSING_OPERATOR = _code("YRW031", "A task names no operator.")
UNKNOWN_OPERATOR = _code("YRW032", "There is no such operator.")
BROKEN_OPERATOR = _code("YRW033", "The operator is installed, but can't be loaded.")
UNKNOWN_PARAMETER = _code("YRW034", "The operator has no such parameter.")
MISSING_PARAMETER = _code("YRW035", "A required parameter of the operator is missing.")
ADVICE = _code("YRW036", "The operator advises against what the task does, although it works (warning).")
CONTRADICTION = _code("YRW037", "Two settings of a task or of the DAG contradict each other.")
USELESS = _code("YRW038", "A setting has no effect because of another one, or of none (warning).")

# The graph.
UNKNOWN_TASK = _code("YRW040", "A dependency names a task or group that does not exist.")
SELF_DEPENDENCY = _code("YRW041", "A task or group depends on itself.")
CYCLE = _code("YRW042", "Tasks depend on each other in a circle.")

# Mapping.
NEVER_A_LIST = _code("YRW045", "An `expand` is over something that is never a list.")
BAD_MAPPING = _code("YRW046", "A task or group can't be mapped here, or gives too many instances.")

# The schedule.
BAD_SCHEDULE = _code("YRW050", "The schedule can't be understood or never fires.")
UNKNOWN_TIMEZONE = _code("YRW051", "The time zone is not in the IANA database.")
END_BEFORE_START = _code("YRW052", "The end date is not after the start date.")
CATCHUP_WITHOUT_START = _code("YRW053", "`catchup: true` needs a `start_date` and a `schedule`.")
NO_EFFECT = _code("YRW054", "The setting has no effect with this schedule.")

# Templates and expressions.
TEMPLATE_SYNTAX = _code("YRW060", "The template is not a valid expression of the template language.")
UNKNOWN_NAME = _code("YRW061", "A template uses a name that does not exist.")
UNKNOWN_XCOM_TASK = _code("YRW062", "A template names the XCom of a task that does not exist.")
UNKNOWN_OUTPUT = _code("YRW063", "A template names an output field that the operator does not have.")
UNKNOWN_PARAM = _code("YRW064", "A template names a param that the DAG does not declare.")
UNKNOWN_MACRO = _code("YRW065", "A template uses a macro that does not exist.")
UNKNOWN_FILTER = _code("YRW066", "A template uses a filter that does not exist.")
NOT_UPSTREAM = _code(
    "YRW067", "A template names the XCom of a task that can't have run before: itself or one downstream."
)
NO_TEMPLATE_HERE = _code("YRW068", "This value is needed before the task runs, so it can't be a template.")
NAME_NOT_HERE = _code("YRW069", "The name exists only on the worker, and this expression is evaluated before that.")

# Params.
BAD_PARAM_SCHEMA = _code("YRW070", "A param's JSON Schema is not valid.")
BAD_PARAM_DEFAULT = _code("YRW071", "A param's default does not fit its own schema.")
PARAM_WITHOUT_DEFAULT = _code("YRW072", "A DAG with a schedule needs a default for every param.")

# What the graph alone shows.
ALWAYS_SKIPPED = _code("YRW100", "The task never runs: whatever happens, it is skipped (warning).")
MAY_BE_MISSING = _code(
    "YRW101", "A template names, without a default, an XCom that may not be there when the task runs (warning)."
)
HIDDEN_FAILURE = _code(
    "YRW102", "A task that runs in any case makes the run a success although others failed (warning)."
)

# Across files, and against a deployment.
DUPLICATE_DAG_ID = _code("YRW080", "Two files have the same dag_id.")
UNKNOWN_QUEUE = _code(
    "YRW090", "No such queue is configured; the task runs only if a worker serves it all the same (warning)."
)
UNKNOWN_POOL = _code(
    "YRW091", "No such pool is configured: the task would wait, and fail after `queued_timeout` (warning)."
)
POOL_TOO_SMALL = _code("YRW092", "A task takes more slots than its pool has, so it never runs (warning).")
UNSERVED_QUEUE = _code("YRW093", "No worker of the deployment serves the queue (warning).")
DEADLINE_TOO_SHORT = _code("YRW094", "A deadline passes before a run starts, or sooner than past runs took (warning).")

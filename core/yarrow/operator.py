"""The interface of an operator: what a task does, what it is told and what it answers.

An operator is a class with annotated parameters and an `execute` method::

    from typing import TypedDict

    from yarrow import Context, Operator, param


    class Greet(Operator):
        \"\"\"Greets somebody.\"\"\"

        who: str = param(doc="Whom to greet.")
        times: int = param(default=1, minimum=1, doc="How often.")

        class Outputs(TypedDict):
            greeting: str

        def execute(self, context: Context) -> Outputs:
            context.log.info("greeting %s", self.who)
            return {"greeting": f"Hello {self.who}! " * self.times}

The annotations are the declaration: the loader checks a DAG file's `with:` against them, the published JSON Schema
and the operator reference are generated from them, `{{ xcom.greet.greeting }}` is proved against `Outputs`, and the
values are checked once more on the worker after the templates are rendered. Import heavy libraries inside `execute`:
the class itself is loaded by the scheduler and the web server.
"""

from __future__ import annotations

import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Protocol, dataclass_transform

from yarrow.jsontypes import Json
from yarrow.source_digest import source_digest

if TYPE_CHECKING:
    from yarrow.connections import Connection


class DurationMark:
    """Marks a text as a duration: `timeout: Annotated[str, DurationMark()]`, or simply `timeout: Duration`."""


Duration = Annotated[str, DurationMark()]
"""The annotation of a parameter that is a duration such as `90s`. Its value is the text: see `parse_duration`."""


def param(
    *,
    default: Any = MISSING,
    doc: str,
    minimum: float | None = None,
    maximum: float | None = None,
    pattern: str | None = None,
    template: bool = True,
    expression: bool = False,
    examples: tuple[Json, ...] = (),
) -> Any:
    """Declares a parameter of an operator.

    Args:
        default: The value when the DAG file does not give one; a parameter without a default is required. A list or
            a mapping is copied for each instance.
        doc: One or two sentences for the reference and the editor.
        minimum, maximum: Bounds of a number, inclusive.
        pattern: A regular expression that a string must match as a whole.
        template: Whether `{{ ... }}` in the value is rendered. Code sets it to False when braces are its own.
        expression: The value is itself an expression, written without braces (as `when:` is).
        examples: Values to show in the reference.
    """
    metadata = {
        "doc": doc,
        "minimum": minimum,
        "maximum": maximum,
        "pattern": pattern,
        "template": template,
        "expression": expression,
        "examples": examples,
    }
    if isinstance(default, list | dict | set):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    if default is MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


ArgumentPath = tuple[str | int, ...]
"""The way to a value within a task's `with:`: keys and list indices."""


@dataclass_transform(kw_only_default=True, field_specifiers=(param,))
class Operator(ABC):
    """What a task does. Subclasses are turned into keyword-only dataclasses."""

    Outputs: ClassVar[Any] = None
    """A TypedDict that names the fields of the returned object; None when they can't be known in advance."""

    control: ClassVar[bool] = False
    """True for operators whose result steers the run (`branch`, `short_circuit`)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(kw_only=True, repr=False)(cls)

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterable[tuple[ArgumentPath, str]]:
        """Finds what is wrong with a task beyond the types of its parameters, when its DAG file is loaded.

        Args:
            arguments: The task's `with:`, valid by itself, templates unrendered.
            downstream: The ids of the tasks directly downstream.

        Returns:
            For each problem where it is within the arguments, such as `("conditions", 0, "then")`, and a sentence.
        """
        return ()

    @classmethod
    def advise(cls, arguments: Mapping[str, Any]) -> Iterable[tuple[ArgumentPath, str]]:
        """Finds what works and is still a bad idea, when the DAG file is loaded. It is shown as a warning.

        Args:
            arguments: The task's `with:`, valid by itself, templates unrendered.

        Returns:
            As `check` does: for each warning where it is, and a sentence that says what to write instead.
        """
        return ()

    @abstractmethod
    def execute(self, context: Context) -> Any:
        """Does the work of one attempt.

        Returns:
            The XCom: JSON data (an object, when `Outputs` is declared), or None for no XCom.

        Raises:
            yarrow.Skip: The task has nothing to do and ends as skipped.
            yarrow.Fail: It failed and must not be retried.
            yarrow.Reschedule: It has to wait: the attempt gives its slot back, and `execute` is called again later, in
                another process and perhaps on another worker. `yarrow.Sensor` is made of this.
            yarrow.Interrupted: The worker is stopping; the attempt is repeated and no try is used up.
            Exception: It failed; it is retried as the task's `retries` say. What `retry_on` and `no_retry_on` are
                compared with are the names of its class and of those above it, each also with its module, and what it
                has in an attribute `kinds`, a sequence of texts. Of a YarrowError its cause counts as well.
        """

    def cache_inputs(self, context: Context) -> Json:
        """What the result depends on besides the parameters: a part of the key under which a task with `cache:` finds
        the result of an earlier run. It is called before `execute`, and only for such a task.

        Data sets in the parameters count by their digest as it is. By default this is the digest of the file that the
        operator's class is in. An operator that reads a file which a parameter names adds the digest of the file.

        Raises:
            Exception: It can't be told; the task is executed, and its result is not kept.
        """
        return {"code": source_digest(type(self).__module__)}


class OtherState(NamedTuple):
    """How a run of another DAG, or a task of it, is doing."""

    run_id: str
    state: str


class Context(Protocol):
    """What an operator may know and do while it executes one attempt."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    """1 for the first try."""
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    timezone: str
    """The name of the DAG's time zone."""
    first_started_at: datetime
    """When this try began, however often it was put off since. Aware, UTC."""
    params: Mapping[str, Json]
    downstream: Sequence[str]
    """The ids of the tasks directly downstream."""
    log: logging.Logger
    """Its lines reach the task's log with their level; so does everything printed."""
    cpus: int
    """How many threads a library should use: the cores of the worker shared out among its slots."""
    dags_folder: Path
    """The DAG folder as this worker sees it: a relative path of a model or another input file is looked for there."""
    objects_url: str
    """The fsspec URL of the object store: a relative path of an output is written below it."""

    def now(self) -> datetime:
        """This moment, aware, UTC. What depends on the time asks here, so that a test can choose it."""

    @property
    def work_dir(self) -> Path:
        """A folder of this task instance that survives a retry, for checkpoints. It is gone when the task ends."""

    def connection(self, conn_id: str) -> Connection:
        """The connection named by one of the task's parameters. Raises `NotFound` for any other."""

    def output_uri(self, name: str = "output") -> str:
        """An fsspec URL, ending in a slash, where this task instance may write its data set `name`.

        It is the same for every try, and no other task instance writes there.
        """

    def progress(self, done: float, total: float | None = None, unit: str = "rows") -> None:
        """Tells how far the work has got. Cheap: it may be called for every chunk."""

    def metric(self, name: str, value: float, **labels: str) -> None:
        """Records a figure that is stored with the attempt, such as `rows_in`."""

    def trigger_dag(self, dag_id: str, *, params: Mapping[str, Json], logical_date: datetime | None) -> str:
        """Creates a run of another DAG and returns its run_id. A retried task gets the run it made before."""

    def task_state(self, dag_id: str, task_id: str | None, logical_date: datetime) -> OtherState | None:
        """The state of a task in the run of a DAG with this logical date; without a task that of the run.

        Returns:
            None when there is no such run.

        Raises:
            Fail: There is no such DAG or task.
        """

    def check_interrupted(self) -> None:
        """Raises `Interrupted` when the worker wants to stop. Long loops call it between chunks."""

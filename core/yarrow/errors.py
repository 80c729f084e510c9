"""Every error of Yarrow that a person may read: one root; the docstring is the message unless a better one is given."""

from __future__ import annotations

from datetime import datetime


class YarrowError(Exception):
    """Something went wrong."""

    exit_code = 1

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.hint = hint
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class UsageError(YarrowError):
    """The request can't be understood."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration is not valid."""


class NotFound(UsageError):
    """There is no such thing here."""


class Conflict(UsageError):
    """The request does not fit the present state."""


class InvalidParams(UsageError):
    """The params of the run do not fit what the DAG declares."""


class BrokenOperator(UsageError):
    """An operator is installed, but can't be loaded."""


class StoreError(YarrowError):
    """The metadata database can't be used."""


class DatabaseTooNew(StoreError):
    """The database was made by a newer Yarrow."""


class SecondScheduler(StoreError):
    """Another scheduler already works on this SQLite database, which allows only one."""


class BrokerError(YarrowError):
    """The broker can't be reached. A message may or may not have been delivered."""


class InvalidToken(YarrowError):
    """The token is not valid here."""


class Refused(YarrowError):
    """The attempt is no longer this worker's."""


class Undelivered(YarrowError):
    """A notification could not be delivered, or nothing says that it was."""


class TemplateError(YarrowError):
    """A template can't be rendered."""


# What an operator may raise to say more than "it failed".


class Skip(YarrowError):
    """The task has nothing to do: it ends as skipped."""


class Fail(YarrowError):
    """The task failed and another try would not help: it is not retried."""


class Reschedule(YarrowError):
    """The task has to wait: it gives its slot back and is executed again later, within the same try."""

    def __init__(self, until: datetime, message: str | None = None) -> None:
        """Args:
        until: Aware; when to execute it again.
        message: What it waits for, for people.
        """
        super().__init__(message)
        self.until = until


class Interrupted(YarrowError):
    """The worker was asked to stop in the middle of the task: it runs again, and no try is used up."""

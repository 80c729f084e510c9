"""The task that does nothing, so that only the scheduler's own cost is measured."""


def noop() -> None:
    """Does nothing."""

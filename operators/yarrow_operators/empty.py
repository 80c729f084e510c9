"""Does nothing."""

from __future__ import annotations

from yarrow import Context, Operator


class Empty(Operator):
    """Does nothing and needs no worker: the scheduler sets it to success as soon as it may run.

    It serves to join branches or to name a point in the graph.
    """

    def execute(self, context: Context) -> None:
        """Nothing."""

"""The metadata store: the one door to the database, and the only truth there is."""

from yarrow.store.store import Store

__all__ = ["Store"]

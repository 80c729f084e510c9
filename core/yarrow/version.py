"""The version of Yarrow, which the wheel, the worker protocol and `yarrow version` all read."""

__version__ = "0.1.0"

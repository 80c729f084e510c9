"""Yarrow runs batch AI and data pipelines written as static YAML.

What operators and tests import lives here; everything else is the inner layout and may change.
"""

from yarrow.errors import Fail, Interrupted, Reschedule, Skip, YarrowError
from yarrow.operator import Context, Duration, Operator, param
from yarrow.sensor import NotYet, Sensor
from yarrow.version import __version__

__all__ = [
    "Context",
    "Duration",
    "Fail",
    "Interrupted",
    "NotYet",
    "Operator",
    "Reschedule",
    "Sensor",
    "Skip",
    "YarrowError",
    "__version__",
    "param",
]

"""Yarrow runs batch AI and data pipelines written as static YAML.

What operators and tests import lives here; everything else is the inner layout and may change.
"""

from yarrow.errors import Fail, Interrupted, Skip, YarrowError
from yarrow.operator import Context, Operator, param
from yarrow.version import __version__

__all__ = ["Context", "Fail", "Interrupted", "Operator", "Skip", "YarrowError", "__version__", "param"]

"""Calls a Python function."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

from yarrow import Context, Fail, Operator, YarrowError, param
from yarrow.jsontypes import Json
from yarrow.source_digest import source_digest


class Python(Operator):
    """Calls a Python function; what it returns is the XCom.

    The function is imported by the worker, from what is installed in its environment and from the folders of
    `worker_python_path`. The folder of DAG files is not among them unless it is listed there: a DAG folder is data.

    A function with a parameter named `context` gets the `yarrow.Context` of the attempt. It may raise `yarrow.Skip`,
    and `yarrow.Fail` for an error that another try would not mend.
    """

    callable: str = param(
        doc="The function, as `module:function`.",
        pattern=r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*",
        template=False,
        examples=("my_lib.features:build",),
    )
    args: list[Json] = param(default=[], doc="Positional arguments.")
    kwargs: dict[str, Json] = param(default={}, doc="Keyword arguments.", examples=({"day": "{{ ds }}"},))

    def execute(self, context: Context) -> Json:
        function = self._load()
        kwargs = dict(self.kwargs)
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some built-in functions do not tell
            signature = None
        if signature is not None:
            if "context" in signature.parameters and "context" not in kwargs:
                kwargs["context"] = context  # type: ignore[assignment] # not Json; only this function sees it
            self._check_arguments(signature, kwargs)
        result: Json = function(*self.args, **kwargs)
        return result

    def cache_inputs(self, context: Context) -> Json:
        """With the file that the function is in. What that imports is not looked at."""
        function = inspect.unwrap(self._load())
        module = getattr(function, "__module__", None) or self.callable.partition(":")[0]
        return {"operator": super().cache_inputs(context), "function": source_digest(module)}

    def _load(self) -> Callable[..., Any]:
        module_name, _, path = self.callable.partition(":")
        module = self._import(module_name)
        try:
            function: Any = functools.reduce(getattr, path.split("."), module)
        except AttributeError as error:
            file = getattr(module, "__file__", None) or "a built-in module"
            raise Fail(f"`{self.callable}`: the module has no `{path}`. It was loaded from {file}.") from error
        if not callable(function):
            raise Fail(f"`{self.callable}` is not a function but {type(function).__name__}.")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise Fail(
                f"`{self.callable}` is an async function, which a worker does not run.",
                hint="Name a plain function that calls `asyncio.run(...)`.",
            )
        return function  # type: ignore[no-any-return] # proved callable above

    def _import(self, name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise Fail(f"`{name}` can't be imported: it needs the module `{error.name}`.") from error
            searched = ", ".join(path or "." for path in sys.path)
            raise Fail(
                f"There is no module `{error.name}` on this worker. Searched: {searched}.",
                hint="Install it in the worker's environment, or add its folder to `worker_python_path`.",
            ) from error
        except YarrowError:
            raise
        except Exception as error:
            raise Fail(f"`{name}` can't be imported: {type(error).__name__}: {error}") from error

    def _check_arguments(self, signature: inspect.Signature, kwargs: dict[str, Json]) -> None:
        try:
            signature.bind(*self.args, **kwargs)
        except TypeError as error:
            raise Fail(
                f"`{self.callable}` can't be called with these arguments: {error}.",
                hint=f"Its signature is {self.callable.partition(':')[2]}{signature}.",
            ) from error

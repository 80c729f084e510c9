"""Captures what a task prints and logs in this process, line by line, and lets it through besides."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

from yarrow.secrets import Masker


@contextmanager
def captured(take: Callable[[str], None], masker: Masker, *, echo: bool) -> Iterator[logging.Logger]:
    """Passes each line that is printed or logged inside the block to `take`, secrets masked.

    Yields the logger for the task's own messages. With `echo`, output is also shown where it would have gone, at
    once, so that a debugger's prompt works.
    """
    handler = _Handler(take, masker, sys.stderr if echo else None)
    log = logging.Logger("yarrow.task", logging.DEBUG)
    log.addHandler(handler)
    out, err = (_Tee(stream, take, masker, echo=echo) for stream in (sys.stdout, sys.stderr))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO) or logging.INFO)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield log
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        out.end()
        err.end()


class _Handler(logging.Handler):
    """Splits log records into lines."""

    def __init__(self, take: Callable[[str], None], masker: Masker, shown: TextIO | None) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self._take = take
        self._masker = masker
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self._masker.mask(self.format(record))
        except Exception:  # noqa: BLE001 - a message that can't be formatted is the logging call's fault, not the task's end
            self.handleError(record)
            return
        for line in text.splitlines():
            self._take(line)
        if self._shown is not None:
            print(text, file=self._shown)


class _Tee(io.TextIOBase):
    """A text stream that passes on what is written to it and takes note of each line."""

    def __init__(self, stream: TextIO, take: Callable[[str], None], masker: Masker, *, echo: bool) -> None:
        self._stream = stream
        self._take = take
        self._masker = masker
        self._echo = echo
        self._begun = ""  # a line without its end

    def write(self, text: str) -> int:
        if self._echo:
            self._stream.write(self._masker.mask(text))
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._take(self._masker.mask(line))
        return len(text)

    def end(self) -> None:
        """Takes note of a last line that was not ended."""
        if self._begun:
            self._take(self._masker.mask(self._begun))
            self._begun = ""

    def flush(self) -> None:
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has a variable, whose value can't be computed
        return self._stream.encoding

"""The text of one file, with its lines and its name."""

from __future__ import annotations

import re

from yarrow.language.faults import Fault, Severity

_LONGEST = 1000


class Source:
    """One text with the name that people know it by."""

    __slots__ = ("_lines", "file", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self._lines: list[str] | None = None

    def line(self, number: int) -> str:
        """The line of that number, counted from 1; empty beyond the end."""
        if self._lines is None:
            self._lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", self.text)  # what libyaml takes for the end of a line
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""

    def fault(
        self,
        place: tuple[int, int],
        code: str,
        message: str,
        hint: str | None = None,
        severity: Severity = "error",
    ) -> Fault:
        return Fault(self.file, place[0], place[1], code, _cut(message), _cut(hint) if hint else None, severity)


def _cut(sentence: str) -> str:
    """A sentence of bearable length: what it quotes from a file may be a mebibyte long."""
    return sentence if len(sentence) <= _LONGEST else f"{sentence[: _LONGEST - 100]} … {sentence[-90:]}"

"""Explains the everyday mistakes of writing YAML: what the parser stumbled over, and how to mend it."""

from __future__ import annotations

import re
from typing import Final

from yaml import MarkedYAMLError

from yarrow.language import codes
from yarrow.language.faults import Fault
from yarrow.language.source import Source

# A value that starts right after a key, a dash, a bracket or a comma.
_VALUE: Final = r"(?:^\s*|[\[{,]\s*|(?:^|\s)-\s+|:\s+)"
_TEMPLATE = re.compile(_VALUE + r"(?=\{\{)")
_STAR = re.compile(_VALUE + r"(?=\*)")
_RESERVED = re.compile(_VALUE + r"(?=[@`%])")
_TAB = re.compile(r"^ *(?=\t)")


def unquoted_template(source: Source, line: int, column: int) -> Fault:
    """The fault of a `{{ template }}` without quotes that starts at this place."""
    text = source.line(line)
    end = text.find("}}", column - 1)
    shown = text[column - 1 : end + 2] if end >= 0 else text[column - 1 :].rstrip()
    rest = _rest_of_value(text, column - 1, column - 1 + len(shown))
    quote = "'" if '"' in shown + rest else '"'
    return source.fault(
        (line, column),
        codes.UNQUOTED_TEMPLATE,
        f"`{shown}` must be quoted here, because `{{` opens a mapping in YAML.",
        f"Write {quote}{shown}{rest}{quote}.",
    )


def explain(source: Source, error: MarkedYAMLError) -> Fault:
    """The fault of a text that is not YAML: the likeliest mistake near the place where the parser gave up."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    first = error.context_mark.line + 1 if error.context_mark is not None else line
    problem = error.problem or "the text is not YAML"
    for number in (line, first) if "flow" in (error.context or "") else (line,):
        fault = _mistake(source, number)
        if fault is not None:
            return fault
    message, hint, at_start = _words(problem, error.context or "")
    if at_start and error.context_mark is not None:
        line, column = error.context_mark.line + 1, error.context_mark.column + 1
    return source.fault((line, column), codes.SYNTAX, message, hint)


def _mistake(source: Source, number: int) -> Fault | None:
    """A mistake that one line shows by itself."""
    line = source.line(number)
    if line.lstrip().startswith("#"):
        return None
    if (match := _TAB.match(line)) is not None:
        message, hint = "A tab is used for indentation, which YAML does not allow.", "Indent with spaces."
        return source.fault((number, match.end() + 1), codes.SYNTAX, message, hint)
    if (match := _unquoted(_TEMPLATE, line)) is not None:
        return unquoted_template(source, number, match.end() + 1)
    for pattern, meaning in ((_STAR, "begins an alias"), (_RESERVED, "has a meaning of its own")):
        if (match := _unquoted(pattern, line)) is not None:
            value = line[match.end() :]
            value = value[: len(value) if value[0] != "*" else _end_of_value(value)].split(" #")[0].rstrip()
            message = f"A text that starts with {_code(value[0])} must be quoted, because in YAML that {meaning}."
            quote = "'" if '"' in value else '"'
            return source.fault((number, match.end() + 1), codes.SYNTAX, message, f"Write {quote}{value}{quote}.")
    return None


def _words(problem: str, context: str) -> tuple[str, str | None, bool]:
    """Message, hint, and whether the place is where the construct began."""
    if "mapping values are not allowed" in problem:
        return (
            "A `:` stands where no key can be: the line is indented too far, or a text with `: ` in it is not quoted.",
            "Line the key up with its neighbours, or put the whole text in quotes.",
            False,
        )
    if "quoted scalar" in context and "end of stream" in problem:
        return "A quote is opened here and never closed.", "Close it with the same quote.", True
    if "quoted scalar" in context and "escape" in problem:
        return (
            "A `\\` in a text in double quotes starts an escape, and this one does not exist.",
            "Use single quotes, or write `\\\\`.",
            False,
        )
    if "flow sequence" in context or "flow mapping" in context:
        bracket, closing = ("[", "]") if "sequence" in context else ("{", "}")
        return f"The `{bracket}` opened here has no `{closing}`, or a `,` is missing inside.", None, True
    if "flow node" in context:
        return "A value is missing here: a `[` or `{` before it is not closed, or a `,` is too many.", None, False
    if "simple key" in context and "could not find expected ':'" in problem:
        return "A key needs a `:` and a space after it.", "Write `key: value`.", True
    if "block mapping" in context or "block collection" in context:
        return (
            "The indentation does not fit: this line belongs to no key above it.",
            "Give keys of one mapping the same indentation; items of one list start with `- `.",
            False,
        )
    about = f" ({context})" if context else ""
    return f"The file is not YAML: {problem}{about}.", None, False


def _code(character: str) -> str:
    return "a backtick" if character == "`" else f"`{character}`"


def _end_of_value(text: str) -> int:
    """Where a value in brackets ends, or the whole of it."""
    match = re.search(r"[\],}]", text)
    # A cron expression may have commas; a closing bracket after it means that it stood in brackets.
    return match.start() if match is not None and match.group() != "," else len(text)


def _rest_of_value(line: str, start: int, end: int) -> str:
    """What follows a template up to the end of its value: `/x.csv` in `{{ ds }}/x.csv`."""
    rest = line[end:]
    if rest.lstrip().startswith(":"):  # the template is a key
        return ""
    stop = r"\s+#" if line[:start].rstrip()[-1:] not in ("[", "{", ",") else r"\s+#|[,\]}]"
    return re.split(stop, rest, maxsplit=1)[0].rstrip()


def _unquoted(pattern: re.Pattern[str], line: str) -> re.Match[str] | None:
    """The first match that does not stand in quotes."""
    for match in pattern.finditer(line):
        before = line[: match.end()]
        if before.count('"') % 2 == 0 and before.count("'") % 2 == 0:
            return match
    return None

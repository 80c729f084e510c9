"""A selector: which tasks of a DAG a person means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from yarrow.errors import UsageError
from yarrow.language.shape import did_you_mean
from yarrow.language.spec import DagSpec
from yarrow.plans.closure import SELECTED, reached

_TERM = re.compile(r"(?P<upstream>\+?)(?:tag:(?P<tag>[^+]+)|(?P<name>[\w.*-]+))(?P<downstream>\+?)", re.ASCII)
_FORMS = (
    "A selector is made of `task`, `+task` (with all upstream), `task+` (with all downstream), `group.*` and `tag:x`."
)


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a selector."""

    name: str  # a task id in which each * stands for any characters; of a tag the tag itself
    is_tag: bool = False
    upstream: bool = False  # and all tasks upstream of these
    downstream: bool = False

    def found_in(self, spec: DagSpec) -> tuple[str, ...]:
        """The tasks that it names, without what is upstream or downstream of them."""
        if self.is_tag:
            return tuple(spec.tasks) if self.name in spec.tags else ()
        if "*" not in self.name:
            return (self.name,) if self.name in spec.tasks else ()
        pattern = re.compile(".*".join(re.escape(part) for part in self.name.split("*")))
        return tuple(task_id for task_id in spec.tasks if pattern.fullmatch(task_id))

    def __str__(self) -> str:
        return f"{'+' * self.upstream}{'tag:' * self.is_tag}{self.name}{'+' * self.downstream}"


@dataclass(frozen=True, slots=True)
class Selector:
    """The union of its terms; `parse` makes one of text."""

    terms: tuple[Term, ...]

    def of(self, spec: DagSpec) -> tuple[str, ...]:
        """The tasks of a DAG that it selects, in the order of the tasks.

        Raises:
            UsageError: It names a task that the DAG has not, or selects nothing.
        """
        return tuple(self.whys(spec))

    def whys(self, spec: DagSpec) -> dict[str, str]:
        """The tasks that it selects, each with why: selected, upstream of x, downstream of x. Raises as `of` does."""
        if lacking := self.lacking(spec):
            raise UsageError(f"The DAG `{spec.dag_id}` has no {lacking}.", hint=self._hint(spec))
        found: dict[str, str] = {}
        for term in self.terms:
            found.update(dict.fromkeys(term.found_in(spec), SELECTED))
        for term in self.terms:
            named = term.found_in(spec)
            for task_id, why in reached(spec, named, upstream=term.upstream, downstream=term.downstream).items():
                found.setdefault(task_id, why)
        return {task_id: found[task_id] for task_id in spec.tasks if task_id in found}

    def lacking(self, spec: DagSpec) -> str | None:
        """What it names that a DAG has not, in words such as "task `x`"; None: it selects something there."""
        if (unknown := self._unknown(spec)) is not None:
            if "*" not in unknown.name:
                return f"task `{unknown.name:.100}`"
            group = unknown.name.removesuffix(".*")
            return f"task group `{group:.100}`" if "*" not in group else f"task whose id is like `{unknown.name:.100}`"
        if not any(term.found_in(spec) for term in self.terms):
            return f"task that `{self!s:.100}` selects"
        return None

    def _unknown(self, spec: DagSpec) -> Term | None:
        """The first term with a name that no task has."""
        return next((term for term in self.terms if not term.is_tag and not term.found_in(spec)), None)

    def _hint(self, spec: DagSpec) -> str | None:
        unknown = self._unknown(spec)
        if unknown is None:
            tags = ", ".join(f"`{tag}`" for tag in spec.tags)
            return f"Its tags are {tags}." if tags else "It has no tags."
        groups = _groups(spec)
        if unknown.name in groups:
            return f"`{unknown.name}` is a task group: `{unknown.name}.*` selects its tasks."
        if "*" in unknown.name:
            return did_you_mean(unknown.name, [f"{group}.*" for group in groups])
        inside = next((task_id for task_id in spec.tasks if task_id.endswith(f".{unknown.name}")), None)
        return f"Did you mean `{inside}`?" if inside else did_you_mean(unknown.name, spec.tasks)

    def __str__(self) -> str:
        return ",".join(str(term) for term in self.terms)


def parse(text: str) -> Selector:
    """The selector that is written in text: terms with commas or white space between them.

    Raises:
        UsageError: It is none.
    """
    terms = tuple(_term(part) for part in re.split(r"[\s,]+", text) if part)
    if not terms:
        raise UsageError("The selector is empty.", hint=_FORMS)
    return Selector(tuple(dict.fromkeys(terms)))


def _term(text: str) -> Term:
    match = _TERM.fullmatch(text)
    if match is None:
        instance = re.fullmatch(r".+\[\d+\]\+?", text)
        hint = "One instance of a mapped task is chosen by its map index." if instance else _FORMS
        raise UsageError(f"`{text:.100}` is no selector.", hint=hint)
    tag = match["tag"]
    return Term(tag or match["name"], tag is not None, bool(match["upstream"]), bool(match["downstream"]))


def _groups(spec: DagSpec) -> dict[str, None]:
    """The ids of the groups that the tasks are in, outer ones too."""
    parts = (task_id.split(".")[:-1] for task_id in spec.tasks)
    return dict.fromkeys(".".join(names[:size]) for names in parts for size in range(1, len(names) + 1))

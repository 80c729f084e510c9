"""How a run must end, told a second time and as plainly as the rules are written down: naive, slow and independent.

It shares nothing with the product but the form of a DAG. Tasks run at once when they may, and end one after the other
in a given order; whatever follows from an end has followed before the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from yarrow.language.spec import DagSpec, TaskSpec

Instance = tuple[str, int]

FINISHED = ("success", "failed", "skipped", "upstream_failed")
BAD = ("failed", "upstream_failed")


@dataclass(frozen=True)
class End:
    """How a task ends when it runs: success, failed (every try of it) or skipped; and what it chose, if it chooses."""

    state: str = "success"
    follow: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Seen:
    """The upstream instances that a rule looks at, counted by their state."""

    states: tuple[str, ...]
    setups: tuple[str, ...] = ()  # the states of those among them that are setups

    @property
    def upstream(self) -> int:
        return len(self.states)

    @property
    def success(self) -> int:
        return self.states.count("success")

    @property
    def skipped(self) -> int:
        return self.states.count("skipped")

    @property
    def failed(self) -> int:
        return self.states.count("failed")

    @property
    def upstream_failed(self) -> int:
        return self.states.count("upstream_failed")

    @property
    def done(self) -> bool:
        return all(state in FINISHED for state in self.states)


EARLY: Mapping[str, Callable[[Seen], str | None]] = {
    "all_success": lambda c: "upstream_failed" if c.failed or c.upstream_failed else "skipped" if c.skipped else None,
    "all_failed": lambda c: "skipped" if c.success or c.skipped else None,
    "all_done": lambda c: None,
    "all_done_min_one_success": lambda c: (
        "skipped" if c.skipped else "upstream_failed" if c.done and c.success == 0 else None
    ),
    "all_skipped": lambda c: "skipped" if c.success or c.failed or c.upstream_failed else None,
    "one_failed": lambda c: "skipped" if c.done and not c.failed and not c.upstream_failed else None,
    "one_success": lambda c: (
        "skipped" if c.done and c.skipped == c.upstream else "upstream_failed" if c.done and c.success == 0 else None
    ),
    "one_done": lambda c: "skipped" if c.done and not c.success and not c.failed else None,
    "none_failed": lambda c: "upstream_failed" if c.failed or c.upstream_failed else None,
    "none_failed_min_one_success": lambda c: (
        "upstream_failed" if c.failed or c.upstream_failed else "skipped" if c.skipped == c.upstream else None
    ),
    "none_skipped": lambda c: "skipped" if c.skipped else None,
    "always": lambda c: None,
    "all_done_setup_success": lambda c: (
        "skipped"
        if c.done and c.setups and all(state == "skipped" for state in c.setups)
        else "upstream_failed"
        if c.done and c.setups and "success" not in c.setups
        else None
    ),
}
"""Rule -> the state that the task takes without running, perhaps before all upstream tasks have ended."""

RUNS: Mapping[str, Callable[[Seen], bool]] = {
    "all_success": lambda c: c.success == c.upstream,
    "all_failed": lambda c: c.failed + c.upstream_failed == c.upstream,
    "all_done": lambda c: c.done,
    "all_done_min_one_success": lambda c: c.done and c.skipped == 0 and c.success >= 1,
    "all_skipped": lambda c: c.skipped == c.upstream,
    "one_failed": lambda c: c.failed + c.upstream_failed >= 1,
    "one_success": lambda c: c.success >= 1,
    "one_done": lambda c: c.success + c.failed >= 1,
    "none_failed": lambda c: c.success + c.skipped == c.upstream,
    "none_failed_min_one_success": lambda c: c.success + c.skipped == c.upstream and c.skipped < c.upstream,
    "none_skipped": lambda c: c.done and c.skipped == 0,
    "always": lambda c: True,
    "all_done_setup_success": lambda c: c.done and ("success" in c.setups or not c.setups),
}
"""Rule -> whether the task may run."""


@dataclass
class Oracle:
    """One run. `states` holds every task instance; a mapped task has the index -1 until it is known how many it is.

    Args:
        spec: The DAG. What its templates and operators say is not looked at: it is told by the other arguments.
        ends: How tasks end when they run; success by default. Under (task, index) for one instance, (task, -1) for all.
        order: Of those that run, the one that stands first here ends next; those that do not stand here, in the order
            in which they began.
        whens: What is `when` of a task or of an instance; true by default.
        sizes: The length of the list over which a task, or under its id a group, is mapped.
    """

    spec: DagSpec
    ends: Mapping[Instance, End] = field(default_factory=dict)
    order: Sequence[Instance] = ()
    whens: Mapping[Instance, bool] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    states: dict[Instance, str] = field(default_factory=dict)  # filled in by `run`, as all that follows
    tries: dict[Instance, int] = field(default_factory=dict)
    due: dict[Instance, float] = field(default_factory=dict)
    running: list[Instance] = field(default_factory=list)
    started: dict[Instance, None] = field(default_factory=dict)
    stopping: list[Instance] = field(default_factory=list)
    now: float = 0.0

    def run(self) -> tuple[dict[Instance, str], str]:
        """The final states of the instances, and of the run."""
        self.states = {(task_id, -1): "none" for task_id in self.spec.tasks}
        while True:
            self.settle()
            self.started.update(dict.fromkeys(sorted(self.running, key=self.place)))
            if self.stopping:
                self.states.update(dict.fromkeys(self.stopping, "failed"))
                self.stopping.clear()
            elif self.running:
                self.end(min(self.running, key=lambda one: self.order.index(one) if one in self.order else 10**6))
            elif self.due:
                self.now = min(self.due.values())
                for one in [one for one, due in self.due.items() if due <= self.now]:
                    del self.due[one]
                    self.start(one)
            else:
                return self.states, self.run_state()

    def place(self, me: Instance) -> tuple[int, int]:
        return list(self.spec.tasks).index(me[0]), me[1]

    def start(self, me: Instance) -> None:
        self.states[me] = "running"
        self.running.append(me)

    def instances(self, task_id: str) -> list[Instance]:
        return sorted(one for one in self.states if one[0] == task_id)

    def settle(self) -> None:
        """Goes over all that still waits until nothing changes any more."""
        while True:
            before = dict(self.states)
            self.expand_groups()
            for task_id in self.spec.tasks:
                for me in self.instances(task_id):
                    if self.states[me] == "none":
                        self.look_at(me)
            if self.states == before:
                return

    def look_at(self, me: Instance) -> None:
        """Moves one instance that waits, if it is time to."""
        task = self.spec.tasks[me[0]]
        if task.map_group is not None and me[1] == -1:
            return
        if task.expand is not None and task.map_group is None and me[1] >= 0:  # its rule said yes before it was mapped
            self.begin(me)
            return
        verdict = self.verdict(me)
        if verdict == "wait":
            return
        if verdict != "run":
            self.states[me] = verdict
        elif not self.whens.get(me, True):
            self.states[me] = "skipped"
        elif task.expand is not None and task.map_group is None:
            self.become(me[0], self.sizes[me[0]])
        elif task.operator == "empty":
            self.states[me] = "success"
        elif task.operator == "approval":
            self.states[me] = "awaiting_input"
            self.running.append(me)
        else:
            self.start(me)

    def begin(self, me: Instance) -> None:
        if self.whens.get(me, True):
            self.start(me)
        else:
            self.states[me] = "skipped"

    def become(self, task_id: str, size: int) -> None:
        """A mapped task becomes so many instances; none at all is a skip."""
        if size == 0:
            self.states[task_id, -1] = "skipped"
            return
        del self.states[task_id, -1]
        for index in range(size):
            self.states[task_id, index] = "none"

    def expand_groups(self) -> None:
        """A mapped group is expanded as a whole when the tasks have ended over whose XComs it is mapped."""
        for task_id, task in self.spec.tasks.items():
            if task.map_group is None or self.states.get((task_id, -1)) != "none":
                continue
            sources = [self.states[one] for name in task.expand_xcoms for one in self.instances(name)]
            if not all(state in FINISHED for state in sources):
                continue
            if any(state in BAD for state in sources):
                self.states[task_id, -1] = "upstream_failed"
            elif "skipped" in sources:
                self.states[task_id, -1] = "skipped"
            else:
                self.become(task_id, self.sizes[task.map_group])

    def verdict(self, me: Instance) -> str:
        """`wait`, `run`, or the state that it takes without running."""
        task = self.spec.tasks[me[0]]
        if not task.upstream or task.trigger_rule == "always":
            return "run"
        setups = [] if task.teardown else self.far_setups(me)
        if any(state in BAD for state in setups):
            return "upstream_failed"
        if "skipped" in setups:
            return "skipped"
        seen = self.seen(me)
        early = EARLY[task.trigger_rule](seen)
        if early is not None:
            return early
        ready = RUNS[task.trigger_rule](seen) and all(state == "success" for state in setups)
        return "run" if ready else "wait"

    def seen(self, me: Instance) -> Seen:
        upstream = self.spec.tasks[me[0]].upstream
        states = tuple(self.states[one] for name in upstream for one in self.of(name, me))
        setups = tuple(
            self.states[one] for name in upstream if self.spec.tasks[name].setup for one in self.of(name, me)
        )
        return Seen(states, setups)

    def of(self, name: str, me: Instance) -> list[Instance]:
        """The instances of a task that another instance sees: within a mapped group the one of its own index alone."""
        group = self.spec.tasks[me[0]].map_group
        if group is not None and self.spec.tasks[name].map_group == group and (name, -1) not in self.states:
            return [(name, me[1])]
        return self.instances(name)

    def far_setups(self, me: Instance) -> list[str]:
        """The states of the setups upstream, but not directly, that an instance needs.

        Those are the setups that have no teardown, or one that comes after the instance.
        """
        tasks = self.spec.tasks
        found = []
        for name in self.before(me[0]) - set(tasks[me[0]].upstream):
            teardowns = {other for other, task in tasks.items() if name in task.upstream and task.teardown}
            if tasks[name].setup and (not teardowns or teardowns & self.after(me[0])):
                found += [self.states[one] for one in self.of(name, me)]
        return found

    def before(self, task_id: str) -> set[str]:
        return {name for up in self.spec.tasks[task_id].upstream for name in {up, *self.before(up)}}

    def after(self, task_id: str) -> set[str]:
        return {name for name in self.spec.tasks if task_id in self.before(name)}

    def end(self, me: Instance) -> None:
        """Ends a try of one that runs, as it was told to."""
        task, told = self.spec.tasks[me[0]], self.ends.get(me, self.ends.get((me[0], -1), End()))
        self.running.remove(me)
        if task.operator == "approval":
            self.answer(me, approved=told.state == "success")
            return
        self.tries[me] = self.tries.get(me, 0) + 1
        if told.state == "failed" and self.tries[me] <= task.retries:
            self.states[me] = "up_for_retry"
            self.due[me] = self.now + task.retry_delay
            return
        self.conclude(me, told.state)
        if told.state == "success" and told.follow is not None:
            self.choose(me, told.follow)

    def answer(self, me: Instance, approved: bool) -> None:
        """A person approves, or rejects, which either cuts off what comes after it or is a failure."""
        if approved or self.spec.tasks[me[0]].arguments.get("on_reject", "skip") == "skip":
            self.states[me] = "success"
            if not approved:
                self.choose(me, ())
        else:
            self.conclude(me, "failed")

    def conclude(self, me: Instance, state: str) -> None:
        """It has ended for good."""
        task = self.spec.tasks[me[0]]
        self.states[me] = "skipped" if state == "failed" and task.soft_fail else state
        if self.states[me] == "failed" and self.spec.fail_fast and counts(task):
            self.stop()

    def choose(self, me: Instance, follow: tuple[str, ...]) -> None:
        """A branch skips what is directly after it and not chosen; a short circuit all that is after it."""
        directly = {name for name, task in self.spec.tasks.items() if me[0] in task.upstream}
        if self.spec.tasks[me[0]].operator == "branch":
            kept = set(follow) | {name for chosen in follow for name in self.after(chosen)}
            skipped = directly - kept
        else:
            skipped = self.after(me[0]) - set(follow)
        for name in skipped:
            if not self.spec.tasks[name].teardown:
                for one in self.reached(me, name):
                    if self.states[one] == "none":
                        self.states[one] = "skipped"

    def reached(self, me: Instance, name: str) -> list[Instance]:
        """The instances of a later task that one instance's choice is about."""
        if me[1] == -1:
            return self.instances(name)
        within = self.spec.tasks[name].map_group == self.spec.tasks[me[0]].map_group
        return [one for one in self.instances(name) if within and one[1] == me[1]]

    def stop(self) -> None:
        """The first failure ends a run that is to fail fast: what waits is skipped, what runs is stopped and fails."""
        for one, state in self.states.items():
            if self.spec.tasks[one[0]].teardown or state in FINISHED:
                continue
            if state == "running":
                self.stopping.append(one)
            else:
                self.states[one] = "skipped"
            self.due.pop(one, None)
            if one in self.running:
                self.running.remove(one)

    def run_state(self) -> str:
        assert all(state in FINISHED for state in self.states.values()), self.states
        deciding = {name for name, task in self.spec.tasks.items() if counts(task)}
        if self.spec.fail_fast and any(self.states[one] == "failed" for one in self.states if one[0] in deciding):
            return "failed"  # though its leaves were skipped
        if self.spec.run_state == "leaves":
            deciding = {
                name
                for name in deciding
                if not any(name in task.upstream and counts(task) for task in self.spec.tasks.values())
            }
            if not deciding:  # there is nothing but teardowns
                upstream = {name for task in self.spec.tasks.values() for name in task.upstream}
                deciding = set(self.spec.tasks) - upstream
        return "failed" if any(self.states[one] in BAD for one in self.states if one[0] in deciding) else "success"


def counts(task: TaskSpec) -> bool:
    """Whether the failure of a task counts: a teardown's does only when it says so."""
    return not task.teardown or task.on_failure_fail_dagrun

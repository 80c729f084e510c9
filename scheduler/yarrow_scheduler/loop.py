"""The scheduler's loop: its steps by name, and when to take them."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import uuid
from datetime import datetime, timedelta

from yarrow.clock import Clock, utc_now
from yarrow.config import Config
from yarrow.errors import SecondScheduler, YarrowError
from yarrow.executor import Executor
from yarrow.notify import Sender
from yarrow.store import Store
from yarrow.store.workers import served_queues
from yarrow.wakeup import Listener
from yarrow_scheduler.beat import Beat
from yarrow_scheduler.bell import Bell
from yarrow_scheduler.catalog import Catalog
from yarrow_scheduler.courier import Courier
from yarrow_scheduler.deadlines import DeadlineWatch
from yarrow_scheduler.decide import Decider
from yarrow_scheduler.dispatch import dispatch
from yarrow_scheduler.folder import FolderWatch
from yarrow_scheduler.parser import Parser
from yarrow_scheduler.plan import Planner
from yarrow_scheduler.prune import Pruner
from yarrow_scheduler.publisher import Publisher
from yarrow_scheduler.sweep import Sweeper

_REFUSED_PAUSE = 0.05  # seconds until a decision that came too late is taken anew
_OVERDUE_PAUSE = 1.0  # seconds until something is tried again that was due and could not be done
_LONGEST_FAILURE_PAUSE = 10.0  # seconds between tries while the database is away
_LISTEN_SECONDS = 30.0

_log = logging.getLogger(__name__)


class Scheduler:
    """One scheduler. `run` until `stop`; or call `tick` by hand, with the time as an argument."""

    def __init__(self, config: Config, store: Store, executor: Executor, key: bytes, clock: Clock = utc_now) -> None:
        """Args:
        key: Signs the tokens of the attempts.
        """
        self.scheduler_id = uuid.uuid4().hex
        self.publisher = Publisher(
            executor, store.attempts, key, clock, dispatch_timeout=config.dispatch_timeout, on_idle=self.wake
        )
        self._config = config
        self._store = store
        self._clock = clock
        self._bell = Bell()
        self._stopping = False
        self._failures = 0
        self._ticked_at: datetime | None = None
        self._planner = Planner(store)
        self._decider = Decider(store, config.queued_timeout)
        self._sweeper = Sweeper(store, config)
        self._deadlines = DeadlineWatch(store)
        self._courier = Courier(store.notifications, Sender(config, os.environ), clock, config)
        self._pruner = Pruner(store, config, clock)
        self._beat = Beat(store, self.scheduler_id, config.heartbeat_interval)

    def tick(self, now: datetime) -> float | None:
        """Takes every step once.

        Returns:
            In how many seconds there is more to do for certain; None: not before something happens or time passes.
        """
        started = time.monotonic()
        if self._ticked_at is not None and now < self._ticked_at:
            self._planner.forget()
        self._ticked_at = now
        workers = self._store.workers.alive(self._config.lease)
        served = served_queues(workers)

        more_due = self._planner.plan(now)
        self._store.runs.start_due(now)
        decided = self._decider.decide(now)
        more_passed = self._deadlines.judge(now)
        self._store.attempts.grant(self._config.parallelism, served=served, now=now)
        dispatch(self._store, now, workers, self.publisher)
        self._sweeper.sweep(now, served)
        self._beat.beat(now, time.monotonic() - started, self.publisher.error)

        for dag_id in decided.ended:
            self._planner.run_ended(dag_id)
        self._courier.wake()
        if more_due or more_passed or decided.more or decided.ended or decided.published:
            return 0.0
        return _REFUSED_PAUSE if decided.refused else None

    def run(self) -> None:
        """Schedules until `stop` is called.

        Raises:
            SecondScheduler: Another one works on this SQLite database.
            StoreError: The database can't be used at the start. Later on it is waited for.
        """
        self._beat.register()
        self._store.workers.set_pools(self._config.pools)
        parser = Parser(self._config)
        catalog = Catalog(self._config.dags_folder, self._store.catalog, parser, self._clock)
        watch = FolderWatch(catalog, parser, self._config.parse_interval, self.wake)
        with Listener(self._config.broker_url) as listener:
            threading.Thread(target=self._listen, args=(listener,), name="yarrow-listener", daemon=True).start()
            watch.start()
            self._courier.start()
            self._pruner.start()
            _log.info("scheduler started, DAG folder %s", self._config.dags_folder, extra={"action": "started"})
            try:
                while not self._stopping:
                    self._bell.wait(self._pass())
            finally:
                watch.close()
                self._pruner.close()
                self.publisher.close()
                self._courier.close()
        self._beat.unregister()
        _log.info("scheduler stopped", extra={"action": "stopped"})

    def wake(self) -> None:
        """Has the loop take its steps now. Safe from any thread."""
        self._bell.ring()

    def stop(self) -> None:
        """Ends `run` after the pass under way. Safe from any thread and in a signal handler."""
        self._stopping = True
        self._bell.ring()

    def _pass(self) -> float:
        """Takes the steps now. Returns for how many seconds to sleep. A failure is logged, and tried again later."""
        try:
            now = self._clock()
            pause = self.tick(now)
            if pause is None:
                pause = self._until_next(now)
        except SecondScheduler:
            raise
        except Exception as error:  # noqa: BLE001 - the outer edge of the loop: it must not end
            self._failures += 1
            trace = None if isinstance(error, YarrowError) else error
            _log.error("this pass failed: %s", error, exc_info=trace, extra={"action": "pass_failed"})
            longest = min(2.0 ** min(self._failures, 10), _LONGEST_FAILURE_PAUSE)
            return random.uniform(0.2, longest)  # noqa: S311 - jitter, not a secret
        if self._failures:
            _log.info("all is well again", extra={"action": "pass_recovered"})
        self._failures = 0
        return pause

    def _until_next(self, now: datetime) -> float:
        """The seconds until time alone gives something to do; at most a heartbeat, should a wake-up get lost."""
        moments = [now + timedelta(seconds=min(self._config.parse_interval, self._config.heartbeat_interval))]
        for moment in (
            self._store.catalog.next_due(),
            self._store.runs.next_wait(),
            self._store.attempts.next_deadline(),
            self.publisher.retry_at,
            self._deadlines.next_due,
        ):
            if moment is not None:
                moments.append(moment if moment > now else now + timedelta(seconds=_OVERDUE_PAUSE))
        return max((min(moments) - self._clock()).total_seconds(), 0.0)

    def _listen(self, listener: Listener) -> None:
        while not self._stopping:
            if listener.wait(_LISTEN_SECONDS):
                self.wake()

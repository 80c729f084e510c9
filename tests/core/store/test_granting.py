from datetime import timedelta
from threading import Thread

from yarrow.states import AttemptState, TaskState
from yarrow.store import Store

SCHEDULED, QUEUED, RUNNING = TaskState.SCHEDULED, TaskState.QUEUED, TaskState.RUNNING


def queued(stage, run) -> set[str]:
    return {task_id for task_id, state in stage.states(run).items() if state is QUEUED}


def test_a_granted_task_has_a_fresh_attempt(stage) -> None:
    run = stage.begin()
    assert stage.store.attempts.grant(10) == 1
    assert stage.store.attempts.grant(10) == 0
    instance = stage.instance(run)
    (attempt,) = stage.store.attempts.attempts(instance.id)
    assert (instance.state, instance.attempt_id, instance.queued_at) == (QUEUED, attempt.attempt_id, stage.clock())
    assert (attempt.state, attempt.try_number, attempt.dispatch_count) == (AttemptState.QUEUED, 1, 0)
    assert instance.wait_until == stage.clock() + timedelta(hours=1)
    assert stage.store.runs.events("d", "r")[-1].attempt_id == attempt.attempt_id


def test_parallelism_counts_what_is_queued_and_running(stage) -> None:
    spec = stage.dag(tasks=[stage.task(f"t{number}") for number in range(5)])
    run = stage.begin(spec, *spec.tasks)
    assert stage.store.attempts.grant(2) == 2
    stage.claim()  # grants the other three, too
    assert stage.states(run)["t0"] is RUNNING
    assert queued(stage, run) == {"t1", "t2", "t3", "t4"}


def test_the_order_is_weight_then_date_then_age(stage) -> None:
    tasks = [stage.task("low"), stage.task("high", priority_weight=9), stage.task("also_low")]
    spec = stage.dag(tasks=tasks)
    stage.publish(spec)
    new = stage.run(spec, "new", stage.clock())
    old = stage.run(spec, "old", stage.clock() - timedelta(days=1))
    for run in (new, old):
        stage.schedule(run, *spec.tasks)
    order = []
    for _ in range(6):
        assert stage.store.attempts.grant(len(order) + 1) == 1
        (claimed,) = [stage.store.attempts.next_for("default", "w", 60)]
        order.append((claimed.run_id, claimed.task_id))
    assert order == [
        ("old", "high"),
        ("new", "high"),
        ("old", "low"),
        ("old", "also_low"),
        ("new", "low"),
        ("new", "also_low"),
    ]


def test_a_pool_is_never_overdrawn(stage) -> None:
    stage.store.workers.set_pools({"default_pool": 128, "db": 2})
    spec = stage.dag(tasks=[stage.task(f"t{number}", pool="db") for number in range(5)] + [stage.task("free")])
    run = stage.begin(spec, *spec.tasks)
    assert stage.store.attempts.grant(100) == 3
    assert queued(stage, run) == {"t0", "t1", "free"}
    stage.finish(stage.claim())
    assert stage.store.attempts.grant(100) == 1
    assert [pool.used for pool in stage.store.workers.pools() if pool.name == "db"] == [2]
    stage.store.workers.set_pools({"default_pool": 128, "db": 1})  # made smaller than what is taken
    assert stage.store.attempts.grant(100) == 0


def test_a_task_takes_as_many_slots_of_its_pool_as_it_says(stage) -> None:
    stage.store.workers.set_pools({"default_pool": 128, "db": 5})
    tasks = [stage.task(f"t{number}", pool="db", pool_slots=2) for number in range(3)]
    tasks += [stage.task("wide", pool="db", pool_slots=6), stage.task("z", pool="db")]
    spec = stage.dag(tasks=tasks)
    run = stage.begin(spec, *spec.tasks)
    assert stage.store.attempts.grant(100) == 3
    assert queued(stage, run) == {"t0", "t1", "z"}, "two and two and one: there is no room for a third two"
    assert [pool.used for pool in stage.store.workers.pools() if pool.name == "db"] == [5]


def test_max_active_tasks_holds_for_all_runs_of_a_dag(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a"), stage.task("b")], max_active_tasks=3)
    stage.publish(spec)
    runs = [stage.run(spec, f"r{number}") for number in range(3)]
    for run in runs:
        stage.schedule(run, "a", "b")
    assert stage.store.attempts.grant(100) == 3
    assert [len(queued(stage, run)) for run in runs] == [2, 1, 0]


def test_a_pool_that_does_not_exist_grants_nothing(stage) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", pool="nope"), stage.task("b")]), "a", "b")
    assert stage.store.attempts.grant(100) == 1
    assert queued(stage, run) == {"b"}


def test_a_paused_dag_gets_nothing_new(stage) -> None:
    run = stage.begin()
    stage.store.catalog.set_paused("d", True, "ann")
    assert stage.store.attempts.grant(100) == 0
    stage.store.catalog.set_paused("d", False, "ann")
    assert stage.store.attempts.grant(100) == 1
    assert queued(stage, run) == {"a"}


def test_a_blocked_task_hides_none_that_could_run(stage) -> None:
    """Ten thousand of higher priority stand before ten that are free to go."""
    stage.store.workers.set_pools({"default_pool": 128, "full": 1})
    blocked = [stage.task(f"x{number}", pool="full", priority_weight=9) for number in range(5000)]
    capped = [stage.task(f"y{number}", priority_weight=9) for number in range(5000)]
    free = [stage.task(f"z{number}") for number in range(10)]
    specs = [stage.dag("pool", blocked, max_active_tasks=9999), stage.dag("cap", capped, max_active_tasks=1)]
    specs.append(stage.dag("free", free))
    stage.publish(*specs)
    for spec in specs:
        stage.schedule(stage.run(spec), *spec.tasks)
    assert stage.store.attempts.grant(32) == 12  # one slot of the pool, one task of the capped DAG, and the ten
    assert queued(stage, stage.store.runs.get("free", "r")) == {one.task_id for one in free}
    assert stage.store.attempts.grant(32) == 0


def test_tasks_of_a_queue_without_worker_wait_and_hold_no_slot(stage) -> None:
    tasks = [stage.task(f"g{number}", queue="gpu", priority_weight=5) for number in range(3)] + [stage.task("a")]
    spec = stage.dag(tasks=tasks)
    run = stage.begin(spec, *spec.tasks)
    assert stage.store.attempts.grant(2, served={"gpu", "default"}) == 2
    assert queued(stage, run) == {"g0", "g1"}
    # The worker of `gpu` is gone: its queued tasks make room.
    assert stage.store.attempts.grant(2, served={"default"}) == 1
    assert queued(stage, run) == {"a"}
    taken_back = stage.instance(run, "g0")
    assert (taken_back.state, taken_back.reason) == (SCHEDULED, "No worker serves the queue 'gpu'.")
    assert taken_back.try_number == 0
    assert taken_back.wait_until is not None
    (attempt,) = stage.store.attempts.attempts(taken_back.id)
    assert attempt.state is AttemptState.CANCELLED
    # It comes back, as does one that serves every queue.
    assert stage.store.attempts.grant(3, served={"*"}) == 2
    assert stage.instance(run, "g0").reason is None
    assert len(stage.store.attempts.attempts(taken_back.id)) == 2


def test_schedulers_at_once_never_exceed_a_limit(postgres_stage, postgres_url) -> None:
    stage = postgres_stage
    stage.store.workers.set_pools({"default_pool": 8})
    spec = stage.dag(tasks=[stage.task(f"t{number}") for number in range(200)], max_active_tasks=1000)
    run = stage.begin(spec, *spec.tasks)
    granted: list[int] = []

    def schedule() -> None:
        store = Store.open(postgres_url, clock=stage.clock)
        granted.extend(store.attempts.grant(100) for _ in range(5))
        store.close()

    threads = [Thread(target=schedule) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 8
    assert len(queued(stage, run)) == 8

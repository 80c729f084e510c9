"""What a scheduled task instance needs to be queued: a queue with a worker, a pool, the limits, and its turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from yarrow.explaining.explanation import Finding, found
from yarrow.explaining.facts import Holder, Share, Slots
from yarrow.explaining.words import count, listed, ordinal
from yarrow.jsontypes import Json

_LIMITS: Mapping[str, str] = {
    "pool": "the pool",
    "parallelism": "`parallelism`",
    "max_active_tasks": "`max_active_tasks` of its DAG",
    "max_active_tis_per_dag": "its `max_active_tis_per_dag`",
    "max_active_tis_per_dagrun": "its `max_active_tis_per_dagrun`",
}


def slot_findings(slots: Slots) -> Sequence[Finding]:
    """The checks of a scheduled task instance. All of them have passed exactly when the next grant queues it."""
    return [_queue(slots), _pool(slots), *(_share(slots, share) for share in slots.shares), _line(slots)]


def _queue(slots: Slots) -> Finding:
    facts: dict[str, Json] = {"queue": slots.queue, "served": sorted(slots.served)}
    if slots.queue_is_served:
        return found("queue", True, f"A live worker takes tasks of the queue `{slots.queue}`.", **facts)
    others = f"workers take tasks of {listed([f'`{name}`' for name in sorted(slots.served)])}"
    which = others if slots.served else "no worker is running"
    sentence = f"No worker serves the queue `{slots.queue}`; {which}."
    return found("queue", False, sentence, f"waits for a worker: none serves the queue `{slots.queue}`", **facts)


def _pool(slots: Slots) -> Finding:
    if slots.pool_fault is None:
        return found("pool_exists", True, f"There is a pool `{slots.pool}`, and it is large enough.", pool=slots.pool)
    clause = f"can never get a slot: {slots.pool_fault.rstrip('.')}"
    return found("pool_exists", False, slots.pool_fault, clause, pool=slots.pool)


def _name(slots: Slots, share: Share) -> str:
    return f"the pool `{slots.pool}`" if share.name == "pool" else _LIMITS[share.name]


def _share(slots: Slots, share: Share) -> Finding:
    name = _name(slots, share)
    free = max(share.limit - share.used, 0)
    need = f"; it needs {share.needed}" if share.needed != 1 else ""
    taken = f"{share.used:,} of {share.limit:,} are taken"
    holders = f" by {_holders(share)}" if share.holders else ""
    sentence = f"Of {name} {taken}{holders}{need}."
    clause = f"waits for a slot of {name}: {taken}{need}; it is {ordinal(share.ahead + 1)} in line"
    facts: dict[str, Json] = {"used": share.used, "limit": share.limit, "free": free, "needed": share.needed}
    if share.name == "pool":
        facts["pool"] = slots.pool
    if share.holders:
        facts["held_by"] = [_plain(holder) for holder in share.holders]
        facts["others"] = share.holder_count - len(share.holders)
    return found(share.name, share.fits, sentence, clause, ahead=share.ahead, **facts)


def _holders(share: Share) -> str:
    named = [
        f"`{one.task_id}{f'[{one.map_index}]' if one.map_index >= 0 else ''}` of {one.run_id}"
        for one in share.holders[:3]
    ]
    return listed(named, share.holder_count - len(named))


def _plain(holder: Holder) -> Mapping[str, Json]:
    return {
        "dag_id": holder.dag_id,
        "run_id": holder.run_id,
        "task_id": holder.task_id,
        "map_index": holder.map_index,
        "state": holder.state.value,
        "slots": holder.slots,
    }


def _line(slots: Slots) -> Finding:
    facts: dict[str, Json] = {"ahead": slots.ahead, "place": slots.ahead + 1}
    place = f"It is {ordinal(slots.ahead + 1)} in line: {count(slots.ahead, 'task instance')} before it"
    if slots.goes_next:
        return found("line", True, f"{place}, and there is room for it.", **facts)
    share = next((share for share in slots.shares if share.name == slots.short_of), None)
    if share is None:
        return found("line", None, f"{place}.", **facts)
    name = _name(slots, share)
    clause = f"waits for a slot of {name}: those before it take what is free; it is {ordinal(share.ahead + 1)} in line"
    return found("line", False, f"{place}, which take what is free of {name}.", clause, short_of=share.name, **facts)

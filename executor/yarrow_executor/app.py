"""The Celery app: made in code with every setting that matters, never found by name or by a file in the present folder.

Celery is a channel for wake-ups here. It keeps no results, retries nothing and loses nothing that matters: the database
is the queue.
"""

from __future__ import annotations

from collections.abc import Iterable

from celery import Celery
from kombu.entity import Queue

from yarrow_executor.transport import Connection

ANY = "any"
"""The queue of wake-ups for DAG queues that no worker serves by name."""

_TRANSPORT = {
    # With early acknowledgement it covers messages that were reserved and not started.
    "visibility_timeout": 600,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 10,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 10,  # drops a half-open connection after about 21 s
    # The database picks by priority; one list for each queue instead of four.
    "priority_steps": [0],
}
# Never `retry_on_timeout`: it publishes twice.


def queue_name(queue: str) -> str:
    """The Celery queue for a queue of DAG files, or for ANY."""
    return f"yarrow.{queue}"


def make_app(broker_url: str, queues: Iterable[str] = ()) -> Celery:
    """A Celery app that talks to the broker.

    Args:
        queues: What a worker consumes; none for a process that only publishes.
    """
    app = Celery("yarrow", broker=broker_url, set_as_current=False, fixups=[])
    app.conf.update(
        broker_transport_options=dict(_TRANSPORT),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=5,
        broker_channel_error_retry=True,
        task_queues=[Queue(queue_name(queue), routing_key=queue_name(queue)) for queue in queues],
        task_create_missing_queues=False,
        task_publish_retry=False,  # an error means "unknown", and a sweep publishes again
        task_acks_late=False,  # a second authority on retries would only make duplicates
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_max_tasks_per_child=500,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_lost_wait=0.1,  # the minder reports a lost child; Celery's own verdict only frees the slot
    )
    app.amqp.Connection = Connection
    return app

"""Carries attempts to workers and executes them there: the Celery app, the dispatch side, and the worker.

A worker host runs three kinds of processes:

* the *main* process, a Celery prefork worker (`worker`, `app`, `pool`);
* its *pool children*, one a slot, which claim, execute and report attempts (`child`, `attempt`);
* the *minder* (`minder`), forked before anything else, which never runs user code: it sends heartbeats, ships
  what tasks print, enforces time limits and stop requests, and cleans up when the main process dies.

They share a small table in memory (`slots`) and two pipes a slot (`output`).
"""

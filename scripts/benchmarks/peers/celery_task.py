"""Celery with Redis; its pool has one process. No results are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import processes, task
from benchmarks.peers import redis_list
from benchmarks.peers.redis_list import OWN_PYTHON
from benchmarks.plan import Handled, Plan, Role

__all__ = ["OWN_PYTHON", "receive", "send", "serve"]


def serve(plan: Plan, folder: Path) -> Any:
    processes.module("celery")
    return redis_list.serve(plan, folder)


def application(role: Role) -> tuple[Any, Any]:
    """Return the application, and the task."""
    import celery

    app = celery.Celery("bench", broker=f"redis://127.0.0.1:{role.address}/0")
    return app, app.task(task.run, name="run", ignore_result=True)


def send(role: Role, bodies: Iterator[bytes]) -> None:
    _, work = application(role)
    for number, _ in enumerate(bodies):
        work.delay(number)


def receive(role: Role, handled: Handled) -> None:
    from celery.signals import worker_ready

    os.environ[task.VARIABLE] = role.text()
    app, _ = application(role)
    worker_ready.connect(lambda **_: handled.ready(), weak=False)
    app.worker_main(["worker", "--concurrency=1", "--loglevel=error"])

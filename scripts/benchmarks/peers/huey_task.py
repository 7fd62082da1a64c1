"""Huey with Redis; one worker thread. No results are kept."""

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
    processes.module("huey")
    return redis_list.serve(plan, folder)


def application(role: Role) -> tuple[Any, Any]:
    """Return Huey, and the task."""
    import huey

    app = huey.RedisHuey("bench", port=int(role.address), results=False)
    return app, app.task()(task.run)


def send(role: Role, bodies: Iterator[bytes]) -> None:
    _, work = application(role)
    for number, _ in enumerate(bodies):
        work(number)


def receive(role: Role, handled: Handled) -> None:
    os.environ[task.VARIABLE] = role.text()
    app, _ = application(role)
    handled.ready()
    app.create_consumer(workers=1).run()

"""Dramatiq with Redis; one worker thread."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import processes, task
from benchmarks.peers import redis_list
from benchmarks.peers.redis_list import OWN_PYTHON
from benchmarks.plan import Handled, Plan, Role

__all__ = ["OWN_PYTHON", "receive", "send", "serve"]


def serve(plan: Plan, folder: Path) -> Any:
    processes.module("dramatiq")
    return redis_list.serve(plan, folder)


def actor(role: Role) -> Any:
    """Return the task as an actor of a broker that it knows."""
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    return dramatiq.actor(task.run, broker=RedisBroker(port=int(role.address)))


def send(role: Role, bodies: Iterator[bytes]) -> None:
    work = actor(role)
    for number, _ in enumerate(bodies):
        work.send(number)


def receive(role: Role, handled: Handled) -> None:
    import dramatiq

    os.environ[task.VARIABLE] = role.text()
    dramatiq.Worker(actor(role).broker, worker_threads=1).start()
    handled.ready()
    signal.pause()

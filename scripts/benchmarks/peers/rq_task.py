"""RQ: jobs in Redis; its worker forks a process for each."""

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
    processes.module("rq")
    return redis_list.serve(plan, folder)


def queue(role: Role) -> Any:
    import rq

    return rq.Queue(connection=redis_list.connected(role))


def send(role: Role, bodies: Iterator[bytes]) -> None:
    jobs = queue(role)
    for number, _ in enumerate(bodies):
        jobs.enqueue(task.run, number)


def receive(role: Role, handled: Handled) -> None:
    import rq

    os.environ[task.VARIABLE] = role.text()
    task.bind()
    jobs = queue(role)
    handled.ready()
    rq.Worker([jobs], connection=jobs.connection).work()

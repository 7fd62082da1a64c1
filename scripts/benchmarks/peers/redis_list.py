"""Redis lists: RPUSH, pipelined, and BLPOP. Nothing is acknowledged; durable is `appendfsync always`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ports import free_ports

from benchmarks import processes
from benchmarks.plan import Handled, Plan, Role

OWN_PYTHON = True
BATCH = 1000
QUEUE = "bench"


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    with served(folder, durable=plan.durable) as port:
        yield str(port)


@contextlib.contextmanager
def served(folder: Path, *, durable: bool = False) -> Iterator[int]:
    """Run a Redis server; give its port."""
    processes.module("redis")
    port = free_ports(1)
    kept = ("--appendonly", "yes", "--appendfsync", "always") if durable else ("--appendonly", "no")
    command = (processes.binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "")
    with processes.running(*command, "--dir", folder, *kept, cwd=folder) as process:
        processes.wait_until(lambda: processes.answers(port), "Redis answers", process)
        yield port


def connected(role: Role) -> Any:
    import redis

    return redis.Redis(port=int(role.address))


def send(role: Role, bodies: Iterator[bytes]) -> None:
    client = connected(role)
    client.ping()
    while batch := list(islice(bodies, 1 if role.plan.single else BATCH)):
        client.rpush(QUEUE, *batch)


def receive(role: Role, handled: Handled) -> None:
    client = connected(role)
    client.ping()
    handled.ready()
    while True:
        handled(client.blpop(QUEUE)[1])

"""Redis streams: XADD, pipelined; XREADGROUP of many and XACK of all of them. Durable as the lists are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice

from benchmarks.peers.redis_list import BATCH, OWN_PYTHON, QUEUE, connected, serve
from benchmarks.plan import Handled, Role

__all__ = ["OWN_PYTHON", "receive", "send", "serve"]
GROUP = "mules"


def send(role: Role, bodies: Iterator[bytes]) -> None:
    client = connected(role)
    client.ping()
    while batch := list(islice(bodies, 1 if role.plan.single else BATCH)):
        pipeline = client.pipeline(transaction=False)
        for body in batch:
            pipeline.xadd(QUEUE, {"body": body})
        pipeline.execute()


def receive(role: Role, handled: Handled) -> None:
    import redis

    client = connected(role)
    with contextlib.suppress(redis.ResponseError):  # another receiver has made it
        client.xgroup_create(QUEUE, GROUP, id="0", mkstream=True)
    handled.ready()
    while True:
        [(_, entries)] = client.xreadgroup(GROUP, str(role.row), {QUEUE: ">"}, count=BATCH, block=0)
        for _, fields in entries:
            handled(fields[b"body"])
        client.xack(QUEUE, GROUP, *(name for name, _ in entries))

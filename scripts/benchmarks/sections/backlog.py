"""A backlog: what a waiting message costs the broker, and how fast a mule works it off.

Beside it the rate at which messages pass through a queue that stays nearly empty.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from benchmarks import course, processes, usage
from benchmarks.effort import Effort
from benchmarks.line import Figures, Line
from benchmarks.peers.zmule import zmuled
from benchmarks.plan import Plan
from zmule import Client, Mule

SIZE = 100
NAME = "a backlog in memory, 100 B (1 000 000 messages; 200 000 in a quick run)"
OVERHEAD = "B a message on top of the body"


def lines(effort: Effort) -> Iterator[Line]:
    count = 200_000 if effort.quick else 1_000_000
    measures = {
        "zmule": partial(backlog, count),
        "an empty queue": partial(course.throughput, Plan("zmule", messages=effort.messages)),
    }
    yield Line("backlog", NAME, measures, min(effort.rounds, 3))


def backlog(count: int) -> Figures:
    """Fill a queue, then empty it."""
    with (
        processes.folder() as folder,
        zmuled(folder) as address,
        Client(address) as client,
        Mule(1, endpoint=address) as mule,
    ):
        broker = client.status()["broker"]["pid"]
        before = usage.memory(broker)
        for _ in range(count):
            client.mule_msg(b"x" * SIZE, 1, wait=False)
        client.flush(timeout=processes.PATIENCE)
        taken = usage.memory(broker) - before
        begun = time.monotonic()
        for _ in range(count):
            mule.get_msg()
        mule.ack()
        return {course.RATE: count / (time.monotonic() - begun), OVERHEAD: taken / count - SIZE}

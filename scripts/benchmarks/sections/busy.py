"""A mule that computes: when others get what was prefetched behind it, and whether the broker misses it.

It is given a backlog of messages that take no time, so that many are prefetched, and then one that computes
in pure Python for longer than the broker waits for a heartbeat. What counts is how long after the begin of
the computation another mule, which has had nothing to do, has got the next message.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial

from benchmarks import processes
from benchmarks.effort import Effort
from benchmarks.line import Figures, Line, Skipped
from benchmarks.peers.zmule import zmuled
from zmule import Client, Mule

NAME = "a mule that computes for longer than a heartbeat may take"
RECALL, LOST = "ms to the recall of what was prefetched", "mules lost or messages delivered again"
BEFORE, BEHIND = 20_000, 200
SPAN = 12.0


def lines(effort: Effort) -> Iterator[Line]:
    yield Line("busy", NAME, {"zmule": partial(busy, SPAN)}, 1 if effort.quick else 3)


def busy(span: float) -> Figures:
    with processes.folder() as folder, zmuled(folder) as address, Client(address) as client:
        begun = folder / "begun"
        hog = (sys.executable, "-m", "benchmarks.hog", address, begun)
        with processes.running(*hog, cwd=folder, mercy=0.1) as process:
            processes.wait_until(lambda: bool(client.status()["mules"]), "the mule is there", process)
            for length in ["0"] * BEFORE + [str(span)] + ["0"] * BEHIND:
                client.mule_msg(length, wait=False)
            client.flush()
            processes.wait_until(begun.exists, "the computation has begun", process)
            recalled = rescue(address)
            time.sleep(max(0.0, span - 1))
            processes.wait_until(lambda: not in_flight(client), "all is done", process)
            status = client.status()
        lost = status["totals"]["redelivered"] + (len(status["mules"]) != 1)
        return {RECALL: (recalled - int(begun.read_text())) / 1e6, LOST: lost}


def rescue(address: str) -> int:
    """Handle as another mule what lies behind the computation; return when the first of it came."""
    with Mule(2, endpoint=address) as mule:
        first = 0
        for _ in range(BEHIND):
            if mule.get_msg(timeout=5) is None:
                raise Skipped("what was prefetched was not recalled")
            first = first or time.monotonic_ns()
        mule.ack()
    return first


def in_flight(client: Client) -> int:
    return int(client.status()["queues"]["any"]["in_flight"])

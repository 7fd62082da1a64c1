"""Scale: 25 clients and 25 mules at work, alone and amid a thousand mules and two thousand clients that are
connected; and what the broker takes of a core while none of these does anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks import course, processes, usage
from benchmarks.effort import Effort
from benchmarks.line import Figures, Line
from benchmarks.peers.zmule import zmuled
from benchmarks.peers.zmule_crowd import crowd
from benchmarks.plan import Plan
from zmule import Client

ACTIVE = Plan("zmule", senders=25, mules=25)
NAME, IDLE = "50 at work amid 3 000 connected", "3 000 connected, nothing to do"
CPU, SPAN = "% of a core, the broker", 5.0


def lines(effort: Effort) -> Iterator[Line]:
    if effort.quick:
        return
    plan = ACTIVE._replace(messages=effort.messages // 10)
    measures = {
        "zmule": partial(course.throughput, plan._replace(peer="zmule_crowd")),
        "the 50 alone": partial(course.throughput, plan),
    }
    yield Line("scale", NAME, measures, min(effort.rounds, 3))
    yield Line("scale", IDLE, {"zmule": idle}, min(effort.rounds, 3))


def idle() -> Figures:
    with processes.folder() as folder, zmuled(folder) as address, crowd(address, folder):
        with Client(address) as client:
            broker = client.status()["broker"]["pid"]
        return {CPU: usage.share([broker], SPAN)}

"""One synchronous send: the call returns when the message is confirmed.

The floor is a bare round trip: pyzmq's DEALER to a ROUTER in another process, and back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from benchmarks import course, processes
from benchmarks.effort import Effort
from benchmarks.line import Figures, Line
from benchmarks.peers import relay, zmule
from zmule import Client, Mule

NAME = "a confirmed send, then the next, 100 B"
BODY = b"x" * 100


def lines(effort: Effort) -> Iterator[Line]:
    measures = {
        "zmule": lambda: confirmed(effort.samples * 5),
        "round trip": lambda: round_trips(effort.samples * 5),
        "zmule sqlite": lambda: confirmed(effort.samples, "--store=sqlite:///{folder}/zmule.db"),
    }
    yield Line("sync", NAME, measures, effort.rounds)


def confirmed(count: int, *arguments: str) -> Figures:
    """Send to a mule's queue that nobody reads meanwhile."""
    with (
        processes.folder() as folder,
        zmule.zmuled(folder, *(text.format(folder=str(folder).lstrip("/")) for text in arguments)) as address,
        Client(address) as client,
        Mule(1, endpoint=address),
    ):
        return course.quantiles(times(lambda: client.mule_msg(BODY, 1), count))


def round_trips(count: int) -> Figures:
    """Send to a ROUTER that answers."""
    with processes.folder() as folder, relay.answering(folder) as address:
        dealer = relay.connected(address)
        try:
            return course.quantiles(times(lambda: (dealer.send(BODY), dealer.recv()), count))
        finally:
            dealer.close()


def times(call: Callable[[], object], count: int) -> list[int]:
    """Return how long each of some calls took, in ns; the first hundred not counted."""
    taken = []
    for number in range(count + 100):
        begun = time.perf_counter_ns()
        call()
        if number >= 100:
            taken.append(time.perf_counter_ns() - begun)
    return taken

"""Latency one way: from the sender's call to the return of the receiver's.

Idle: a message every few milliseconds, each sent by the plain call. Half load: the same number of messages a
second for all, half of what the bare relay was just seen to carry.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

from benchmarks import course
from benchmarks.effort import Effort
from benchmarks.line import Line, Measure
from benchmarks.plan import Plan

IDLE_RATE = 300
IDLE, HALF = "one way, idle", "one way, at half of the relay's load"
PEERS = {
    "zmule": "zmule",
    "relay": "relay",
    "uwsgi": "uwsgi",
    "redis list": "redis_list",
    "nats": "nats_core",
    "beanstalkd": "beanstalkd",
}


def lines(effort: Effort) -> Iterator[Line]:
    names = ("zmule", "relay") if effort.quick else tuple(PEERS)
    idle: dict[str, Measure] = {
        name: partial(course.latency, plan(PEERS[name], effort.samples, IDLE_RATE)) for name in names
    }
    yield Line("latency", IDLE, idle, effort.rounds)
    if not effort.quick:
        half: dict[str, Measure] = {
            name: partial(at_half_load, PEERS[name], effort) for name in ("zmule", "relay", "uwsgi")
        }
        yield Line("latency", HALF, half, effort.rounds)


def plan(peer: str, samples: int, rate: float, *, single: bool = True) -> Plan:
    return Plan(peer, messages=samples, rate=rate, single=single, notes=1)


def at_half_load(peer: str, effort: Effort) -> dict[str, float]:
    """Measure at half of the relay's load, for about two seconds."""
    rate = relay_rate(effort.messages // 2) / 2
    return course.latency(plan(peer, int(2 * rate), rate, single=False))


@cache
def relay_rate(count: int) -> float:
    """Return how many messages a second the relay carries, measured once in a run."""
    return course.throughput(Plan("relay", messages=count))[course.RATE]

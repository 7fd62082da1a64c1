"""Throughput: senders send as fast as they can, mules do nothing with what they get.

zmule's senders use `wait=False` and a `flush`, its mules a plain loop around `get_msg`. Each peer sends and
receives in the quickest way that its Python client documents and that keeps its promises. How many messages
a turn has depends on the peer, so that each takes about as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks import course
from benchmarks.effort import Effort
from benchmarks.line import Line, Measure
from benchmarks.plan import Plan

ONE, FAN, MANY = (1, 1), (1, 4), (4, 4)
SHAPES = {ONE: "1 sender, 1 mule", FAN: "1 sender, 4 mules", MANY: "4 senders, 4 mules"}
SIZES = {16: "16 B", 100: "100 B", 1 << 10: "1 KB", 64 << 10: "64 KB"}
LARGE_SHARE = 20
"""With so few, all the messages of 64 KB fit into a queue, whose limit is 1 GiB."""

# The name of each peer, its module, and by how much fewer messages it gets than the fastest.
MEMORY = {
    "zmule": ("zmule", 1),
    "relay": ("relay", 2),
    "uwsgi": ("uwsgi", 1),
    "redis list": ("redis_list", 10),
    "nats": ("nats_core", 4),
    "rabbitmq": ("rabbitmq", 20),
    "beanstalkd": ("beanstalkd", 20),
}
DURABLE = {
    "zmule": ("zmule", 2),
    "jetstream": ("jetstream", 20),
    "beanstalkd": ("beanstalkd", 100),
    "redis list": ("redis_list", 50),
    "redis stream": ("redis_stream", 20),
    "rabbitmq": ("rabbitmq", 50),
}
NEAREST = {"zmule", "relay", "uwsgi", "jetstream", "beanstalkd"}
SIDE = {"zmule", "relay", "uwsgi", "redis list", "jetstream"}


def lines(effort: Effort) -> Iterator[Line]:
    for durable, peers in ((False, MEMORY), (True, DURABLE)):
        main = NEAREST if effort.quick else set(peers)
        yield line(effort, ONE, 100, durable, main)
        if effort.quick:
            continue
        few = effort._replace(rounds=3)
        yield from (line(few, shape, 100, durable, SIDE) for shape in (FAN, MANY))
        yield from (line(few, ONE, size, durable, SIDE) for size in SIZES if size != 100)
    if effort.quick:
        yield line(effort, ONE, 64 << 10, False, {"zmule", "relay"})


def line(effort: Effort, shape: tuple[int, int], size: int, durable: bool, names: set[str]) -> Line:
    """Return the line of one shape and size."""
    peers = {name: peer for name, peer in (DURABLE if durable else MEMORY).items() if name in names}
    store = "durable" if durable else "memory"
    share = LARGE_SHARE if size > 10_000 else 1
    measures: dict[str, Measure] = {
        name: partial(
            course.throughput,
            Plan(module, *shape, size=size, messages=effort.messages // fewer // share, durable=durable),
        )
        for name, (module, fewer) in peers.items()
    }
    return Line("throughput", name_of(shape, size, store), measures, effort.rounds)


def name_of(shape: tuple[int, int], size: int, store: str) -> str:
    return f"{SHAPES[shape]}, {SIZES[size]}, {store}"

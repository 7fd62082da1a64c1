"""Idle: what the processes take of a core and of memory while nobody wants anything; 4 mules each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from benchmarks import course, usage
from benchmarks.effort import Effort
from benchmarks.line import Figures, Line
from benchmarks.plan import Plan

NAME = "the server and 4 mules that wait"
CPU, MEMORY = "% of a core", "MB"
SPAN = 5.0
PEERS = {"zmule": "zmule", "uwsgi": "uwsgi", "redis list": "redis_list", "nats": "nats_core"}


def lines(effort: Effort) -> Iterator[Line]:
    if not effort.quick:
        measures = {name: partial(idle, Plan(peer, mules=4, senders=0)) for name, peer in PEERS.items()}
        yield Line("idle", NAME, measures, min(effort.rounds, 3))


def idle(plan: Plan) -> Figures:
    with course.ready(plan):
        pids = usage.descendants(os.getpid())
        return {CPU: usage.share(pids, SPAN), MEMORY: sum(map(usage.memory, pids)) / 1e6}

"""A lock nobody else wants, taken and given back: two round trips to the server, zmule's or Redis'."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks import course
from benchmarks.effort import Effort
from benchmarks.line import Figures, Line
from benchmarks.plan import Plan
from benchmarks.sections.sync import round_trips

NAME = "a lock, taken and given back"
PEERS = {"zmule": "zmule_lock", "redis": "redis_lock", "uwsgi": "uwsgi_lock"}


def lines(effort: Effort) -> Iterator[Line]:
    if effort.quick:
        return
    measures = {
        name: partial(course.each, Plan(peer, mules=0, messages=effort.samples * 5))
        for name, peer in PEERS.items()
    }
    measures["two round trips"] = partial(two_round_trips, effort.samples * 5)
    yield Line("locks", NAME, measures, effort.rounds)


def two_round_trips(count: int) -> Figures:
    return {course.EACH: 2 * round_trips(count)["p50 µs"]}

"""A signal's way: from the raiser's call to the first line of the handler, idle; a message's beside it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks import course
from benchmarks.effort import Effort
from benchmarks.line import Line
from benchmarks.sections.latency import IDLE_RATE, plan

NAME = "a signal, one way, idle"
PEERS = {"zmule": "zmule_signal", "a message": "zmule", "uwsgi": "uwsgi_signal"}


def lines(effort: Effort) -> Iterator[Line]:
    measures = {
        name: partial(course.latency, plan(peer, effort.samples // 2, IDLE_RATE))
        for name, peer in PEERS.items()
        if not (effort.quick and name == "uwsgi")
    }
    yield Line("signals", NAME, measures, effort.rounds)

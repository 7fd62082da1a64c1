"""The guard against getting slower: `scripts/bench guard`, in CI.

Two ratios to the bare relay of the same run, since times differ from machine to machine. The limits leave
much room to what is measured, and the best of some rounds counts: a busy machine must not fail it, while a
change that costs half of the speed must.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks import course
from benchmarks.line import Figures, Line, measured, ratios
from benchmarks.plan import Plan

ROUNDS = 5
PEERS = ("zmule", "relay")


class Limit(NamedTuple):
    """How the ratio of zmule's first figure to the relay's must be."""

    line: Line
    limit: float
    at_least: bool

    def keeps(self, found: float) -> bool:
        return found >= self.limit if self.at_least else found <= self.limit

    @property
    def words(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}"


def line(name: str, measure: Callable[[Plan], Figures], plan: Plan) -> Line:
    """Return what both do in turns."""
    return Line("guard", name, {peer: partial(measure, plan._replace(peer=peer)) for peer in PEERS}, ROUNDS)


THROUGHPUT = line("throughput, 100 B", course.throughput, Plan("", messages=60_000))
LATENCY = line("one way, idle", course.latency, Plan("", messages=150, rate=300, single=True, notes=1))
LIMITS = (Limit(THROUGHPUT, 1.5, True), Limit(LATENCY, 5.0, False))


def guard() -> int:
    """Return 0 if zmule is as fast beside the relay as it should be; print what was measured."""
    kept = [check(limit) for limit in LIMITS]
    return 0 if all(kept) else 1


def check(limit: Limit) -> bool:
    """Measure, and return whether the best round keeps the limit."""
    name, row = limit.line.name, measured(limit.line)[0]
    found = sorted(ratios(row, "relay"), reverse=limit.at_least)
    if not found:
        print(f"guard: {name}: not measured: {row.skipped}")
        return False
    kept = limit.keeps(found[0])
    print(
        f"guard: {name}, zmule : relay, best of {len(found)}: {found[0]:.2f} (worst {found[-1]:.2f}), "
        f"must be {limit.words}: {'kept' if kept else 'NOT KEPT'}"
    )
    return kept

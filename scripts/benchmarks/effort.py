"""How much a run may take: all of it, the quick two minutes, or the seconds of the guard."""

from __future__ import annotations

from typing import NamedTuple


class Effort(NamedTuple):
    """How much to do.

    Attributes:
        rounds: how often each contestant takes its turn.
        messages: how many the fastest send in one turn; others get as many as they can in about that time.
        samples: how often a latency is measured in one turn.
        quick: only what the bars need, and the nearest peers.
    """

    rounds: int
    messages: int
    samples: int
    quick: bool


FULL = Effort(rounds=5, messages=500_000, samples=3_000, quick=False)
QUICK = Effort(rounds=3, messages=100_000, samples=400, quick=True)

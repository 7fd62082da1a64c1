"""How much a run may take: all of it, the quick two minutes, or the seconds of the guard."""

from __future__ import annotations

import math
from typing import NamedTuple


class Effort(NamedTuple):
    """How much to do.

    Attributes:
        seconds: when these are over, what is left to do gets one round.
        rounds: how often each contestant takes its turn.
        messages: how many the fastest send in one turn; others get as many as they can in about that time.
        samples: how often a latency is measured in one turn.
        quick: only what the bars need, and the nearest peers.
    """

    seconds: float
    rounds: int
    messages: int
    samples: int
    quick: bool


FULL = Effort(seconds=math.inf, rounds=5, messages=300_000, samples=2_000, quick=False)
QUICK = Effort(seconds=85, rounds=3, messages=80_000, samples=900, quick=True)

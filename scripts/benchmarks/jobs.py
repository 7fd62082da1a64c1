"""Jobs of which a few take long: in which order they are sent, and how well they were spread over mules."""

from __future__ import annotations

import heapq
import random
from itertools import pairwise
from typing import NamedTuple

SHORT, LONG = 1_000, 1_000_000
"""How long jobs take, in µs."""

LONG_ONES = 8
SEED = 5


class Job(NamedTuple):
    """A job that was done: by which mule, and from when to when, in ns."""

    mule: int
    begun: int
    ended: int


def shuffled(count: int) -> list[int]:
    """Return the lengths of so many jobs in µs, in the order in which they are sent."""
    lengths = [LONG] * LONG_ONES + [SHORT] * (count - LONG_ONES)
    random.Random(SEED).shuffle(lengths)
    return lengths


def ideal(lengths: list[int], mules: int) -> int:
    """Return how long it takes if each job goes, in this order, to the mule that is free first."""
    free = [0] * mules
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def longest_gap(jobs: list[Job], begun: int) -> int:
    """Return the longest time for which a mule had nothing to do while a job waited, in ns.

    Jobs wait from the moment when all are sent until the last one begins.
    """
    last = max(job.begun for job in jobs)
    gaps = [0]
    for mule in {job.mule for job in jobs}:
        own = sorted(job for job in jobs if job.mule == mule)
        gaps += [min(after.begun, last) - max(before.ended, begun) for before, after in pairwise(own)]
        gaps.append(last - own[-1].ended)
    return max(gaps)

"""Fairness: 4 mules, thousands of short jobs and a few long ones in random order.

What counts is the whole time beside that of the ideal schedule, which gives each job to the mule that is free
first, with the lengths that the jobs really had; and the longest time for which a mule had nothing to do
while a job waited.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import course
from benchmarks.board import BEGAN, Board
from benchmarks.effort import Effort
from benchmarks.jobs import Job, ideal, longest_gap
from benchmarks.line import Figures, Line
from benchmarks.plan import Plan

NAME = "4 mules, 2 000 jobs of 1 ms and 8 of 1 s"
RATIO = "time, as a multiple of the ideal schedule's"
GAP = "ms, the longest that a mule was idle while a job waited"
PLAN = Plan("zmule_jobs", mules=4, messages=2_008, notes=len(Job._fields))


def lines(effort: Effort) -> Iterator[Line]:
    yield Line("fairness", NAME, {"zmule": fairness}, effort.rounds)


def fairness() -> Figures:
    with course.done(PLAN) as board:
        jobs = done_jobs(board)
        begun = board.of(0, BEGAN)
    took = max(job.ended for job in jobs) - begun
    lengths = [job.ended - job.begun for job in jobs]
    return {RATIO: took / ideal(lengths, PLAN.mules), GAP: longest_gap(jobs, begun) / 1e6}


def done_jobs(board: Board) -> list[Job]:
    """Return what the mules noted, in the order in which the jobs were sent."""
    numbers = iter(board.notes())
    return [Job(*fields) for fields in zip(numbers, numbers, numbers, strict=True)]

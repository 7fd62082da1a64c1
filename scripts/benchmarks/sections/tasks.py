"""Tasks: a small Python function, called here and run by one worker elsewhere, until the last has run.

zmule, RQ, Dramatiq, Celery and Huey take a call and say so; ipyparallel and gunicorn's dirty workers give its
result, too. ipyparallel's calls are sent without waiting, gunicorn's one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks import course
from benchmarks.effort import Effort
from benchmarks.line import Figures, Line
from benchmarks.plan import Plan

NAME = "a small function, 1 caller, 1 worker"
FIGURE = "tasks/s"

# The module of each peer, and by how much fewer tasks it gets than zmule.
PEERS = {
    "zmule": ("zmule_task", 1),
    "gunicorn dirty": ("gunicorn_task", 4),
    "ipyparallel": ("ipyparallel_task", 10),
    "huey": ("huey_task", 4),
    "dramatiq": ("dramatiq_task", 10),
    "celery": ("celery_task", 20),
    "rq": ("rq_task", 100),
}


def lines(effort: Effort) -> Iterator[Line]:
    if effort.quick:
        return
    measures = {
        name: partial(tasks, Plan(peer, messages=effort.messages // 25 // fewer))
        for name, (peer, fewer) in PEERS.items()
    }
    yield Line("tasks", NAME, measures, min(effort.rounds, 3))


def tasks(plan: Plan) -> Figures:
    return {FIGURE: course.throughput(plan)[course.RATE]}

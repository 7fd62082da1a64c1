"""One course: senders send so many messages, mules handle them, and the time is taken.

It runs from the first send to the moment when every message was handled and every sender has all its
confirms.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import processes
from benchmarks.board import BEGAN, COUNT, DONE, Board, board_of
from benchmarks.line import Figures
from benchmarks.plan import Plan, Role, peer_of

RATE, EACH = "messages/s", "µs each"
QUANTILES = {"p50 µs": 0.5, "p99 µs": 0.99, "p99.9 µs": 0.999}


def throughput(plan: Plan) -> Figures:
    """Return messages a second."""
    with done(plan) as board:
        now = time.monotonic_ns()
        began = min(board.of(row, BEGAN) for row in range(plan.senders))
        return {RATE: plan.total / ((now - began) / 1e9)}


def each(plan: Plan) -> Figures:
    """Return how long one of many calls took, in µs."""
    return {EACH: 1e6 / throughput(plan)[RATE]}


def latency(plan: Plan) -> Figures:
    """Return how long messages took from the sender's call to the receiver, in µs; the first are left out."""
    with done(plan) as board:
        return quantiles(board.notes()[plan.messages // 10 :])


def quantiles(times: list[int]) -> Figures:
    """Return the quantiles of some times in ns, in µs."""
    times.sort()
    return {name: times[int(part * (len(times) - 1))] / 1000 for name, part in QUANTILES.items()}


def median(times: list[int]) -> float:
    """Return the median of some times in ns, in µs."""
    return statistics.median(times) / 1000


@contextlib.contextmanager
def done(plan: Plan) -> Iterator[Board]:
    """Run a course; give the board at the moment when all is done."""
    with ready(plan) as (board, started):
        board.go()
        processes.wait_until(lambda: _done(board, plan), "all is handled and confirmed", *started)
        yield board


@contextlib.contextmanager
def ready(plan: Plan) -> Iterator[tuple[Board, list[processes.Process]]]:
    """Start all processes of a course; give the board and those with roles when they wait for the start."""
    peer = peer_of(plan)
    launch = getattr(peer, "launch", apart)
    with processes.folder() as folder, peer.serve(plan, folder) as address:
        rows = range(plan.senders + plan.mules)
        roles = [Role(plan, row, str(folder / "board"), address) for row in rows]
        board = board_of(roles[0])
        with processes.explained(folder), launch(roles, folder) as started:
            processes.wait_until(board.all_ready, "all are ready", *started)
            yield board, started


def _done(board: Board, plan: Plan) -> bool:
    handled = sum(board.of(row, COUNT) for row in range(plan.senders, plan.senders + plan.mules))
    all_handled = handled >= plan.total or not plan.mules
    return all_handled and all(board.of(row, DONE) for row in range(plan.senders))


@contextlib.contextmanager
def apart(roles: list[Role], folder: Path) -> Iterator[list[processes.Process]]:
    """Run each role in a process of its own."""
    peer = peer_of(roles[0].plan)
    python = processes.PEERS_PYTHON if getattr(peer, "OWN_PYTHON", False) else sys.executable
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                processes.running(python, "-m", "benchmarks.roles", role.text(), cwd=folder, mercy=1)
            )
            for role in roles
        ]

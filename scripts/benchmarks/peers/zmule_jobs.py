"""zmule with jobs that take time. A message is a job's number and how many µs it takes.

A mule sleeps as long as the job takes, so that the number of cores has no say in it, and notes on the board
who did it, and from when to when.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.board import board_of
from benchmarks.jobs import shuffled
from benchmarks.peers.zmule import serve
from benchmarks.plan import Handled, Role
from zmule import Client, Mule

__all__ = ["receive", "send", "serve"]


def send(role: Role, bodies: Iterator[bytes]) -> None:
    with Client(role.address) as client:
        client.status()
        for (number, length), _ in zip(enumerate(shuffled(role.plan.messages)), bodies, strict=True):
            client.mule_msg(f"{number} {length}", wait=False)
        client.flush()


def receive(role: Role, handled: Handled) -> None:
    board, mule = board_of(role), Mule(role.row, endpoint=role.address)
    handled.ready()
    while True:
        body = mule.get_msg()
        assert isinstance(body, str)
        number, length = map(int, body.split())
        begun = time.monotonic_ns()
        time.sleep(length / 1e6)
        board.note(number, (role.row, begun, time.monotonic_ns()))
        handled(b"")

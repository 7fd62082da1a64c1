"""What runs in each process of a course: `python -m benchmarks.roles ROLE`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator

from benchmarks.board import BEGAN, DONE, Board, board_of
from benchmarks.plan import Role, peer_of


class Counter:
    """Counts on the board what a receiver has handled."""

    def __init__(self, board: Board, row: int) -> None:
        self.board, self.row = board, row
        self.numbers, self.place, self.count = board.numbers, board.place(row), 0

    def ready(self) -> None:
        self.board.ready(self.row)

    def __call__(self, body: bytes) -> None:
        self.count += 1
        self.numbers[self.place] = self.count


class Timer(Counter):
    """Notes on the board how long each message took, too. There is one receiver then."""

    def __call__(self, body: bytes) -> None:
        took = time.monotonic_ns() - int(body)
        self.board.note(self.count, (took,))
        super().__call__(body)


def handler(role: Role) -> Counter:
    """Return what the receiver of a role calls."""
    return (Timer if role.plan.timed else Counter)(board_of(role), role.row)


def bodies(role: Role) -> Iterator[bytes]:
    """Yield what a sender sends: the first when all may begin, the rest as fast as the plan says."""
    plan, board = role.plan, board_of(role)
    body = b"x" * plan.size
    pace = 1 / plan.rate if plan.rate else 0.0
    board.wait_for_go(role.row)
    board.stamp(role.row, BEGAN)
    begun = time.monotonic()
    for number in range(plan.share):
        if pace and (left := begun + number * pace - time.monotonic()) > 0:
            time.sleep(left)
        yield b"%-*d" % (plan.size, time.monotonic_ns()) if plan.timed else body


def perform(role: Role) -> None:
    """Do what the role says. A sender that is done stays, so that no peer sees anybody go."""
    peer = peer_of(role.plan)
    if role.sends:
        peer.send(role, bodies(role))
        board_of(role).stamp(role.row, DONE)
        signal.pause()
    else:
        peer.receive(role, handler(role))


if __name__ == "__main__":
    perform(Role.read(sys.argv[1]))

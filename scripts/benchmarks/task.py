"""The task that task queues run: it counts on the board of the role that its process was told.

How the peers name it differs: as a function, by the name of one, or by that of a method.
"""

from __future__ import annotations

import os

from benchmarks.board import Board, board_of
from benchmarks.plan import Role

VARIABLE = "BENCH_TASK"
_board: Board | None = None
_place = 0


def bind() -> None:
    """Take the board of the role in the environment."""
    global _board, _place
    role = Role.read(os.environ[VARIABLE])
    _board = board_of(role)
    _place = _board.place(role.row)


def run(number: int) -> int:
    """Count; a process that was not there before takes its board first."""
    if _board is None:
        bind()
    assert _board is not None
    _board.numbers[_place] += 1
    return number

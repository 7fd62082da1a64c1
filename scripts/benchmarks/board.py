"""A few numbers in memory that all processes of a course share: who is ready, who has done how much.

No message, socket or end mark of a peer is needed to know when the work is done, and counting costs every
peer the same. Each number has one writer; a row is one process.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.plan import Role

GO, READY, COUNT, BEGAN, DONE, ROW = range(6)
PAUSE = 0.001


class Board:
    """The numbers, mapped from a file.

    Args:
        path: the file.
        rows: how many processes there are.
        notes: for how many notes there is room.
    """

    def __init__(self, path: Path, rows: int, notes: int = 0) -> None:
        self.rows = rows
        size = 8 * (ROW * (rows + 1) + notes)
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self.numbers = memoryview(mmap.mmap(file.fileno(), size)).cast("q")

    def go(self) -> None:
        """Let all begin."""
        self.numbers[GO] = 1

    def wait_for_go(self, row: int) -> None:
        """Say that this process is ready, and wait until all may begin."""
        self.ready(row)
        while not self.numbers[GO]:
            time.sleep(PAUSE)

    def ready(self, row: int) -> None:
        self.numbers[ROW * (row + 1) + READY] = 1

    def all_ready(self) -> bool:
        return all(self.numbers[ROW * (row + 1) + READY] for row in range(self.rows))

    def stamp(self, row: int, what: int) -> None:
        """Note that this process has begun or is done, now."""
        self.numbers[ROW * (row + 1) + what] = time.monotonic_ns()

    def of(self, row: int, what: int) -> int:
        """Return a number of a process."""
        return self.numbers[ROW * (row + 1) + what]

    def place(self, row: int) -> int:
        """Return where a process counts, for one that writes there itself to be quick."""
        return ROW * (row + 1) + COUNT

    def note(self, number: int, notes: Sequence[int]) -> None:
        """Note something of the message of this number."""
        first = ROW * (self.rows + 1) + number * len(notes)
        for place, note in enumerate(notes, first):
            self.numbers[place] = note

    def notes(self) -> list[int]:
        """Return all that was noted."""
        return self.numbers[ROW * (self.rows + 1) :].tolist()


def board_of(role: Role) -> Board:
    """Return the board of a role's course."""
    plan = role.plan
    return Board(Path(role.board), plan.senders + plan.mules, plan.messages * plan.notes)

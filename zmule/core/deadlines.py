"""A table of items with one deadline each: a heap, so that thousands cost no scan.

A heap cannot give up an item from its middle. So what was discarded, or got another deadline, stays in it
as a stale entry, known by its serial number, and is skipped when it surfaces. When most of the heap is stale
it is built anew, so that whoever sets and discards for ever costs no memory.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")
SLACK = 64


class Deadlines(Generic[T]):
    """Items (hashable) and when each is due, on whichever clock the caller keeps to."""

    __slots__ = ("_entry", "_heap", "_serial")

    def __init__(self) -> None:
        self._entry: dict[T, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, T]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._entry)

    def __contains__(self, item: T) -> bool:
        return item in self._entry

    def set(self, item: T, at: float) -> None:
        """Give `item` the deadline `at` in place of any that it had."""
        self._serial += 1
        self._entry[item] = at, self._serial
        heappush(self._heap, (at, self._serial, item))
        if len(self._heap) > 2 * len(self._entry) + SLACK:
            self._heap = [(at, serial, item) for item, (at, serial) in self._entry.items()]
            heapify(self._heap)

    def discard(self, item: T) -> None:
        """Forget the deadline of `item`, if it has one."""
        self._entry.pop(item, None)

    def get(self, item: T) -> float | None:
        """Return the deadline of `item`."""
        entry = self._entry.get(item)
        return entry and entry[0]

    def next(self) -> float | None:
        """Return the earliest deadline."""
        while self._heap:
            at, serial, item = self._heap[0]
            if self._entry.get(item) == (at, serial):
                return at
            heappop(self._heap)
        return None

    def pop_due(self, now: float) -> list[tuple[float, T]]:
        """Take out what is due at `now`: pairs of deadline and item, earliest first."""
        due = []
        while (at := self.next()) is not None and at <= now:
            item = heappop(self._heap)[2]
            del self._entry[item]
            due.append((at, item))
        return due

    def validate(self) -> None:
        """Check that each deadline is in the heap exactly once."""
        if not self._entry:
            return
        live = [item for at, serial, item in self._heap if self._entry.get(item) == (at, serial)]
        assert len(live) == len(self._entry) == len(set(live))

"""Keeps one kind of note from filling the log: a hostile peer can break the protocol as fast as it can send.

Notes are of one kind if they differ only in numbers and in what follows a colon. Of each kind some are
written as they come; of more within the same second only how many they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MOST = 20
"""Notes of a kind that are written within `SECONDS`."""

SECONDS = 1.0

MOST_KINDS = 1000
"""Kinds that are told apart within `SECONDS`; what else there is counts as one more."""

_NUMBER = re.compile(r"\d+")

Kind = tuple[str, str]


class Damper:
    """Passes notes on, up to a rate.

    Args:
        write: is given the level and the text of what is to be written.
    """

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write
        self._begun: dict[Kind, float] = {}
        self._counts: dict[Kind, int] = {}

    def note(self, level: str, text: str, now: float) -> None:
        """Write a note, or count it. `now` is in seconds on the monotonic clock."""
        self.tick(now)
        kind = level, _NUMBER.sub("…", text.partition(":")[0])
        if kind not in self._begun and len(self._begun) >= MOST_KINDS:
            kind = level, "other kinds"
        self._begun.setdefault(kind, now)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._counts[kind] <= MOST:
            self._write(level, text)

    def tick(self, now: float) -> None:
        """Tell how many notes were not written in the seconds that are over."""
        while (due := self.next_deadline()) is not None and due <= now:
            self._sum_up(next(iter(self._begun)))

    def close(self) -> None:
        """Tell it at once."""
        for kind in list(self._begun):
            self._sum_up(kind)

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do."""
        return next((begun + SECONDS for begun in self._begun.values()), None)

    def _sum_up(self, kind: Kind) -> None:
        level, what = kind
        del self._begun[kind]
        more = self._counts.pop(kind) - MOST
        if more > 0:
            self._write(level, f"{what}: {more} more like it within {SECONDS:g} s")

"""How far ahead of its threads a mule is served, and when it must give back.

A message for each waiting thread costs a round trip a message. So, while there is a backlog, a mule is
given more than its threads wait for: what it will acknowledge within `HORIZON` at the pace at which it
has been acknowledging. Tiny messages get a window of thousands; a job longer than the horizon gets none.
The window at most doubles with each report, and shrinks at once.

What was given ahead is recalled when another mule stands idle for want of it, or when the mule makes no
progress for `STALE` seconds. The mule's receiver thread gives back what no thread has started.
"""

from __future__ import annotations

HORIZON = 0.03
STALE = 0.05
MOST_MESSAGES = 8192
MOST_BYTES = 1 << 20


class Pace:
    """How fast a mule works, and what follows from it.

    Attributes:
        window: how many messages it may have that no thread has started.
        progress: when it last finished something or was given something with empty hands.
        recalled: whether it has been asked to give back and has not answered.
        tastes: the sources that its threads have waited for, as bits.
    """

    __slots__ = ("progress", "recalled", "tastes", "window")

    def __init__(self) -> None:
        self.window = 0
        self.progress = 0.0
        self.recalled = False
        self.tastes = 0

    def begun(self, now: float) -> None:
        """It was given something with empty hands."""
        self.progress = max(self.progress, now)

    def finished(self, count: int, now: float) -> None:
        """It has finished so many messages since it last made progress."""
        took = now - self.progress
        able = MOST_MESSAGES if took <= 0 else int(count * HORIZON / took)
        self.window = min(able, 2 * self.window + 4, MOST_MESSAGES)
        self.progress = now

    def stale(self, now: float) -> bool:
        """Return whether it makes no progress, so that what it was given ahead must not wait for it."""
        return now - self.progress >= STALE

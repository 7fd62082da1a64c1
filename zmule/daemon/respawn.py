"""When a mule that ended runs again.

Three endings are told apart. A **crash at start** (not clean, within `STEADY` seconds of the start) is likely
to happen again: each one in a row doubles the pause from `FIRST` to `LONGEST`. After `CRASHES` of them, which
takes two to three minutes, so that a database that is being restarted does not count, the mule has
**failed**: somebody should look. But what is broken may be mended, so it is tried again after pauses that
grow from `RETRY` to `LONGEST_RETRY`. A **later crash** ends the row: the program works, something it met
killed it. A **clean exit** is no crash at all: programs that handle one message and leave are as welcome as
they are to uWSGI, and are started as often as uWSGI starts them, once every `PACE` seconds.

Pure: time is an argument, so that minutes of crashing are a test of no time.
"""

from __future__ import annotations

FIRST = 0.1
LONGEST = 30.0
STEADY = 5.0
PACE = 1.0
CRASHES = 12
RETRY = 60.0
LONGEST_RETRY = 300.0


class Respawn:
    """The respawn policy of one mule, over all the runs of its process. All times in seconds, monotonic."""

    __slots__ = ("_crashes", "_started")

    def __init__(self) -> None:
        self._crashes = 0
        self._started = 0.0

    @property
    def failed(self) -> bool:
        """Whether it has crashed so often in a row that little hope is left."""
        return self._crashes >= CRASHES

    def started(self, now: float) -> None:
        """Note that the process was started, or that this was tried."""
        self._started = now

    def lived(self, now: float) -> float:
        """Return how long ago it was started."""
        return now - self._started

    def ended(self, now: float, *, clean: bool) -> float:
        """Note that the process ended, `clean` if with exit code 0; return when to start it again."""
        if clean or self.lived(now) >= STEADY:
            self._crashes = 0
            return max(now + FIRST, self._started + PACE)
        self._crashes += 1
        if self.failed:
            return now + min(LONGEST_RETRY, RETRY * 2.0 ** min(self._crashes - CRASHES, 9))
        return now + min(LONGEST, FIRST * 2.0 ** (self._crashes - 1))

    def forgive(self) -> None:
        """Begin a new row: somebody says that it is worth another try."""
        self._crashes = 0

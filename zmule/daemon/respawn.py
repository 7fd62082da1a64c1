"""When a mule that ended runs again, and when zmuled stops trying.

Three endings are told apart. A **crash at start** (not clean, within `STEADY` seconds of the start) is likely
to happen again: each one in a row doubles the pause from `FIRST` to `LONGEST`, and the row is given up after
`CRASHES` of them, which takes two to three minutes, so that a database that is being restarted does not cost
the mule its life. A **later crash** ends the row: the program works, something it met killed it. A **clean
exit** is no crash at all: programs that handle one message and leave are as welcome as they are to uWSGI,
and are started as often as uWSGI starts them, once every `PACE` seconds.

Pure: time is an argument, so that minutes of crashing are a test of no time.
"""

from __future__ import annotations

FIRST = 0.1
LONGEST = 30.0
STEADY = 5.0
PACE = 1.0
CRASHES = 12


class Respawn:
    """The respawn policy of one mule, over all the runs of its process. All times in seconds, monotonic."""

    __slots__ = ("_crashes", "_started")

    def __init__(self) -> None:
        self._crashes = 0
        self._started = 0.0

    def started(self, now: float) -> None:
        """Note that the process was started, or that this was tried."""
        self._started = now

    def ended(self, now: float, *, clean: bool) -> float | None:
        """Note that the process ended, `clean` if with exit code 0.

        Returns: the time at which to start it again; None when it is to be given up.
        """
        if clean or now - self._started >= STEADY:
            self._crashes = 0
            return max(now + FIRST, self._started + PACE)
        self._crashes += 1
        if self._crashes >= CRASHES:
            return None
        return now + min(LONGEST, FIRST * 2.0 ** (self._crashes - 1))

"""Harakiri: a process that is killed when it has not done something in time.

Who kills it is another: `zmuled`, for a mule that it has started. A process whose interpreter is stuck, in a
regular expression or a C library, could not kill itself. Other mules and workers have no such other, and kill
themselves by a timer, as far as the interpreter lets it run.

Each call of a decorated function has a time of its own, and so has the process outside of them; the first one
that runs out kills. So calls may be nested, and run in several threads, and the end of one disarms no other.
`set_user_harakiri` within a call sets the time of this call.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from zmule import current
from zmule.core.wire import MAX_SECONDS

_NEVER = float("inf")


class Harakiri:
    """The times by which this process wants to be done."""

    def __init__(self) -> None:
        self._mutex = threading.RLock()
        self._ends: dict[object, float] = {self: _NEVER}
        self._told = _NEVER
        self._timer: threading.Timer | None = None
        self._calls = threading.local()

    def set(self, seconds: float) -> None:
        """Set the time of the innermost call of this thread, or of the process; 0 for none.

        Raises:
            TypeError: `seconds` is no number.
            ValueError: they are fewer than 0.
        """
        if not isinstance(seconds, (int, float)):
            raise TypeError(f"a time is a number, not {type(seconds).__name__}")
        if not 0 <= seconds <= MAX_SECONDS:
            raise ValueError(f"a time is 0 seconds or more, not {seconds}")
        calls = getattr(self._calls, "stack", None)
        with self._mutex:
            self._ends[calls[-1] if calls else self] = monotonic() + seconds if seconds else _NEVER
            self._tell()

    @contextmanager
    def call(self, seconds: float) -> Iterator[None]:
        """Have the process killed if the block takes longer."""
        key = object()
        stack = self._calls.__dict__.setdefault("stack", [])
        try:
            stack.append(key)
            self.set(seconds)
            yield
        finally:
            if key in stack:
                stack.remove(key)
            with self._mutex:
                self._ends.pop(key, None)
                self._tell()

    def _tell(self) -> None:
        """Tell who kills by when, if that has changed. With the mutex held."""
        end = min(self._ends.values())
        if end == self._told:
            return
        self._told = end
        seconds = max(0.001, end - monotonic()) if end < _NEVER else 0.0
        mule = current.current_mule()
        if mule is not None and mule.supervised:
            mule.set_deadline(seconds)
        else:
            self._set_timer(seconds)

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds:
            self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), _commit)
            self._timer.daemon = True
            self._timer.start()


def _commit() -> None:
    mule = current.current_mule()
    who = f"ON MULE {mule.mule_id} " if mule else ""
    print(f"*** HARAKIRI {who}(pid: {os.getpid()}) ***", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


here = Harakiri()


def _after_fork() -> None:
    """A child has no timer, and nobody has been told of it."""
    global here
    here = Harakiri()


os.register_at_fork(after_in_child=_after_fork)


def set_user_harakiri(seconds: float = 0, /) -> None:
    """Have this process killed in so many seconds, unless this is called again; 0: do not.

    Raises:
        TypeError: `seconds` is no number.
        ValueError: they are fewer than 0.
    """
    here.set(seconds)

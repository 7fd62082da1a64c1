"""How a thread of the program sleeps until the receiver wakes it up.

It sleeps on a lock of its own, so that an operating system signal's handler can run meanwhile, and so that it
holds nothing that another thread, or such a handler, might need. Whoever waits for it knows it by a weak
reference: a thread that an exception has thrown out of its sleep is waited for no more.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from zmule.core.inbox import Waiter


class Nap:
    """One sleep of one thread.

    Attributes:
        main: whether the thread is the main one.
        woken: whether there is a reason to sleep no longer.
        interrupted: whether that is a signal that the program handles.
    """

    __slots__ = ("__weakref__", "_lock", "interrupted", "interruptible", "main", "woken")

    def __init__(self, *, interruptible: bool = False) -> None:
        self.interruptible = interruptible
        self.interrupted = self.woken = False
        self.main = threading.current_thread() is threading.main_thread()
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """End the sleep. By the receiver."""
        self.woken = True
        self.nudge()

    def nudge(self) -> None:
        """Have the thread run for a moment, and so the handlers of signals, if it is the main thread."""
        with suppress(RuntimeError):  # it is awake
            self._lock.release()

    def sleep(self, timeout: float) -> None:
        """Sleep until woken, so many seconds at most; -1: for as long as it takes."""
        end = monotonic() + timeout
        while self._lock.acquire(timeout=timeout) and not self.woken:
            timeout = timeout if timeout < 0 else max(0.0, end - monotonic())


class Getter(Waiter):
    """A thread that waits in a get."""

    __slots__ = ("nap",)

    def __init__(self, bits: int, nap: Nap) -> None:
        super().__init__(bits)
        self.nap = weakref.ref(nap)

    def wake(self) -> None:
        nap = self.nap()
        if nap is not None:
            nap.wake()


class Watch:
    """A thread that waits for a condition, which the receiver looks at."""

    __slots__ = ("condition", "nap")

    def __init__(self, condition: Callable[[], object], nap: Nap) -> None:
        self.condition = condition
        self.nap = weakref.ref(nap)

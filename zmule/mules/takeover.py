"""The signals of the operating system that stop a mule: taken over in its process, given back in children.

A child that the program forks is no mule. What it gets between the fork and the moment when it knows that is
kept from it until then: the signals are blocked meanwhile, and so remain pending.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


class Takeover:
    """The signals that one process has taken over. To be made in the main thread.

    Args:
        numbers: which.
        handler: runs in the main thread when one comes, and in children by mistake: see `pass_on`.

    Attributes:
        alarm: readable when any signal has come that Python handles; has their numbers.
        forking: whether the main thread is in a fork, where nothing that is raised gets anywhere.
    """

    def __init__(self, numbers: Iterable[int], handler: Handler) -> None:
        self._handler = handler
        self._masks = threading.local()
        self.forking = False
        self._former = {number: signal.signal(number, handler) or signal.SIG_DFL for number in numbers}
        self.alarm, self._wakeup = socket.socketpair()
        for end in (self.alarm, self._wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._give_back
        )

    def ours(self, number: int) -> bool:
        """Return whether the program has not put a handler of its own in the place of ours."""
        return number in self._former and signal.getsignal(number) == self._handler

    def pass_on(self, number: int) -> None:
        """Have happen what would have happened without us: a child's own handler has called ours."""
        signal.signal(number, self._former.get(number, signal.SIG_DFL))
        signal.raise_signal(number)

    def _before_fork(self) -> None:
        self._masks.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.forking = self.forking or threading.current_thread() is threading.main_thread()
        signal.pthread_sigmask(signal.SIG_BLOCK, [number for number in self._former if self.ours(number)])

    def _after_fork(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.forking = False
        self._unmask()

    def _give_back(self) -> None:
        self.forking = False
        for number, former in self._former.items():
            if self.ours(number):
                signal.signal(number, former)
        wakeup = signal.set_wakeup_fd(-1)
        if wakeup not in (-1, self._wakeup.fileno()):
            signal.set_wakeup_fd(wakeup)  # somebody else's
        self.alarm.close()
        self._wakeup.close()
        self._unmask()

    def _unmask(self) -> None:
        mask = self._masks.__dict__.pop("mask", None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

"""Operating system signals, as something that the loop finds when it looks.

A handler only notes the number; a byte at a socket that the loop polls says that there is one. The byte may
be lost when the socket is full, the note is not: of a thousand deaths of children none hides a SIGTERM.

What the process was started with is minded. SIGHUP that was ignored, as `nohup` has it, stays ignored.
Signals that were blocked, as in programs that wait for theirs with `sigwait`, are let through, or nothing
could end the daemon.
"""

from __future__ import annotations

import signal
import socket
from collections import deque
from contextlib import suppress
from types import FrameType, TracebackType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Alarm:
    """Signals of the process, from `with` to its end. To be used in the main thread.

    After a clean end the signals are ignored: the process is about to exit with the status that it has
    earned.
    """

    def __init__(self) -> None:
        self._noted: deque[int] = deque()
        self._reader, self._writer = socket.socketpair()

    def __enter__(self) -> Alarm:
        for end in (self._reader, self._writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._taken = {*STOP_SIGNALS, signal.SIGCHLD} - ({signal.SIGHUP} if nohup else set())
        for number in self._taken:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*STOP_SIGNALS, signal.SIGCHLD})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        # Python complains of a signal that comes just while its handler goes.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._taken)
        for number in self._taken - {signal.SIGCHLD}:
            signal.signal(number, signal.SIG_IGN if kind is None else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """Return the descriptor that is readable when a signal has come."""
        return self._reader.fileno()

    def take(self) -> list[signal.Signals]:
        """Return what has come since it was looked at last, in order; SIGCHLD at most once."""
        with suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        noted = [signal.Signals(self._noted.popleft()) for _ in range(len(self._noted))]
        once = {signal.SIGCHLD: None} if signal.SIGCHLD in noted else {}
        return [*once, *(number for number in noted if number != signal.SIGCHLD)]

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)

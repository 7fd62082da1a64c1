"""Lines on their way out, and the thread that writes them: whoever reads them may be slow, or stand still.

The thread writes to the descriptor itself, without Python's buffers and their locks: a write that never
returns then holds up nothing else, not even the end of the process. A regular file, a pipe, a terminal and a
socket are all the same here, set to be non-blocking by somebody else or not.

What waits is bounded. At `FULL` the writer is full, and whoever can wait should; its descriptor becomes
readable when there is room again. Beyond `MOST` lines are dropped and counted, and so is what the reader will
never see since it has gone. How many were dropped is said as soon as somebody reads again.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

FULL = 4 << 20
"""Bytes that wait from which on the writer is full; it has room again at half of it."""

MOST = 2 * FULL
"""Bytes that wait at most."""

CHUNK = 1 << 16
"""Bytes to write at a time."""


class Writer:
    """Writes to a descriptor from a thread of its own.

    Args:
        descriptor: where to; it is not closed.
        on_dropped: called from the thread with how many lines were dropped, when writing goes on.
    """

    def __init__(self, descriptor: int, on_dropped: Callable[[int], None]) -> None:
        self._descriptor = descriptor
        self._on_dropped = on_dropped
        self._changed = threading.Condition()
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._bytes = 0
        self._lines = 0
        self._dropped = 0
        self._waited_for = self._closing = False
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        threading.Thread(target=self._work, name="zmuled-writer", daemon=True).start()

    def put(self, data: bytes, lines: int = 1) -> None:
        """Have whole lines written; `lines` is how many. Drop them if too much waits already."""
        with self._changed:
            if self._bytes >= MOST:
                self._dropped += lines
                return
            self._waiting.append((data, lines))
            self._bytes += len(data)
            self._lines += lines
            self._changed.notify_all()

    def full(self) -> bool:
        """Return whether whoever can wait should. If so, `fileno` becomes readable when there is room."""
        with self._changed:
            self._waited_for = self._bytes >= FULL
            return self._waited_for

    def fileno(self) -> int:
        """Return the descriptor that is readable when a full writer has got room."""
        return self._bell

    def heard(self) -> None:
        """Note that there is room: `fileno` is not readable any more."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)

    def close(self, seconds: float) -> int:
        """Write what waits, for so many seconds at most; return how many lines were never written."""
        deadline = monotonic() + seconds
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._lines, max(0.0, deadline - monotonic()))
            os.close(self._bell)
            self._waited_for = False
            return self._lines + self._dropped

    # In the thread.

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            data, lines = batch
            written = self._write(data)
            with self._changed:
                self._bytes -= len(data)
                self._lines -= lines
                self._dropped += 0 if written else lines
                dropped = self._dropped if written and not self._closing else 0
                self._dropped -= dropped
                if self._waited_for and self._bytes < FULL // 2:
                    self._waited_for = False
                    os.eventfd_write(self._bell, 1)
                self._changed.notify_all()
            if dropped:
                self._on_dropped(dropped)

    def _next(self) -> tuple[bytes, int] | None:
        """Return what to write next and how many lines it has; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            pieces, size = [], 0
            while self._waiting and size < CHUNK:
                pieces.append(self._waiting.popleft())
                size += len(pieces[-1][0])
        return b"".join(data for data, _ in pieces), sum(lines for _, lines in pieces)

    def _write(self, data: bytes) -> bool:
        """Write all of it, however long that takes; return whether anybody can have got it."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # the file is non-blocking by the will of another who has it open
                poller = select.poll()
                poller.register(self._descriptor, select.POLLOUT)
                poller.poll()
            except OSError:  # the reader has gone, the disk is full: no reason for a broker to end
                return False
        return True

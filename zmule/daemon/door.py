"""Lets connections in one by one, for as long as there is a seat for one more.

libzmq accepts whatever comes. When no descriptor is left for it, it aborts on ipc, and on tcp it spins. It
has no setting for how many may come, and to unbind an endpoint would end the connections that came by it. So
each listener is taken out of the hands of libzmq's poller, with `epoll_ctl`, and armed for a single
connection at a time (EPOLLONESHOT), when somebody waits and there is a seat. What waits meanwhile does so in
the kernel's queue. Where the listener's place in the poller is, the kernel tells (`/proc/self/fdinfo`).

Who is there is told by the sockets' monitors. Since nobody comes in but by this door, the number of a
descriptor is that of the same connection until its end has been told of, unless somebody is just on his way
in.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import select
import time
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR, socket

from zmule.errors import ConfigError

PATIENCE_SECONDS = 5.0
"""How long libzmq may take to begin to listen."""

EPOLL_CTL_MOD = 3

_libc = ctypes.CDLL(None, use_errno=True)
_PLACE = re.compile(r"^tfd:\s*(\d+)\s.*\bdata:\s*([0-9a-f]+)", re.MULTILINE)


class _PollEvent(ctypes.Structure):
    _pack_ = 1 if platform.machine() == "x86_64" else 0
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class Turnstile:
    """A listening socket in libzmq's poller: shut, or open for one.

    Args:
        listener: its descriptor.

    Raises:
        ConfigError: nothing on this system tells where its place is.
    """

    def __init__(self, listener: int) -> None:
        self.listener = listener
        self._poller, self._data = _place(listener)
        self._set(0)

    def open(self) -> None:
        """Let libzmq accept one connection."""
        self._set(select.EPOLLIN | select.EPOLLONESHOT)

    def _set(self, events: int) -> None:
        event = ctypes.byref(_PollEvent(events, self._data))
        if _libc.epoll_ctl(self._poller, EPOLL_CTL_MOD, self.listener, event):
            raise OSError(ctypes.get_errno(), "epoll_ctl of a listener")


def _place(listener: int) -> tuple[int, int]:
    """Return in which of this process's pollers the listener is, and what it bears there."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for entry in Path("/proc/self/fdinfo").glob("*"):
            with suppress(OSError):
                for number, data in _PLACE.findall(entry.read_text()):
                    if int(number) == listener:
                        return int(entry.name), int(data, 16)
        time.sleep(0.001)  # libzmq's thread takes the listener up in its own time
    raise ConfigError("connections cannot be limited: /proc does not tell how libzmq polls its listeners")


class Door:
    """Who is connected, and who may come in.

    Attributes:
        most: how many connections there may be.
        connections: those that there are: their descriptors, with what `now` was when they came.
        notes: what is to be logged, as level and text.
    """

    def __init__(self) -> None:
        self.most = 0
        self.connections: dict[int, float] = {}
        self.notes: list[tuple[str, str]] = []
        self._turnstiles: dict[int, Turnstile] = {}
        self._endpoints: dict[str, list[int]] = {}
        self._coming: set[int] = set()
        self._full = False
        self._bell = select.epoll()

    def fileno(self) -> int:
        """Return what to poll: `look` when it is readable."""
        return self._bell.fileno()

    def hang(self, endpoint: str, listener: int) -> None:
        """See to a listener from here on; an endpoint whose file has vanished gets another one.

        Nobody comes in before `most` is set.
        """
        self._turnstiles[listener] = Turnstile(listener)
        self._endpoints.setdefault(endpoint, []).append(listener)
        self._bell.register(listener, 0)
        if self.most:
            self._listen(listener)

    def set_most(self, most: int) -> None:
        """Say how many connections there may be, and let them come."""
        self.most = most
        self._ring_again()

    def busy(self) -> bool:
        """Return whether somebody is on his way in."""
        return bool(self._coming)

    def look(self) -> None:
        """Let in who waits, one at each endpoint."""
        for listener, _ in self._bell.poll(0):
            if len(self.connections) + len(self._coming) >= self.most and not self._seats_left():
                self._note_full()
                return
            self._coming.add(listener)
            self._turnstiles[listener].open()

    def came(self, endpoint: str, descriptor: int, now: float) -> None:
        """Somebody has come in."""
        self.connections[descriptor] = now
        self.failed(endpoint)

    def failed(self, endpoint: str) -> None:
        """Nobody has come in after all, or he has: the next one may."""
        for listener in self._endpoints[endpoint]:
            self._coming.discard(listener)
            self._listen(listener)

    def left(self, descriptor: int) -> None:
        """A connection has ended."""
        self.connections.pop(descriptor, None)
        if self._full:
            self._ring_again()
            if len(self.connections) <= self.most - max(1, self.most // 4):
                self._full = False
                self.notes.append(("warning", f"new connections are accepted again: {self._seats()}"))

    def cut(self, descriptor: int) -> None:
        """End a connection; libzmq sees that its peer has gone. Call with all read that the monitors tell."""
        if descriptor in self.connections:
            with suppress(OSError):
                connection = socket(fileno=descriptor)
                try:
                    connection.shutdown(SHUT_RDWR)
                finally:
                    connection.detach()

    def close(self) -> None:
        """Look after nothing any more; the listeners are libzmq's to close."""
        self._bell.close()

    def _ring_again(self) -> None:
        for listener in self._turnstiles.keys() - self._coming:
            self._listen(listener)

    def _listen(self, listener: int) -> None:
        self._bell.modify(listener, select.EPOLLIN | select.EPOLLONESHOT)

    def _seats_left(self) -> bool:
        """Count again: a connection that libzmq ended by itself may have gone without a word."""
        for descriptor in [each for each in self.connections if not _is_open(each)]:
            del self.connections[descriptor]
        return len(self.connections) + len(self._coming) < self.most

    def _note_full(self) -> None:
        if not self._full:
            self._full = True
            self.notes.append(("warning", f"no more connections: {self._seats()}; others wait"))

    def _seats(self) -> str:
        return f"{len(self.connections)} of {self.most} are in use (max_connections)"


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True

"""Lets connections in one by one, for as long as there is a seat for one more.

libzmq accepts whatever comes. When no descriptor is left for it, it aborts on ipc, and on tcp it spins. It
has no setting for how many may come, and to unbind an endpoint would end the connections that came by it. So
each listener is taken out of the hands of libzmq's poller, with `epoll_ctl`, and armed for a single
connection at a time (EPOLLONESHOT), when somebody waits and there is a seat. What waits meanwhile does so in
the kernel's queue. Where the listener's place in the poller is, the kernel tells (`/proc/self/fdinfo`).

Who is there is told by the sockets' monitors. Since nobody comes in but by this door, the number of a
descriptor is that of the same connection until its end has been told of, unless somebody is just on his way
in.

Where the kernel does not tell, as under gVisor, libzmq goes on accepting whatever comes, and those for whom
there is no seat are cut when they are in.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR, socket

PATIENCE_SECONDS = 5.0
"""How long libzmq may take to begin to listen."""

EPOLL_CTL_MOD = 3

_libc = ctypes.CDLL(None, use_errno=True)
_PLACE = re.compile(r"^tfd:\s*(\d+)\s.*\bdata:\s*([0-9a-f]+)", re.MULTILINE)


class _PollEvent(ctypes.Structure):
    _pack_ = 1 if platform.machine() == "x86_64" else 0
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class PlaceUnknown(Exception):
    """The kernel does not tell of pollers."""


class Turnstile:
    """A listening socket in libzmq's poller: shut, or open for one.

    Args:
        listener: its descriptor.

    Raises:
        PlaceUnknown: nothing on this system tells where its place is.
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
    with select.epoll() as known:
        known.register(listener, 0)
        if not any(poller == known.fileno() for poller, _ in _places(listener)):
            raise PlaceUnknown("/proc does not tell how libzmq polls its listeners")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for place in _places(listener):
            return place
        time.sleep(0.001)  # libzmq's thread takes the listener up in its own time
    raise PlaceUnknown("libzmq does not poll its listeners by epoll")


def _places(listener: int) -> Iterator[tuple[int, int]]:
    for entry in Path("/proc/self/fdinfo").glob("*"):
        with suppress(OSError):
            for number, data in _PLACE.findall(entry.read_text()):
                if int(number) == listener:
                    yield int(entry.name), int(data, 16)


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
        self._always_open = False
        self._surplus: list[int] = []
        self._full = False
        self._bell = select.epoll()

    def fileno(self) -> int:
        """Return what to poll: `look` when it is readable."""
        return self._bell.fileno()

    def hang(self, endpoint: str, listener: int) -> None:
        """See to a listener from here on; an endpoint whose file has vanished gets another one.

        Nobody comes in before `most` is set, unless the door cannot be shut here.
        """
        if self._always_open:
            return
        try:
            self._turnstiles[listener] = Turnstile(listener)
        except PlaceUnknown as error:
            self._always_open = True
            text = (
                f"connections cannot be limited before they are accepted here: {error}; surplus ones are cut"
            )
            self.notes.append(("warning", text))
            return
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
        if endpoint in self._endpoints:
            self.failed(endpoint)
        elif 0 < self.most < len(self.connections):
            self._surplus.append(descriptor)

    def cut_surplus(self) -> None:
        """Cut those for whom there is no seat; call with all read that the monitors tell."""
        surplus, self._surplus = self._surplus, []
        if surplus:
            self._count_again()
        for descriptor in surplus[: max(0, len(self.connections) - self.most)]:
            self._note_full()
            self.cut(descriptor)

    def failed(self, endpoint: str) -> None:
        """Nobody has come in after all, or he has: the next one may."""
        for listener in self._endpoints.get(endpoint, ()):
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
        self._count_again()
        return len(self.connections) + len(self._coming) < self.most

    def _count_again(self) -> None:
        """See who is there: a connection that libzmq ended by itself may have gone without a word."""
        for descriptor in [each for each in self.connections if not _is_open(each)]:
            del self.connections[descriptor]

    def _note_full(self) -> None:
        if not self._full:
            self._full = True
            fate = "are cut" if self._always_open else "wait"
            self.notes.append(("warning", f"no more connections: {self._seats()}; others {fate}"))

    def _seats(self) -> str:
        used = min(len(self.connections), self.most)
        return f"{used} of {self.most} are in use (max_connections)"


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True

"""What lies between a `Link` and the network: one socket at a time, owned by one thread at a time."""

from __future__ import annotations

import contextlib
import os
import resource
import select
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import ceil, inf
from operator import length_hint
from typing import cast

import zmq

from zmule import process
from zmule.addresses import to_connect
from zmule.core.session import Link
from zmule.core.wire import decode, encode
from zmule.errors import BrokerUnavailable
from zmule.trust import check_socket

Socket = zmq.Socket[bytes]

READ, WRITE = int(zmq.POLLIN), int(zmq.POLLOUT)
DONTWAIT, EVENTS = int(zmq.DONTWAIT), int(zmq.EVENTS)
"""Plain numbers: what pyzmq has in their place is slow to reckon with."""

DESCRIPTORS = 16
"""How many libzmq may want for a context and a socket, and some to spare: for want of one it aborts the
process."""

STUCK_SECONDS = 0.1
"""Nothing else is due sooner while frames wait for a broker that does not read: they would go first."""


class TooManyFiles(BrokerUnavailable):
    """There are not enough descriptors left for a connection; later there may be."""


class Bell:
    """Wakes up a thread that polls.

    Its descriptor is closed when nobody has the bell any more, so not under somebody who rings: whoever is
    done with it puts a silent one in its place. A fork has a descriptor of its own, and does so, too.

    Args:
        silent: do not open it yet.
    """

    descriptor = -1

    def __init__(self, *, silent: bool = False) -> None:
        if not silent:
            self.open()

    def open(self) -> None:
        """Open the descriptor.

        Raises:
            TooManyFiles: none is left.
        """
        try:
            self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            raise TooManyFiles(f"no descriptor is left: {error.strerror}") from None

    def ring(self) -> None:
        """Make the descriptor readable, if it is open: a signal's handler may come early or late."""
        if self.descriptor >= 0:
            os.eventfd_write(self.descriptor, 1)

    def silence(self) -> None:
        """Make it unreadable again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.descriptor >= 0:
            close(self.descriptor)


class Connection:
    """Carries a link's frames over a DEALER that is replaced when the link says that it is broken.

    The socket is used only with the link's mutex held, by whichever thread is at hand; a thread that waits
    polls `descriptor`, for which it needs no mutex. libzmq makes that readable once for what has happened,
    not for as long as there is something to do: hence `exchange` goes on until there is nothing left.

    An exception may strike between any two lines. What has come stays in line until the link has taken it in
    to the end; a link that does not redo gets a new socket after any strike, the others only if a frame may
    be lost.

    Args:
        endpoint: the broker's endpoint.
        link: the session, touched only with its mutex held: that is for the caller to see to.
        monitored: whether to notice disconnections as they happen.

    Attributes:
        descriptor: what to poll for the socket, and `cuts` for its disconnections; -1 for none.
    """

    def __init__(self, endpoint: str, link: Link, *, monitored: bool = False) -> None:
        self.endpoint = endpoint
        self.socket: Socket | None = None
        self.descriptor = self.cuts = -1
        self._monitor: Socket | None = None
        self._link = link
        self._monitored = monitored
        self._spoilt = False
        self._full = False
        self._backlog: list[bytes] = []
        self._come: deque[bytes] = deque()
        self._receiving: tuple[Iterator[int], int] | None = None

    def renew(self, now: float) -> None:
        """Have a socket: a new one if there is none, or it is no good. Only by the thread that polls."""
        if self.socket is not None and (self._spoilt or self._link.broken(now)):
            self._link.disconnected(now)
            self.close()
        if self.socket is None:
            self.socket = connect(self.endpoint)
            self.descriptor = cast(int, self.socket.get(zmq.FD))
            if self._monitored:
                self._monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
                self.cuts = cast(int, self._monitor.get(zmq.FD))
                self.was_cut()  # until a socket has been looked at, its descriptor tells of nothing

    def was_cut(self) -> bool:
        """Return whether the connection has broken since the last call. Only by the thread that polls."""
        cut = False
        while self._monitor is not None and events_of(self._monitor) & READ:
            self._monitor.recv_multipart(zmq.DONTWAIT)
            cut = True
        return cut

    def exchange(self, now: float, *, woken: bool = False) -> int:
        """Send what there is and take in what has come, as far as it goes; return how many frames came.

        With the mutex held, by any thread. After an error the socket is no good.

        Args:
            now: the monotonic clock.
            woken: whether something has come, most likely, and so is to be looked at first.

        Raises:
            ProtocolError: what has come is not what a broker sends.
        """
        if self.socket is None or self._spoilt:
            return 0
        try:
            return self._exchange(self.socket, now, woken)
        except BaseException:  # a signal's handler may have raised anywhere: nobody knows what got through
            self._spoilt = self._spoilt or not self._link.redoes
            raise

    def _exchange(self, socket: Socket, now: float, woken: bool) -> int:
        link, come = self._link, self._come
        taken = self._take_in(now) if come else 0
        if not woken:
            self._transmit(socket, now)
        while True:
            while (events := events_of(socket)) & READ:
                self._receive(socket)
            if come:
                taken += self._take_in(now)
                woken = True
            if self._full and events & WRITE:
                link.doubt()
            self._full = not events & WRITE
            waits = self._backlog or link.doubts or (link.state == "down" and link.next_deadline(now) is None)
            if not (woken or (waits and events & WRITE)) or not self._transmit(socket, now):
                return taken
            woken = False

    def _receive(self, socket: Socket) -> None:
        """Put a frame in line, within a single call: a strike before or after it does not lose the frame.

        One within it may. Then the flags were asked for, and there is no frame.
        """
        flags = iter((DONTWAIT,))
        self._receiving = flags, len(self._come)
        self._come.extend(map(socket.recv, flags))
        self._receiving = None

    def _take_in(self, now: float) -> int:
        count = 0
        while self._come:
            self._link.receive(decode(self._come[0]), now)
            self._come.popleft()
            count += 1
        return count

    def mend(self) -> None:
        """Make good what an exception may have left half done. With the mutex held."""
        if self._receiving is not None:
            flags, before = self._receiving
            self._spoilt = self._spoilt or (not length_hint(flags) and len(self._come) == before)
            self._receiving = None
        if self.socket is not None and (self.socket.closed or self.descriptor < 0):
            self._spoilt = True
        self._backlog = []
        self._link.mend()

    def _transmit(self, socket: Socket, now: float) -> bool:
        """Send what there is; return whether the socket was touched.

        Then it has to be looked at again, for that may have used up what the descriptor has told.
        """
        if not self._backlog:
            if self._link.state == "down" and not events_of(socket) & WRITE:
                return True
            self._backlog = list(map(encode, self._link.outgoing(now)))
        if not self._backlog:
            return False
        sent = 0
        try:
            for data in self._backlog:
                socket.send(data, DONTWAIT)
                sent += 1
        except zmq.Again:
            pass
        del self._backlog[:sent]
        return True

    def next_deadline(self, now: float) -> float:
        """Return when there is something to do even if nothing comes."""
        due = self._link.next_deadline(now)
        if due is None:
            return inf
        return max(due, now + STUCK_SECONDS) if self._backlog else due

    def close(self) -> None:
        """Close the socket; the next `renew` makes another."""
        if self.socket is not None and not self.socket.closed:
            if self._monitor is not None:
                self.socket.disable_monitor()
                self._monitor.close(linger=0)
            self.socket.close(linger=0)
        self.socket = self._monitor = None
        self.descriptor = self.cuts = -1
        self._spoilt = self._full = False
        self._backlog.clear()
        self._come.clear()
        self._receiving = None

    def abandon(self) -> None:
        """In a forked child: leave the parent's sockets alone."""
        process.abandon(self.socket, self._monitor)
        self.socket = self._monitor = None
        self.descriptor = self.cuts = -1


def drain(socket: Socket) -> list[bytes]:
    """Return all frames that have come, without waiting."""
    return _drain(socket)[0]


def _drain(socket: Socket) -> tuple[list[bytes], int]:
    """Return all frames that have come, and the socket's events after that."""
    frames: list[bytes] = []
    while (events := events_of(socket)) & READ:
        frames.append(socket.recv(DONTWAIT))
    return frames, events


def notice_cuts(socket: Socket) -> None:
    """Have the system notice within some 15 s that a tcp connection is cut, whatever it is used for.

    ZMTP's own heartbeats would, too. But libzmq 4.3 aborts the process when it is time for one and the peer
    has hung up after sending more than RCVHWM messages that nobody has read yet.
    """
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 5)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 5)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 2)
    socket.setsockopt(zmq.TCP_MAXRT, 15_000)


def events_of(socket: Socket) -> int:
    """Return what can be done with the socket: to ask costs half of the exception if it cannot."""
    events: int = socket.get(EVENTS)  # type: ignore[assignment]
    return events


def poll(descriptors: Iterable[int], wait: float) -> set[int]:
    """Return which of the descriptors, but for -1, can be read, after so many seconds at most."""
    poller = select.poll()
    for descriptor in descriptors:
        if descriptor >= 0:
            poller.register(descriptor, select.POLLIN)
    timeout = None if wait == inf else max(0, ceil(round(wait * 1000, 3)))
    return {descriptor for descriptor, _ in poller.poll(timeout)}


def connect(endpoint: str) -> Socket:
    """Return a DEALER connected to the endpoint: nothing is queued for a broker that is not there.

    Raises:
        TooManyFiles: too few descriptors are left.
        BrokerUnavailable: the endpoint is not one that can be connected to.
        NotPermitted: the socket may be another user's.
    """
    if endpoint.startswith("ipc:"):
        check_socket(endpoint, os.environ)
    need_descriptors(DESCRIPTORS)
    socket: Socket | None = None
    try:
        socket = process.context().socket(zmq.DEALER)
        socket.linger = 0
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 100)
        notice_cuts(socket)
        address, ipv6 = to_connect(endpoint)
        socket.setsockopt(zmq.IPV6, int(ipv6))
        socket.connect(address)
        return socket
    except BaseException as error:
        if socket is not None:
            socket.close()
        if isinstance(error, zmq.ZMQError):
            raise BrokerUnavailable(f"cannot connect to {endpoint}: {error.strerror}") from None
        raise


def need_descriptors(count: int) -> None:
    """See whether so many descriptors can be opened: libzmq aborts the process if it cannot open one.

    Raises:
        TooManyFiles: they cannot.
    """
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened.append(os.eventfd(0, os.EFD_CLOEXEC))
    except OSError as error:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        text = f"{error.strerror}: {len(opened)} of {most} descriptors are free, a connection needs {count}"
        raise TooManyFiles(f"{text}; close some, or raise the limit (ulimit -n)") from None
    finally:
        for descriptor in opened:
            os.close(descriptor)

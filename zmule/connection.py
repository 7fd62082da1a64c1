"""What lies between a `Link` and the network: one socket at a time, owned by one thread at a time."""

from __future__ import annotations

import contextlib
import os
from typing import cast

import zmq

from zmule import process
from zmule.core.session import Link
from zmule.core.wire import decode, encode
from zmule.errors import BrokerUnavailable

Socket = zmq.Socket[bytes]

READ = int(zmq.POLLIN)
READ_AND_WRITE = int(zmq.POLLIN | zmq.POLLOUT)


class Bell:
    """Wakes up a thread that polls."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        """Make the descriptor readable."""
        os.eventfd_write(self.descriptor, 1)

    def silence(self) -> None:
        """Make it unreadable again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)

    def close(self) -> None:
        """Close the descriptor; a fork has its own and closes it, too."""
        os.close(self.descriptor)


class Connection:
    """Carries a link's frames over a DEALER that is replaced when the link says that it is broken.

    Args:
        endpoint: the broker's endpoint.
        link: the session. Methods that touch it are called with its mutex held, and say so.
        monitored: whether `monitor` tells of disconnections as they happen.
    """

    def __init__(self, endpoint: str, link: Link, *, monitored: bool = False) -> None:
        self.endpoint = endpoint
        self.socket: Socket | None = None
        self.monitor: Socket | None = None
        self._link = link
        self._monitored = monitored
        self._backlog: list[bytes] = []

    def open(self, now: float) -> Socket:
        """Return the socket, a new one if there is none or its broker is silent. With the mutex held."""
        if self.socket is not None and self._link.broken(now):
            self._link.disconnected(now)
            self.close()
        if self.socket is None:
            self.socket = connect(self.endpoint)
            if self._monitored:
                self.monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        return self.socket

    def transmit(self, now: float) -> int:
        """Send as much as goes; return what to poll the socket for. With the mutex held."""
        socket = self.open(now)
        if not self._backlog:
            if self._link.state == "down" and not cast(int, socket.get(zmq.EVENTS)) & zmq.POLLOUT:
                return READ_AND_WRITE
            self._backlog = [encode(frame) for frame in self._link.outgoing(now)]
        for sent, data in enumerate(self._backlog):
            try:
                socket.send(data, zmq.DONTWAIT)
            except zmq.Again:
                del self._backlog[:sent]
                return READ_AND_WRITE
        self._backlog.clear()
        return READ

    def take_in(self, now: float) -> int:
        """Hand to the link what has come; return how many frames. With the mutex held.

        Raises:
            ProtocolError: what has come is not what a broker sends.
        """
        frames = drain(self.socket)
        for data in frames:
            self._link.receive(decode(data), now)
        return len(frames)

    def close(self) -> None:
        """Close the socket; the next `open` makes another."""
        if self.socket is not None:
            self.socket.disable_monitor()
            if self.monitor is not None:
                self.monitor.close(linger=0)
            self.socket.close(linger=0)
        self.socket = self.monitor = None
        self._backlog.clear()

    def abandon(self) -> None:
        """In a forked child: leave the parent's sockets alone."""
        process.abandon(self.socket, self.monitor)
        self.socket = self.monitor = None


def drain(socket: Socket | None) -> list[bytes]:
    """Return all frames that have come, without waiting."""
    frames: list[bytes] = []
    if socket is not None:
        with contextlib.suppress(zmq.Again):
            while True:
                frames.append(socket.recv(zmq.DONTWAIT))
    return frames


def connect(endpoint: str) -> Socket:
    """Return a DEALER connected to the endpoint: nothing is queued for a broker that is not there.

    Raises:
        BrokerUnavailable: the endpoint is not one that can be connected to.
    """
    socket = process.context().socket(zmq.DEALER)
    socket.linger = 0
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, 20)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    if endpoint.startswith("tcp:"):
        socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise BrokerUnavailable(f"cannot connect to {endpoint}: {error.strerror}") from None
    return socket

"""The thread behind a mule: it owns the sockets, so that heartbeats and messages never wait for the program.

The program's threads reach it through the inbox, under one mutex, and wake it with a bell. It never
runs code of the program's, and so never waits for any.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import zmq

from zmule import process
from zmule.connection import READ, Bell, Connection, Socket, drain
from zmule.core.inbox import Inbox
from zmule.core.wire import decode
from zmule.errors import ProtocolError, ZmuleError


class Receiver:
    """Keeps an inbox connected to its broker.

    Args:
        endpoint: the broker's endpoint.
        inbox: the session; touched only with `mutex` held.
        mutex: guards the inbox against the program's threads.
        changed: called, with the mutex held, after anything has happened that a thread may wait for.
    """

    def __init__(
        self, endpoint: str, inbox: Inbox, mutex: threading.Lock, changed: Callable[[], None]
    ) -> None:
        self._inbox = inbox
        self._mutex = mutex
        self._changed = changed
        self._closing = False
        self._awake = False
        self._connection = Connection(endpoint, inbox, monitored=True)
        self._broadcasts: Socket | None = None
        self._published = ""
        self._alarm: socket.socket | None = None
        self._interrupted: Callable[[bytes], None] = lambda _: None
        self._bell = Bell()
        self._thread = threading.Thread(target=self._run, name="zmule-receiver", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Wake the thread up: the inbox has news. Called with the mutex held."""
        if not self._awake:
            self._awake = True
            self._bell.ring()

    def wake(self) -> None:
        """Have the thread look around. Without the mutex: for signal handlers."""
        self._bell.ring()

    def listen(self, alarm: socket.socket, interrupted: Callable[[bytes], None]) -> None:
        """Call `interrupted`, with the mutex held, with what can be read from `alarm`."""
        self._interrupted, self._alarm = interrupted, alarm
        self._bell.ring()

    def close(self) -> None:
        """End the thread and close the sockets."""
        self._closing = True
        self._bell.ring()
        self._thread.join()
        self._bell.close()

    def abandon(self) -> None:
        """In a forked child: leave what is the parent's alone."""
        self._connection.abandon()
        process.abandon(self._broadcasts)
        self._bell.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except ZmuleError as error:  # nothing a retry would mend: whoever waits is told
            self._fail(error)
        except Exception as error:
            self._fail(ZmuleError(f"the receiver thread has failed: {error!r}"))
            raise
        finally:
            self._connection.close()
            self._unsubscribe()

    def _fail(self, error: ZmuleError) -> None:
        with self._mutex:
            self._inbox.error = error
            self._changed()

    def _turn(self) -> None:
        now = time.monotonic()
        with self._mutex:
            flags = self._connection.transmit(now)
            self._awake = False
            due = self._inbox.next_deadline(now)
        events = self._poll(flags, -1 if due is None else max(0, int((due - now) * 1000) + 1))
        self._bell.silence()
        now = time.monotonic()
        with self._mutex:
            self._connection.take_in(now)
            for data in drain(self._broadcasts):
                self._inbox.broadcast(decode(data))
            monitor = self._connection.monitor
            if monitor is not None and monitor in events:
                # A socket made anew, since the old one takes frames for a moment yet, and loses them.
                self._inbox.disconnected(now)
                self._connection.close()
            if self._alarm is not None and self._alarm.fileno() in events:
                self._interrupted(self._alarm.recv(4096))
            self._follow()
            if self._inbox.error is not None:
                raise self._inbox.error
            self._changed()

    def _poll(self, flags: int, wait: int) -> dict[object, int]:
        sockets: list[tuple[object, int]] = [(self._connection.socket, flags), (self._bell.descriptor, READ)]
        sockets += [(one, READ) for one in (self._connection.monitor, self._broadcasts) if one is not None]
        if self._alarm is not None:
            sockets.append((self._alarm.fileno(), READ))
        return dict(zmq.zmq_poll(sockets, wait))  # type: ignore[arg-type]  # it takes descriptors, too

    def _follow(self) -> None:
        """Subscribe where the broker says that it publishes."""
        endpoint = publish_endpoint(self._connection.endpoint, self._inbox.publish)
        if endpoint == self._published:
            return
        self._unsubscribe()
        self._published = endpoint
        if not endpoint:
            return
        self._broadcasts = process.context().socket(zmq.SUB)
        self._broadcasts.linger = 0
        self._broadcasts.subscribe(b"")
        try:
            self._broadcasts.connect(endpoint)
        except zmq.ZMQError as error:
            raise ProtocolError(f"cannot subscribe to {endpoint}: {error.strerror}") from None

    def _unsubscribe(self) -> None:
        if self._broadcasts is not None:
            self._broadcasts.close(linger=0)
            self._broadcasts = None


def publish_endpoint(endpoint: str, pairs: tuple[tuple[str, str], ...]) -> str:
    """Return where to subscribe for a broker reached at `endpoint`, "" if it does not publish there.

    The broker names its endpoints as it has bound them. On tcp its host may be a wildcard, or another
    name of the one that was connected to, so only the port is taken from it.

    Raises:
        ProtocolError: one of them is no endpoint.
    """
    own = urlsplit(endpoint)
    for bound, publish in pairs:
        try:
            theirs, port = urlsplit(bound), urlsplit(publish).port
            if own.scheme == theirs.scheme == "tcp" and own.port == theirs.port:
                return f"{endpoint.rpartition(':')[0]}:{port}"
        except ValueError:
            raise ProtocolError(f"the broker publishes {bound[:99]!r} at {publish[:99]!r}") from None
        if own.scheme == theirs.scheme == "ipc" and own.path == theirs.path:
            return publish
    return ""

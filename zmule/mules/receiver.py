"""The thread behind a mule: it polls the sockets, so that heartbeats and messages never wait for the program.

It alone has the session and the sockets, and never runs code of the program's. The program's threads have it
do what they want of them, and hold nothing meanwhile: so a handler of an operating system signal may do the
same in the middle of it, or raise, at any instruction. For what can wait a moment they ring: what comes up
within `LINGER_SECONDS` leaves as one frame, and a thread that runs through tiny messages is not disturbed for
each.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import zmq

from zmule import process
from zmule.addresses import to_connect
from zmule.connection import (
    DESCRIPTORS,
    Bell,
    Connection,
    Socket,
    TooManyFiles,
    drain,
    need_descriptors,
    poll,
)
from zmule.core.inbox import Inbox
from zmule.core.wire import decode
from zmule.errors import ProtocolError, ZmuleError

LINGER_SECONDS = 0.001
RETRY_SECONDS = 1.0
"""When to try again for want of descriptors."""


class Receiver:
    """Keeps an inbox connected to its broker.

    Args:
        endpoint: the broker's endpoint.
        inbox: the session; but for what it says otherwise, touched only by this thread.
        changed: called by this thread after anything has happened that a thread may wait for.

    Attributes:
        awake: whether it looks soon whether there is something to say.
        over: whether it does nothing any more.
        shortage: what keeps it from being connected for now.
    """

    def __init__(self, endpoint: str, inbox: Inbox, changed: Callable[[], None]) -> None:
        self._inbox = inbox
        self._changed = changed
        self._actions: deque[Callable[[], object]] = deque()
        self._closing = self._urgent = self.over = False
        self.awake = True
        self.shortage: TooManyFiles | None = None
        self._connection = Connection(endpoint, inbox, monitored=True)
        self._broadcasts: Socket | None = None
        self._descriptor = -1
        self._pairs: tuple[tuple[str, str], ...] = ()
        self._published = ""
        self._alarm: socket.socket | None = None
        self._interrupted: Callable[[bytes], None] = lambda _: None
        self._bell = Bell()
        self._thread = threading.Thread(target=self._run, name="zmule-receiver", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ring(self) -> None:
        """Have what the inbox has to say said soon, if that is not under way."""
        if not self.awake:
            self.awake = True
            self._bell.ring()

    def hurry(self) -> None:
        """Have it said now, if that is not under way."""
        if not self._urgent:
            self.wake()

    def wake(self) -> None:
        """Have the thread look around now: for signal handlers, too."""
        self._urgent = True
        self._bell.ring()

    def do(self, action: Callable[[], object]) -> None:
        """Have the thread do something with the inbox, now. What it raises would end the mule."""
        self._actions.append(action)
        self.wake()

    def listen(self, alarm: socket.socket, interrupted: Callable[[bytes], None]) -> None:
        """Call `interrupted`, in the thread, with what can be read from `alarm`."""
        self._interrupted, self._alarm = interrupted, alarm
        self.wake()

    def is_current(self) -> bool:
        """Return whether this is the thread: the collector runs finalizers of the program's anywhere."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """End the thread, which closes the sockets."""
        self._closing = True
        self.wake()
        if not self.is_current():
            self._thread.join()
            self._bell = Bell(silent=True)

    def abandon(self) -> None:
        """In a forked child: leave what is the parent's alone."""
        self._connection.abandon()
        process.abandon(self._broadcasts)
        self._bell = Bell(silent=True)

    def _run(self) -> None:
        ready: set[int] = set()
        try:
            while not self._closing:
                try:
                    wait = self._turn(ready)
                    self.shortage = None
                except TooManyFiles as error:
                    wait, self.shortage = RETRY_SECONDS, error
                ready = self._poll(wait)
        except ZmuleError as error:  # nothing a retry would mend: whoever waits is told
            self._inbox.error = error
        except Exception as error:
            self._inbox.error = ZmuleError(f"the receiver thread has failed: {error!r}")
            raise
        finally:
            self._connection.close()
            self._unsubscribe()
            self.over = True
            self._act()
            self._changed()

    def _act(self) -> None:
        while self._actions:
            self._actions.popleft()()

    def _turn(self, ready: set[int]) -> float:
        """Deal with what has happened; return for how many seconds there is nothing to do."""
        now = time.monotonic()
        self.awake = self._urgent = False
        if self._connection.cuts in ready and self._connection.was_cut():
            # A socket made anew, since the old one takes frames for a moment yet, and loses them.
            self._connection.exchange(now)
            self._inbox.disconnected(now)
            self._connection.close()
        woken = self._connection.descriptor in ready
        self._connection.renew(now)
        self._act()
        self._connection.exchange(now, woken=woken)
        if self._descriptor in ready:
            self._listen()
        if self._alarm is not None and self._alarm.fileno() in ready:
            self._interrupted(self._alarm.recv(4096))
        self._follow()
        if self._inbox.error is not None:
            raise self._inbox.error
        self._changed()
        return self._connection.next_deadline(now) - now

    def _poll(self, wait: float) -> set[int]:
        """Wait until something has happened; if it is only news that can wait, a moment longer."""
        alarm = self._alarm.fileno() if self._alarm is not None else -1
        sources = [self._connection.descriptor, self._connection.cuts, self._descriptor, alarm]
        ready = poll([*sources, self._bell.descriptor], wait)
        if self._bell.descriptor in ready:
            self._bell.silence()
            if len(ready) == 1 and not self._urgent:
                ready = poll(sources, min(wait, LINGER_SECONDS))
        return ready

    def _follow(self) -> None:
        """Subscribe where the broker says that it publishes."""
        pairs = self._inbox.publish
        if pairs is self._pairs:
            return
        endpoint = publish_endpoint(self._connection.endpoint, pairs)
        if endpoint == self._published:
            self._pairs = pairs
            return
        self._unsubscribe()
        if endpoint:
            need_descriptors(DESCRIPTORS)
            self._subscribe(endpoint)
        self._pairs, self._published = pairs, endpoint

    def _subscribe(self, endpoint: str) -> None:
        self._broadcasts = process.context().socket(zmq.SUB)
        self._broadcasts.linger = 0
        self._broadcasts.subscribe(b"")
        self._descriptor = cast(int, self._broadcasts.get(zmq.FD))
        try:
            address, ipv6 = to_connect(endpoint)
            self._broadcasts.setsockopt(zmq.IPV6, int(ipv6))
            self._broadcasts.connect(address)
        except zmq.ZMQError as error:
            raise ProtocolError(f"cannot subscribe to {endpoint}: {error.strerror}") from None
        self._listen()  # until it has been looked at, its descriptor tells of nothing

    def _listen(self) -> None:
        """Take in what was broadcast."""
        if self._broadcasts is not None:
            for data in drain(self._broadcasts):
                self._inbox.broadcast(decode(data))

    def _unsubscribe(self) -> None:
        if self._broadcasts is not None:
            self._broadcasts.close(linger=0)
            self._broadcasts = None
            self._descriptor = -1


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

"""The broker's sockets: ROUTER for what must arrive, PUB for broadcasts, and a monitor for deaths.

Three facts about libzmq shape it. A ROUTER drops in silence what it cannot send, unless it is told
ROUTER_MANDATORY and never blocks: then a missing peer is an error, which becomes `PeersVanished`, and so
is a full one, whose frames wait here and are tried again. A death is told by the monitor as the number
of a file descriptor; which peer that was is known from the first frame that came over it. And a new
connection may get the number of a dead one, so what the monitor has to say is read before a new peer's
descriptor is noted.

What a peer can make the broker hold is bounded in bytes in both directions: by high-water marks of few
frames, for a frame may be long; by what is taken in at a time; and by the backlog, beyond which a peer that
does not read is given up.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable
from typing import cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from zmule import process
from zmule.connection import DONTWAIT, READ, Socket, events_of
from zmule.core.events import Event, FrameReceived, FrameRejected, Peer, PeersVanished
from zmule.core.frames import Broadcast, Frame
from zmule.core.wire import FRAME_OVERHEAD, decode_for_broker, encode
from zmule.daemon.holding import Holding
from zmule.errors import ProtocolError

FRAMES_A_TURN = 1000
BYTES_A_TURN = 32 << 20
RETRY_SECONDS = 0.01
DONTWAIT_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
MAX_BACKLOG = 10_000
MAX_BACKLOG_BYTES = 64 << 20
"""Frames that wait for a peer that does not read; at more the peer is given up."""

MOST_IN, MOST_OUT = 32, 100
"""Frames of one peer that libzmq may hold in each direction."""

SMALLEST_LIMIT = 16 << 20


class Backlog:
    """Frames that wait for a peer, and how long they are together."""

    __slots__ = ("frames", "size")

    def __init__(self, data: bytes) -> None:
        self.frames = deque([data])
        self.size = len(data)


class Gateway:
    """The daemon's end of the wire.

    Args:
        max_message: the limit on one message, in bytes; a frame that cannot be within it cuts its peer.
    """

    def __init__(self, max_message: int) -> None:
        context = process.context()
        self.router: Socket = context.socket(zmq.ROUTER)
        self.monitor: Socket = self.router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._publisher: Socket = context.socket(zmq.PUB)
        for socket in (self.router, self._publisher):
            socket.linger = 0
            socket.setsockopt(zmq.MAXMSGSIZE, max(SMALLEST_LIMIT, 2 * max_message + FRAME_OVERHEAD))
            socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.setsockopt(zmq.RCVHWM, MOST_IN)
        self.router.setsockopt(zmq.SNDHWM, MOST_OUT)
        self._descriptors: dict[int, Peer] = {}
        self._peers: set[Peer] = set()
        self._backlogs: dict[Peer, Backlog] = {}
        self._taken = 0
        self._vanished: list[Peer] = []
        self._newcomers: set[Peer] = set()

    def bind(self, holding: Holding, pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Bind the ROUTER and the PUB to each pair of endpoints; return them as bound."""
        bound = []
        for endpoint, publish in pairs:
            for socket, name in ((self.router, endpoint), (self._publisher, publish)):
                beat = 5000 if name.startswith("tcp:") else 0
                socket.setsockopt(zmq.HEARTBEAT_IVL, beat)
                socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * beat)
            bound.append((holding.bind(self.router, endpoint), holding.bind(self._publisher, publish)))
        return tuple(bound)

    def receive(self, deaths: bool = True) -> list[Event]:
        """Return what peers have sent, up to a limit, and then who has vanished, and then who has come.

        What a peer said last counts; and who comes in the place of one that is gone finds the place empty.
        `deaths` tells whether the monitor may have something to say.
        """
        if deaths:
            self._read_monitor()
        self._newcomers.clear()
        events: list[FrameReceived | FrameRejected] = []
        self._taken = 0
        while len(events) < FRAMES_A_TURN and self._taken < BYTES_A_TURN and events_of(self.router) & READ:
            events.append(self._event(self.router.recv(DONTWAIT)))
        vanished, self._vanished = self._vanished, []
        if not vanished:
            return [*events]
        late = self._newcomers.difference(vanished)
        first = [event for event in events if event.peer not in late]
        return [*first, PeersVanished(tuple(vanished)), *(event for event in events if event.peer in late)]

    def send(self, peer: Peer, frame: Frame) -> bool:
        """Send a frame, or keep it for a peer that reads too slowly.

        Returns False if the peer is gone, of which `receive` will tell, too.
        """
        data = encode(frame)
        backlog = self._backlogs.get(peer)
        if backlog is not None:
            self._keep(peer, backlog, data)
        elif not self._try(peer, data):
            self._backlogs[peer] = Backlog(data)
        return peer in self._peers

    def publish(self, frame: Broadcast) -> None:
        """Send a broadcast to every mule that is subscribed."""
        with contextlib.suppress(zmq.Again):
            self._publisher.send(encode(frame), zmq.DONTWAIT)

    def retry(self) -> None:
        """Send again what slow peers could not take."""
        for peer, backlog in list(self._backlogs.items()):
            while backlog.frames and self._try(peer, backlog.frames[0]):
                backlog.size -= len(backlog.frames.popleft())
            if not backlog.frames:
                self._backlogs.pop(peer, None)

    def descriptors(self) -> tuple[int, int]:
        """Return what to poll, for frames and for deaths.

        They tell but once of what has happened, so call `receive` while `pending`.
        """
        return cast(int, self.router.get(zmq.FD)), cast(int, self.monitor.get(zmq.FD))

    def pending(self) -> bool:
        """Return whether `receive` has something to do that no descriptor tells of any more."""
        return bool(self._vanished or events_of(self.router) & READ)

    def slow(self) -> bool:
        """Return whether frames wait for slow peers: `retry` within `RETRY_SECONDS`."""
        return bool(self._backlogs)

    def close(self) -> None:
        """Close the sockets; the monitor first, or closing may hang."""
        self.router.disable_monitor()
        self.monitor.close(linger=0)
        self.router.close(linger=0)
        self._publisher.close(linger=0)

    def _event(self, peer: Peer) -> FrameReceived | FrameRejected:
        part = self.router.recv(DONTWAIT, copy=False)
        if peer not in self._peers:
            self._met(peer, part)
        data = part.bytes
        self._taken += len(data)
        if part.more:
            while self.router.recv(DONTWAIT, copy=False).more:
                pass
            return FrameRejected(peer, "a frame is one part")
        try:
            return FrameReceived(peer, decode_for_broker(data))
        except ProtocolError as error:
            return FrameRejected(peer, str(error))

    def _met(self, peer: Peer, part: zmq.Frame) -> None:
        """Note over which descriptor a new peer has come, by the first that it sent."""
        self._read_monitor()
        self._descriptors[part.get(zmq.SRCFD)] = peer
        self._peers.add(peer)
        self._newcomers.add(peer)

    def _read_monitor(self) -> None:
        while events_of(self.monitor) & READ:
            event = recv_monitor_message(self.monitor, zmq.DONTWAIT)
            peer = self._descriptors.pop(event["value"], None)
            if peer is not None:
                self._gone(peer)

    def _gone(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._backlogs.pop(peer, None)
        self._vanished.append(peer)

    def _keep(self, peer: Peer, backlog: Backlog, data: bytes) -> None:
        backlog.frames.append(data)
        backlog.size += len(data)
        if len(backlog.frames) > MAX_BACKLOG or backlog.size > MAX_BACKLOG_BYTES:
            self._gone(peer)

    def _try(self, peer: Peer, data: bytes) -> bool:
        """Send a frame; return False if the peer is full. One that is gone takes everything."""
        try:
            self.router.send(peer, DONTWAIT_MORE)
            self.router.send(data, DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._gone(peer)
        return True

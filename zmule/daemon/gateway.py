"""The broker's sockets: ROUTER for what must arrive, PUB for broadcasts, and monitors for who comes and goes.

Four facts about libzmq shape it. A ROUTER drops in silence what it cannot send, unless it is told
ROUTER_MANDATORY and never blocks: then a missing peer is an error, which becomes `PeersVanished`, and so
is a full one, whose frames wait here and are tried again. A death is told by the monitor as the number
of a file descriptor; which peer that was is known from the first frame that came over it. A ROUTER goes
round: whoever has something to say is heard once before anybody is heard twice. So what a dead peer had said
last is all here when the round has been made as often as its pipe can hold frames, or nothing is left. And a
ROUTER cannot end a connection: that is done to its descriptor, and libzmq sees a peer that has gone.

What a peer can make the broker hold is bounded in bytes in both directions: by high-water marks of few
frames, for a frame may be long; by what is taken in at a time; and by the backlog, beyond which a peer that
does not read is cut off. All backlogs together are bounded, too, and the longest is given up first. A peer
that goes on saying what it may not is cut off as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import struct
import termios
import time
from collections import Counter, deque
from collections.abc import Collection, Generator, Iterable, Iterator
from typing import cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from zmule import process
from zmule.connection import DONTWAIT, READ, Socket, events_of, notice_cuts
from zmule.core.effects import Note
from zmule.core.events import Event, FrameReceived, FrameRejected, Peer, PeersVanished, StrangerSpoke
from zmule.core.frames import Broadcast, Frame, Hello, Reset, Welcome
from zmule.core.unpacking import LONGEST, SHORT, kind_of, longest_put
from zmule.core.wire import decode_for_broker, encode
from zmule.daemon.door import Door
from zmule.daemon.holding import Holding
from zmule.daemon.lines import CREDIT_SECONDS, Lines
from zmule.daemon.owner import is_owner
from zmule.errors import ProtocolError

SECONDS_A_TURN = 0.02
BYTES_A_TURN = 32 << 20
"""What is taken in at most before the loop sees to other things."""

SECONDS_A_SHORT_TURN = 0.002
"""The same while somebody stands in line: others who say little wait for what is done after a turn."""

RETRY_SECONDS = 0.01
FEW = 16
"""Up to so many slow peers are tried again at every turn, more of them every `RETRY_SECONDS`."""

DONTWAIT_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
MAX_BACKLOG = 10_000
MAX_BACKLOG_BYTES = 64 << 20
"""Frames that wait for a peer that does not read; at more the peer is cut off."""

MAX_BACKLOGS_BYTES = 256 << 20
"""The same for all peers together; at more the one with the longest backlog is cut off."""

UNCHECKED_BYTES = 1 << 20
"""So much is sent to a peer before it is seen whether the system still takes something for it."""

MOST_IN, MOST_OUT = 32, 100
"""Frames of one peer that libzmq may hold in each direction."""

MOST_SUBSCRIPTION, MOST_SUBSCRIPTIONS = 64, 4
"""Bytes of what a subscriber may say, and how much of it libzmq may hold."""

HANDSHAKE_MS = 10_000
"""How long a connection may take to become one of ZeroMQ's, in milliseconds."""

MOST_STRIKES = 1000
STRIKES = {ProtocolError.code: 100}
"""How many resets a peer gets before it is cut off; one for a breach of the protocol counts as so many."""

MONITORED = zmq.EVENT_LISTENING | zmq.EVENT_ACCEPTED | zmq.EVENT_ACCEPT_FAILED | zmq.EVENT_DISCONNECTED


class Backlog:
    """Frames that wait for a peer, and how long they are together."""

    __slots__ = ("frames", "size")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.size = 0


class Gateway:
    """The daemon's end of the wire.

    Args:
        max_message: the limit on one message, in bytes; a frame that cannot be within it cuts its peer.

    Attributes:
        door: who is connected; nobody is before it is told how many may be.
    """

    def __init__(self, max_message: int) -> None:
        context = process.context()
        self.router: Socket = context.socket(zmq.ROUTER)
        self._publisher: Socket = context.socket(zmq.PUB)
        self._monitors = [socket.get_monitor_socket(MONITORED) for socket in (self.router, self._publisher)]
        for socket in (self.router, self._publisher):
            socket.linger = 0
            notice_cuts(socket)
            socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self.router.setsockopt(zmq.MAXMSGSIZE, longest_put(max_message))
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.setsockopt(zmq.RCVHWM, MOST_IN)
        self.router.setsockopt(zmq.SNDHWM, MOST_OUT)
        self._publisher.setsockopt(zmq.MAXMSGSIZE, MOST_SUBSCRIPTION)
        self._publisher.setsockopt(zmq.RCVHWM, MOST_SUBSCRIPTIONS)
        self.door = Door()
        self._watched: frozenset[int] = frozenset()
        self._descriptors: dict[int, Peer] = {}
        self._subscribers: set[int] = set()
        self._peers: dict[Peer, int] = {}
        self._owners: set[Peer] = set()
        self._greeted: set[Peer] = set()
        self._cut: set[Peer] = set()
        self._strikes: Counter[Peer] = Counter()
        self._backlogs: dict[Peer, Backlog] = {}
        self._kept = 0
        self._retry_at = 0.0
        self._unchecked: dict[Peer, int] = {}
        self._lines = Lines()
        self._taken = 0
        self._turn_cpu = 0.0
        self._rounds = 0
        self._round: set[Peer] = set()
        self._heard: set[Peer] = set()
        self._suspects: frozenset[int] = frozenset()
        self._leaving: dict[Peer, int] = {}
        self._vanished: list[Peer] = []
        self._newcomers: set[Peer] = set()
        self._held: list[tuple[Peer, bytes]] = []
        self._notes: list[Note] = []

    def bind(self, holding: Holding, pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Bind the ROUTER and the PUB to each pair of endpoints; return them as bound."""
        bound = []
        for endpoint, publish in pairs:
            bound.append((holding.bind(self.router, endpoint), holding.bind(self._publisher, publish)))
            self._read_monitors()
        return tuple(bound)

    # What comes in.

    def receive(self, ready: Collection[int] | None = None) -> Iterator[Event]:
        """Yield what peers have sent, up to a limit, and then who has vanished, and then who has come.

        What a peer said last counts; and who comes in the place of one that is gone finds the place empty.
        What is done with an event before the next one is asked for is charged to its peer: see `lines`.

        Args:
            ready: which descriptors have something to tell; None: any may.
        """
        if ready is None or not self._watched.isdisjoint(ready):
            self._read_monitors()
            self.door.look()
        begun, self._turn_cpu = time.monotonic(), time.thread_time()
        self._taken = 0
        drained = served = False
        while self._taken < BYTES_A_TURN:
            if self._lines:
                served = yield from self._due_in_lines()
            if not (drained := not events_of(self.router) & READ):
                yield from self._take()
            elif not served:
                break
            if time.monotonic() - begun >= (SECONDS_A_SHORT_TURN if self._lines else SECONDS_A_TURN):
                break
        yield from self._partings(drained)

    def _take(self) -> Iterator[Event]:
        """Take in one message of the ROUTER's; yield what it means, if anything yet."""
        begun = time.monotonic()
        peer = self.router.recv(DONTWAIT)
        part = self.router.recv(DONTWAIT, copy=False)
        single = not part.more
        while part.more:
            part = self.router.recv(DONTWAIT, copy=False)
        self._taken += len(part)
        self._go_round(peer)
        if not self._is_known(peer, part):
            return
        self._lines.spoke(peer, begun)
        if not single:
            yield FrameRejected(peer, "a frame is one part")
        elif peer not in self._greeted and len(part) > LONGEST[Hello]:
            yield FrameRejected(peer, f"{len(part)} bytes before a greeting")
        else:
            yield from self._say(peer, part.bytes)
        self._charge(peer, begun)

    def _say(self, peer: Peer, data: bytes) -> Iterator[Event]:
        """Yield what a frame means, unless it has to wait."""
        if peer in self._newcomers and self._leaving:
            self._held.append((peer, data))
        elif peer not in self._lines:
            yield self._event(peer, data)
        elif not self._lines.add(peer, data) and peer in self._peers:
            self.cut_off(peer, "goes on and on though it has to wait")

    def _event(self, peer: Peer, data: bytes) -> Event:
        if peer not in self._greeted and len(data) > SHORT and kind_of(data) is not Hello:
            return StrangerSpoke(peer)
        try:
            frame = decode_for_broker(data)
            return FrameReceived(peer, frame, owner=peer in self._owners and type(frame) is Hello)
        except ProtocolError as error:
            return FrameRejected(peer, str(error))

    def _charge(self, peer: Peer, begun: float) -> None:
        """Take note of how long the loop was busy for a peer; not of how long it had no processor."""
        now = time.monotonic()
        spent = now - begun
        if spent > CREDIT_SECONDS:
            spent = min(spent, time.thread_time() - self._turn_cpu)
        if peer in self._peers or peer in self._leaving:
            self._lines.spent(peer, spent, now)

    def _due_in_lines(self) -> Generator[Event, None, bool]:
        """Yield what those say who wait no longer; return whether anybody did."""
        served = False
        for peer, data in self._lines.due(time.monotonic()):
            yield from self._catch_up(peer, data)
            served = True
        return served

    def _catch_up(self, peer: Peer, data: bytes) -> Iterator[Event]:
        """Yield what a frame means that has waited."""
        begun = time.monotonic()
        yield self._event(peer, data)
        self._charge(peer, begun)

    def _go_round(self, peer: Peer) -> None:
        """Take note of who is heard: when one is heard again, everybody else has been."""
        if peer in self._round:
            self._rounds += 1
            self._round.clear()
        self._round.add(peer)
        self._heard.add(peer)

    def _is_known(self, peer: Peer, part: zmq.Frame) -> bool:
        """Return whether a peer's frames count, and know it from now on if it is new."""
        if peer in self._peers or peer in self._leaving:
            return peer not in self._cut
        self._read_monitors()
        descriptor = source(part)
        if descriptor is None:
            return False  # it speaks ZMTP 1 or 2: random bytes often do
        if peer in self._cut or descriptor not in self.door.connections or descriptor in self._descriptors:
            return False  # it is gone, and this was on its way
        self._descriptors[descriptor] = peer
        self._peers[peer] = descriptor
        self._newcomers.add(peer)
        if is_owner(descriptor):
            self._read_monitors()  # or else the number might be another's by now
            self._owners.update({peer} & self._peers.keys())
        return True

    def _partings(self, drained: bool) -> Iterator[Event]:
        """Yield who has vanished, and what those have said who came meanwhile."""
        gone, self._vanished = self._vanished, []
        for peer in [peer for peer in self._leaving if drained or self._leaving[peer] <= self._rounds]:
            if peer not in self._lines:
                self._lines.drop(peer)
                del self._leaving[peer]
                gone.append(peer)
        if gone:
            self._greeted.difference_update(gone)
            self._owners.difference_update(gone)
            yield PeersVanished(tuple(gone))
        if not self._leaving:
            held, self._held = self._held, []
            self._newcomers.clear()
            for peer, data in held:
                yield from self._catch_up(peer, data)

    def descriptors(self) -> tuple[int, ...]:
        """Return what to poll; each tells but once of what has happened: call `receive` while `pending`."""
        monitors = [cast(int, monitor.get(zmq.FD)) for monitor in self._monitors]
        self._watched = frozenset((*monitors, self.door.fileno()))
        return cast(int, self.router.get(zmq.FD)), *self._watched

    def pending(self) -> bool:
        """Return whether `receive` has something to do that no descriptor tells of any more."""
        return bool(self._vanished or self._leaving or self._held or events_of(self.router) & READ)

    def next_deadline(self, now: float) -> float | None:
        """Return when `receive` or `retry` has something to do though nothing comes."""
        due = (now + RETRY_SECONDS if self._backlogs else None, self._lines.next_deadline())
        return min((each for each in due if each is not None), default=None)

    def notes(self) -> list[Note]:
        """Return, once, what is to be logged."""
        self._notes += [Note(*note) for note in self.door.notes]
        self.door.notes.clear()
        notes, self._notes = self._notes, []
        return notes

    # What goes out.

    def send(self, peer: Peer, frame: Frame) -> bool:
        """Send a frame, or keep it for a peer that reads too slowly.

        Returns False if the peer is gone, of which `receive` will tell, too.
        """
        if peer in self._cut:
            return False
        data = encode(frame)
        if type(frame) is Welcome:
            self._greeted.add(peer)
        elif type(frame) is Reset:
            self._strike(peer, frame)
        if peer in self._backlogs or not self._try(peer, data):
            self._keep(peer, data)
        return peer in self._peers

    def publish(self, frame: Broadcast) -> None:
        """Send a broadcast to every mule that is subscribed."""
        with contextlib.suppress(zmq.Again):
            self._publisher.send(encode(frame), zmq.DONTWAIT)

    def retry(self) -> None:
        """Send again what slow peers could not take."""
        now = time.monotonic()
        if not self._backlogs or (len(self._backlogs) > FEW and now < self._retry_at):
            return
        self._retry_at = now + RETRY_SECONDS
        for peer, backlog in list(self._backlogs.items()):
            while backlog.frames and self._try(peer, backlog.frames[0]):
                self._count(backlog, -len(backlog.frames.popleft()))
            if not backlog.frames:
                self._backlogs.pop(peer, None)

    def slow(self) -> bool:
        """Return whether frames wait for slow peers: `retry` within `RETRY_SECONDS`."""
        return bool(self._backlogs)

    def _try(self, peer: Peer, data: bytes) -> bool:
        """Send a frame; return False if the peer is full. One that is gone takes everything."""
        unchecked = self._unchecked.get(peer, 0) + len(data)
        if unchecked > UNCHECKED_BYTES:
            if not self._takes_more(peer):
                return False
            unchecked = len(data)
        try:
            self.router.send(peer, DONTWAIT_MORE)
            self.router.send(data, DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            if peer in self._peers:
                self._depart(peer)
            return True
        self._unchecked[peer] = unchecked
        return True

    def _takes_more(self, peer: Peer) -> bool:
        """Return whether the system takes more for a peer, so that libzmq holds next to nothing for it."""
        descriptor = self._peers.get(peer)
        if descriptor is None:
            return True
        poller = select.poll()
        poller.register(descriptor, select.POLLOUT)
        return bool(poller.poll(0))

    def _keep(self, peer: Peer, data: bytes) -> None:
        backlog = self._backlogs.setdefault(peer, Backlog())
        backlog.frames.append(data)
        self._count(backlog, len(data))
        if len(backlog.frames) > MAX_BACKLOG or backlog.size > MAX_BACKLOG_BYTES:
            self.cut_off(peer, f"does not read: {backlog.size} bytes wait for it")
        while self._kept > MAX_BACKLOGS_BYTES:
            self.cut_slowest()

    def _count(self, backlog: Backlog, size: int) -> None:
        backlog.size += size
        self._kept += size

    # Who goes.

    def cut_slowest(self) -> bool:
        """Cut off the peer for which most is kept; return whether there was one."""
        peer = max(self._backlogs, key=lambda peer: self._backlogs[peer].size, default=None)
        if peer is None:
            return False
        size, total = self._backlogs[peer].size, self._kept
        self.cut_off(peer, f"does not read: {size} bytes wait for it, {total} for all peers")
        return True

    def cut_off(self, peer: Peer, why: str) -> None:
        """End a peer's connection: nothing that it says counts any more."""
        self._notes.append(Note("warning", f"a peer is cut off: it {why}"))
        descriptor = self._peers.get(peer)
        self._forget(peer)
        self._lines.drop(peer)
        self._vanished.append(peer)
        if descriptor is not None:
            self._cut.add(peer)
            self._read_monitors()
            self.door.cut(descriptor)

    def endless(self) -> tuple[set[int], set[int]]:
        """Return who is in the middle of something: for longer than since the last call, and at all.

        That is, the descriptors of connections from which the system holds bytes that libzmq has not read,
        while they have brought no whole frame since.
        """
        unread = {descriptor for descriptor in self.door.connections if _unread(descriptor)}
        middle = {each for each in unread if self._descriptors.get(each) not in self._heard}
        self._heard.clear()
        longer, self._suspects = middle & self._suspects, frozenset(middle)
        return longer, middle

    def mute(self, seconds: float) -> set[int]:
        """Return the descriptors of connections that for so long have brought no frame at all.

        Those of subscribers never do, and are not meant.
        """
        since = time.monotonic() - seconds
        silent = self.door.connections.keys() - self._descriptors.keys() - self._subscribers
        return {descriptor for descriptor in silent if self.door.connections[descriptor] <= since}

    def cut(self, descriptors: Iterable[int], why: str) -> None:
        """End connections, whoever they are of."""
        for descriptor in descriptors:
            self._notes.append(Note("warning", f"a connection is cut: it {why}"))
            self.door.cut(descriptor)

    def _strike(self, peer: Peer, frame: Reset) -> None:
        self._greeted.discard(peer)
        self._strikes[peer] += STRIKES.get(frame.code, 1)
        if self._strikes[peer] >= MOST_STRIKES and peer in self._peers:
            self.cut_off(peer, "goes on breaking the protocol")

    def _read_monitors(self) -> None:
        for monitor, callers in zip(self._monitors, (set[int](), self._subscribers), strict=True):
            while events_of(monitor) & READ:
                event = recv_monitor_message(monitor, zmq.DONTWAIT)
                self._monitored(event["event"], event["endpoint"].decode(), event["value"], callers)
        self.door.cut_surplus()

    def _monitored(self, event: int, endpoint: str, descriptor: int, callers: set[int]) -> None:
        if event == zmq.EVENT_LISTENING:
            self.door.hang(endpoint, descriptor)
        elif event == zmq.EVENT_ACCEPTED:
            self.door.came(endpoint, descriptor, time.monotonic())
            callers.add(descriptor)
        elif event == zmq.EVENT_ACCEPT_FAILED:
            self.door.failed(endpoint)
        else:
            self.door.left(descriptor)
            callers.discard(descriptor)
            self._left(descriptor)

    def _left(self, descriptor: int) -> None:
        peer = self._descriptors.pop(descriptor, None)
        if peer is None:
            return
        self._cut.discard(peer)
        if peer in self._peers:
            self._depart(peer)

    def _depart(self, peer: Peer) -> None:
        """A peer is gone, but what it has said last is yet to be heard."""
        self._forget(peer)
        self._lines.hurry(peer)
        self._leaving[peer] = self._rounds + MOST_IN + 2

    def _forget(self, peer: Peer) -> None:
        self._peers.pop(peer, None)
        self._unchecked.pop(peer, None)
        self._strikes.pop(peer, None)
        backlog = self._backlogs.pop(peer, None)
        if backlog is not None:
            self._kept -= backlog.size

    def close(self) -> None:
        """Close the sockets; the monitors first, or closing may hang."""
        for socket, monitor in zip((self.router, self._publisher), self._monitors, strict=True):
            socket.disable_monitor()
            monitor.close(linger=0)
            socket.close(linger=0)
        self.door.close()


def source(part: zmq.Frame) -> int | None:
    """Return over which descriptor a message has come, if libzmq says so: of peers that speak ZMTP 3."""
    try:
        return part.get(zmq.SRCFD)
    except zmq.ZMQError:
        return None


def _unread(descriptor: int) -> int:
    """Return how many bytes of a connection the system holds."""
    try:
        return cast(int, struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0])
    except OSError:
        return 0

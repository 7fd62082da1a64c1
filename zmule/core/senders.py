"""Who sends, and how far each has been answered: what makes a retry no duplicate.

A sender numbers its messages from 1, without a gap, in a session of its own making that outlives its
connections. `taken` is the last number seen, `confirmed` the last one whose message is safely kept or
was refused. A message up to `taken` that comes again is passed over. After a reconnect the sender is
told `confirmed`, and the refusals since its own floor, in case the answer was what got lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from zmule.core.events import Peer
from zmule.core.frames import Refusal
from zmule.errors import ProtocolError, QueueFull

WINDOW = 65_536
"""Most messages that a sender may have unconfirmed; older refusals are forgotten."""

LAST_NUMBER = 2**63 - 1
"""Of a message: what a frame may count to, and a store can keep."""

EVERY_QUEUE = ""

MOST_FULL = 1000
"""Queues of which it is remembered that one sender found them full."""

MAX_SESSIONS = 100_000
SESSION_SECONDS = 3600.0
"""How long, in seconds, a session without a connection is remembered."""


class Sender:
    """One sender's session.

    Attributes:
        full: for queues in which there was no room, the last message that was refused, and why.
    """

    __slots__ = ("confirmed", "full", "left_at", "peer", "pid", "refusals", "session", "taken")

    def __init__(self, session: bytes, last: int = 0) -> None:
        self.session = session
        self.peer: Peer | None = None
        self.pid = 0
        self.left_at = 0.0
        self.taken = last
        self.confirmed = last
        self.refusals: deque[Refusal] = deque()
        self.full: dict[str, tuple[int, str]] = {}

    def overtaking(self, queue: str, floor: int) -> QueueFull | None:
        """Return why a message must be refused although there may be room for it now, or None.

        An earlier one to the same queue was refused for want of room, and the sender, which has heard of all
        up to `floor`, did not know that when it sent this one: it must not overtake.
        """
        for name in (queue, EVERY_QUEUE):
            refused, reason = self.full.get(name, (0, ""))
            if floor < refused:
                return QueueFull(reason)
            self.full.pop(name, None)
        return None

    def crowded_out(self, queue: str, sequence: int, reason: str) -> None:
        """Take note that a message was refused for want of room."""
        self.full[queue] = sequence, reason
        if len(self.full) > MOST_FULL:
            del self.full[next(iter(self.full))]

    def accept(self, first: int, count: int, floor: int) -> int:
        """Take note of messages `first` and following; return how many of them were seen before.

        What the sender has heard of, up to `floor`, need not be remembered.

        Raises:
            ProtocolError: there is a gap, too many are unconfirmed, or no numbers are left.
        """
        last = first + count - 1
        if last > LAST_NUMBER:
            raise ProtocolError(f"messages are numbered up to {LAST_NUMBER}")
        if first > self.taken + 1:
            raise ProtocolError(f"message {self.taken + 1} is missing before {first}")
        if last - self.confirmed > WINDOW:
            raise ProtocolError(f"more than {WINDOW} messages are unconfirmed")
        seen = min(count, self.taken + 1 - first)
        self.taken = max(self.taken, last)
        while self.refusals and self.refusals[0].sequence <= max(floor, self.taken - WINDOW):
            self.refusals.popleft()
        return seen

    def refused_after(self, floor: int) -> tuple[Refusal, ...]:
        """Return the refusals that a sender which knows of all up to `floor` must be told."""
        return tuple(refusal for refusal in self.refusals if floor < refusal.sequence <= self.confirmed)


class Senders:
    """All sessions, by session and by connection."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, Sender] = {}
        self._peers: dict[Peer, Sender] = {}

    def __iter__(self) -> Iterator[Sender]:
        return iter(self._sessions.values())

    def at(self, peer: Peer) -> Sender | None:
        """Return the sender that is connected as this peer, if any."""
        return self._peers.get(peer)

    def restore(self, session: bytes, last: int, refusals: Iterable[Refusal], now: float) -> None:
        """Take up a session that the store remembers.

        Which queues its refused messages were for is forgotten, so none at all may overtake them.
        """
        sender = self._sessions[session] = Sender(session, last)
        sender.left_at = now
        sender.refusals.extend(refusals)
        for sequence, code, reason in sender.refusals:
            if code == QueueFull.code:
                sender.crowded_out(EVERY_QUEUE, sequence, reason)

    def connect(self, peer: Peer, session: bytes, floor: int, crowded: int = 0) -> Sender:
        """Bind a session, known or new, to a connection; an older connection of it loses it.

        A broker that does not know all of the session takes the sender's word for what was answered before,
        and for which message was the last that was refused for want of room: nothing may overtake that.
        """
        sender = self._sessions.pop(session, None) or Sender(session)
        if crowded > sender.taken:
            sender.crowded_out(EVERY_QUEUE, crowded, "an earlier message was refused for want of room")
        sender.taken, sender.confirmed = max(sender.taken, floor), max(sender.confirmed, floor)
        self._sessions[session] = sender
        if sender.peer is not None:
            self._peers.pop(sender.peer, None)
        sender.peer = peer
        self._peers[peer] = sender
        return sender

    def disconnect(self, peer: Peer, now: float) -> None:
        """Forget the connection, keep the session for a while."""
        sender = self._peers.pop(peer, None)
        if sender is not None:
            sender.peer = None
            sender.left_at = now

    def connected(self) -> int:
        """Return how many sessions have a connection."""
        return len(self._peers)

    def expire(self, now: float) -> list[bytes]:
        """Forget sessions that are long without a connection, or too many; return which."""
        idle = [sender for sender in self if sender.peer is None and sender.taken == sender.confirmed]
        surplus = max(0, len(self._sessions) - MAX_SESSIONS)
        gone = [
            sender.session
            for place, sender in enumerate(sorted(idle, key=lambda sender: sender.left_at))
            if place < surplus or now - sender.left_at > SESSION_SECONDS
        ]
        for session in gone:
            del self._sessions[session]
        return gone

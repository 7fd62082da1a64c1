"""Who sends, and how far each has been answered: what makes a retry no duplicate.

A sender numbers its messages from 1, without a gap, in a session of its own making that outlives its
connections. `taken` is the last number seen, `confirmed` the last one whose message is safely kept or
was refused. A message up to `taken` that comes again is passed over. After a reconnect the sender is
told `confirmed`, and the refusals since its own floor, in case the answer was what got lost.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from zmule.core.effects import Mark
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

MOST_RUNS = 1000
"""Runs of refusals that one sender may have without having heard of them: at more all is refused."""

MOST_RUNS_OF_ALL = 1_000_000
"""The same, and queues found full, for all sessions together: at more the oldest without a connection go."""

MARKED_REASON = 100
"""So much of a reason the store keeps, in characters."""

A_SESSION, A_RUN = 1000, 400
"""Bytes that the broker needs to keep a session, and a run of refusals or a queue found full."""

MAX_SESSIONS = 100_000
SESSION_SECONDS = 3600.0
"""How long, in seconds, a session without a connection is remembered."""


class Tally:
    """What all senders together make the broker keep.

    Attributes:
        runs: of refusals of which the senders have not heard.
        full: queues that they found full.
    """

    __slots__ = ("full", "runs")

    def __init__(self) -> None:
        self.runs = self.full = 0


class Run(NamedTuple):
    """Messages in a row that were refused for one reason."""

    first: int
    last: int
    code: str
    reason: str

    @classmethod
    def kept(cls, run: tuple[Any, ...]) -> Run:
        """Return what a mark says of it."""
        first, code, reason, *more = run
        return cls(first, first + (more[0] if more else 1) - 1, code, reason)

    def for_mark(self) -> tuple[int, str, str] | tuple[int, str, str, int]:
        """Return what a mark says of it."""
        count, reason = self.last - self.first + 1, self.reason[:MARKED_REASON]
        return (self.first, self.code, reason) if count == 1 else (self.first, self.code, reason, count)

    def each(self, after: int = 0, upto: int = 2**63) -> Iterator[Refusal]:
        """Yield the refusal of each of its messages beyond `after` and not beyond `upto`."""
        for sequence in range(max(self.first, after + 1), min(self.last, upto) + 1):
            yield Refusal(sequence, self.code, self.reason)


class Sender:
    """One sender's session.

    Attributes:
        full: for queues in which there was no room, the last message that was refused, and why.
        used: whether there is anything to remember: messages were taken.
    """

    __slots__ = (
        "_refusals",
        "_tally",
        "confirmed",
        "full",
        "left_at",
        "peer",
        "pid",
        "session",
        "taken",
        "used",
    )

    def __init__(self, session: bytes, tally: Tally, last: int = 0) -> None:
        self.session = session
        self.peer: Peer | None = None
        self.pid = 0
        self.left_at = 0.0
        self.taken = last
        self.confirmed = last
        self.used = False
        self.full: dict[str, tuple[int, str]] = {}
        self._refusals: deque[Run] = deque()
        self._tally = tally

    def overtaking(self, queue: str, floor: int) -> QueueFull | None:
        """Return why a message must be refused although there may be room for it now, or None.

        An earlier one to the same queue was refused for want of room, and the sender, which has heard of all
        up to `floor`, did not know that when it sent this one: it must not overtake.
        """
        for name in (queue, EVERY_QUEUE):
            refused, reason = self.full.get(name, (0, ""))
            if floor < refused:
                return QueueFull(reason)
            if self.full.pop(name, None):
                self._tally.full -= 1
        return None

    def overwhelmed(self) -> QueueFull | None:
        """Return why everything must be refused, or None: too much of what was is yet to be heard of."""
        if len(self._refusals) < MOST_RUNS:
            return None
        return QueueFull(f"{MOST_RUNS} refusals and more are yet to be heard of by their sender")

    def crowded_out(self, queue: str, sequence: int, reason: str) -> None:
        """Take note that a message was refused for want of room."""
        self._tally.full += queue not in self.full
        self.full[queue] = sequence, reason
        if len(self.full) > MOST_FULL:
            del self.full[next(iter(self.full))]
            self._tally.full -= 1

    def refuse(self, refusals: Iterable[Refusal]) -> None:
        """Remember refusals until the sender has heard of them, those in a row as one."""
        runs = self._refusals
        before = len(runs)
        for sequence, code, reason in refusals:
            last = runs[-1] if runs else None
            if last is not None and last[1:] == (sequence - 1, code, reason):
                runs[-1] = Run(last.first, sequence, code, reason)
            else:
                runs.append(Run(sequence, sequence, code, reason))
        self._tally.runs += len(runs) - before

    def mark(self) -> Mark:
        """Return what the store is to remember of the sender."""
        return Mark(self.session, self.taken, tuple(run.for_mark() for run in self._refusals))

    def heard(self, floor: int) -> None:
        """The sender knows what became of all up to `floor`: it need not be remembered."""
        runs = self._refusals
        while runs and runs[0].last <= floor:
            runs.popleft()
            self._tally.runs -= 1

    def forget(self) -> None:
        """Nothing of the sender is remembered any longer."""
        self.heard(LAST_NUMBER)
        self._tally.full -= len(self.full)
        self.full.clear()

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
        self.used = True
        self.heard(max(floor, self.taken - WINDOW))
        return seen

    def refused_after(self, floor: int) -> tuple[Refusal, ...]:
        """Return the refusals that a sender which knows of all up to `floor` must be told."""
        return tuple(chain.from_iterable(run.each(floor, self.confirmed) for run in self._refusals))


class Senders:
    """All sessions, by session and by connection; those without one in the order in which they lost it."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, Sender] = {}
        self._peers: dict[Peer, Sender] = {}
        self._idle: OrderedDict[bytes, Sender] = OrderedDict()
        self.tally = Tally()

    def __iter__(self) -> Iterator[Sender]:
        return iter(self._sessions.values())

    def at(self, peer: Peer) -> Sender | None:
        """Return the sender that is connected as this peer, if any."""
        return self._peers.get(peer)

    def cost(self) -> int:
        """Return how many bytes the sessions need."""
        return A_SESSION * len(self._sessions) + A_RUN * (self.tally.runs + self.tally.full)

    def restore(self, session: bytes, last: int, refusals: Iterable[Run], now: float) -> None:
        """Take up a session that the store remembers.

        Which queues its refused messages were for is forgotten, so none at all may overtake them.
        """
        sender = self._sessions[session] = self._idle[session] = Sender(session, self.tally, last)
        sender.left_at, sender.used = now, True
        for run in refusals:
            sender.refuse(run.each())
            if run.code == QueueFull.code:
                sender.crowded_out(EVERY_QUEUE, run.last, run.reason)

    def connect(self, peer: Peer, session: bytes, floor: int, crowded: int = 0) -> Sender:
        """Bind a session, known or new, to a connection; an older connection of it loses it.

        A broker that does not know all of the session takes the sender's word for what was answered before,
        and for which message was the last that was refused for want of room: nothing may overtake that.
        """
        sender = self._sessions.get(session) or Sender(session, self.tally)
        if crowded > sender.taken:
            sender.crowded_out(EVERY_QUEUE, crowded, "an earlier message was refused for want of room")
        sender.taken, sender.confirmed = max(sender.taken, floor), max(sender.confirmed, floor)
        sender.heard(floor)
        self._sessions[session] = sender
        self._idle.pop(session, None)
        if sender.peer is not None:
            self._peers.pop(sender.peer, None)
        sender.peer = peer
        self._peers[peer] = sender
        return sender

    def disconnect(self, peer: Peer, now: float) -> None:
        """Forget the connection, keep the session for a while if there is anything to remember."""
        sender = self._peers.pop(peer, None)
        if sender is None:
            return
        sender.peer = None
        sender.left_at = now
        if sender.used:
            self._idle[sender.session] = sender
        else:
            self._forget(sender)

    def connected(self) -> int:
        """Return how many sessions have a connection."""
        return len(self._peers)

    def crowded(self) -> bool:
        """Return whether more is remembered than may be."""
        return bool(self._idle) and (
            len(self._sessions) > MAX_SESSIONS or self.tally.runs + self.tally.full > MOST_RUNS_OF_ALL
        )

    def expire(self, now: float) -> list[bytes]:
        """Forget sessions that are long without a connection, or too many; return which."""
        gone = []
        for _ in range(len(self._idle)):
            sender = next(iter(self._idle.values()))
            if now - sender.left_at <= SESSION_SECONDS and not self.crowded():
                break
            if sender.taken == sender.confirmed:
                self._forget(sender)
                gone.append(sender.session)
            else:
                self._idle.move_to_end(sender.session)
        return gone

    def _forget(self, sender: Sender) -> None:
        sender.forget()
        self._sessions.pop(sender.session, None)
        self._idle.pop(sender.session, None)

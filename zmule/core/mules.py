"""The mules the broker knows: who is which number, what each holds, and how much more it can take.

Credit. A mule reports how many of its threads are blocked, by what they wait for, together with how
many messages had reached it when it counted. What was sent but not counted yet is on the way, and is
set against the waiting threads, so that a report that crosses a delivery never buys the same thread
twice. With threads that wait for different sources, `room` is Hall's condition: one more message fits
if for every set of sources there are more threads waiting for any of them than messages on the way
from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import compress, islice, repeat
from typing import NamedTuple

from zmule.core import states
from zmule.core.events import Peer
from zmule.core.frames import EVERY_SOURCE, SIGNAL, SOURCES
from zmule.core.instant import Instant
from zmule.core.prefetch import Pace
from zmule.core.queues import ANY, Message, Queue, farm_queue, mule_queue, number_of, source_of


class Exit(NamedTuple):
    """How a mule's process has ended: `status` is its exit code, or minus the signal that killed it.

    `at` is on the monotonic clock.
    """

    status: int
    at: float

    def __str__(self) -> str:
        return f"exit code {self.status}" if self.status >= 0 else f"killed by signal {-self.status}"

    def report(self, now: Instant) -> dict[str, object]:
        """Return it as the broker's status has it."""
        killed = self.status < 0
        return {
            "code": None if killed else self.status,
            "signal": -self.status if killed else None,
            "at": now.wall - (now.mono - self.at),
        }


class MuleSetup(NamedTuple):
    """A mule of the configuration. `program` is None for a signal-only mule."""

    number: int
    program: str | None
    early: bool = False


class FarmSetup(NamedTuple):
    """A farm of the configuration."""

    name: str
    mules: tuple[int, ...]
    early: bool = False


_MEETING = [[sources for sources in range(16) if sources & bits] for bits in range(16)]
"""For what a thread waits for, the sets of sources that it is a taker for."""

_SETS = {
    source: [(sources, [bool(sources & one) for one in SOURCES]) for sources in range(16) if sources & source]
    for source in SOURCES
}
"""For each source, the sets of sources that it is in, as bits and as members."""


DIED = "died with it"
"""What has become of a mule of which nothing better is known, as the reason why a message comes again."""


class Mule:
    """A mule: a configured number, or a process that joined from outside."""

    __slots__ = (
        "alone",
        "buffered",
        "coming",
        "configured",
        "doom",
        "early",
        "epoch",
        "farms",
        "functions",
        "heard",
        "in_flight",
        "last_exit",
        "left_behind",
        "messages",
        "number",
        "pace",
        "peer",
        "pid",
        "program",
        "queues",
        "reads",
        "received",
        "restarts",
        "sent",
        "session",
        "settled",
        "signal_queues",
        "signalled",
        "signals",
        "since",
        "started",
        "state",
        "threads",
        "token",
    )

    def __init__(self, number: int, *, configured: bool, program: str | None, early: bool = False) -> None:
        self.number = number
        self.configured = configured
        self.program = program
        self.early = early
        self.state = "gone"
        self.pid = 0
        self.token = b""
        self.peer: Peer | None = None
        self.session = b""
        self.epoch = 0
        self.heard = 0.0
        self.farms: tuple[str, ...] = ()
        self.queues: tuple[Queue, ...] = ()
        self.signal_queues: tuple[Queue, ...] = ()
        self.signals: dict[int, None] = {}
        self.functions: dict[str, None] = {}
        # Whether it reads messages: None for a signal-only mule that has not settled yet.
        self.reads: bool | None = None if program is None and configured else True
        self.settled = False
        self.messages = 0
        self.restarts = 0
        self.since = 0.0
        self.started: float | None = None
        self.last_exit: Exit | None = None
        self.in_flight: dict[int, Message] = {}
        self.left_behind = 0
        self.doom = DIED
        self._forget_waits()

    def __repr__(self) -> str:
        return f"<mule {self.number} {self.state}, {len(self.in_flight)} in flight>"

    def _forget_waits(self) -> None:
        self.alone = 0
        self.pace = Pace()
        self.sent = dict.fromkeys(SOURCES, 0)
        self.received = dict.fromkeys(SOURCES, 0)
        self.coming = 0
        self.threads = [0] * (EVERY_SOURCE + 1)
        self.buffered = 0
        self.signalled = False

    @property
    def programmed(self) -> bool:
        """Whether it runs a program of its own, as opposed to the application module."""
        return self.program is not None or not self.configured

    @property
    def waiting(self) -> int:
        """How many of its threads wait for something."""
        return self.threads[EVERY_SOURCE]

    def turn(self, happening: str, now: float) -> None:
        """Move on in its life-cycle."""
        state = states.step(states.MULE, self.state, happening)
        if state != self.state:
            self.state, self.since = state, now

    def connect(self, peer: Peer, session: bytes, epoch: int, now: float) -> None:
        """Begin an epoch: nothing said in an earlier one counts any more."""
        self.peer, self.session, self.epoch, self.heard = peer, session, epoch, now
        self.left_behind = 0
        self._forget_waits()

    def disconnect(self) -> list[Message]:
        """End the epoch; return what was in flight, in order of delivery."""
        held = list(self.in_flight.values())
        self.in_flight.clear()
        self.signals.clear()
        self.functions.clear()
        self.peer = None
        self.settled = False
        self._forget_waits()
        return held

    def report(self, received: tuple[int, ...], waits: Iterable[tuple[int, int]], buffered: int) -> None:
        """Take note of who waits in the mule, as it counted when `received` messages had reached it."""
        self.received = dict(zip(SOURCES, received, strict=True))
        self.coming = sum(self.sent.values()) - sum(received)
        self.buffered = buffered
        self.threads = [0] * (EVERY_SOURCE + 1)
        for bits, count in waits:
            self.pace.tastes |= bits
            for sources in _MEETING[bits]:
                self.threads[sources] += count

    def room(self, source: int) -> int:
        """Return how many more messages from the source its waiting threads can take at once."""
        own = self.sent[source] - self.received[source]
        room = min(self.threads[source] - own, self.waiting - self.coming)
        if room < 1 or self.coming == own:
            return room
        under_way = [self.sent[one] - self.received[one] for one in SOURCES]
        return min(
            self.threads[sources] - sum(compress(under_way, members)) for sources, members in _SETS[source]
        )

    def ahead(self) -> int:
        """Return how many messages it has that no thread has started, as far as is known."""
        return self.buffered + max(0, self.coming - self.waiting)

    def begun(self) -> list[Message]:
        """Return what its threads work on, as far as is known: all but what it was given ahead."""
        return list(islice(self.in_flight.values(), max(0, len(self.in_flight) - self.ahead())))

    def unseen(self) -> list[Message]:
        """Return the rest of what it has: what no thread has started, as far as is known."""
        return list(islice(reversed(self.in_flight.values()), self.ahead()))

    def take(self, queue: Queue, messages: list[Message], *, alone: bool) -> None:
        """Put messages into the mule's hands; `alone`: nothing may follow until this one is done."""
        self.in_flight.update(zip(map(number_of, messages), messages, strict=True))
        self.sent[queue.source] += len(messages)
        self.signalled = queue.source == SIGNAL
        self.coming += len(messages)
        if alone:
            self.alone = messages[0][0]

    def release(self, ids: Iterable[int]) -> list[Message]:
        """Take messages out of the mule's hands; those it does not hold are passed over."""
        released = list(filter(None, map(self.in_flight.pop, ids, repeat(None))))
        if self.alone not in self.in_flight:
            self.alone = 0
        return released

    def under_way(self, received: Iterable[int]) -> list[int]:
        """Return the ids of what has not reached the mule: what was sent last, beyond what it has counted."""
        left = {source: self.sent[source] - count for source, count in zip(SOURCES, received, strict=True)}
        ids = []
        for id, message in reversed(self.in_flight.items()):
            source = source_of(message[1])
            if left[source] > 0:
                left[source] -= 1
                ids.append(id)
        return ids

    def reads_queues(self) -> list[str]:
        """Return the message queues that it reads, in order of preference."""
        if not self.reads or self.number < 0:
            return []
        return [mule_queue(self.number), ANY, *map(farm_queue, self.farms)]

    def status(self, now: Instant) -> dict[str, object]:
        """Return the mule's entry in the broker's status."""
        return {
            "id": self.number,
            "pid": self.pid,
            "mode": "programmed" if self.programmed else "signal-only",
            "program": self.program,
            "state": self.state,
            "since": now.wall - (now.mono - self.since),
            "started": self.started and now.wall - (now.mono - self.started),
            "last_exit": self.last_exit and self.last_exit.report(now),
            "farms": list(self.farms),
            "waiting": max(0, self.waiting - self.coming),
            "in_flight": len(self.in_flight),
            "messages": self.messages,
            "restarts": self.restarts,
        }


class Roster:
    """All mules by number and by connection, and the farms that they form."""

    def __init__(self, mules: Iterable[MuleSetup], farms: Iterable[FarmSetup]) -> None:
        self._mules: dict[int, Mule] = {}
        self._peers: dict[Peer, Mule] = {}
        self._joined: dict[str, dict[int, None]] = {}
        self.farms = {farm.name: farm for farm in farms}
        for setup in mules:
            mule = Mule(setup.number, configured=True, program=setup.program, early=setup.early)
            mule.farms = tuple(farm.name for farm in self.farms.values() if setup.number in farm.mules)
            self._mules[setup.number] = mule

    def __iter__(self) -> Iterator[Mule]:
        return iter(self._mules.values())

    def get(self, number: int) -> Mule | None:
        """Return the mule of that number that is configured or known from earlier, if any."""
        return self._mules.get(number)

    def at(self, peer: Peer) -> Mule | None:
        """Return the mule that is connected as this peer, if any."""
        return self._peers.get(peer)

    def known(self, number: int) -> Mule | None:
        """Return the mule of that number if it is configured or connected: somebody may write to it."""
        mule = self._mules.get(number)
        return mule if mule and (mule.configured or mule.peer is not None) else None

    def unread(self, queue: str) -> str | None:
        """Return why nobody ever reads the queue, or None: it is that of a mule that reads no messages."""
        mule = self.known(int(queue[5:])) if queue.startswith("mule:") else None
        if mule is None or mule.reads is not False:
            return None
        return f"mule {mule.number} is signal-only: it reads none"

    def connected(self) -> Iterable[Mule]:
        """Return the mules with a live session, the one not heard of for longest first."""
        return self._peers.values()

    def free_number(self, taken: Iterable[int] = ()) -> int:
        """Return the lowest number that is neither configured nor connected nor in `taken`."""
        busy = {mule.number for mule in self if mule.configured or mule.peer is not None}.union(taken)
        return next(number for number in range(1, len(busy) + 2) if number not in busy)

    def free_worker(self) -> int:
        """Return the number of the first worker that is not connected, as the negative it is kept as."""
        return next(number for number in range(-1, -len(self._mules) - 2, -1) if number not in self._mules)

    def join(self, number: int, program: str | None) -> Mule:
        """Return the mule of that number, made if it is not known."""
        mule = self._mules.get(number)
        if mule is None:
            mule = self._mules[number] = Mule(number, configured=False, program=program)
        return mule

    def connect(self, mule: Mule, peer: Peer, session: bytes, epoch: int, now: float) -> None:
        """Bind a mule to a connection, and make it a member of its farms."""
        mule.connect(peer, session, epoch, now)
        self._peers[peer] = mule
        for farm in mule.farms:
            self._joined.setdefault(farm, {})[mule.number] = None

    def disconnect(self, mule: Mule) -> list[Message]:
        """Unbind a mule from its connection; return what it had in flight. Outsiders are forgotten."""
        if mule.peer is not None:
            del self._peers[mule.peer]
        for farm in mule.farms:
            self._leave(farm, mule.number)
        if not mule.configured:
            del self._mules[mule.number]
        return mule.disconnect()

    def _leave(self, farm: str, number: int) -> None:
        members = self._joined.get(farm, {})
        members.pop(number, None)
        if not members:
            self._joined.pop(farm, None)

    def heard(self, peer: Peer, now: float) -> None:
        """Note a sign of life of a connected mule."""
        mule = self._peers.pop(peer, None)
        if mule is not None:
            mule.heard = now
            self._peers[peer] = mule

    def credit(self, seconds: float) -> None:
        """For so long no mule could be heard: none of them was silent."""
        for mule in self._peers.values():
            mule.heard += seconds

    def knows_farm(self, farm: str) -> bool:
        """Return whether the farm is configured or has a connected member."""
        return farm in self.farms or farm in self._joined

    def members(self) -> dict[str, list[int]]:
        """Return every farm with the numbers of its members, configured and joined."""
        farms = {name: dict.fromkeys(farm.mules) for name, farm in self.farms.items()}
        for name, joined in self._joined.items():
            farms.setdefault(name, {}).update(joined)
        return {name: list(numbers) for name, numbers in farms.items()}

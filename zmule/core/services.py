"""What peers ask for besides messages: signals, what raises them, and locks.

Each question of a peer (`Ask`) has a method here that checks its arguments, for they are whatever the
peer has sent. Sources of signals belong to whoever asked for them. A client's go with its connection. A
configured mule's outlive its death, until its next life has said what it wants: so a timer keeps its beat
while a mule is respawned, and is gone when the new code does not ask for it any more. The same goes for the
signals that it has registered. What the configuration asks for stays for good.

Two kinds of facts are for the store to keep: up to which minute crons have fired (see `timers.py`), and the
numbers of signals that have names. They are given to it before the answer that tells of them, and so before
any raise of that number; what a store keeps at all, it keeps in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from zmule.core.asking import LATER, Asked, arguments, checked
from zmule.core.effects import Changes, Note, Unwatch, Watch
from zmule.core.events import Peer
from zmule.core.frames import Answer
from zmule.core.free import FreeNumbers, checked_origin
from zmule.core.lockservice import LockService
from zmule.core.monitors import Monitors
from zmule.core.mules import Mule
from zmule.core.names import Names
from zmule.core.queues import (
    A_QUEUE,
    LAST_SIGNAL,
    STRAY_QUEUE,
    Message,
    call_queues,
    check_signal,
    is_function,
    moved,
)
from zmule.core.signals import Signals
from zmule.core.timers import Schedule, Source, Timers
from zmule.errors import ProtocolError, WrongValue

if TYPE_CHECKING:
    from zmule.core.broker import Broker

MAX_PATH = 4095
MAX_FUNCTIONS = 1000
MAX_CALL_QUEUES = 5000
"""Queues that one mule may read for calls: as many for each of its functions as it reads for messages."""


CONFIG: Peer = b""
"""Who asks for what the configuration wants: no connection has that name."""

CRON_FACT = "cron "
"""How the names of facts about crons begin."""

NAME_FACT = "name "
"""How those of facts about the names of signals begin."""

KINDS = ("timer", "rb_timer", "cron", "filemon")
"""The kinds of sources."""

Wish = tuple[str, tuple[Any, ...]]
"""A question and its arguments."""


class Schedules(NamedTuple):
    """How to make the schedule of a cron: from uWSGI's five integers, or from a text and a time zone."""

    integers: Callable[[int, int, int, int, int], Schedule]
    text: Callable[[str, str | None], Schedule]


class Services:
    """Signals, their sources, and locks, for the peers of a broker."""

    def __init__(self, broker: Broker, schedules: Schedules | None, locks: int) -> None:
        self._broker = broker
        self._schedules = schedules
        self.signals = Signals(broker.roster)
        self._free = FreeNumbers(self.signals)
        self._names = Names(lambda number: self.signals.registered(number) or self._free.is_reserved(number))
        self.timers = Timers()
        self.monitors = Monitors()
        self.locks = LockService(broker, locks)
        self._facts: dict[str, bytes] = {}
        self._crons_moved = False
        self._asked_before: dict[int, object] = {}

    def questions(self) -> dict[str, Callable[[Asked], Any]]:
        """Return the questions by name."""
        return {
            "register_signal": self._register,
            "unregister_signal": self._unregister,
            "signal_registered": self._registered,
            "name_signal": self._name_signal,
            "register_function": self._register_function,
            "read_messages": self._read_messages,
            "add_timer": self._add_timer,
            "add_rb_timer": self._add_rb_timer,
            "add_cron": self._add_cron,
            "add_cron_text": self._add_cron_text,
            "add_file_monitor": self._add_file_monitor,
            "remove_source": self._remove_source,
            **self.locks.questions(),
        }

    def restore(self, facts: Mapping[str, bytes]) -> None:
        """Take up what the store has kept, before anybody asks for anything.

        Raises:
            ValueError: that is nothing that was given to it.
        """
        crons, names = _of_kind(facts, CRON_FACT), _of_kind(facts, NAME_FACT)
        self._facts = crons | names
        settled = {_cron_source(fact): int(minute) for fact, minute in crons.items()}
        self.timers.restore(settled, self._broker.now.wall)
        self._names.restore(
            {fact.removeprefix(NAME_FACT): _number(fact, value) for fact, value in names.items()}
        )
        self.locks.restore(facts)

    def configure(self, wishes: Iterable[Wish]) -> None:
        """Have signals raised by what the configuration names.

        Raises:
            WrongValue: an argument is not what it should be.
        """
        questions = self.questions()
        for what, wish in wishes:
            questions[what](Asked(CONFIG, 0, wish))

    # Signals.

    def _register(self, asked: Asked) -> None:
        number, target, *origin = arguments(asked, int, str, *[str] * len(asked.arguments[2:4]))
        mule, stray = self._mule(asked), self.signals.is_stray(check_signal(number))
        where = checked_origin(*(origin or ("",)))
        self._free.check(number, where, mule)
        self.signals.register(number, target, mule, where)
        self._free.release(mule)
        self._broker.turns.reads_changed(mule)
        if stray and not self.signals.is_stray(number):
            self._adopt(number)

    def strayed(self, messages: Iterable[Message]) -> None:
        """Raises that were nobody's have been kept, or have come back: by now they may be somebody's."""
        for body in {message[2] for message in messages}:
            number = int.from_bytes(cast(bytes, body))
            if not self.signals.is_stray(number):
                self._adopt(number)

    def _adopt(self, number: int) -> None:
        """Give raises that came before a signal was registered to who has done so, and copies to others."""
        dispatch = self._broker.dispatch
        strays = dispatch.take_out(STRAY_QUEUE, bytes([number]))
        if not strays:
            return
        for _ in strays:
            first, *others = self.signals.route(number)
        adopted = [moved(stray, first) for stray in strays]
        if others:
            self._broker.do(self._broker.intake.copies(others, number, len(strays), self._broker.steady()))
        dispatch.account(strays, -1)
        dispatch.account(adopted)
        self._broker.do(Changes(amended=adopted))
        dispatch.put_back(adopted)

    def _unregister(self, asked: Asked) -> None:
        (number,) = arguments(asked, int)
        self.signals.unregister(check_signal(number), self._mule(asked))
        self._broker.turns.reads_changed(self._mule(asked))

    def _registered(self, asked: Asked) -> bool:
        number, *place = arguments(asked, int, *[str] * len(asked.arguments[1:2]))
        if not place or not place[0]:
            return self.signals.registered(check_signal(number))
        origin = checked_origin(place[0])
        return self._names.has(check_signal(number)) or not self._free.look(
            number, origin.place, self._mule(asked)
        )

    def _name_signal(self, asked: Asked) -> int:
        name, wished = arguments(asked, str, int)
        number = self._names.number(name, wished)
        if NAME_FACT + name not in self._facts:
            self._remember()
        return number

    def _register_function(self, asked: Asked) -> None:
        (name,) = arguments(asked, str)
        mule = self._mule(asked)
        if name in mule.functions:
            return
        if not is_function(name) or len(mule.functions) >= MAX_FUNCTIONS:
            raise WrongValue(f"a function's name is an identifier, and there are at most {MAX_FUNCTIONS}")
        new = len(call_queues(name, mule.number, mule.farms))
        if new * (len(mule.functions) + 1) > MAX_CALL_QUEUES:
            raise WrongValue(f"functions times queues that call them are at most {MAX_CALL_QUEUES}")
        if error := self._broker.room.for_more(A_QUEUE * new):
            raise error
        mule.functions[name] = None
        self._broker.turns.reads_changed(mule)

    def _read_messages(self, asked: Asked) -> None:
        arguments(asked)
        self._broker.turns.reads_messages(self._mule(asked))

    def _mule(self, asked: Asked) -> Mule:
        mule = self._broker.roster.at(asked.peer)
        if mule is None:
            raise ProtocolError("only mules and workers run signals")
        return mule

    # Sources of signals.

    def _add_timer(self, asked: Asked) -> None:
        number, seconds = arguments(asked, int, float)
        asker, now = self._asker(asked.peer), self._broker.now
        checked(self.timers.add_timer, check_signal(number), seconds, asker, now.mono)

    def _add_rb_timer(self, asked: Asked) -> None:
        number, seconds, times, *anew = arguments(asked, int, float, int, *[bool] * len(asked.arguments[3:4]))
        add = partial(self.timers.add_rb_timer, anew=anew == [True])
        asker, now = self._asker(asked.peer), self._broker.now
        checked(add, check_signal(number), seconds, times, asker, now.mono)

    def _add_cron(self, asked: Asked) -> None:
        number, *fields = arguments(asked, int, int, int, int, int, int)
        self._add_schedule(asked, number, "integers", *fields)

    def _add_cron_text(self, asked: Asked) -> None:
        number, text, zone = arguments(asked, int, str, str)
        self._add_schedule(asked, number, "text", text, zone or None)

    def _add_schedule(self, asked: Asked, number: int, kind: str, *fields: Any) -> None:
        if self._schedules is None:
            raise WrongValue("this broker has no clock for cron")
        schedule = checked(getattr(self._schedules, kind), *fields)
        asker, now = self._asker(asked.peer), self._broker.now
        checked(self.timers.add_cron, check_signal(number), schedule, asker, now.wall)
        self._crons_moved = True

    def _remember(self) -> None:
        """Have the store keep what has changed: up to which minute crons are settled, and names."""
        self._crons_moved, before = False, self._facts
        now = {_cron_fact(source): b"%d" % minute for source, minute in self.timers.settled().items()}
        now |= {NAME_FACT + name: b"%d" % number for name, number in self._names}
        changed = dict.fromkeys(before.keys() - now.keys(), b"") | dict(now.items() - before.items())
        self._facts = now
        if changed:
            self._broker.do(Changes(facts=changed))

    def _add_file_monitor(self, asked: Asked) -> object:
        number, path = arguments(asked, int, str)
        if not path or len(path) > MAX_PATH:
            raise WrongValue(f"a path has 1 to {MAX_PATH} characters")
        asker, question = self._asker(asked.peer), (asked.peer, asked.request)
        if checked(self.monitors.add, check_signal(number), path, asker, question):
            self._broker.do(Watch(path))
        return LATER if self.monitors.is_new(path) else None

    def watched(self, path: str, refusal: str | None) -> None:
        """The shell watches a path now, or cannot and says why: answer those who asked."""
        self._answer(self.monitors.settled(path, refused=refusal is not None), refusal)

    def _answer(self, questions: Iterable[tuple[Peer, int]], refusal: str | None = None) -> None:
        """Answer those who have asked for a monitor."""
        for peer, request in questions:
            if peer != CONFIG:
                self._broker.send(peer, Answer(request, WrongValue.code if refusal else "", refusal))
            elif refusal:
                self._broker.do(Note("error", f"configuration: {refusal}"))

    def changed(self, path: str) -> None:
        """Something at a monitored path has changed."""
        for number in self.monitors.changed(path):
            self._broker.raise_signal(number)

    def _remove_source(self, asked: Asked) -> int:
        kind, number = arguments(asked, str, int)
        if kind not in KINDS:
            raise WrongValue(f"a kind of source is one of {', '.join(KINDS)}, not {kind[:50]!r}")
        if kind != "filemon":
            self._crons_moved = True
            return self.timers.remove_all(kind, number)
        count, waiting, unneeded = self.monitors.remove(number)
        self._answer(waiting)
        self._unwatch(unneeded)
        return count

    def _asker(self, peer: Peer) -> object:
        """Return whose the sources are that a peer asks for: of a mule's life, or of a connection."""
        mule = self._broker.roster.at(peer)
        return ("mule", mule.number, mule.epoch) if mule is not None else peer

    def drop(self, asker: object) -> None:
        """Somebody asks for nothing any more."""
        self.timers.drop(asker)
        self._unwatch(self.monitors.drop(asker))

    def _unwatch(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._broker.do(Unwatch(path))

    # Mules and clients come and go.

    def lost(self, mule: Mule) -> None:
        """A mule's life has ended."""
        asker = ("mule", mule.number, mule.epoch)
        self._free.release(mule)
        if mule.configured:
            self._asked_before.setdefault(mule.number, asker)
            if self._asked_before[mule.number] != asker:
                self.drop(asker)
        else:
            self.signals.forget(mule)
            self.drop(asker)

    def settled(self, mule: Mule) -> None:
        """A mule has said all that it wants in this life, or has none any more: earlier wishes are over."""
        self.signals.settle(mule)
        self._free.release(mule)
        before = self._asked_before.pop(mule.number, None)
        if before is not None:
            self.drop(before)

    def gone(self, peer: Peer) -> None:
        """A connection is gone: its locks are free, its sources are dropped."""
        self.locks.gone(peer)
        self.drop(peer)

    # Time.

    def tick(self) -> None:
        """Raise what is due, and see to the locks."""
        now = self._broker.now
        self.locks.tick()
        self._crons_moved |= self.timers.is_cron_due(now.wall)
        self.timers.due(now.mono, now.wall, self._broker.raise_signal)
        if self._crons_moved:
            self._remember()

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, on the monotonic clock."""
        now = self._broker.now
        due = (self.locks.next_deadline(), self.timers.next_deadline(now.mono, now.wall))
        return min((deadline for deadline in due if deadline is not None), default=None)

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        for part in (self.signals, self.timers, self.monitors, self.locks):
            part.validate()


def _of_kind(facts: Mapping[str, bytes], kind: str) -> dict[str, bytes]:
    return {name: value for name, value in facts.items() if name.startswith(kind)}


def _number(fact: str, value: bytes) -> int:
    """Return the number of a signal that a store has kept."""
    number = int(value)
    if not 0 <= number <= LAST_SIGNAL:
        raise ValueError(f"{fact!r:.100} is no signal's number: {number}")
    return number


def _cron_fact(source: Source) -> str:
    return f"{CRON_FACT}{source.signal} {source.spec}"


def _cron_source(fact: str) -> Source:
    signal, _, spec = fact.removeprefix(CRON_FACT).partition(" ")
    return Source("cron", int(signal), spec)

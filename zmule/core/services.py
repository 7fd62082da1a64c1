"""What peers ask for besides messages: signals, what raises them, and locks.

Each question of a peer (`Ask`) has a method here that checks its arguments, for they are whatever the
peer has sent. Sources of signals belong to whoever asked for them. A client's go with its connection. A
configured mule's outlive its death, until its next life has said what it wants: so a timer keeps its beat
while a mule is respawned, and is gone when the new code does not ask for it any more. The same goes for the
signals that it has registered. What the configuration asks for stays for good.

Up to which minute crons have fired is a fact that the store keeps: see `timers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from zmule.core.effects import Changes, Note, Unwatch, Watch
from zmule.core.events import Peer
from zmule.core.frames import Answer
from zmule.core.locks import Granted, Locks, Outcome, Owner, Refused, Released
from zmule.core.monitors import Monitors
from zmule.core.mules import Mule
from zmule.core.names import Names
from zmule.core.queues import check_signal, is_function
from zmule.core.signals import Signals
from zmule.core.timers import Schedule, Source, Timers
from zmule.errors import ProtocolError, UnknownLock, WrongValue

if TYPE_CHECKING:
    from zmule.core.broker import Broker

MAX_PATH = 4095
MAX_FUNCTIONS = 1000

CONFIG: Peer = b""
"""Who asks for what the configuration wants: no connection has that name."""

CRON_FACT = "cron "
"""How the names of facts about crons begin."""

KINDS = ("timer", "rb_timer", "cron", "filemon")
"""The kinds of sources."""

Wish = tuple[str, tuple[Any, ...]]
"""A question and its arguments."""


class Asked(NamedTuple):
    """A question: who asked it, the number that the answer must bear, and its arguments."""

    peer: Peer
    request: int
    arguments: tuple[Any, ...]


class Later:
    """What a method returns when the answer will be sent by itself."""


LATER = Later()


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
        self._names = Names(self.signals.registered)
        self.timers = Timers()
        self.monitors = Monitors()
        # Fencing tokens grow over restarts, too, as long as the clock does.
        self.locks = Locks(locks, first_token=max(1, int(broker.now.wall * 1_000_000)))
        self._facts: dict[str, bytes] = {}
        self._asked_before: dict[int, object] = {}
        self._leases: dict[Peer, float] = {}

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
            "lock": self._lock,
            "unlock": self._unlock,
            "give_up_lock": self._give_up_lock,
            "is_locked": self._is_locked,
        }

    def restore(self, facts: Mapping[str, bytes]) -> None:
        """Take up what the store has kept, before anybody asks for anything."""
        self._facts = {name: value for name, value in facts.items() if name.startswith(CRON_FACT)}
        settled = {_cron_source(name): int(minute) for name, minute in self._facts.items()}
        self.timers.restore(settled, self._broker.now.wall)

    def configure(self, wishes: Iterable[Wish]) -> None:
        """Have signals raised by what the configuration names.

        Raises:
            WrongValue: an argument is not what it should be.
        """
        questions = self.questions()
        for what, arguments in wishes:
            questions[what](Asked(CONFIG, 0, arguments))

    # Signals.

    def _register(self, asked: Asked) -> None:
        number, target = self._arguments(asked, int, str)
        self.signals.register(check_signal(number), target, self._mule(asked))
        self._broker.reads_changed(self._mule(asked))

    def _unregister(self, asked: Asked) -> None:
        (number,) = self._arguments(asked, int)
        self.signals.unregister(check_signal(number), self._mule(asked))
        self._broker.reads_changed(self._mule(asked))

    def _registered(self, asked: Asked) -> bool:
        (number,) = self._arguments(asked, int)
        return self.signals.registered(check_signal(number))

    def _name_signal(self, asked: Asked) -> int:
        name, wished = self._arguments(asked, str, int)
        return self._names.number(name, wished)

    def _register_function(self, asked: Asked) -> None:
        (name,) = self._arguments(asked, str)
        mule = self._mule(asked)
        if not is_function(name) or len(mule.functions) >= MAX_FUNCTIONS:
            raise WrongValue(f"a function's name is an identifier, and there are at most {MAX_FUNCTIONS}")
        mule.functions[name] = None
        self._broker.reads_changed(mule)

    def _read_messages(self, asked: Asked) -> None:
        self._arguments(asked)
        self._broker.reads_messages(self._mule(asked))

    def _mule(self, asked: Asked) -> Mule:
        mule = self._broker.roster.at(asked.peer)
        if mule is None:
            raise ProtocolError("only mules and workers run signals")
        return mule

    # Sources of signals.

    def _add_timer(self, asked: Asked) -> None:
        number, seconds = self._arguments(asked, int, float)
        asker, now = self._asker(asked.peer), self._broker.now
        self._checked(self.timers.add_timer, check_signal(number), seconds, asker, now.mono)

    def _add_rb_timer(self, asked: Asked) -> None:
        number, seconds, iterations = self._arguments(asked, int, float, int)
        asker, now = self._asker(asked.peer), self._broker.now
        self._checked(self.timers.add_rb_timer, check_signal(number), seconds, iterations, asker, now.mono)

    def _add_cron(self, asked: Asked) -> None:
        number, *fields = self._arguments(asked, int, int, int, int, int, int)
        self._add_schedule(asked, number, "integers", *fields)

    def _add_cron_text(self, asked: Asked) -> None:
        number, text, zone = self._arguments(asked, int, str, str)
        self._add_schedule(asked, number, "text", text, zone or None)

    def _add_schedule(self, asked: Asked, number: int, kind: str, *arguments: Any) -> None:
        if self._schedules is None:
            raise WrongValue("this broker has no clock for cron")
        schedule = self._checked(getattr(self._schedules, kind), *arguments)
        asker, now = self._asker(asked.peer), self._broker.now
        self._checked(self.timers.add_cron, check_signal(number), schedule, asker, now.wall)
        self._remember()

    def _remember(self) -> None:
        """Have the store keep up to which minute crons are settled, where that has changed."""
        before = self._facts
        now = {_cron_fact(source): b"%d" % minute for source, minute in self.timers.settled().items()}
        changed = dict.fromkeys(before.keys() - now.keys(), b"") | dict(now.items() - before.items())
        self._facts = now
        if changed:
            self._broker.do(Changes(facts=changed))

    def _add_file_monitor(self, asked: Asked) -> object:
        number, path = self._arguments(asked, int, str)
        if not path or len(path) > MAX_PATH:
            raise WrongValue(f"a path has 1 to {MAX_PATH} characters")
        asker, question = self._asker(asked.peer), (asked.peer, asked.request)
        if self._checked(self.monitors.add, check_signal(number), path, asker, question):
            self._broker.do(Watch(path))
        return LATER if self.monitors.is_new(path) else None

    def watched(self, path: str, refusal: str | None) -> None:
        """The shell watches a path now, or cannot and says why: answer those who asked."""
        for peer, request in self.monitors.settled(path, refused=refusal is not None):
            if peer != CONFIG:
                self._broker.send(peer, Answer(request, WrongValue.code if refusal else "", refusal))
            elif refusal:
                self._broker.do(Note("error", f"configuration: {refusal}"))

    def changed(self, path: str) -> None:
        """Something at a monitored path has changed."""
        for number in self.monitors.changed(path):
            self._broker.raise_signal(number)

    def _remove_source(self, asked: Asked) -> int:
        kind, number = self._arguments(asked, str, int)
        if kind not in KINDS:
            raise WrongValue(f"a kind of source is one of {', '.join(KINDS)}, not {kind[:50]!r}")
        if kind != "filemon":
            count = self.timers.remove_all(kind, number)
            self._remember()
            return count
        count, unneeded = self.monitors.remove(number)
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
        before = self._asked_before.pop(mule.number, None)
        if before is not None:
            self.drop(before)

    def gone(self, peer: Peer) -> None:
        """A connection is gone: its locks are free, its sources are dropped."""
        self._leases.pop(peer, None)
        self._tell(self.locks.vanish(peer))
        self.drop(peer)

    # Locks.

    def _lock(self, asked: Asked) -> object:
        name, thread, timeout, blocking = self._arguments(asked, (int, str), int, float, bool)
        limit = timeout if timeout >= 0 else None
        owner = Owner(asked.peer, thread)
        now = self._broker.now.mono
        self._tell(self.locks.acquire(name, owner, asked.request, now, limit, blocking))
        return LATER

    def _unlock(self, asked: Asked) -> object:
        name, thread = self._arguments(asked, (int, str), int)
        self._tell(self.locks.release(name, Owner(asked.peer, thread), asked.request))
        return LATER

    def _give_up_lock(self, asked: Asked) -> None:
        thread, request = self._arguments(asked, int, int)
        self._tell(self.locks.cancel(Owner(asked.peer, thread), request))

    def _is_locked(self, asked: Asked) -> Any:
        (name,) = self._arguments(asked, (int, str))
        try:
            return self.locks.is_locked(name)
        except ValueError as error:
            raise UnknownLock(str(error)) from None

    def _tell(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            peer = outcome.owner.peer
            if isinstance(outcome, Granted):
                self._leases[peer] = self._lease_end()
                self._broker.send(peer, Answer(outcome.request, "", outcome.token))
            elif isinstance(outcome, Released):
                self._broker.send(peer, Answer(outcome.request, "", None))
            elif isinstance(outcome, Refused):
                self._broker.send(peer, Answer(outcome.request, outcome.code, outcome.reason))

    def lock_status(self) -> list[dict[str, Any]]:
        """Return the locks for the status, with processes and threads in place of owners."""
        return [
            {
                **lock,
                "holder": lock["holder"] and self._process(lock["holder"]),
                "waiting": [self._process(owner) for owner in lock["waiting"]],
            }
            for lock in self.locks.status()
        ]

    def _process(self, owner: Owner) -> dict[str, int]:
        known = self._broker.senders.at(owner.peer) or self._broker.roster.at(owner.peer)
        return {"pid": known.pid if known else 0, "thread": owner.thread}

    # Time.

    def tick(self) -> None:
        """Raise what is due, and refuse who has waited in vain for a lock."""
        now = self._broker.now
        for peer in [peer for peer, until in self._leases.items() if until <= now.mono]:
            self._expire(peer)
        self._tell(self.locks.tick(now.mono))
        cron = self.timers.is_cron_due(now.wall)
        for number in self.timers.due(now.mono, now.wall):
            self._broker.raise_signal(number)
        if cron:
            self._remember()

    def heard(self, peer: Peer) -> None:
        """A peer that may hold locks has shown that it lives."""
        if peer in self._leases:
            self._leases[peer] = self._lease_end()

    def _lease_end(self) -> float:
        return self._broker.now.mono + self._broker.limits.heartbeat_timeout

    def _expire(self, peer: Peer) -> None:
        del self._leases[peer]
        if self.locks.has_claims(peer):
            self._broker.vanished(peer, "held a lock and was silent for too long")

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, on the monotonic clock."""
        now = self._broker.now
        due = [
            self.locks.next_deadline(),
            self.timers.next_deadline(now.mono, now.wall),
            min(self._leases.values(), default=None),
        ]
        return min((deadline for deadline in due if deadline is not None), default=None)

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        for part in (self.signals, self.timers, self.monitors, self.locks):
            part.validate()

    # Arguments.

    def _arguments(self, asked: Asked, *kinds: type | tuple[type, ...]) -> tuple[Any, ...]:
        """Return the arguments if they are of these types; a whole number will do for seconds."""
        given = tuple(
            float(value) if kind is float and type(value) is int else value
            for value, kind in zip(asked.arguments, kinds, strict=False)
        )
        if len(asked.arguments) != len(kinds) or not all(map(_fits, given, kinds)):
            raise WrongValue("the question's arguments are not what they should be")
        return given

    def _checked(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except ValueError as error:
            raise WrongValue(str(error)) from None


def _fits(value: Any, kind: type | tuple[type, ...]) -> bool:
    return type(value) in (kind if isinstance(kind, tuple) else (kind,))


def _cron_fact(source: Source) -> str:
    return f"{CRON_FACT}{source.signal} {source.spec}"


def _cron_source(fact: str) -> Source:
    signal, _, spec = fact.removeprefix(CRON_FACT).partition(" ")
    return Source("cron", int(signal), spec)

"""What peers ask for besides messages: signals, what raises them, and locks.

Each question of a peer (`Ask`) has a method here that checks its arguments, for they are whatever the
peer has sent. Sources of signals belong to whoever asked for them. A client's go with its connection. A
configured mule's outlive its death, until its next life has said what it wants: so a timer keeps its beat
while a mule is respawned, and is gone when the new code does not ask for it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from zmule.core.effects import Unwatch, Watch
from zmule.core.events import Peer
from zmule.core.frames import Answer
from zmule.core.locks import Granted, Locks, Outcome, Owner, Refused, Released
from zmule.core.monitors import Monitors
from zmule.core.mules import Mule
from zmule.core.queues import check_signal, is_function
from zmule.core.signals import Signals
from zmule.core.timers import Schedule, Timers
from zmule.errors import ProtocolError, WrongValue

if TYPE_CHECKING:
    from zmule.core.broker import Broker

MAX_PATH = 4096
MAX_FUNCTIONS = 1000


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
        self.timers = Timers()
        self.monitors = Monitors()
        self.locks = Locks(locks)
        self._asked_before: dict[int, object] = {}
        self._leases: dict[Peer, float] = {}

    def questions(self) -> dict[str, Callable[[Asked], Any]]:
        """Return the questions by name."""
        return {
            "register_signal": self._register,
            "unregister_signal": self._unregister,
            "signal_registered": self._registered,
            "register_function": self._register_function,
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

    def _register_function(self, asked: Asked) -> None:
        (name,) = self._arguments(asked, str)
        mule = self._mule(asked)
        if not is_function(name) or len(mule.functions) >= MAX_FUNCTIONS:
            raise WrongValue(f"a function's name is an identifier, and there are at most {MAX_FUNCTIONS}")
        mule.functions[name] = None
        self._broker.reads_changed(mule)

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

    def _add_file_monitor(self, asked: Asked) -> object:
        number, path = self._arguments(asked, int, str)
        if not path or len(path) > MAX_PATH:
            raise WrongValue(f"a path has 1 to {MAX_PATH} characters")
        if self.monitors.add(
            check_signal(number), path, self._asker(asked.peer), (asked.peer, asked.request)
        ):
            self._broker.do(Watch(path))
        return LATER if self.monitors.is_new(path) else None

    def watched(self, path: str, refusal: str | None) -> None:
        """The shell watches a path now, or cannot and says why: answer those who asked."""
        for peer, request in self.monitors.settled(path, refused=refusal is not None):
            code = WrongValue.code if refusal else ""
            self._broker.send(peer, Answer(request, code, refusal))

    def changed(self, path: str) -> None:
        """Something at a monitored path has changed."""
        for number in self.monitors.signals(path):
            self._broker.raise_signal(number)

    def _remove_source(self, asked: Asked) -> int:
        kind, number = self._arguments(asked, str, int)
        removed = self.monitors.remove(number) if kind == "filemon" else []
        for path in removed:
            self._broker.do(Unwatch(path))
        return len(removed) + self.timers.remove_all(kind, number)

    def _asker(self, peer: Peer) -> object:
        """Return whose the sources are that a peer asks for: of a mule's life, or of a connection."""
        mule = self._broker.roster.at(peer)
        return ("mule", mule.number, mule.epoch) if mule is not None else peer

    def drop(self, asker: object) -> None:
        """Somebody asks for nothing any more."""
        self.timers.drop(asker)
        for path in self.monitors.drop(asker):
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
        """A mule has said all that it wants in this life: what it wanted in an earlier one is over."""
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
        return self._checked(self.locks.is_locked, name)

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

    # Time.

    def tick(self) -> None:
        """Raise what is due, and refuse who has waited in vain for a lock."""
        now = self._broker.now
        for peer in [peer for peer, until in self._leases.items() if until <= now.mono]:
            self._expire(peer)
        self._tell(self.locks.tick(now.mono))
        for number in self.timers.due(now.mono, now.wall):
            self._broker.raise_signal(number)

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

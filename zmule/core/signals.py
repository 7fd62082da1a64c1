"""The signal table: which signal goes to whom, and who can run it.

A raised signal is a message like any other, in a queue of its own kind: so it is kept, delivered,
acknowledged when its handler has run, and delivered again when the mule dies. Two kinds of queue exist.
`signal:17` is for targets that mean the first available of several; `signal:17:2` is for mule 2 alone,
and `signal:17:-2` for worker 2. A mule reads those of the signals that it has registered in its present
life, so what waits for a mule that is down waits until it has loaded its handlers again.

A signal that nobody has registered, or only workers when it is for mules, or the other way round, goes to
`signal:stray`, which only threads in `signal_wait` read. What waits there when it is registered at last goes
to who did that: so what is raised while a broker and its mules are starting is not lost on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from zmule.core.mules import Mule, Roster
from zmule.core.queues import STRAY_QUEUE, call_queues, signal_queue
from zmule.errors import SignalConflict, UnknownFarm, UnknownMule, UnknownTarget

MOST_PENDING = 10_000
"""Raises of one signal that may wait for one target."""

MOST_STRAY = 10 * MOST_PENDING
"""Raises of all signals together that may wait for somebody to register them."""


class Target(NamedTuple):
    """Whom a signal is for: `kind` is `first`, `each`, `one` or `farm`; `workers` tells them from mules."""

    kind: str
    workers: bool = False
    number: int = 0
    farm: str = ""


class Origin(NamedTuple):
    """Where a handler is from: what was being loaded as it was registered, and the name of its function."""

    place: str = ""
    function: str = ""


class Entry:
    """A row of the table: the target as it was spelled and parsed, and the mules that have a handler."""

    __slots__ = ("mules", "runs", "spelling", "target")

    def __init__(self, spelling: str, target: Target) -> None:
        self.spelling = spelling
        self.target = target
        self.mules: dict[int, Origin] = {}
        self.runs = 0


class Signals:
    """The table."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._table: dict[int, Entry] = {}

    def register(self, number: int, spelling: str, mule: Mule, origin: Origin = Origin()) -> None:  # noqa: B008
        """Note that a process has a handler for a signal with that target.

        Raises:
            SignalConflict: the signal has another target already.
            UnknownTarget, UnknownMule, UnknownFarm: there is no such target.
        """
        target = self._parse(spelling)
        entry = self._table.get(number)
        if entry is not None and entry.target != target and self._is_held(number, entry):
            raise SignalConflict(f"signal {number} is registered for {entry.spelling!r} already")
        if entry is None or entry.target != target:
            entry = self._table[number] = Entry(spelling, target)
        entry.mules[mule.number] = origin
        mule.signals[number] = None

    def _is_held(self, number: int, entry: Entry) -> bool:
        """Return whether a process that is there has the handler, as opposed to one that may come back."""
        return any(self._lives(number, holder) for holder in entry.mules)

    def _lives(self, number: int, holder: int) -> bool:
        mule = self._roster.get(holder)
        return mule is not None and number in mule.signals

    def origins(self, number: int, *, living: bool = False) -> list[tuple[int, Origin]]:
        """Return who has a handler for the signal, or only those who are there, and where it is from."""
        entry = self._table.get(number)
        holders = entry.mules.items() if entry else ()
        return [each for each in holders if not living or self._lives(number, each[0])]

    def unregister(self, number: int, mule: Mule) -> None:
        """Note that a process has no handler any more; the last one takes the row with it."""
        mule.signals.pop(number, None)
        entry = self._table.get(number)
        if entry is not None:
            entry.mules.pop(mule.number, None)
            if not entry.mules:
                del self._table[number]

    def forget(self, mule: Mule) -> None:
        """Forget a mule that will not come back under its number."""
        mule.signals.clear()
        self.settle(mule)

    def settle(self, mule: Mule) -> None:
        """Forget the handlers that a mule had only in earlier lives."""
        for number in [number for number, entry in self._table.items() if mule.number in entry.mules]:
            if number not in mule.signals:
                self.unregister(number, mule)

    def route(self, number: int) -> list[str]:
        """Return the queues that a raise of the signal goes to."""
        if number in self._table:
            self._table[number].runs += 1
        return self._route(number)

    def is_stray(self, number: int) -> bool:
        """Return whether a raise of the signal would be for nobody in particular."""
        return self._route(number) == [STRAY_QUEUE]

    def _route(self, number: int) -> list[str]:
        entry = self._table.get(number)
        if entry is None or not any(self._is_for(member, entry.target) for member in entry.mules):
            return [STRAY_QUEUE]
        if entry.target.kind == "one":
            return [signal_queue(number, entry.target.number)]
        if entry.target.kind == "each":
            members = (member for member in entry.mules if self._is_for(member, entry.target))
            return [signal_queue(number, member) for member in members]
        return [signal_queue(number)]

    def _is_for(self, member: int, target: Target) -> bool:
        """Return whether the target is of the member's kind: a mule, or a worker."""
        return (member < 0) == target.workers

    def queues(self, mule: Mule) -> list[str]:
        """Return the queues that a mule reads for signals and for calls of its functions."""
        names = [STRAY_QUEUE]
        for function in mule.functions:
            names += call_queues(function, mule.number, mule.farms)
        for number in mule.signals:
            entry = self._table[number]
            if entry.target.kind in ("one", "each"):
                names.append(signal_queue(number, mule.number))
            elif self._belongs(mule, entry.target):
                names.append(signal_queue(number))
        return names

    def registered(self, number: int) -> bool:
        """Return whether the signal is in the table."""
        return number in self._table

    def status(self, pending: Any) -> list[dict[str, Any]]:
        """Return the table for the status; `pending` gives how many raises wait in a queue's name."""
        return [
            {
                "number": number,
                "target": entry.spelling,
                "mules": sorted(mule for mule in entry.mules if mule > 0),
                "workers": sorted(-mule for mule in entry.mules if mule < 0),
                "raised": entry.runs,
                "pending": sum(map(pending, self._all_queues(number, entry.mules))),
            }
            for number, entry in sorted(self._table.items())
        ]

    def validate(self) -> None:
        """Raise AssertionError if table and mules do not agree."""
        for number, entry in self._table.items():
            assert entry.mules, f"nobody handles signal {number}"
        for mule in self._roster:
            assert all(mule.number in self._table[number].mules for number in mule.signals)

    def _all_queues(self, number: int, mules: Iterable[int]) -> list[str]:
        return [signal_queue(number), *(signal_queue(number, mule) for mule in mules)]

    def _belongs(self, mule: Mule, target: Target) -> bool:
        if target.kind == "farm":
            return target.farm in mule.farms
        return self._is_for(mule.number, target)

    def _parse(self, spelling: str) -> Target:
        """Return what a target's spelling means; uWSGI's, without the ones that mean nothing here."""
        if spelling in ("", "worker", "worker0"):
            return Target("first", workers=True)
        if spelling in ("workers", "active-workers"):
            return Target("each", workers=True)
        if spelling in ("mule", "mule0"):
            return Target("first")
        if spelling == "mules":
            return Target("each")
        if spelling.startswith("farm_"):
            return self._farm(spelling[5:])
        if match := re.fullmatch(r"(worker|mule|farm)(\d{1,6})", spelling, re.ASCII):
            return self._numbered(match[1], int(match[2]))
        if spelling == "spooler":
            raise UnknownTarget("there is no spooler in zmule: send a message to a mule instead")
        raise UnknownTarget(f"there is no signal target {spelling[:50]!r}")

    def _numbered(self, kind: str, number: int) -> Target:
        if kind == "worker":
            return Target("one", workers=True, number=-number)
        if kind == "farm":
            names = list(self._roster.members())
            if not 1 <= number <= len(names):
                raise UnknownFarm(f"there is no farm number {number}")
            return Target("farm", farm=names[number - 1])
        if self._roster.known(number) is None:
            raise UnknownMule(f"there is no mule {number}")
        return Target("one", number=number)

    def _farm(self, name: str) -> Target:
        if not self._roster.knows_farm(name):
            raise UnknownFarm(f"there is no farm {name!r}")
        return Target("farm", farm=name)

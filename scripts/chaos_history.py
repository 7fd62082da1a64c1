"""What scripts/chaos has recorded: the broker's journal (see chaos_broker.py), and what others say.

Times are those of the monotonic clock in nanoseconds, which all processes of a host share.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Blow(NamedTuple):
    """Something that was done.

    Attributes:
        ended: until when it may show.
        pids: to which mules it can have done something; empty: to all.
    """

    what: str
    begun: int
    ended: int
    pids: tuple[int, ...] = ()


class Turn(NamedTuple):
    """One time that a mule had a message. `how` it went: `f` finished, `r` rejected, `n` failed, or empty."""

    attempt: int
    begun: int
    pid: int
    queue: str
    body: str
    ended: int = 0
    how: str = ""


class Delivery(NamedTuple):
    """A message was handed to a mule, by the broker's life of that number."""

    life: int
    time: int
    attempt: int
    pid: int

    def may_be(self, turn: Turn) -> bool:
        """Return whether this is what a mule has begun then."""
        return (self.attempt, self.pid) == (turn.attempt, turn.pid) and self.time <= turn.begun


class Sign(NamedTuple):
    """The broker has noticed something about a mule, which it had not heard for `quiet` nanoseconds."""

    time: int
    what: str
    quiet: int = 0


class Burial(NamedTuple):
    """A message was made a dead letter."""

    life: int
    time: int
    reason: str


class Journal:
    """What the broker's lives have heard and done.

    Attributes:
        born: when each life began, and `pids` as which process.
        bodies: of each message that was ever kept, by its number.
        ids: the numbers that were given to a body, which should be one.
        deliveries: of each message, in the order of time, without those that could not be sent.
        signs: of each mule, in the order of time.
        forgotten: when a message was finished, last.
        buried: when it was made a dead letter, last.
        failing: from when to when the store could not write.
    """

    def __init__(self) -> None:
        self.born: list[int] = []
        self.pids: list[int] = []
        self.bodies: dict[int, str] = {}
        self.ids: dict[str, set[int]] = {}
        self.deliveries: dict[int, list[Delivery]] = {}
        self.signs: dict[int, list[Sign]] = {}
        self.forgotten: dict[int, int] = {}
        self.buried: dict[int, Burial] = {}
        self.failing: list[tuple[int, int]] = []

    def read(self, text: str) -> Journal:
        """Take in what was written; what was being written when the broker was killed does not count."""
        lines = text.split("\n")
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            if line and not after.startswith("born "):
                word, time, *about = line.split(" ", 2)
                getattr(self, f"_{word}")(int(time), *about)
        return self

    def _born(self, time: int, pid: str) -> None:
        self._works(time)
        self.born.append(time)
        self.pids.append(int(pid))

    def _accepted(self, _: int, about: str) -> None:
        id, body = about.split(" ", 1)
        self.bodies[int(id)] = body
        self.ids.setdefault(body, set()).add(int(id))

    def _holds(self, time: int, about: str) -> None:
        id, _, body = about.split(" ", 2)
        self._accepted(time, f"{id} {body}")

    def _grave(self, _: int, id: str) -> None:
        """A dead letter is told of when it is buried."""

    def _delivered(self, time: int, about: str) -> None:
        pid, attempt, ids = about.split(" ")
        delivery = Delivery(len(self.born), time, int(attempt), int(pid))
        for id in numbers(ids):
            self.deliveries.setdefault(id, []).append(delivery)

    def _unsent(self, _: int, ids: str) -> None:
        for id in numbers(ids):
            self.deliveries[id].pop()

    def _forgotten(self, time: int, ids: str) -> None:
        self.forgotten.update(dict.fromkeys(numbers(ids), time))

    def _buried(self, time: int, about: str) -> None:
        id, reason = about.split(" ", 1)
        self.buried[int(id)] = Burial(len(self.born), time, reason)

    def _greeted(self, time: int, pid: str) -> None:
        self._sign(time, "greeted", pid)

    def _vanished(self, time: int, pid: str) -> None:
        self._sign(time, "vanished", pid)

    def _exited(self, time: int, pid: str) -> None:
        self._sign(time, "exited", pid)

    def _silent(self, time: int, about: str) -> None:
        pid, quiet = about.split(" ")
        self._sign(time, "silent", pid, int(quiet))

    def _sign(self, time: int, what: str, pid: str, quiet: int = 0) -> None:
        self.signs.setdefault(int(pid), []).append(Sign(time, what, quiet))

    def _failing(self, time: int) -> None:
        self.failing.append((time, 1 << 63))

    def _works(self, time: int) -> None:
        if self.failing:
            begun, ended = self.failing[-1]
            self.failing[-1] = begun, min(ended, time)

    def signs_between(self, pid: int, early: int, late: int) -> list[Sign]:
        """Return what was noticed of a mule between two moments."""
        signs = self.signs.get(pid, [])
        return signs[bisect_left(signs, (early,)) : bisect_right(signs, (late + 1,))]

    def was_failing(self, early: int, late: int) -> bool:
        """Return whether the store could not write at some time between two moments."""
        return any(begun <= late and ended >= early for begun, ended in self.failing)


def numbers(text: str) -> Iterator[int]:
    """Yield the numbers of a list."""
    return map(int, text.split(","))


def read_turns(folder: Path) -> list[Turn]:
    """Return all times that mules have had messages, in the order in which they began."""
    turns = (turn for path in folder.iterdir() for turn in _turns(int(path.name), path))
    return sorted(turns, key=lambda turn: turn.begun)


def _turns(pid: int, path: Path) -> Iterator[Turn]:
    open_turns: dict[str, Turn] = {}
    for line in path.read_text().splitlines():
        kind, time, thread, rest = line.split(" ", 3)
        if kind == "b":
            attempt, queue, body = rest.split(" ", 2)
            if thread in open_turns:
                yield open_turns[thread]
            open_turns[thread] = Turn(int(attempt), int(time), pid, queue, body)
        else:
            yield open_turns.pop(thread)._replace(ended=int(time), how=kind)
    yield from open_turns.values()


def accepted_by(folder: Path) -> set[str]:
    """Return what senders have been told is accepted."""
    return {body for path in folder.iterdir() for body in path.read_text().splitlines()}


def deaths_by_poison(turns: Iterable[Turn]) -> Iterator[Blow]:
    """Yield the deaths that mules have brought on themselves."""
    for turn in turns:
        if turn.body.startswith("poison"):
            yield Blow("its mule died", turn.begun, FOR_EVER, (turn.pid,))


FOR_EVER = 1 << 63
"""Until when the death of a process may show."""

"""The books of scripts/chaos: what was accepted against what was handled, and what may excuse a difference.

A message that was handled twice needs a reason: between the beginnings of the two times, something must
have happened to the mule that it was delivered to first, to its connection or to the broker, that made the
ack void or lost it. Which delivery was the first, the attempt says: a mule that was suspended begins it, when
it wakes up, after another has long finished the second. A message is out of order if a single-threaded mule
has begun it, at its first delivery, after a younger one of the same lane.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ORDERED = "mule:1"
NO_REASON = "for no reason"


class Blow(NamedTuple):
    """Something that was done, or has happened: to one process, or to all (0). Times in nanoseconds."""

    what: str
    begun: int
    ended: int
    pid: int = 0


class Turn(NamedTuple):
    """One time that a message was handled to the end. In the order of deliveries."""

    attempt: int
    begun: int
    ended: int
    pid: int


class Ledger(NamedTuple):
    """The sums; `wrong` says of each message that breaks a promise what is wrong with it."""

    accepted: int
    once: int
    again: Counter[str]
    dead: int
    lost: int
    unordered: int
    wrong: list[str]

    def rows(self) -> Iterator[tuple[str, int]]:
        """Yield what to print."""
        yield "accepted", self.accepted
        yield "handled once", self.once
        yield "handled again", self.again.total()
        for reason, count in self.again.most_common():
            yield f"  {reason}", count
        yield "dead", self.dead
        yield "lost", self.lost
        yield "out of order", self.unordered


def balance(folder: Path, dead: Iterable[str], blows: Iterable[Blow]) -> Ledger:
    """Return the sums of what stands in the folder.

    Args:
        folder: has `accepted/` and `handled/`.
        dead: the bodies of dead letters.
        blows: what can be a reason for a second time.
    """
    accepted = {body for path in (folder / "accepted").iterdir() for body in path.read_text().splitlines()}
    begun, turns = read(folder / "handled")
    blows = [*blows, *deaths_by_poison(begun)]
    again: Counter[str] = Counter()
    wrong: list[str] = []
    for body, times in turns.items():
        for first, second in pairwise(sorted(times)):
            again[why := reason(first, second, blows)] += 1
            if why == NO_REASON:
                wrong.append(f"{body}: handled again {why}, {first} and {second}")
    buried = accepted & set(dead)
    once = sum(len(times) == 1 for body, times in turns.items() if body in accepted)
    lost = sorted(accepted - turns.keys() - buried)
    younger = unordered(begun)
    wrong += [f"{body}: lost" for body in lost] + [f"{body}: out of order" for body in younger]
    return Ledger(len(accepted), once, again, len(buried), len(lost), len(younger), wrong)


Beginning = tuple[int, int, int, str, str]
"""(time, pid, attempt, queue, body)"""


def read(folder: Path) -> tuple[list[Beginning], dict[str, list[Turn]]]:
    """Return all beginnings in the order of time, and for each message the times that it was finished."""
    begun: list[Beginning] = []
    turns: dict[str, list[Turn]] = {}
    for path in folder.iterdir():
        pid, since = int(path.name), dict[str, tuple[int, int]]()
        for line in path.read_text().splitlines():
            kind, time, thread, rest = line.split(" ", 3)
            if kind == "b":
                attempt, queue, body = rest.split(" ", 2)
                begun.append((int(time), pid, int(attempt), queue, body))
                since[thread] = int(attempt), int(time)
            else:
                turns.setdefault(rest, []).append(Turn(*since[thread], int(time), pid))
    begun.sort()
    return begun, turns


def deaths_by_poison(begun: Iterable[Beginning]) -> Iterator[Blow]:
    """Yield the deaths that the mules have brought on themselves."""
    for time, pid, _, _, body in begun:
        if body.startswith("poison"):
            yield Blow("its mule died", time, time, pid)


def reason(first: Turn, second: Turn, blows: Iterable[Blow]) -> str:
    """Return what has happened to the first delivery's mule between the beginnings of both."""
    early, late = sorted((first.begun, second.begun))
    for blow in blows:
        if blow.pid in (0, first.pid) and blow.begun <= late and blow.ended >= early:
            return blow.what
    return NO_REASON


def unordered(begun: Iterable[Beginning]) -> list[str]:
    """Return the messages that a single-threaded mule was given, for the first time, after younger ones."""
    seen: set[str] = set()
    latest: dict[str, int] = {}
    found = []
    for _, _, attempt, queue, body in begun:
        lane, _, number = body.rpartition(" ")
        if queue == ORDERED and body not in seen:
            if attempt == 1 and int(number) < latest.get(lane, 0):
                found.append(body)
            latest[lane] = max(latest.get(lane, 0), int(number))
        seen.add(body)
    return found

"""The books of scripts/chaos: whether what became of each message is what had to.

The broker's journal says which messages it has kept, and to whom it has handed each; mules write down what
they begin and how it ends; the script knows what it has done to whom. So all must fit together:

- What was kept is handled or a dead letter in the end, whether or not its sender still lives. What a sender
  was told is accepted was kept, and once: under one number.
- What a mule begins was delivered to it, and a delivery is begun once.
- Each delivery after the first follows from the end of the one before. In the same life of the broker, either
  nobody had begun it, or the broker has seen something of *that* mule in between, and that has a cause: what
  was done just then to that mule, its connection or the broker. Over the broker's death, it follows from that
  death, unless it had been acknowledged long before.
- A dead letter has the reason that it says: a mule that had it has rejected it, or it was delivered as often
  as it may be, and the last mule, too, was lost for a cause or has failed.
- A mule with one thread begins the messages of a lane, at their first deliveries, in order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from chaos_history import (
    FOR_EVER,
    Blow,
    Burial,
    Delivery,
    Journal,
    Turn,
    accepted_by,
    deaths_by_poison,
    read_turns,
)

ORDERED = "mule:1"
NO_REASON = "for no reason"
SECOND = 10**9
TIMEOUT = 1.5
"""The broker's heartbeat timeout, in seconds."""

UNSYNCED = 2 * SECOND
"""How long before its death a broker may have had an ack that is not on the disk, if the disk has room."""

MOST_DELIVERIES = 5
"""What the broker's max_deliveries is."""

SPENT = re.compile(r"mule \d+ (died|failed) with it, at delivery (\d+) of (\d+)")


class Ledger(NamedTuple):
    """The sums; `wrong` says of each message that breaks a promise what is wrong with it."""

    accepted: int
    once: int
    again: Counter[str]
    dead: Counter[str]
    orphans: int
    lost: int
    twice: int
    buried: int
    unordered: int
    wrong: list[str]

    def rows(self) -> Iterator[tuple[str, int]]:
        """Yield what to print."""
        yield "accepted", self.accepted
        yield "  their sender was killed before it knew", self.orphans
        yield "handled once", self.once
        yield "handled again", self.again.total()
        for reason, count in self.again.most_common():
            yield f"  {reason}", count
        yield "dead", self.dead.total()
        for reason, count in self.dead.most_common():
            yield f"  {reason}", count
        yield "lost", self.lost
        yield "accepted twice", self.twice
        yield "buried for no reason", self.buried
        yield "out of order", self.unordered


def balance(folder: Path, dead: Mapping[int, str], blows: Iterable[Blow]) -> Ledger:
    """Return the sums of what stands in the folder.

    Args:
        folder: has `journal`, `accepted/` and `handled/`.
        dead: the reason of each dead letter, by number.
        blows: what was done.
    """
    journal = Journal().read((folder / "journal").read_text())
    turns = read_turns(folder / "handled")
    causes = Causes(journal, turns, blows)
    books = Books(journal, turns, causes)
    return books.balance(accepted_by(folder / "accepted"), dead)


class Causes:
    """Why a mule has lost what it had."""

    def __init__(self, journal: Journal, turns: Iterable[Turn], blows: Iterable[Blow]) -> None:
        self._journal = journal
        everything = sorted([*blows, *deaths_by_poison(turns)], key=lambda blow: blow.begun)
        self._stops = [blow for blow in everything if blow.what == "the broker was suspended"]
        self._deaths = {pid: blow for blow in everything if blow.ended == FOR_EVER for pid in blow.pids}
        self._blows = [self._lasting(blow) for blow in everything if blow.ended < FOR_EVER]

    def _lasting(self, blow: Blow) -> Blow:
        """Return a blow that shows for as much longer as the broker was suspended meanwhile."""
        ended = blow.ended
        for stop in self._stops:
            if blow.begun < stop.begun <= ended:
                ended += stop.ended - stop.begun
        return blow._replace(ended=ended)

    def of_loss(self, first: Delivery, until: int) -> str:
        """Return why what was delivered had come to nothing by some moment of the same life."""
        for sign in self._journal.signs_between(first.pid, first.time, until):
            death = self._deaths.get(first.pid)
            if death is not None and death.begun <= sign.time:
                return death.what
            for blow in self._blows:
                if blow.begun <= sign.time <= blow.ended and (not blow.pids or first.pid in blow.pids):
                    return blow.what
            if sign.what == "silent" and sign.quiet >= TIMEOUT * SECOND:
                return "its mule was not heard in time"
        return NO_REASON

    def of_return(self, id: int, first: Delivery, later: int) -> str:
        """Return why a message comes back in a later life of the broker."""
        death = self._journal.born[first.life]
        done = self._journal.forgotten.get(id, FOR_EVER)
        kept = done > death or done > death - UNSYNCED or self._journal.was_failing(done, death)
        return "the broker died" if kept and first.life < later else NO_REASON


class Books:
    """Puts together what the broker, the mules and the senders say."""

    def __init__(self, journal: Journal, turns: list[Turn], causes: Causes) -> None:
        self._journal, self._causes = journal, causes
        self._turns: dict[str, list[Turn]] = {}
        for turn in turns:
            self._turns.setdefault(turn.body, []).append(turn)
        self._begun = turns
        self.wrong: list[str] = []

    def balance(self, told: set[str], dead: Mapping[int, str]) -> Ledger:
        """Return the sums.

        Args:
            told: what senders have been told is accepted.
            dead: the reason of each dead letter, by number.
        """
        again: Counter[str] = Counter()
        once = lost = buried = 0
        kinds: Counter[str] = Counter()
        for id, body in self._journal.bodies.items():
            finished = self._follow(id, body, again)
            once += finished == 1
            if id in dead:
                buried += not self._has_reason(id, body, dead[id])
                kinds[re.sub(r"mule \d+", "its mule", dead[id])] += 1
            elif not finished:
                lost += 1
                self.wrong.append(f"{body} ({id}): lost")
        unkept = sorted(told - self._journal.ids.keys())
        self.wrong += [f"{body}: confirmed and never kept" for body in unkept]
        twice = self._twice()
        self._strangers()
        younger = unordered(self._begun)
        self.wrong += [f"{body}: out of order" for body in younger]
        return Ledger(
            accepted=len(self._journal.ids.keys() | told),
            once=once,
            again=again,
            dead=kinds,
            orphans=len(self._journal.ids.keys() - told),
            lost=lost + len(unkept),
            twice=len(twice),
            buried=buried,
            unordered=len(younger),
            wrong=self.wrong,
        )

    def _twice(self) -> list[str]:
        twice = [body for body, ids in self._journal.ids.items() if len(ids) > 1]
        self.wrong += [f"{body}: accepted twice, as {sorted(self._journal.ids[body])}" for body in twice]
        return twice

    def _strangers(self) -> None:
        """Note what was begun and is not known to the broker."""
        for body in self._turns.keys() - self._journal.ids.keys():
            self.wrong.append(f"{body}: begun and never kept")

    def _follow(self, id: int, body: str, again: Counter[str]) -> int:
        """Go through the deliveries of a message; return how often it was finished."""
        deliveries = self._journal.deliveries.get(id, [])
        turns = self._of(body, deliveries)
        reasons = [self._why(id, *pair, turns) for pair in pairwise(deliveries)]
        for why, (first, second) in zip(reasons, pairwise(deliveries), strict=True):
            if why == NO_REASON:
                self.wrong.append(f"{body} ({id}): delivered again {why}, {first} and {second}")
        finished = [place for place, had in enumerate(turns) if any(turn.how == "f" for turn in had)]
        for early, late in pairwise(finished):
            again[next(filter(None, reasons[early:late]), NO_REASON)] += 1
        return len(finished)

    def _of(self, body: str, deliveries: list[Delivery]) -> list[list[Turn]]:
        """Return what mules have made of each delivery: the last that had reached that mule by then."""
        had: list[list[Turn]] = [[] for _ in deliveries]
        for turn in self._turns.get(body, ()):
            places = [place for place, delivery in enumerate(deliveries) if delivery.may_be(turn)]
            if not places:
                self.wrong.append(f"{body}: begun and not delivered, {turn}")
            elif had[places[-1]]:
                self.wrong.append(f"{body}: begun twice, {had[places[-1]][0]} and {turn}")
            else:
                had[places[-1]].append(turn)
        return had

    def _why(self, id: int, first: Delivery, second: Delivery, turns: list[list[Turn]]) -> str:
        """Return why there was a second delivery, or nothing if the first came to no program."""
        deliveries = self._journal.deliveries[id]
        had = turns[next(place for place, each in enumerate(deliveries) if each is first)]
        if first.life != second.life:
            fits = second.attempt <= first.attempt + 1
            return self._causes.of_return(id, first, second.life) if fits else NO_REASON
        if second.attempt == first.attempt:
            return NO_REASON if had else ""
        if second.attempt != first.attempt + 1:
            return NO_REASON
        if any(turn.how == "n" and turn.ended <= second.time for turn in had):
            return "its mule failed with it"
        return self._causes.of_loss(first, second.time)

    def _has_reason(self, id: int, body: str, reason: str) -> bool:
        """Return whether a dead letter is one for the reason that it says."""
        burial, deliveries = self._journal.buried.get(id), self._journal.deliveries.get(id, [])
        good = burial is not None and burial.reason == reason and deliveries != []
        if good and burial is not None:
            good = self._was_so(body, burial, deliveries)
        if not good:
            self.wrong.append(f"{body} ({id}): buried for no reason ({reason}), {deliveries}")
        return good

    def _was_so(self, body: str, burial: Burial, deliveries: list[Delivery]) -> bool:
        last = deliveries[-1]
        had = self._of(body, deliveries)[-1]
        ways = {turn.how for turn in had if turn.ended <= burial.time}
        if burial.reason.endswith("rejected it"):
            return "r" in ways
        spent = SPENT.fullmatch(burial.reason)
        if spent is None or burial.life != last.life:
            return False
        attempts = {delivery.attempt for delivery in deliveries}
        if not spent[2] == spent[3] == str(MOST_DELIVERIES) or not attempts >= set(
            range(1, MOST_DELIVERIES + 1)
        ):
            return False
        if spent[1] == "failed":
            return "n" in ways
        return self._causes.of_loss(last, burial.time) != NO_REASON


def unordered(begun: Iterable[Turn]) -> list[str]:
    """Return the messages that a single-threaded mule was given, for the first time, after younger ones."""
    seen: set[str] = set()
    latest: dict[str, int] = {}
    found = []
    for turn in begun:
        lane, _, number = turn.body.rpartition(" ")
        if turn.queue == ORDERED and turn.body not in seen:
            if turn.attempt == 1 and int(number) < latest.get(lane, 0):
                found.append(turn.body)
            latest[lane] = max(latest.get(lane, 0), int(number))
        seen.add(turn.body)
    return found

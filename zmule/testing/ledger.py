"""Who sent what, what became of it, and which promise is broken if that cannot be.

The ledger knows nothing of how the broker works. It is told what goes into it and what comes out (what
is to be saved, what the disk holds, what senders hear, what is delivered, worked on, finished, buried)
and raises `Violation` at the first thing that DESIGN's guarantees exclude. Every message has a body of
its own, by which it is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import NamedTuple

from zmule.core.effects import Recovery
from zmule.core.frames import Body, Parcel
from zmule.core.queues import Dead, Message
from zmule.stores.store import Changes
from zmule.testing.world import SimClient


class Violation(AssertionError):
    """A promise is broken."""


class Letter:
    """A message of the ledger.

    Attributes:
        place: where it is, as the disk has it: `nowhere`, `pending` (given to the store), `kept`, `lost`
            (the store could not write it), `done`, `dead`, or `wiped` (with a store that forgets).
        answer: what its sender has heard: None, `ok` or a code.
        next: the number that its next delivery has to bear.
        open: whether a delivery of it has come to no end yet.
        suspect: whether a mule has died with it, so that it must travel alone.
        hand: who has it since then.
        finished: whether that one has acknowledged it.
    """

    __slots__ = (
        "answer",
        "body",
        "delivered",
        "early",
        "finished",
        "hand",
        "next",
        "open",
        "place",
        "queue",
        "sender",
        "sequence",
        "started",
        "suspect",
    )

    def __init__(self, body: Body, queue: str, sender: bytes, sequence: int, early: bool) -> None:
        self.body = body
        self.queue = queue
        self.sender = sender
        self.sequence = sequence
        self.early = early
        self.place = "nowhere"
        self.answer: str | None = None
        self.next = 1
        self.open = False
        self.suspect = False
        self.hand: Hand | None = None
        self.delivered = False
        self.started = 0
        self.finished = False

    def __repr__(self) -> str:
        return f"{self.body!r} ({self.queue}, {self.place}, answer {self.answer}, delivery {self.next})"


class Hand(NamedTuple):
    """Whose hands a message was put into."""

    session: bytes
    epoch: int


def claim(truth: object, what: str, *about: object) -> None:
    """Raise `Violation` unless it is true."""
    if not truth:
        raise Violation(": ".join([what, *map(repr, about)]))


class Ledger:
    """The books of a simulation.

    Args:
        most: deliveries after which a message is a dead letter.
        durable: whether what was kept outlives the broker.
    """

    def __init__(self, most: int, durable: bool) -> None:
        self.most = most
        self.durable = durable
        self.letters: dict[Body, Letter] = {}
        self._ids: dict[int, Letter] = {}
        self._latest: dict[str, int] = {}
        self._last: dict[tuple[bytes, str], int] = {}
        self._fresh: list[tuple[int, Letter]] = []
        self._answered: dict[bytes, int] = {}

    # What senders do and hear.

    def sent(self, body: Body, queue: str, sender: bytes, sequence: int, early: bool) -> None:
        """Note what a sender has put into its outbox."""
        self.letters[body] = Letter(body, queue, sender, sequence, early)

    def answered(self, client: SimClient) -> None:
        """Note what a client has heard."""
        before = self._answered.get(client.session, 0)
        if client.outbox.confirmed == before:
            return
        claim(client.outbox.confirmed > before, "unconfirmed again", client)
        self._answered[client.session] = client.outbox.confirmed
        codes = {refusal.sequence: refusal.code for refusal in client.outbox.failures}
        for sequence in range(before + 1, client.outbox.confirmed + 1):
            letter = self.letters[client.sent[sequence]]
            letter.answer = codes.get(sequence, "ok")
            if letter.answer == "ok":
                claim(letter.place in ("kept", "done", "dead", "wiped"), "confirmed and not kept", letter)
            else:
                claim(letter.place in ("nowhere", "lost", "wiped"), "refused and yet kept", letter)

    # What the store is told and holds.

    def saving(self, changes: Changes) -> None:
        """Note what the broker wants to have kept, what it takes for finished, and what it buries."""
        self._accepting(changes.messages)
        self._forgetting(changes.removed)
        for dead in changes.dead:
            self._burying(dead)

    def _accepting(self, messages: Iterable[Message]) -> None:
        for message in messages:
            letter = self.letters[message[2]]
            again = letter.place == "wiped" and letter.answer is None
            claim(letter.place == "nowhere" or again, "accepted twice", letter)
            letter.place, letter.started, letter.next = "pending", 0, message[3]
            self._ids[message[0]] = letter

    def committed(self, changes: Changes) -> None:
        """Note what is on the disk now."""
        for message in changes.messages:
            self.letters[message[2]].place = "kept"

    def lost(self, changes: Changes) -> None:
        """Note what the store could not write."""
        for message in changes.messages:
            self.letters[message[2]].place = "lost"
            del self._ids[message[0]]

    def crashed(self, recovery: Recovery) -> None:
        """Compare what the disk holds after a crash with what it has to hold."""
        kept = {message[2]: message for message in recovery.messages}
        dead = {one.message[2] for one in recovery.dead}
        self._ids.clear()
        for letter in self.letters.values():
            letter.open, letter.hand, letter.started = False, None, 0
            if letter.body in kept:
                letter.place, letter.next = "kept", kept[letter.body][3]
                letter.suspect = letter.next > 1
                self._ids[kept[letter.body][0]] = letter
            elif letter.body in dead:
                letter.place = "dead"
            elif letter.place in ("pending", "lost"):
                letter.place = "nowhere"
            elif not self.durable:
                letter.place = "nowhere" if letter.place == "nowhere" else "wiped"
            else:
                claim(letter.place in ("nowhere", "done"), "gone in the crash", letter)
        if not self.durable:
            self._latest.clear()

    # What mules do.

    def delivering(self, parcels: Iterable[Parcel], hand: Hand) -> None:
        """Note what leaves for a mule."""
        for parcel in parcels:
            for id, body in zip(parcel.ids, parcel.bodies, strict=True):
                claim(id in self._ids, "delivered and not on the books", id, body)
                letter = self._ids[id]
                claim((letter.body, letter.queue) == (body, parcel.queue), "another one's id", letter, body)
                self._deliver(letter, id, parcel.attempt)
                letter.hand, letter.finished = hand, False

    def _deliver(self, letter: Letter, id: int, attempt: int) -> None:
        claim(letter.place == "kept", "delivered and not kept", letter)
        claim(attempt == letter.next, f"delivery {attempt} does not follow", letter)
        claim(attempt <= self.most, f"delivery {attempt} of {self.most}", letter)
        letter.suspect = letter.suspect or letter.open
        letter.next, letter.open = attempt + 1, True
        if not letter.delivered:
            letter.delivered = True
            self._fresh.append((id, letter))

    def delivered(self) -> None:
        """Note that what was being delivered has left at once: first deliveries are in order.

        Those to several mules that leave together are in no order among themselves.
        """
        self._fresh.sort(key=itemgetter(0))
        for id, letter in self._fresh:
            line = letter.sender, letter.queue
            claim(id > self._latest.get(letter.queue, 0), "out of order", letter)
            claim(letter.sequence > self._last.get(line, 0), "out of its sender's order", letter)
            self._latest[letter.queue], self._last[line] = id, letter.sequence
        self._fresh.clear()

    def returned(self, ids: Iterable[int]) -> None:
        """Note what a mule gives back unstarted, of what it holds, or could not be sent."""
        for id in ids:
            letter = self._ids[id]
            letter.next, letter.open = letter.next - 1, False

    def failed(self, ids: Iterable[int]) -> None:
        """Note what a mule has failed with, of what it holds."""
        for id in ids:
            self._ids[id].open = False

    def started(self, body: Body) -> None:
        """Note that a thread begins to work on a message."""
        letter = self.letters[body]
        letter.started += 1
        claim(not letter.early or letter.started == 1, "at most once, and yet started again", letter)

    def finished(self, body: Body, hand: Hand) -> None:
        """Note that a thread has done its work."""
        letter = self.letters[body]
        letter.finished = letter.finished or letter.hand == hand

    def _forgetting(self, ids: Iterable[int]) -> None:
        for id in ids:
            claim(id in self._ids, "forgotten twice", id)
            letter = self._ids.pop(id)
            claim(letter.place == "kept", "forgotten and not kept", letter)
            claim(letter.finished or letter.early, "forgotten and not finished", letter)
            letter.place = "done"

    def _burying(self, dead: Dead) -> None:
        claim(dead.message[0] in self._ids, "buried twice", dead)
        letter = self._ids.pop(dead.message[0])
        claim(letter.place == "kept", "buried and not kept", letter)
        spent = letter.next - 1 == dead.message[3] == self.most
        claim(spent or "signal-only" in dead.reason, "buried alive", letter)
        letter.place = "dead"

    # What must hold.

    def travels_alone(self, id: int) -> bool:
        """Return whether a mule that has this message must have no other."""
        letter = self._ids.get(id)
        return letter is not None and letter.suspect

    def must_wait(self, id: int) -> bool:
        """Return whether this message, which is ready, may go only to a mule with empty hands."""
        letter = self._ids.get(id)
        return letter is not None and (letter.suspect or letter.open)

    def check(self, books: set[Body], dead: set[Body]) -> None:
        """Compare the broker's books, and its dead letters, with what has to be in them."""
        for letter in self.letters.values():
            if letter.place == "kept":
                claim(letter.body in books, "kept and not on the books", letter)
            elif letter.place == "dead":
                claim(letter.body in dead, "dead and not among the dead letters", letter)

    def balance(self, gone: set[bytes]) -> None:
        """At the end, when all is quiet: everything was answered and is done or dead.

        Args:
            gone: senders that have died, and may have heard nothing.
        """
        for letter in self.letters.values():
            if letter.answer is None:
                claim(letter.sender in gone, "never answered", letter)
            elif letter.answer == "ok":
                claim(letter.place in ("done", "dead", "wiped"), "confirmed and never finished", letter)
            claim(letter.place not in ("pending", "kept"), "left over", letter)

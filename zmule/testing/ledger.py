"""Who sent what, what became of it, and which promise is broken if that cannot be.

The ledger knows nothing of how the broker works. It is told what goes into it and what comes out (what
is to be saved, what the disk holds, what senders hear, what is delivered, worked on, finished, buried,
requeued, dropped) and raises `Violation` at the first thing that the guarantees exclude. Every message
has a body of its own, by which it is known until the broker has numbered it; the raises of a signal are all
alike, so it is counted that each has made its messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from operator import attrgetter

from zmule.core.effects import Changes, Mark, Recovery
from zmule.core.frames import Body, Nack, Parcel
from zmule.core.queues import STRAY_QUEUE, Dead, Message
from zmule.core.senders import Run
from zmule.core.terms import Terms
from zmule.testing.letters import OVER, SAFE, Hand, Letter, Violation, claim
from zmule.testing.world import Clock, SimClient

__all__ = ["Ledger", "Letter", "Violation", "claim"]

BLUR = 1e-4
"""What times may differ by, in seconds: sums of large numbers are not exact."""

EACH = 2
"""The signal of the simulation that makes a message for each of several mules."""


class Ledger:
    """The books of a simulation.

    Args:
        clock: the world's.
        most: deliveries after which a message is a dead letter.
        durable: whether what was kept outlives the broker.
        ttl: gives for a queue how long a message may wait in it, 0 for ever.

    Attributes:
        letters: all there ever were.
        dropped: how many dead letters the store was told to drop.
        expecting: until when the broker waits for mules from outside to come back.
    """

    def __init__(self, clock: Clock, most: int, durable: bool, ttl: Callable[[str], float]) -> None:
        self.clock = clock
        self.most = most
        self.durable = durable
        self.letters: list[Letter] = []
        self.dropped = 0
        self.expecting = 0.0
        self._ttl = ttl
        self._offset = clock.wall - clock.mono
        self._bodies: dict[Body, Letter] = {}
        self._known: dict[int, Letter] = {}
        self._live: dict[int, Letter] = {}
        self._graves: dict[int, Letter] = {}
        self._held: dict[Letter, None] = {}
        self._open: dict[bytes, dict[int, Letter]] = {}
        self._confirmed: dict[bytes, int] = {}
        self._raises: dict[tuple[bytes, int], Letter] = {}
        self._marks: dict[bytes, int] = {}
        self._raising: dict[int, list[Letter]] = {}
        self._latest: dict[str, int] = {}
        self._last: dict[tuple[bytes, str, bool], int] = {}
        self._fresh: list[Letter] = []
        self._older: set[Letter] = set()

    # What senders do and hear.

    def sent(self, letter: Letter, ticket: int) -> None:
        """Note what a sender has put into its outbox."""
        self.letters.append(letter)
        self._open.setdefault(letter.sender, {})[ticket] = letter
        if letter.is_raise():
            self._raises[letter.sender, ticket] = letter
        else:
            self._bodies[letter.body] = letter

    def answered(self, client: SimClient) -> None:
        """Note what a client has heard."""
        outbox, waiting = client.outbox, self._open.get(client.session, {})
        claim(outbox.confirmed >= self._confirmed.get(client.session, 0), "unconfirmed again", client)
        self._confirmed[client.session] = outbox.confirmed
        for ticket in [ticket for ticket in waiting if outbox.answered(ticket)]:
            letter, error = waiting.pop(ticket), outbox.outcome(ticket)
            letter.answer = error.code if error else "ok"
            if error is None:
                claim(letter.place in SAFE, "confirmed and not kept", letter)
            else:
                self._not_kept(letter)
                missing = error.code in ("unknown-mule", "unknown-farm")
                early = self.clock.mono < self.expecting and letter not in self._older
                claim(not (missing and early), "nobody was waited for", letter)

    def waiting(self, client: SimClient) -> list[int]:
        """Return the tickets of what may wait for room and has no answer."""
        waiting = self._open.get(client.session, {})
        return [ticket for ticket, letter in waiting.items() if letter.patient]

    def abandoned(self, client: SimClient, ticket: int) -> None:
        """Note that a client waits for an answer no longer, and whether it knows that there is nothing."""
        letter, error = self._open[client.session].pop(ticket), client.outbox.abandon(ticket)
        letter.answer = error.code if error else "abandoned"
        if error is not None:
            self._not_kept(letter)

    def _not_kept(self, letter: Letter) -> None:
        claim(letter.place not in SAFE or letter.place == "wiped", "refused and yet kept", letter)

    # What the store is told and holds.

    def saving(self, changes: Changes) -> None:
        """Note what the broker wants to have kept, what it takes for finished, and what it buries."""
        rising = set(changes.undead) if changes.messages else set()
        for message in changes.messages:
            if message[0] in rising:
                self._rise(message)
            else:
                self._accept(message)
        for mark in changes.senders:
            self._raise(changes, mark)
        self._forgetting(changes.removed)
        for dead in changes.dead:
            self._bury(dead)
        for message in changes.amended:
            self._amend(message)
        if not changes.messages:
            for id in changes.undead:
                self._drop(id)

    def _accept(self, message: Message) -> None:
        id, queue, body, attempt, born, _, terms = message
        if queue.startswith("signal:"):
            letter = Letter(body, queue)
            self.letters.append(letter)
        else:
            letter = self._bodies[body]
            unheard = letter.answer in (None, "abandoned")
            again = letter.place == "wiped" and unheard
            claim(letter.place == "nowhere" or again, "accepted twice", letter)
        letter.place, letter.id = "pending", id
        letter.begin(attempt)
        claim(abs(born - self._steady()) < BLUR, "born at another time", letter, born)
        claim(terms == self._agreed(letter), "accepted on other terms", letter, terms)
        self._known[id] = self._live[id] = letter
        self._hold(letter, terms, born)

    def _agreed(self, letter: Letter) -> Terms | None:
        """Return the terms that a message has to have, if it is accepted now."""
        if letter.options is None:
            return None
        (delay, at, ttl), now = letter.options, self._steady()
        return Terms(None if delay is None else now + delay, at, None if ttl is None else now + ttl)

    def _steady(self) -> float:
        return self.clock.mono + self._offset

    def _hold(self, letter: Letter, terms: Terms | None, born: float) -> None:
        """Note between which times a message may be delivered."""
        letter.expires = self._end(letter, born, terms.expires if terms else None)
        letter.due = terms.due - self._offset if terms and terms.due is not None else None
        letter.at = terms.at if terms else None
        if letter.due is not None or letter.at is not None:
            self._held[letter] = None

    def _end(self, letter: Letter, born: float, expires: float | None) -> float:
        ttl = self._ttl(letter.queue)
        own = float("inf") if expires is None else expires
        return (min(own, born + ttl) if ttl else own) - self._offset

    def _raise(self, changes: Changes, mark: Mark) -> None:
        """Note which raises are in a batch, and that each has made its message."""
        refused = {refusal.sequence for run in mark.refusals for refusal in Run.kept(run).each()}
        raised = []
        for sequence in range(self._marks.get(mark.session, 0) + 1, mark.last + 1):
            letter = self._raises.get((mark.session, sequence))
            if letter is not None and letter.answer is None and sequence not in refused:
                claim(letter.place in ("nowhere", "wiped"), "raised twice", letter)
                letter.place = "pending"
                raised.append(letter)
        self._marks[mark.session] = mark.last
        self._raising[changes.batch] = raised
        wished = Counter(letter.queue for letter in raised)
        runs = (body for _, queue, body, *_ in changes.messages if queue.startswith("signal:"))
        made = Counter(f"signal:{ord(body)}" for body in runs)
        for queue in wished.keys() | made.keys():
            enough = (
                made[queue] >= wished[queue] if queue == f"signal:{EACH}" else made[queue] == wished[queue]
            )
            claim(enough, "a raise is not one run", queue, wished, made)

    def _rise(self, message: Message) -> None:
        letter = self._graves.get(message[0])
        claim(letter is not None and letter.place == "dead", "requeued and not dead", message)
        assert letter is not None
        claim(message[2] == letter.body and message[3] == 1, "requeued as another", letter, message)
        claim(abs(message[4] - self._steady()) < BLUR, "requeued, and no time left", letter, message)
        letter.place, letter.unordered = "rising", True
        self._live[letter.id] = letter

    def _drop(self, id: int) -> None:
        letter = self._graves.pop(id, None)
        claim(letter is not None and letter.place == "dead", "dropped and not dead", id)
        assert letter is not None
        letter.place = "dropping"
        self.dropped += 1

    def _amend(self, message: Message) -> None:
        """Note what a message is like from now on."""
        letter = self._live[message[0]]
        if message[1].startswith("signal:") and message[1] != STRAY_QUEUE:
            number = int(message[1].split(":")[1])
            claim(letter.body == bytes([number]), "one signal's run is another's", letter, message)
        letter.unordered = letter.unordered or letter.queue != message[1]
        letter.queue = message[1]
        if letter in self._held and letter.due is not None:
            due = message[6].due if message[6] else None
            held = due is not None and abs(due - self._offset - letter.due) < BLUR
            claim(held, "put off until another time", letter, message)

    def committed(self, changes: Changes) -> None:
        """Note what is on the disk now."""
        for message in changes.messages:
            letter = self._known[message[0]]
            if letter.place == "rising":
                del self._graves[letter.id]
                letter.begin(1)
                letter.expires = self._end(letter, message[4], None)
            letter.place = "kept"
        for letter in self._raising.pop(changes.batch, ()):
            letter.place = "raised"
        if not changes.messages:
            for id in changes.undead:
                self._known[id].place = "dropped"

    def lost(self, changes: Changes) -> None:
        """Note what the store could not write."""
        for message in changes.messages:
            letter = self._live.pop(message[0])
            self._held.pop(letter, None)
            letter.place = "dead" if letter.place == "rising" else "lost"
        for letter in self._raising.pop(changes.batch, ()):
            letter.place = "lost"

    def crashed(self, recovery: Recovery) -> None:
        """Compare what the disk holds after a crash with what it has to hold."""
        known, self._offset = self._known, self.clock.wall - self.clock.mono
        self._known, self._live, self._graves, self._held = {}, {}, {}, {}
        self._raising.clear()
        self._older = {letter for letters in self._open.values() for letter in letters.values()}
        self._marks = {mark.session: mark.last for mark in recovery.senders}
        before = {letter: letter.place for letter in chain(known.values(), self._raises.values())}
        for message in recovery.messages:
            self._recover(known.get(message[0]), message)
        for dead in recovery.dead:
            letter = known.get(dead.message[0])
            claim(letter and letter.place != "dropped", "dropped, or never there, and a dead letter", dead)
            assert letter is not None
            letter.place = "dead"
            letter.begin(dead.message[3])
            self._known[letter.id] = self._graves[letter.id] = letter
        for letter, place in before.items():
            if letter.is_raise() or letter.id not in self._known:
                letter.place = self._after(letter, place)
        if not self.durable:
            self._latest.clear()
            for letter in chain.from_iterable(letters.values() for letters in self._open.values()):
                letter.unordered = letter.unordered or letter.patient  # no broker knows what was refused

    def _recover(self, letter: Letter | None, message: Message) -> None:
        claim(
            letter and letter.place not in ("pending", "lost", "nowhere"),
            "on the disk, who knows why",
            message,
        )
        assert letter is not None
        id, queue, body, attempt, born, _, terms = message
        claim(letter.body == body, "another one's id on the disk", letter, message)
        letter.place, letter.queue = "kept", queue
        letter.begin(attempt)
        letter.suspect = attempt > 1
        self._known[id] = self._live[id] = letter
        now = self._steady()
        back = max(0.0, born - now)  # the clock was set back: what was left then is left now
        if terms is not None:
            due, at, expires = terms
            at = at if due is None else due - back
            terms = Terms(None, at, None if expires is None else expires - back)
        self._hold(letter, terms, min(born, now))

    def _after(self, letter: Letter, place: str) -> str:
        """Return the place after a crash of a message that is on the disk no longer, or of a raise."""
        if place in ("nowhere", "pending", "lost"):
            return "nowhere"
        if not self.durable:
            return "wiped"
        claim(place in ("done", "dropping", "dropped", "raised"), "gone in the crash", letter)
        return "dropped" if place == "dropping" else place

    # What mules do.

    def delivering(self, parcels: Iterable[Parcel], hand: Hand) -> None:
        """Note what leaves for a mule in one frame; in this, too, first deliveries are in order."""
        before = len(self._fresh)
        for parcel in parcels:
            for id, body in zip(parcel.ids, parcel.bodies, strict=True):
                claim(id in self._live, "delivered and not on the books", id, body)
                letter = self._live[id]
                claim((letter.body, letter.queue) == (body, parcel.queue), "another one's id", letter, body)
                self._deliver(letter, parcel.attempt)
                letter.hand, letter.finished = hand, False
        highest: dict[str, int] = {}
        for letter in self._fresh[before:]:
            if not letter.unordered:
                claim(letter.id > highest.get(letter.queue, 0), "out of order in a frame", letter)
                highest[letter.queue] = letter.id

    def _deliver(self, letter: Letter, attempt: int) -> None:
        claim(letter.place == "kept", "delivered and not kept", letter)
        claim(attempt == letter.next, f"delivery {attempt} does not follow", letter)
        claim(attempt <= self.most, f"delivery {attempt} of {self.most}", letter)
        claim(not letter.rejected, "delivered although it was rejected", letter)
        claim(letter not in self._held, "delivered before it is due", letter, letter.due, letter.at)
        claim(letter.expires > self.clock.mono - BLUR, "delivered after it has expired", letter)
        letter.suspect = letter.suspect or letter.open
        letter.next, letter.open = attempt + 1, True
        if not letter.delivered:
            letter.delivered = True
            self._fresh.append(letter)

    def delivered(self) -> None:
        """Note that what was being delivered has left at once: first deliveries are in order.

        Those to several mules that leave together are in no order among themselves, and what was held back
        or requeued is in none at all.
        """
        if not self._fresh:
            return
        for letter in sorted(self._fresh, key=attrgetter("id")):
            if not letter.unordered:
                line = letter.sender, letter.queue, letter.patient
                claim(letter.id > self._latest.get(letter.queue, 0), "out of order", letter)
                self._latest[letter.queue] = letter.id
                if letter.sender:
                    claim(letter.order > self._last.get(line, 0), "out of its sender's order", letter)
                    self._last[line] = letter.order
        self._fresh.clear()

    def returned(self, ids: Iterable[int]) -> None:
        """Note what a mule gives back unstarted, of what it holds, or could not be sent."""
        for id in ids:
            letter = self._live[id]
            letter.next, letter.open = letter.next - 1, False

    def failed(self, ids: Iterable[int], nack: Nack) -> None:
        """Note what a mule has failed with, of what it holds."""
        for id in ids:
            letter = self._live[id]
            letter.open, letter.rejected = False, nack.dead
            if nack.delay and not nack.dead:
                letter.due, letter.at = self.clock.mono + nack.delay, None
                self._held[letter] = None

    def started(self, body: Body) -> None:
        """Note that a thread begins to work on a message."""
        letter = self._bodies.get(body)
        if letter is not None:
            letter.started += 1
            claim(not letter.early or letter.started == 1, "at most once, and yet started again", letter)

    def finished(self, id: int, hand: Hand) -> None:
        """Note that a thread has done its work."""
        letter = self._live.get(id)
        if letter is not None and letter.hand == hand:
            letter.finished = True

    def _forgetting(self, ids: Iterable[int]) -> None:
        for id in ids:
            claim(id in self._live, "forgotten twice", id)
            letter = self._live.pop(id)
            self._held.pop(letter, None)
            claim(letter.place == "kept", "forgotten and not kept", letter)
            claim(letter.finished or letter.early, "forgotten and not finished", letter)
            letter.place = "done"

    def _bury(self, dead: Dead) -> None:
        id, reason = dead.message[0], dead.reason
        claim(id in self._live, "buried twice", dead)
        letter = self._graves[id] = self._live.pop(id)
        self._held.pop(letter, None)
        claim(letter.place == "kept", "buried and not kept", letter)
        if reason == "expired":
            claim(letter.expires <= self.clock.mono + BLUR, "buried before it has expired", letter)
        else:
            spent = letter.next - 1 == dead.message[3] == self.most
            claim(spent or letter.rejected or "signal-only" in reason, "buried alive", letter, reason)
        letter.place = "dead"

    # What must hold.

    def release(self) -> None:
        """Note that the broker looks for what is due."""
        mono, wall = self.clock.mono + BLUR, self.clock.wall + BLUR
        for letter in list(self._held):
            if (letter.due is None or letter.due <= mono) and (letter.at is None or letter.at <= wall):
                del self._held[letter]

    def latest(self) -> float:
        """Return the last wall clock time that a message may wait for."""
        return max((letter.at for letter in self._live.values() if letter.at is not None), default=0.0)

    def travels_alone(self, id: int) -> bool:
        """Return whether a mule that has this message must have no other."""
        letter = self._live.get(id)
        return letter is not None and letter.suspect

    def must_wait(self, id: int) -> bool:
        """Return whether this message, which is ready, may go only to a mule with empty hands."""
        letter = self._live.get(id)
        return letter is not None and (letter.suspect or letter.open)

    def check(self, books: set[int], dead: Iterable[int]) -> None:
        """Compare the broker's books, and its dead letters, with what has to be in them."""
        for id, letter in self._live.items():
            claim(letter.place != "kept" or id in books, "kept and not on the books", letter)
        for id, letter in self._graves.items():
            claim(id in dead, "dead and not among the dead letters", letter)
        for id in dead:
            claim(id in self._graves or id in self._live, "among the dead letters, and not dead", id)

    def check_ready(self, ids: Iterable[int]) -> None:
        """Nothing of a queue that has expired is ready, once the broker has looked.

        But for what has no ttl of its own and is behind one that has not expired: it seems to be older, by a
        clock that was set while there was no broker.
        """
        behind = False
        for letter in map(self._live.__getitem__, ids):
            late = letter.expires < self.clock.mono - 0.01
            own = letter.options is not None and letter.options.ttl is not None
            claim(not late or (behind and not own), "expired, and still waits", letter)
            behind = behind or not late

    def balance(self, gone: set[bytes]) -> None:
        """At the end, when all is quiet: everything was answered and is done or dead.

        Args:
            gone: senders that have died, and may have heard nothing.
        """
        for letter in self.letters:
            if letter.answer is None:
                claim(letter.sender in gone or not letter.sender, "never answered", letter)
            elif letter.answer == "ok":
                claim(letter.place in OVER, "confirmed and never finished", letter)
            over = letter.place in OVER or letter.place in ("nowhere", "lost")
            claim(over, "left over", letter)

"""Who gets which message: the first available mule, and never a message behind a busy one.

Two occasions bring a message and a mule together. A message comes into a queue: `serve` gives it to
the mule that has stood idle there longest. A mule has room again: `feed` gives it what is ready in its
queues, its own first, then `any`, then its farms in order, and lets it stand idle at all of them for
the rest.

Signals come first, but take turns with messages: after a signal, a message that waits is next, and then a
signal again. So neither keeps the other waiting for ever, be it by a backlog or by a timer that is quicker
than its handler.

A message with which a mule has died is a suspect and travels alone: only to a mule with empty hands,
and nothing follows until it is acknowledged. If it kills once more, it is known to be the one that did.

What was handed out since the last call of `parcels` is gathered there, so that many hand-overs to one
mule leave as one frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import groupby
from math import inf

from zmule.core.deadlines import Deadlines
from zmule.core.expiry import Expiry
from zmule.core.frames import DIRECT, FARM, SIGNAL, STRAY, Body, Parcel
from zmule.core.mules import Mule
from zmule.core.prefetch import MOST_BYTES, STALE
from zmule.core.queues import (
    ANY,
    STRAY_QUEUE,
    Message,
    Queue,
    attempt_of,
    by_death,
    content_size,
    queue_of,
    source_of,
)


class Tally:
    """A count of deliveries: how many there were, and how many of them were not their message's first."""

    __slots__ = ("again", "count")

    def __init__(self) -> None:
        self.count = self.again = 0

    def add(self, messages: list[Message]) -> None:
        """Count the deliveries of these messages."""
        self.count += len(messages)
        self.again += len(messages) - list(map(attempt_of, messages)).count(1)


class Dispatcher:
    """The queues, and the mules that wait at them.

    Args:
        early: the queues whose messages count as done when they are delivered.
        ttl: gives for the name of a queue how many seconds a message may wait in it, 0 for ever.

    Attributes:
        count, bytes: what is on the books of all queues.
        expired: messages that have expired, and are in no queue any more; for the broker to take away.
        strays: raises of signals that have come back to `signal:stray`; for the broker to see whose they are.
        handed: the deliveries to mules; `unseen`: those of them of which no program has seen anything.
        now: the monotonic clock; `offset`: what the steady clock is ahead of it.
    """

    def __init__(self, early: Iterable[str] = (), ttl: Callable[[str], float] = lambda _: 0.0) -> None:
        self._early = frozenset(early)
        self._ttl = ttl
        self._sweeps: Deadlines[str] = Deadlines()
        self.expired: list[Message] = []
        self.strays: list[Message] = []
        self.count = 0
        self.bytes = 0
        self.queues: dict[str, Queue] = {}
        self.paused = False
        self.handed = Tally()
        self.unseen = Tally()
        self._handed: dict[Mule, list[Message]] = {}
        self._suspects: set[int] = set()
        self._hoarders: dict[Mule, None] = {}
        self._recalls: dict[Mule, int] = {}
        self.now = self.offset = 0.0

    def length(self, name: str) -> tuple[int, int]:
        """Return how many messages, and of how many bytes, a queue has on its books."""
        queue = self.queues.get(name)
        return (queue.count, queue.bytes) if queue else (0, 0)

    def queue(self, name: str) -> Queue:
        """Return the queue of that name, made if need be."""
        queue = self.queues.get(name)
        if queue is None:
            ttl = self._ttl(name)
            expiry = Expiry(ttl) if ttl else None
            queue = Queue(name, self._suspects, early=name in self._early, expiry=expiry)
            self.queues[name] = queue
        return queue

    def read(self, mule: Mule, names: Iterable[str], wall: float) -> None:
        """Let a mule read just these queues, in this order of preference, but for signals, which come first.

        Queues that are empty and that nobody reads any longer are dropped.
        """
        self._leave(mule)
        for queue in mule.queues:
            queue.hoarders.pop(mule, None)
        before, mule.queues = mule.queues, tuple(map(self.queue, names))
        mule.signal_queues = tuple(queue for queue in mule.queues if queue.source in (SIGNAL, STRAY))
        for queue in mule.queues:
            queue.wake()
            queue.readers += 1
            queue.unread_since = None
        for queue in before:
            queue.readers -= 1
            if not queue.readers:
                queue.unread_since = wall
                self._drop_if_unused(queue)

    def detach(self, mule: Mule, wall: float) -> None:
        """Let a mule read no more."""
        self.read(mule, (), wall)
        self._handed.pop(mule, None)
        self._recalls.pop(mule, None)
        self._hoarders.pop(mule, None)

    def enqueue(self, name: str, messages: list[Message]) -> None:
        """Put new messages at the tail of a queue, and hand out what can be."""
        queue = self.queue(name)
        queue.put(messages)
        self._note_expiry(queue, messages[:1])
        self.serve(queue)

    def restore(self, message: Message, *, ready: bool) -> None:
        """Take up a message that the store has kept; they come in the order of their numbers."""
        self.account([message])
        if ready:
            queue = self.queue(message[1])
            queue.put([message])
            self._note_expiry(queue, [message])

    def suspect(self, messages: Iterable[Message]) -> None:
        """A mule has died with these messages: let each travel alone from here on."""
        self._suspects.update(message[0] for message in messages)

    def account_for(self, messages: list[Message]) -> None:
        """Take messages that are finished or buried out of the books."""
        self.account(messages, -1)
        if self._suspects:
            self._suspects.difference_update(message[0] for message in messages)

    def put_back(self, messages: Iterable[Message]) -> None:
        """Put messages back at the head of their queues, and hand out what can be."""
        for name, group in groupby(sorted(messages, key=_queue_and_number), key=queue_of):
            queue, back = self.queue(name), list(group)
            if name == STRAY_QUEUE:
                self.strays += back
            queue.put_back(back)
            self._note_expiry(queue, back)
            self.serve(queue)

    def empty(self, name: str) -> list[Message]:
        """Take all that is ready out of a queue; it stays on the books."""
        queue = self.queue(name)
        queue.wake()
        messages = list(queue.ready)
        queue.ready.clear()
        return messages

    def count_ready(self, name: str, body: Body) -> int:
        """Return how many messages with that body are ready in a queue of signals."""
        ready = self.queue(name).ready
        return sum(message[2] == body for message in ready) if name == STRAY_QUEUE else len(ready)

    def take_out(self, name: str, body: Body) -> list[Message]:
        """Take what is ready and has that body out of a queue; it stays on the books."""
        queue = self.queue(name)
        taken = [message for message in queue.ready if message[2] == body]
        if taken:
            alone = queue.head_alone()
            queue.ready = deque(message for message in queue.ready if message[2] != body)
            if alone:
                self._free(queue)
        return taken

    def account(self, messages: list[Message], sign: int = 1) -> None:
        """Count messages into (or, with `sign` -1, out of) the books of their queues."""
        for name, group in groupby(messages, key=queue_of):
            alike = list(group)
            self.book(name, sign * len(alike), sign * content_size(alike))

    def book(self, name: str, count: int, size: int) -> None:
        """Count messages, and their bytes, in (or, if negative, out) of the books of a queue."""
        queue = self.queue(name)
        queue.account(count, size)
        self.count += count
        self.bytes += size
        self._drop_if_unused(queue)

    def _drop_if_unused(self, queue: Queue) -> None:
        """Forget a queue that is empty and that nobody reads."""
        if not queue.count and not queue.readers and queue.name != ANY:
            self.queues.pop(queue.name, None)

    def serve(self, queue: Queue) -> None:
        """Hand out a queue's messages for as long as a mule stands idle at it."""
        served: dict[Mule, None] = {}
        self._prune(queue)
        while queue.ready and not self.paused:
            for mule in queue.idle:
                if self._may_take(mule, queue):
                    break
            else:
                break
            self._hand(mule, queue)
            self._stand(mule)
            served[mule] = None
        for mule in served:
            self._give_ahead(mule, queue)
        if queue.ready and queue.source == SIGNAL:
            for mule in list(self._hoarders):
                self._overtake(mule)

    def feed(self, mule: Mule) -> None:
        """Give a mule all that its waiting threads can take, then let it stand idle for the rest."""
        for queue in mule.queues:
            self._prune(queue)
        while (signal := self._oldest_signal(mule)) is not None and not self.paused:
            message = self._first_message(mule) if mule.signalled else None
            self._hand(mule, message or signal, 1)
        for queue in mule.queues:
            while queue.ready and not self.paused and self._may_take(mule, queue):
                self._hand(mule, queue)
        self._stand(mule)
        self._overtake(mule)
        for queue in mule.queues:
            if queue.ready:
                self._give_ahead(mule, queue)
        if mule.buffered and mule not in self._hoarders:  # it came too late for its thread
            self._hoards(mule, mule.queues)
        elif mule in self._hoarders and not mule.ahead():
            self._no_hoarder(mule)
        for queue in mule.queues:
            if queue.hoarders and queue.idle and not queue.ready:
                self._recall_for(queue)

    def returned(self, mule: Mule, messages: list[Message]) -> None:
        """A mule has answered a recall, with these."""
        mule.pace.recalled = False
        self._no_hoarder(mule)
        if any(source_of(message[1]) == SIGNAL for message in messages):
            mule.pace.tastes &= ~SIGNAL  # or it would be given them ahead again, and asked for them again

    def recall_stale(self, now: float) -> None:
        """Ask those who make no progress to give back what they have been given ahead."""
        for mule in self._hoarders:
            if mule.pace.stale(now) and not mule.pace.recalled:
                self._recall(mule, mule.ahead())

    def next_deadline(self) -> float | None:
        """Return when `recall_stale` may have something to do, on the monotonic clock."""
        if not self._hoarders:
            return None
        due = (mule.pace.progress + STALE for mule in self._hoarders if not mule.pace.recalled)
        return min(due, default=None)

    def recalls(self) -> list[tuple[Mule, int]]:
        """Return, once, who is to give back how many messages at most."""
        if not self._recalls:
            return []
        recalls, self._recalls = self._recalls, {}
        return list(recalls.items())

    def _give_ahead(self, mule: Mule, queue: Queue) -> None:
        """Give a mule more than its threads wait for, if no other waits for it."""
        if self.paused or queue.idle or not queue.ready or mule.alone or queue.source not in (DIRECT, FARM):
            return
        if mule.early or queue.early or not mule.pace.tastes & queue.source or queue.head_alone():
            return
        if mule.pace.recalled or any(signal.ready for signal in mule.signal_queues):
            return  # what comes back must not be overtaken
        room = mule.pace.window - mule.ahead()
        fits = MOST_BYTES * queue.count // max(1, queue.bytes)
        if (most := min(room, fits)) > 0:
            self._hand(mule, queue, most)
            self._stand(mule)
            self._hoards(mule, (queue,))

    def _overtake(self, mule: Mule) -> None:
        """Let signals that are for this mule alone go past the messages that it was given ahead."""
        while mule.ahead() and mule.pace.tastes & SIGNAL and not (self.paused or mule.alone):
            waiting = [queue for queue in mule.signal_queues if queue.ready and queue.readers == 1]
            queue = min(waiting, key=_head, default=None)
            if queue is None or queue.source != SIGNAL or queue.head_alone():
                return
            self._hand(mule, queue, 1)

    def _recall_for(self, queue: Queue) -> None:
        """A mule stands idle at the queue: let who has most of it share."""
        mule = max(queue.hoarders, key=Mule.ahead)
        if not mule.pace.recalled:
            self._recall(mule, (mule.ahead() + 1) // 2)

    def _recall(self, mule: Mule, most: int) -> None:
        if most > 0:
            mule.pace.recalled = True
            mule.pace.window = 0  # or it would be given the same again, and asked for it again
            self._recalls[mule] = most

    def _hoards(self, mule: Mule, queues: Iterable[Queue]) -> None:
        self._hoarders[mule] = None
        for queue in queues:
            queue.hoarders[mule] = None

    def _no_hoarder(self, mule: Mule) -> None:
        self._hoarders.pop(mule, None)
        for queue in mule.queues:
            queue.hoarders.pop(mule, None)

    def sweep(self) -> None:
        """Let go of what has expired, and hand out what it kept waiting."""
        for _, name in self._sweeps.pop_due(self.steady()):
            queue = self.queues.get(name)
            if queue is not None and queue.expiry is not None:
                self.expired += queue.expiry.sweep(queue.ready, self.steady())
                self._plan_sweep(queue)
                self.serve(queue)
                self._free(queue)

    def expires_in(self) -> float | None:
        """Return in how many seconds `sweep` has something to do."""
        at = self._sweeps.next()
        return None if at is None else at - self.steady()

    def steady(self) -> float:
        """Return the time on the steady clock of `zmule.core.terms`."""
        return self.now + self.offset

    def _note_expiry(self, queue: Queue, messages: list[Message]) -> None:
        """Take note of messages that have come into the queue; those of one batch expire together."""
        if queue.expiry is None:
            if not any(message[6] and message[6].expires for message in messages):
                return
            queue.expiry = Expiry(0.0)
        queue.wake()
        queue.expiry.note(messages)
        self._plan_sweep(queue)

    def _plan_sweep(self, queue: Queue) -> None:
        at = queue.expiry.next if queue.expiry else inf
        if at < (self._sweeps.get(queue.name) or inf):
            self._sweeps.set(queue.name, at)

    def _prune(self, queue: Queue) -> None:
        """Take what has expired off the head of a queue."""
        if queue.expiry is not None:
            self.expired += queue.expiry.prune(queue.ready, self.steady())

    def parcels(self) -> list[tuple[Mule, tuple[Parcel, ...]]]:
        """Return, once, what was handed out: for each mule its parcels in order."""
        if not self._handed:
            return []
        handed, self._handed = self._handed, {}
        return [(mule, _pack(messages)) for mule, messages in handed.items()]

    def _may_take(self, mule: Mule, queue: Queue) -> bool:
        if mule.alone or mule.room(queue.source) < 1:
            return False
        return not mule.in_flight or not any(queue.head_alone() for queue in mule.queues)

    def _oldest_signal(self, mule: Mule) -> Queue | None:
        """Return the queue with the oldest of the signals that wait for the mule and that it may take."""
        ready = [queue for queue in mule.signal_queues if queue.ready and self._may_take(mule, queue)]
        return min(ready, key=_head, default=None)

    def _first_message(self, mule: Mule) -> Queue | None:
        """Return the queue with the next message that waits for the mule and that it may take."""
        queues = (queue for queue in mule.queues if queue.ready and queue.source in (DIRECT, FARM))
        return next((queue for queue in queues if self._may_take(mule, queue)), None)

    def _hand(self, mule: Mule, queue: Queue, most: int | None = None) -> None:
        messages = queue.take(most or mule.room(queue.source), self.steady())
        self._prune(queue)
        alone = by_death(messages[0], self._suspects)
        if not mule.in_flight:
            mule.pace.begun(self.now)
        mule.take(queue, messages, alone=alone)
        self.handed.add(messages)
        self._handed.setdefault(mule, []).extend(messages)
        self._leave(mule)
        if alone:
            self._free(queue)

    def _free(self, queue: Queue) -> None:
        """Serve the mules that a message at the head has kept waiting, since it must travel alone."""
        waiting = {mule: None for one in self.queues.values() for mule in one.idle if queue in mule.queues}
        for mule in waiting:
            self.feed(mule)

    def _stand(self, mule: Mule) -> None:
        """Make the mule's places at its queues true: at the end of the line where it is new there."""
        if mule.waiting <= mule.coming:
            self._leave(mule)
            return
        for queue in mule.queues:
            if mule.room(queue.source) < 1:
                queue.idle.pop(mule, None)
            elif mule not in queue.idle:
                queue.idle[mule] = None

    def _leave(self, mule: Mule) -> None:
        for queue in mule.queues:
            queue.idle.pop(mule, None)

    def validate(self, roster: Iterable[Mule], unsaved: int) -> None:
        """Raise AssertionError if an invariant is broken."""
        held = {id: message for mule in roster for id, message in mule.in_flight.items()}
        ready = [message for queue in self.queues.values() for message in queue.ready]
        for mule in roster:
            assert mule.coming == sum(mule.sent.values()) - sum(mule.received.values()), f"{mule} miscounts"
        assert len(held) == sum(len(mule.in_flight) for mule in roster), "a message is in two hands"
        assert not held.keys() & {message[0] for message in ready}, "a message is ready and in flight"
        for queue in self.queues.values():
            assert all(mule.room(queue.source) > 0 for mule in queue.idle), f"a busy mule is idle at {queue}"
            if queue.ready:
                ids = [message[0] for message in queue.ready]
                assert ids == sorted(set(ids)), f"{queue} is out of order"
                able = [mule for mule in queue.idle if self._may_take(mule, queue)]
                assert self.paused or not able, f"{queue} waits although {able} stand idle"
        on_books = sum(queue.count for queue in self.queues.values())
        assert self.count == on_books, "the sum of the books is wrong"
        assert self.bytes == sum(queue.bytes for queue in self.queues.values())
        assert not self.expired, "somebody has to bury what has expired"
        assert on_books == len(held) + len(ready) + unsaved, "the books are wrong"


def _head(queue: Queue) -> int:
    return queue.ready[0][0]


def _pack(messages: list[Message]) -> tuple[Parcel, ...]:
    """Return the messages as parcels: runs of the same queue, attempt and headers."""
    ids, names, bodies, attempts, _, headers, _ = zip(*messages, strict=True)
    alike = (names.count(names[0]), attempts.count(attempts[0]), headers.count(None))
    if alike == (len(ids),) * 3:  # as it is most often, and then quick to tell
        return (Parcel(names[0], attempts[0], ids, bodies, None),)
    parcels = []
    for (name, attempt, _), run in groupby(messages, key=_kind):
        ids, _, bodies, _, _, headers, _ = zip(*run, strict=True)
        parcels.append(Parcel(name, attempt, ids, bodies, headers[0]))
    return tuple(parcels)


def _kind(message: Message) -> tuple[str, int, int]:
    """What a run has in common; headers are compared by identity, as they are shared by a batch."""
    return message[1], message[3], id(message[5])


def _queue_and_number(message: Message) -> tuple[str, int]:
    return message[1], message[0]

"""How messages are accepted: checked, numbered, kept, and only then queued.

Between `put` and the store's answer a batch waits here. Its room in the queues is taken at once, so that
the limits hold for what is on its way to the disk too, and given back if the store fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple

from zmule.core.dispatch import Dispatcher
from zmule.core.effects import Save
from zmule.core.frames import Batch, Body, Put, Refusal
from zmule.core.mules import Roster
from zmule.core.queues import (
    ANY,
    LAST_SIGNAL,
    STRAY_QUEUE,
    Message,
    byte_size,
    header_size,
    is_function,
)
from zmule.core.senders import Sender
from zmule.core.signals import MOST_PENDING, MOST_STRAY, Signals
from zmule.core.terms import agreed
from zmule.core.wire import MAX_REASON
from zmule.errors import (
    NotProgrammed,
    ProtocolError,
    QueueFull,
    StoreUnavailable,
    UnknownFarm,
    UnknownMule,
    ZmuleError,
    too_large,
)

if TYPE_CHECKING:
    from zmule.core.room import Room
    from zmule.core.setup import Limits


UTF8_BYTES = 4
"""Most that a character has in UTF-8."""

_NUMBER = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)

RAISE = "signal:"
"""A sender raises signal 17 by a message for the queue `signal:17`."""


class Pending(NamedTuple):
    """A batch that the store has not answered for: what its sender and its queues get then."""

    sender: Sender | None
    first: int
    upto: int
    refusals: tuple[Refusal, ...]
    messages: list[tuple[str, list[Message]]]


_bodies: Callable[[Batch], tuple[Body, ...]] = attrgetter("bodies")
_run: Callable[[tuple[str, list[Message]]], list[Message]] = itemgetter(1)


class Intake:
    """The way into the queues."""

    def __init__(
        self, roster: Roster, dispatch: Dispatcher, signals: Signals, room: Room, limits: Limits
    ) -> None:
        self._roster = roster
        self._signals = signals
        self._room = room
        self._dispatch = dispatch
        self._limits = limits
        self._next_id = 1
        self._batch = 0
        self._pending: dict[int, Pending] = {}
        self.accepted = 0
        self.refused = 0

    def recover(self, next_id: int, count: int) -> None:
        """Go on numbering where the store left off, with `count` messages accepted before."""
        self._next_id = next_id
        self.accepted = count

    def put(self, sender: Sender, frame: Put, wall: float) -> Save | None:
        """Take a sender's messages; return what must be kept before it is told so.

        Returns None if all of them were taken before.

        Raises:
            ProtocolError: the frame is empty, or its numbers do not follow.
        """
        count = sum(map(len, map(_bodies, frame.batches)))
        if not count:
            raise ProtocolError("Put has no messages")
        seen = sender.accept(frame.first, count, frame.floor)
        if seen == count:
            return None
        refusals: list[Refusal] = []
        taken: list[tuple[str, list[Message]]] = []
        noted = 0
        for sequence, batch in _unseen(frame, seen):
            sender.refuse(refusals[noted:])
            noted = len(refusals)
            if batch.queue.startswith(RAISE):
                taken += self._raise_each(sender, sequence, batch, refusals, wall)
                continue
            bodies, size = self._admit(sender, frame.floor, sequence, batch, refusals)
            if bodies:
                taken.append((batch.queue, self._number(batch, bodies, size, wall)))
        sender.refuse(refusals[noted:])
        self.refused += len(refusals)
        batch_number = self.next_batch()
        pending = Pending(sender, frame.first + seen, sender.taken, tuple(refusals), taken)
        self._pending[batch_number] = pending
        return Save(batch_number, list(chain.from_iterable(map(_run, taken))), sender.mark())

    def raised(self, number: int, wall: float) -> Save | None:
        """Take a signal that a source has raised: where one waits already, that one will do."""
        body = bytes([number])
        unsaved = {
            (name, messages[0][2])
            for pending in self._pending.values()
            for name, messages in pending.messages
        }
        routes = [name for name in self._signals.route(number) if (name, body) not in unsaved]
        queues = [name for name in routes if not self._dispatch.count_ready(name, body)]
        return self.copies(queues, number, 1, wall) if queues else None

    def copies(self, queues: list[str], number: int, count: int, wall: float) -> Save:
        """Take so many raises of a signal that the broker itself makes, into each of the queues."""
        taken = [self._raise(name, number, wall) for _ in range(count) for name in queues]
        batch = self.next_batch()
        self._pending[batch] = Pending(None, 0, 0, (), taken)
        return Save(batch, list(chain.from_iterable(map(_run, taken))), None)

    def next_batch(self) -> int:
        """Return the number of one more batch for the store."""
        self._batch += 1
        return self._batch

    def saved(self, batch: int) -> Pending:
        """Return the batch that the store now holds."""
        pending = self._pending.pop(batch)
        self.accepted += sum(map(len, map(_run, pending.messages)))
        return pending

    def lost(self, batch: int, reason: str) -> Pending:
        """Give up a batch that the store could not write; its messages are refusals now."""
        pending = self._pending.pop(batch)
        for _, messages in pending.messages:
            self._dispatch.account(messages, -1)
        if pending.sender is None:
            return pending._replace(messages=[])
        known = {refusal.sequence for refusal in pending.refusals}
        lost = [
            Refusal(sequence, StoreUnavailable.code, f"the store cannot write: {reason}"[:MAX_REASON])
            for sequence in range(pending.first, pending.upto + 1)
            if sequence not in known
        ]
        pending.sender.refuse(lost)
        self.refused += len(lost)
        return pending._replace(refusals=(*pending.refusals, *lost), messages=[])

    def unsaved(self) -> int:
        """Return how many messages wait for the store."""
        return sum(len(messages) for pending in self._pending.values() for _, messages in pending.messages)

    def _raise_each(
        self, sender: Sender, sequence: int, batch: Batch, refusals: list[Refusal], wall: float
    ) -> list[tuple[str, list[Message]]]:
        """Take raises of a signal: each is a message in every queue that the signal goes to."""
        text = batch.queue.removeprefix(RAISE)
        if not text.isascii() or not text.isdecimal() or int(text) > LAST_SIGNAL:
            self._refuse(sender, sequence, batch, self._no_queue(batch.queue), refusals)
            return []
        number, taken = int(text), []
        for place in range(sequence, sequence + len(batch.bodies)):
            queues = self._signals.route(number)
            if any(self._is_full(name, number) for name in queues):
                full = QueueFull(f"signal {number} waits {MOST_PENDING} times already")
                refusals.append(_refusal(place, full))
            else:
                taken += [self._raise(name, number, wall) for name in queues]
        return taken

    def _is_full(self, queue: str, number: int) -> bool:
        """Return whether no more raises of a signal may wait in a queue. Strays of all numbers share one."""
        length, _ = self._dispatch.length(queue)
        if queue != STRAY_QUEUE or not MOST_PENDING <= length < MOST_STRAY:
            return length >= (MOST_PENDING if queue != STRAY_QUEUE else MOST_STRAY)
        return self._dispatch.count_ready(queue, bytes([number])) >= MOST_PENDING

    def _raise(self, queue: str, number: int, wall: float) -> tuple[str, list[Message]]:
        body = bytes([number])
        return queue, self._number(Batch(queue, (body,), None), (body,), len(body), wall)

    def _number(self, batch: Batch, bodies: tuple[Body, ...], size: int, wall: float) -> list[Message]:
        self._room.came(batch.queue)
        ids = range(self._next_id, self._next_id + len(bodies))
        self._next_id = ids.stop
        self._dispatch.book(batch.queue, len(bodies), size)
        shared = map(repeat, (1, wall, batch.headers, agreed(batch.options, wall)))
        return list(zip(ids, repeat(batch.queue), bodies, *shared, strict=False))

    def _admit(
        self, sender: Sender, floor: int, sequence: int, batch: Batch, refusals: list[Refusal]
    ) -> tuple[tuple[Body, ...], int]:
        """Return the bodies that may go into the queue, and their size; note why the others may not."""
        bodies, queue = batch.bodies, batch.queue
        error = (
            sender.overwhelmed()
            or self.closed(queue)
            or (sender.overtaking(queue, floor) if sender.full else None)
        )
        if error is not None:
            self._refuse(sender, sequence, batch, error, refusals)
            return (), 0
        length = byte_size(bodies)
        size = length + header_size(batch.headers) * len(bodies)
        if self._has_too_large(bodies, length) or self._room.refusal(queue, len(bodies), size):
            return self._admit_each(sender, sequence, batch, refusals)
        return bodies, size

    def _has_too_large(self, bodies: tuple[Body, ...], size: int) -> bool:
        most = self._limits.max_message
        if size <= most or UTF8_BYTES * max(map(len, bodies)) <= most:
            return False
        return any(byte_size((body,)) > most for body in bodies)

    def _admit_each(
        self, sender: Sender, sequence: int, batch: Batch, refusals: list[Refusal]
    ) -> tuple[tuple[Body, ...], int]:
        most, admitted, total = self._limits.max_message, list[Body](), 0
        headers = header_size(batch.headers)
        for place, body in enumerate(batch.bodies):
            size = byte_size((body,))
            if size > most:
                refusals.append(_refusal(sequence + place, too_large(size, most)))
            elif error := self._room.refusal(batch.queue, 1, size + headers, (len(admitted), total)):
                rest = batch._replace(bodies=batch.bodies[place:])
                self._refuse(sender, sequence + place, rest, error, refusals)
                break
            else:
                admitted.append(body)
                total += size + headers
        return tuple(admitted), total

    def _refuse(
        self, sender: Sender, sequence: int, batch: Batch, error: ZmuleError, refusals: list[Refusal]
    ) -> None:
        """Refuse a whole batch; if there was no room, also what follows until the sender knows."""
        refusals.extend(_refusal(sequence + place, error) for place in range(len(batch.bodies)))
        if isinstance(error, QueueFull):
            sender.crowded_out(batch.queue, sequence + len(batch.bodies) - 1, str(error))

    def _no_queue(self, queue: str) -> ProtocolError:
        return ProtocolError(f"there is no queue {queue[:50]!r}")

    def closed(self, queue: str, *, call: bool = False) -> ZmuleError | None:
        """Return why nobody may write to the queue, or None."""
        kind, _, name = queue.partition(":")
        if queue == ANY:
            return None
        if kind == "call" and not call:
            function, _, readers = name.partition(":")
            return self.closed(readers, call=True) if is_function(function) else self._no_queue(queue)
        if kind == "farm":
            return None if self._roster.knows_farm(name) else UnknownFarm(f"there is no farm {name!r}")
        if kind != "mule" or not _NUMBER.fullmatch(name):
            return self._no_queue(queue)
        mule = self._roster.known(int(name))
        if mule is None:
            return UnknownMule(f"there is no mule {name}")
        if mule.reads is False and not call:
            return NotProgrammed(f"mule {name} is signal-only: it reads no messages")
        return None


def _refusal(sequence: int, error: ZmuleError) -> Refusal:
    return Refusal(sequence, error.code, str(error)[:MAX_REASON])


def _unseen(frame: Put, seen: int) -> Iterator[tuple[int, Batch]]:
    """Yield the batches without the first `seen` messages, each with its first sequence number."""
    sequence = frame.first
    for batch in frame.batches:
        skip = min(seen, len(batch.bodies))
        seen -= skip
        if skip < len(batch.bodies):
            yield sequence + skip, batch._replace(bodies=batch.bodies[skip:]) if skip else batch
        sequence += len(batch.bodies)

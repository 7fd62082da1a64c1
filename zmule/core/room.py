"""How much may be on the books: the limits of a queue and of the broker, and senders that wait for room.

What counts is all that the broker keeps for a queue: ready, in the hands of mules, waiting for its time, and
on its way into the store. The limits of the broker count dead letters, too; and its limit on bytes counts
whatever it keeps, by what that costs: each message beside what is in it, each queue, each session of a sender
with what it was refused, all that mules have registered. A queue's counts bodies and headers.

A sender that is ready to wait asks for room in a queue and is answered when there is some: not as soon as
one message fits, which would have it come and go for each, but when the queue is down to `RESUME` of its
limits. Those who asked first are answered first, and no more at a time than there is likely to be room for:
the next ones when the first have sent something, or should have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zmule.core.asking import LATER, Asked
from zmule.core.events import Peer
from zmule.core.queues import A_QUEUE, OVERHEAD, Message, content_size
from zmule.errors import QueueFull, WrongValue

if TYPE_CHECKING:
    from zmule.core.broker import Broker

RESUME = 7 / 8
BURST = 1000
"""Messages that a sender is expected to send once it is told that there is room."""

PROMISE_SECONDS = 0.2
"""How long a sender that was told of room has, before the next one is told."""

MOST_WAITING = 100
"""Queues that one sender may wait for at a time."""


class Room:
    """The limits on what a broker keeps."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._limits = broker.limits
        self._waiting: dict[str, dict[Peer, Asked]] = {}
        self._promised: dict[str, float] = {}

    def refusal(self, queue: str, count: int, size: int, after: tuple[int, int] = (0, 0)) -> QueueFull | None:
        """Return why so many more messages, of so many bytes in all, do not fit into a queue, or None.

        `after` are messages and bytes that are to be taken before them.
        """
        limits, letters = self._limits, self._broker.letters
        if self._broker.memory_error is not None:
            return QueueFull(self._broker.memory_error)
        held, bytes = _sum(self._broker.dispatch.length(queue), after)
        if held + count > limits.queue_messages or bytes + size > limits.queue_bytes:
            return QueueFull(
                f"queue {queue} is full: it holds {held} messages, {bytes} bytes "
                f"(limits: {limits.queue_messages} messages, {limits.queue_bytes} bytes)"
            )
        if letters.counts.get(queue, 0) >= limits.max_dead:
            return QueueFull(
                f"queue {queue} has {letters.counts[queue]} dead letters (limit: {limits.max_dead}): "
                "requeue or drop some, see `zmule dead`"
            )
        held, _ = _sum(self.held(), after)
        kept = self.kept() + after[1] + OVERHEAD * after[0]
        if held + count > limits.total_messages or kept + size + OVERHEAD * count > limits.total_bytes:
            return QueueFull(
                f"the broker is full: it holds {held} messages, and {kept} bytes in all "
                f"(limits: {limits.total_messages} messages, {limits.total_bytes} bytes)"
            )
        return None

    def for_more(self, cost: int) -> QueueFull | None:
        """Return why so many more bytes that are no message are not to be had, or None."""
        if self._broker.memory_error is not None:
            return QueueFull(self._broker.memory_error)
        if (kept := self.kept()) + cost > self._limits.total_bytes:
            return QueueFull(f"the broker is full: it keeps {kept} bytes (limit: {self._limits.total_bytes})")
        return None

    def for_letter(self, queue: str, message: Message) -> QueueFull | None:
        """Return why a dead letter, which counts already, does not fit back into its queue, or None."""
        held, bytes = self._broker.dispatch.length(queue)
        if held < self._limits.queue_messages and bytes + content_size([message]) <= self._limits.queue_bytes:
            return None
        return QueueFull(f"queue {queue} is full: it holds {held} messages, {bytes} bytes")

    def held(self) -> tuple[int, int]:
        """Return how many messages, and of how many bytes, the broker keeps, dead letters included."""
        dispatch, letters = self._broker.dispatch, self._broker.letters
        return dispatch.count + len(self._broker.dead), dispatch.bytes + letters.bytes

    def kept(self) -> int:
        """Return how many bytes the broker needs for all that it keeps, as far as it is counted."""
        broker, (messages, bytes) = self._broker, self.held()
        queues = A_QUEUE * len(broker.dispatch.queues)
        return bytes + OVERHEAD * messages + queues + broker.senders.cost()

    # Senders that wait.

    def ask(self, asked: Asked) -> Any:
        """Answer the question `room`, about a queue and the bytes of the next message, when there is some."""
        if tuple(map(type, asked.arguments)) != (str, int):
            raise WrongValue("room is asked for with a queue and a number of bytes")
        queue, size = asked.arguments
        error = self._broker.intake.closed(queue)
        if error is not None:
            if self._broker.returns.awaits(error, self._broker.now.mono):
                return None  # it may be sent, and waits for them to come back
            raise error
        if size > min(self._limits.queue_bytes, self._limits.total_bytes):
            raise QueueFull(f"a message of {size} bytes does not fit even if nothing else is there")
        if queue not in self._waiting and self._has_room(queue, 1, size):
            return None
        if sum(asked.peer in waiting for waiting in self._waiting.values()) >= MOST_WAITING:
            raise QueueFull(f"one sender can wait for room in {MOST_WAITING} queues")
        self._waiting.setdefault(queue, {})[asked.peer] = asked
        return LATER

    def gone(self, peer: Peer) -> None:
        """A connection is gone: it waits no longer."""
        for queue in [queue for queue, waiting in self._waiting.items() if waiting.pop(peer, None)]:
            if not self._waiting[queue]:
                del self._waiting[queue]

    def came(self, queue: str) -> None:
        """Messages have come: whoever was told that there is room has made use of it."""
        if self._promised:
            self._promised.pop(queue, None)

    def grant(self) -> Iterator[Asked]:
        """Yield, once, who is to be told that there is room."""
        now = self._broker.now.mono
        for queue in list(self._waiting):
            if self._promised.get(queue, 0.0) <= now:
                self._promised.pop(queue, None)
                yield from self._grant(queue)

    def _grant(self, queue: str) -> Iterator[Asked]:
        waiting, expected, size = self._waiting[queue], 0, 0
        for peer, asked in list(waiting.items()):
            size += asked.arguments[1]
            if not self._has_room(queue, expected + 1, size):
                break
            expected += BURST
            self._promised[queue] = self._broker.now.mono + PROMISE_SECONDS
            yield waiting.pop(peer)
        if not waiting:
            del self._waiting[queue]

    def next_deadline(self) -> float | None:
        """Return when somebody has not made use of the room that he was told of, and `grant` is due."""
        if not self._promised:
            return None
        due = (at for queue, at in self._promised.items() if queue in self._waiting)
        return min(due, default=None)

    def _has_room(self, queue: str, count: int, size: int) -> bool:
        """Return whether so much fits, and the queue and the broker are not nearly full."""
        limits, (all_held, _) = self._limits, self.held()
        held, bytes = self._broker.dispatch.length(queue)
        nearly_full = (
            held > RESUME * limits.queue_messages
            or all_held > RESUME * limits.total_messages
            or bytes > RESUME * limits.queue_bytes
            or self.kept() > RESUME * limits.total_bytes
        )
        return not nearly_full and self.refusal(queue, count, size) is None

    def validate(self) -> None:
        """Raise AssertionError if somebody waits for room that there is."""
        for queue, waiting in self._waiting.items():
            first = next(iter(waiting.values()))
            promised = self._promised.get(queue, 0.0) > self._broker.now.mono
            assert promised or not self._has_room(queue, 1, first.arguments[1]), f"{queue} has room"


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]

"""What becomes of a message whose delivery came to nothing, of one that is not due yet, and of one that
nobody wants any more.

A message is delivered again at once the first time: most failures are over with the mule that had it. From
then on it pauses, twice as long each time and up to a minute, so that a message that kills mules does not
kill them as fast as they can be started. Pauses differ by up to a quarter from message to message, lest what
failed together comes back together. After the last delivery it is a dead letter.

How often a message was delivered is told to the store, so that a restart of the broker gives no new lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmule.core.delays import Delays
from zmule.core.effects import Changes
from zmule.core.frames import DIRECT, FARM
from zmule.core.mules import Mule
from zmule.core.queues import Message, again
from zmule.core.terms import is_held, put_off, recovered

if TYPE_CHECKING:
    from zmule.core.broker import Broker

LONGEST_PAUSE = 60.0
"""Longest pause between two deliveries, in seconds."""


class Redelivery:
    """Messages that come back, or wait for their time, for a broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.delays = Delays()

    def restore(self, messages: list[Message]) -> None:
        """Take up the messages that the store has kept, in the order of their numbers."""
        steady = self._broker.steady()
        for id, queue, body, attempt, born, headers, terms in messages:
            terms = recovered(terms, born, steady)
            message = id, queue, body, attempt, min(born, steady), headers, terms
            self._broker.dispatch.restore(message, ready=not is_held(terms))
            if is_held(terms):
                self.delays.hold(message)
            if attempt > 1:
                self._broker.dispatch.suspect([message])

    def enqueue(self, name: str, messages: list[Message]) -> None:
        """Put new messages of one batch into their queue, or let them wait for their time."""
        if is_held(messages[0][6]):
            for message in messages:
                self.delays.hold(message)
        else:
            self._broker.dispatch.enqueue(name, messages)

    def retry(
        self,
        messages: list[Message],
        mule: Mule,
        reason: str,
        *,
        delay: float | None = None,
        dead: bool = False,
    ) -> None:
        """Deal with messages whose delivery came to nothing.

        Args:
            mule: who had them.
            reason: why, for the dead letter.
            delay: seconds until the next delivery, instead of the usual pause.
            dead: whether to make dead letters of them at once.
        """
        broker, most = self._broker, self._broker.limits.max_deliveries
        back = []
        for message in messages:
            if self._is_early(mule, message):
                broker.turns.finish([message])
            elif dead:
                broker.letters.bury(message, reason, mule.number)
            elif message[3] >= most:
                spent = f"{reason}, at delivery {message[3]} of {most}"
                broker.letters.bury(message, spent, mule.number)
            else:
                back.append(again(message))
        self._put_back(back, delay)

    def _put_back(self, messages: list[Message], delay: float | None) -> None:
        base, steady = self._broker.limits.redelivery_pause, self._broker.steady()
        ready, amended = [], []
        for message in messages:
            wait = pause(message[0], message[3], base) if delay is None else delay
            if wait:
                message = (*message[:6], put_off(message[6], steady + wait))
                self.delays.hold(message)
            else:
                ready.append(message)
            amended.append(message)
        if amended:
            self._broker.do(Changes(amended=amended))
        self._broker.dispatch.put_back(ready)

    def tick(self) -> None:
        """Release what is due, and let go of what has expired."""
        broker, ready = self._broker, []
        for message in self.delays.due(broker.steady(), broker.now.wall):
            if (reason := broker.roster.unread(message[1])) is None:
                ready.append(message)
            else:
                broker.letters.bury(message, reason, 0)
        broker.dispatch.put_back(ready)
        broker.dispatch.sweep()

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, on the monotonic clock."""
        broker = self._broker
        steady = broker.steady()
        waits = (self.delays.wait(steady, broker.now.wall), broker.dispatch.expires_in())
        return min((broker.now.mono + wait for wait in waits if wait is not None), default=None)

    def _is_early(self, mule: Mule, message: Message) -> bool:
        """Return whether the message counted as done when it was delivered. A signal never does."""
        queue = self._broker.dispatch.queue(message[1])
        return queue.early or (mule.early and queue.source in (DIRECT, FARM))


def pause(id: int, attempt: int, base: float) -> float:
    """Return how many seconds a message waits before a delivery, its number `attempt`.

    It is 0 for the second delivery, about `base` for the third, and so on. What it differs by from message
    to message follows from the id: the core has no chance of its own.
    """
    if attempt < 3 or not base:
        return 0.0
    spread = (id * 2_654_435_761 + attempt * 40_503) % 65_536 / 65_536
    return min(LONGEST_PAUSE, base * 2.0 ** min(attempt - 3, 64)) * (0.75 + spread / 2)

"""Messages that wait for their time: sent with a delay, or put off after a delivery that came to nothing.

They are on the books of their queues, but in none of them. Spans end on the steady clock, times of day on
the wall clock (see `zmule.core.terms`): hence two tables of deadlines. How far off a time of day is can
change whenever the wall clock is set, which nobody tells: who waits for it has to look again now and then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from zmule.core.deadlines import Deadlines
from zmule.core.queues import Message


class Delays:
    """The messages that wait for their time.

    Attributes:
        counts: how many of them each queue has.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._messages: dict[int, Message] = {}
        self._steady: Deadlines[int] = Deadlines()
        self._wall: Deadlines[int] = Deadlines()

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages.values())

    def hold(self, message: Message) -> None:
        """Keep a message until it is due by its terms; one without any is due at once."""
        id, queue, terms = message[0], message[1], message[6]
        self._messages[id] = message
        self.counts[queue] += 1
        if terms is not None and terms.at is not None:
            self._wall.set(id, terms.at)
        else:
            self._steady.set(id, terms.due or 0.0 if terms else 0.0)

    def due(self, steady: float, wall: float) -> list[Message]:
        """Return, once, what is due."""
        ids = [id for _, id in (*self._steady.pop_due(steady), *self._wall.pop_due(wall))]
        messages = [self._messages.pop(id) for id in ids]
        self.counts -= Counter(message[1] for message in messages)
        return messages

    def wait(self, steady: float, wall: float) -> float | None:
        """Return in how many seconds something is due, if anything is."""
        times = ((self._steady.next(), steady), (self._wall.next(), wall))
        return min((at - now for at, now in times if at is not None), default=None)

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        self._steady.validate()
        self._wall.validate()
        assert len(self._steady) + len(self._wall) == len(self._messages) == self.counts.total()
        assert all(id in self._steady or id in self._wall for id in self._messages)

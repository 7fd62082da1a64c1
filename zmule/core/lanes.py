"""Messages that wait at their sender until there is room for them, in order.

A message that may wait is sent like any other. If it is refused because its queue is full, its queue gets a
lane. The broker refuses all that follows until the sender has heard of the first refusal, so what was under
way comes back in order, and goes to the head of the lane; what is put meanwhile goes to its end. When
nothing of it is under way any more, the broker is asked for room, and its answer lets a burst out of the
lane. A burst that is accepted as a whole is followed by one of twice the length, without asking. Once the
lane is empty it is gone.

Nobody waits for a message whose time is over: it is refused for good.

An exception may strike between any two lines. So a message is in the next place before it leaves the last
one, and `mend` settles which of the two holds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain, islice, takewhile
from math import inf
from typing import NamedTuple

from zmule.core.frames import Answer, Body, Headers, Options, Refusal
from zmule.core.questions import Questions
from zmule.errors import QueueFull

FIRST_BURST = 16


class Waiting(NamedTuple):
    """A message that may wait for room: `ticket` names it, `until` is when it gives up (monotonic)."""

    ticket: int
    queue: str
    body: Body
    headers: Headers | None
    options: Options | None
    size: int
    until: float


class Lane:
    """What waits for room in one queue.

    Attributes:
        line: what waits.
        returned: what was refused of that which is under way; it belongs before all that waits.
        burst: how many to send at a time.
        refused: whether anything was refused since room was asked for last.
        request: the number of the question for room, 0 if it is not asked.
        reason: why there is none.
        soonest: not before then a message gives up.
    """

    __slots__ = ("burst", "line", "reason", "refused", "request", "returned", "soonest")

    def __init__(self) -> None:
        self.line: deque[Waiting] = deque()
        self.returned: deque[Waiting] = deque()
        self.burst = FIRST_BURST
        self.refused = False
        self.request = 0
        self.reason = ""
        self.soonest = inf

    def __len__(self) -> int:
        return len(self.line) + len(self.returned)

    def gather(self) -> None:
        """Put what has returned at the head of the line, once nothing is under way any more."""
        self.line.extendleft(islice(iter(self.returned.pop, None), len(self.returned)))


class Lanes:
    """The messages of a session that may wait for room.

    Attributes:
        bytes: of how many bytes those are that are not under way.
        over: what was refused for good, by ticket; for the session to take away.
    """

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._lanes: dict[str, Lane] = {}
        self._flying: dict[int, Waiting] = {}
        self._under_way: Counter[str] = Counter()
        self._open: set[int] = set()
        self._last = 0
        self.bytes = 0
        self.over: dict[int, Refusal] = {}

    def __len__(self) -> int:
        """Return how many wait and are not under way."""
        return sum(map(len, self._lanes.values())) if self._lanes else 0

    def __bool__(self) -> bool:
        return bool(self._open or self._lanes)

    def open(self, ticket: int) -> bool:
        """Return whether the message of that ticket has no answer yet."""
        return ticket in self._open

    def ticket(self) -> int:
        """Return the ticket of one more message: a negative number, for it may have several in its life."""
        self._last -= 1
        self._open.add(self._last)
        return self._last

    def closed(self, queue: str) -> bool:
        """Return whether a message for the queue has to go to the end of a lane."""
        return queue in self._lanes

    def line_up(self, waiting: Waiting) -> None:
        """Put a message at the end of its lane."""
        lane = self._lanes[waiting.queue]
        lane.line.append(waiting)
        lane.soonest = min(lane.soonest, waiting.until)
        self.bytes += waiting.size

    def sent(self, sequence: int, waiting: Waiting) -> None:
        """A message is under way with that number."""
        self._flying[sequence] = waiting
        self._under_way[waiting.queue] += 1

    # What the broker says.

    def accepted(self, upto: int) -> None:
        """All up to that number that was not refused is kept."""
        for sequence in list(takewhile(lambda sequence: sequence <= upto, self._flying)):
            self._open.discard(self._flying[sequence].ticket)
            self._land(sequence)

    def refused(self, refusal: Refusal) -> bool:
        """Let a refused message go back to its lane, if it is one that may wait; return whether it is."""
        waiting = self._flying.get(refusal.sequence)
        if waiting is None:
            return False
        if refusal.code == QueueFull.code:
            lane = self._lanes.setdefault(waiting.queue, Lane())
            lane.returned.append(waiting)
            lane.soonest = min(lane.soonest, waiting.until)
            lane.refused, lane.reason = True, refusal.reason
            self.bytes += waiting.size
        else:
            self._give_up(waiting, refusal.code, refusal.reason)
        return True

    def landed(self, sequence: int) -> None:
        """A refused message is under way no more."""
        self._land(sequence)

    def _land(self, sequence: int) -> Waiting | None:
        waiting = self._flying.pop(sequence, None)
        if waiting is not None:
            self._under_way[waiting.queue] -= 1
        return waiting

    def _give_up(self, waiting: Waiting, code: str, reason: str) -> None:
        self.over[waiting.ticket] = Refusal(0, code, reason)
        self._open.discard(waiting.ticket)

    # What there is to do.

    def go(self, now: float) -> Iterator[Waiting]:
        """Yield the messages that are to be sent now; each is waiting still while it is dealt with."""
        for queue, lane in list(self._lanes.items()):
            if now >= lane.soonest:
                self._expire(lane, now)
            if not self._under_way[queue]:
                lane.gather()
                if lane and self._may_go(queue, lane):
                    yield from self._burst(lane)
            if not lane and not self._under_way[queue]:
                self._questions.withdraw(lane.request)
                del self._lanes[queue], self._under_way[queue]

    def _may_go(self, queue: str, lane: Lane) -> bool:
        if lane.request:
            if not self._questions.answered(lane.request):
                return False
            answer = self._questions.answer(lane.request)
            if answer is not None:
                return self._answered(lane, answer)
            lane.request = 0  # a strike has come between the answer and what follows from it
        elif not lane.refused:
            lane.burst *= 2
            return True
        lane.request = self._questions.ask("room", (queue, lane.line[0].size))
        return False

    def _answered(self, lane: Lane, answer: Answer) -> bool:
        """Take in the answer to the question for room; an error is that of all who wait."""
        lane.request, lane.refused = 0, False
        lane.burst = FIRST_BURST
        while answer.code and lane:
            waiting = lane.line[0]
            self._give_up(waiting, answer.code, str(answer.value))
            lane.line.popleft()
            self.bytes -= waiting.size
        return bool(lane)

    def _burst(self, lane: Lane) -> Iterator[Waiting]:
        for _ in range(min(lane.burst, len(lane))):
            waiting = lane.line[0]
            yield waiting
            lane.line.popleft()
            self.bytes -= waiting.size

    def _expire(self, lane: Lane, now: float) -> None:
        for place in (lane.returned, lane.line):
            for waiting in [waiting for waiting in place if waiting.until <= now]:
                self._give_up(waiting, QueueFull.code, lane.reason)
                place.remove(waiting)
                self.bytes -= waiting.size
        lane.soonest = min((waiting.until for waiting in (*lane.returned, *lane.line)), default=inf)

    def reason(self) -> str | None:
        """Return why something waits, if anything does."""
        return next((lane.reason for lane in self._lanes.values() if lane), None)

    def abandon(self, ticket: int) -> QueueFull | None:
        """Nobody waits for a message any longer; return an error if it is sure that it was not accepted."""
        for lane in self._lanes.values():
            for place in (lane.returned, lane.line):
                for waiting in [waiting for waiting in place if waiting.ticket == ticket]:
                    self._open.discard(ticket)
                    place.remove(waiting)
                    self.bytes -= waiting.size
                    return QueueFull(lane.reason)
        return None

    def mend(self, last: int, heard: int) -> None:
        """Put every message where it belongs, and count anew.

        Args:
            last: the number of the last message that has one.
            heard: refusals up to that number have been dealt with.
        """
        lanes = self._lanes.values()
        back = {waiting.ticket for lane in lanes for waiting in lane.returned}
        self._flying = {
            sequence: waiting
            for sequence, waiting in self._flying.items()
            if sequence <= last
            and waiting.ticket in self._open
            and not (sequence <= heard and waiting.ticket in back)
        }
        placed = {waiting.ticket for waiting in self._flying.values()}
        for lane in lanes:
            lane.returned = self._sorted_out(lane.returned, placed)
            lane.line = self._sorted_out(lane.line, placed)
        self._open &= placed
        self._under_way = Counter(waiting.queue for waiting in self._flying.values())
        self.bytes = sum(waiting.size for lane in lanes for waiting in chain(lane.returned, lane.line))

    def _sorted_out(self, place: deque[Waiting], placed: set[int]) -> deque[Waiting]:
        """Return what belongs there: each message that is still open, and nowhere else yet, once."""
        rest = {
            each.ticket: each for each in place if each.ticket in self._open and each.ticket not in placed
        }
        placed.update(rest)
        return deque(rest.values())

    def next_deadline(self) -> float | None:
        """Return when a message gives up."""
        soonest = min((lane.soonest for lane in self._lanes.values()), default=inf)
        return None if soonest == inf else soonest

"""What a program's signal handler that raises does to an outbox: nothing that shows."""

from __future__ import annotations

import random
import signal

from tests.conftest import Alarm
from tests.core.test_session import SESSION, up
from tests.injector import strike
from zmule.core.frames import Answer, Ask, Confirm, Frame, Put, Refusal
from zmule.core.outbox import Outbox, plain
from zmule.errors import QueueFull

ROUNDS, EACH = 400, 60


def test_a_handler_that_raises_neither_loses_a_message_nor_numbers_it_twice(armed: list[bool]) -> None:
    chance = random.Random(7)
    outbox = up(Outbox(SESSION, most_messages=ROUNDS * EACH, most_bytes=1 << 30))
    interrupted = 0
    for place in range(ROUNDS):
        for number in range(place * EACH, (place + 1) * EACH):
            outbox.posted.append((plain(f"mule:{1 + number % 3}"), str(number), 1, 0))
        try:
            armed.append(True)
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 1e-4))
            outbox.absorb()
            outbox.outgoing(0.0)
            outbox.disconnected(0.0)
            armed.clear()
        except Alarm:
            interrupted += 1
        outbox.disconnected(0.0)
        up(outbox, 10.0 * (place + 1))
    outbox.absorb()
    puts = [frame for frame in outbox.outgoing(10.0 * ROUNDS) if isinstance(frame, Put)]
    outbox.disconnected(0.0)
    up(outbox, 10.0 * (ROUNDS + 1))
    again = [frame for frame in outbox.outgoing(10.0 * (ROUNDS + 1)) if isinstance(frame, Put)]
    assert interrupted
    assert again[-len(puts) :] == puts
    bodies: list[object] = []
    for put in again:
        assert put.first == len(bodies) + 1
        bodies += [body for batch in put.batches for body in batch.bodies]
    assert bodies == [str(number) for number in range(ROUNDS * EACH)]
    assert outbox.unconfirmed() == len(bodies)


class Broker:
    """What a broker does with one sender's frames: it refuses every message to a full queue but once."""

    def __init__(self) -> None:
        self.taken = 0
        self.kept: list[object] = []
        self.refusals: list[Refusal] = []

    def answer(self, frames: list[Frame]) -> list[Frame]:
        answers: list[Frame] = []
        for frame in frames:
            if isinstance(frame, Put):
                self._put(frame)
                answers.append(Confirm(self.taken, tuple(self.refusals)))
            elif isinstance(frame, Ask):
                answers.append(Answer(frame.request, "", None))
        return answers

    def _put(self, put: Put) -> None:
        number = put.first
        assert number <= self.taken + 1, "a gap"
        for batch in put.batches:
            for body in batch.bodies:
                if number > self.taken:
                    self.taken = number
                    if batch.queue == "mule:1" and number < 4:
                        self.refusals.append(Refusal(number, QueueFull.code, "no room"))
                    else:
                        self.kept.append(body)
                number += 1


def turn(outbox: Outbox, broker: Broker, inbound: list[Frame]) -> None:
    """Exchange frames as a connection does: one is done with when it is taken in to the end."""
    while inbound:
        outbox.receive(inbound[0], 0.0)
        del inbound[0]
    outbox.absorb()
    inbound += broker.answer(outbox.outgoing(0.0))


def test_a_strike_at_any_line_neither_loses_a_message_nor_doubles_it() -> None:
    struck, line = "", 0
    while line == 0 or struck:
        line += 1
        outbox = up(Outbox(SESSION, most_messages=100, most_bytes=1 << 20))
        broker, inbound = Broker(), list[Frame]()
        for text in ("a", "b"):
            outbox.put("mule:1", text, None, awaited=False, until=1e9)
        for text in ("c", "d"):
            outbox.posted.append((plain("mule:2"), text, 1, 0))

        def work(outbox: Outbox = outbox, broker: Broker = broker, inbound: list[Frame] = inbound) -> None:
            for _ in range(5):
                turn(outbox, broker, inbound)

        struck = strike(work, line)
        for _ in range(6):
            outbox.mend()
            turn(outbox, broker, inbound)
        assert sorted(map(str, broker.kept)) == ["a", "b", "c", "d"], struck
        assert outbox.unconfirmed() == outbox.failed == 0, struck
        assert not outbox.expecting(), struck
    assert line > 300

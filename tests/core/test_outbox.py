"""What a program's signal handler that raises does to an outbox: nothing that shows."""

from __future__ import annotations

import random
import signal

from tests.conftest import Alarm
from tests.core.test_session import SESSION, up
from zmule.core.frames import Put
from zmule.core.outbox import Outbox, plain

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

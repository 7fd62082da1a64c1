"""What happens to a mule's inbox in between: signal handlers that raise, threads that are quicker."""

from __future__ import annotations

import random
import signal
from collections import deque
from typing import Any

from tests.conftest import Alarm
from tests.core.test_session import SESSION, mule_up
from zmule.core.frames import DIRECT, SIGNAL, Deliver, Parcel, Report
from zmule.core.inbox import Arrival, Hand, Inbox

ROUNDS, EACH = 400, 60


def filled(count: int) -> Inbox:
    inbox = mule_up(Inbox(SESSION, number=1, farms=(), program="p", pid=1, token=b""))
    ids = tuple(range(1, count + 1))
    inbox.receive(Deliver(inbox.epoch, (Parcel("mule:1", 1, ids, tuple(map(str, ids)), None),)), 0.0)
    return inbox


def test_a_handler_that_raises_in_a_get_loses_nothing(armed: list[bool]) -> None:
    chance = random.Random(7)
    inbox, hand, seen, interrupted = filled(ROUNDS * EACH), Hand(), set[int](), 0
    while len(inbox._buffers["mule:1"]):
        last = hand.arrival
        try:
            armed.append(True)
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 1e-4))
            while (arrival := inbox.advance(hand, DIRECT)) is not None:
                last = arrival
                seen.add(arrival[0])
            armed.clear()
        except Alarm:
            inbox.put_down(hand, last)
            interrupted += 1
        assert hand.arrival in (None, last)
    returned = set(inbox._returns)
    assert interrupted
    assert len(seen) + len(returned) == ROUNDS * EACH
    assert not seen & returned
    assert seen - set(inbox.acks) <= {last[0] if last else 0}


def test_a_thread_that_another_is_quicker_than_takes_the_next() -> None:
    class Raced(deque[Arrival]):
        """A buffer whose first message another thread takes while one looks at it."""

        def __getitem__(self, place: Any) -> Any:
            item = super().__getitem__(place)
            if item[0] == 1:
                others.append(super().popleft())
            return item

    others: list[Arrival] = []
    inbox, hand = filled(2), Hand()
    inbox._sources[DIRECT] = [Raced(inbox._buffers["mule:1"])]
    assert inbox.advance(hand, DIRECT) == (2, "2", others[0][2])
    assert inbox.advance(hand, DIRECT) is None
    assert [id for id, _, _ in others] == [1]
    (report,) = [frame for frame in inbox.outgoing(0.0) if isinstance(frame, Report)]
    assert report.acks == (2,)


def test_a_thread_that_finds_a_buffer_emptied_goes_on_to_the_next() -> None:
    class Emptied(deque[Arrival]):
        def __bool__(self) -> bool:
            return True

    inbox, hand = filled(1), Hand()
    inbox._sources[DIRECT].insert(0, Emptied())
    arrival = inbox.advance(hand, DIRECT)
    assert arrival is not None
    assert arrival is hand.arrival


def test_after_a_signal_a_message_at_hand_has_its_turn() -> None:
    inbox, hand = filled(3), Hand()
    inbox.receive(Deliver(inbox.epoch, (Parcel("signal:17", 1, (7, 8), (b"\x11",) * 2, None),)), 0.0)
    took = [inbox.advance(hand, DIRECT | SIGNAL) for _ in range(6)]
    assert [arrival and arrival[0] for arrival in took] == [7, 1, 8, 2, 3, None]


def test_after_a_signal_messages_keep_their_order_where_signals_are_left_out() -> None:
    inbox, hand = filled(2), Hand()
    inbox.receive(Deliver(inbox.epoch, (Parcel("any", 1, (3,), ("3",), None),)), 0.0)
    inbox.receive(Deliver(inbox.epoch, (Parcel("signal:17", 1, (7,), (b"\x11",), None),)), 0.0)
    took = [inbox.advance(hand, bits) for bits in (SIGNAL, DIRECT, DIRECT, DIRECT)]
    assert [arrival and arrival[0] for arrival in took] == [7, 1, 2, 3]

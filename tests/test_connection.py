"""A connection whose broker does not read."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import zmq

from tests.conftest import wait_until
from zmule import process
from zmule.connection import Connection
from zmule.core.frames import Frame, Ping
from zmule.core.session import Link


class Talker(Link):
    """A link that always has something more to say, and that at once."""

    def __init__(self) -> None:
        super().__init__("client", bytes(16), ping_after=1.0, give_up_after=10.0)
        self.state = "up"

    def outgoing(self, _now: float) -> list[Frame]:
        return [Ping(number, 0.0) for number in range(1000)]

    def next_deadline(self, now: float) -> float:
        return now


def test_nothing_is_due_at_once_while_the_broker_does_not_read(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/deaf"
    with process.context().socket(zmq.ROUTER) as deaf:
        deaf.linger = 0
        deaf.rcvhwm = 1
        deaf.bind(endpoint)
        connection = Connection(endpoint, Talker())
        connection.renew(0.0)
        assert connection.next_deadline(0.0) == 0.0

        def stuck() -> bool:
            connection.exchange(0.0)
            return connection.next_deadline(0.0) > 0

        wait_until(stuck)
        connection.close()


class Doubter(Talker):
    """A link that counts its doubts."""

    doubted = 0

    def outgoing(self, _now: float) -> list[Frame]:
        return []

    def doubt(self) -> None:
        self.doubted += 1


def test_a_connection_that_was_away_is_doubted(tmp_path: Path) -> None:
    endpoint, link = f"ipc://{tmp_path}/broker", Doubter()
    connection = Connection(endpoint, link)
    connection.renew(0.0)

    def doubted(times: int) -> bool:
        connection.exchange(0.0)
        return link.doubted == times

    for times in (1, 2):
        with process.context().socket(zmq.ROUTER) as broker:
            broker.linger = 0
            broker.bind(endpoint)
            wait_until(partial(doubted, times), "a doubt")
        wait_until(lambda: doubted(link.doubted) and connection._full, "the cut")
    connection.close()

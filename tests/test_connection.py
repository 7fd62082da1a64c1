"""A connection whose broker does not read."""

from __future__ import annotations

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

"""zmule's signals: raised by a client, run by a mule's handler. The time of raising stands on the board."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.board import board_of
from benchmarks.peers.zmule import serve
from benchmarks.plan import Handled, Role
from zmule import Client, Mule

__all__ = ["receive", "send", "serve"]
NUMBER = 17


def send(role: Role, bodies: Iterator[bytes]) -> None:
    board = board_of(role)
    with Client(role.address) as client:
        client.status()
        for body in bodies:
            board.numbers[board.place(0)] = int(body)
            client.signal(NUMBER)


def receive(role: Role, handled: Handled) -> None:
    board = board_of(role)
    mule = Mule(1, endpoint=role.address)
    mule.register_signal(NUMBER, "mule1", lambda _: handled(b"%d" % board.numbers[board.place(0)]))
    handled.ready()
    while True:
        mule.get_msg()

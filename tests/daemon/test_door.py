"""No more connections come in than there are seats, and whoever waits comes in when one is free."""

from __future__ import annotations

import re
import resource
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from tests.conftest import wait_until
from zmule.daemon import door as module
from zmule.daemon.door import Door
from zmule.daemon.gateway import Gateway
from zmule.daemon.holding import hold
from zmule.daemon.main import RESERVE, RESERVE_A_MULE, seats
from zmule.errors import ConfigError

SEATS = 3


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"{tmp_path}/z.sock"


@pytest.fixture
def gateway(path: str) -> Iterator[Gateway]:
    endpoint = f"ipc://{path}"
    with hold([endpoint, f"{endpoint}.pub"]) as holding:
        gateway = Gateway(1 << 20)
        try:
            gateway.bind(holding, [(endpoint, f"{endpoint}.pub")])
            yield gateway
        finally:
            gateway.close()


@pytest.fixture
def guests() -> Iterator[list[socket.socket]]:
    guests: list[socket.socket] = []
    yield guests
    for guest in guests:
        guest.close()


def arrive(guests: list[socket.socket], path: str, count: int) -> None:
    """Have so many connect, and say nothing."""
    for _ in range(count):
        guest = socket.socket(socket.AF_UNIX)
        guest.settimeout(30)
        guest.connect(path)
        guests.append(guest)


def let_in(gateway: Gateway, count: int) -> None:
    """Wait until so many connections are there."""

    def are_there() -> bool:
        list(gateway.receive())
        return len(gateway.door.connections) == count

    wait_until(are_there, f"{count} connections")


def said(gateway: Gateway) -> list[str]:
    return [note.text for note in gateway.notes()]


def test_nobody_comes_in_before_it_is_said_how_many_may(
    gateway: Gateway, path: str, guests: list[socket.socket]
) -> None:
    arrive(guests, path, 1)
    list(gateway.receive())
    assert not gateway.door.connections
    assert not gateway.door.busy()
    gateway.door.set_most(SEATS)
    let_in(gateway, 1)


def test_as_many_come_in_as_there_are_seats(gateway: Gateway, path: str, guests: list[socket.socket]) -> None:
    gateway.door.set_most(SEATS)
    arrive(guests, path, SEATS + 5)
    let_in(gateway, SEATS)
    wait_until(lambda: list(gateway.receive()) or gateway.door.notes, "the note")
    for _ in range(100):
        list(gateway.receive())
    assert len(gateway.door.connections) == SEATS
    assert not gateway.door.busy()
    assert said(gateway) == ["no more connections: 3 of 3 are in use (max_connections); others wait"]


def test_who_waits_comes_in_when_a_seat_is_free(
    gateway: Gateway, path: str, guests: list[socket.socket]
) -> None:
    gateway.door.set_most(SEATS)
    arrive(guests, path, SEATS + 1)
    let_in(gateway, SEATS)
    first = set(gateway.door.connections)
    guests.pop(0).close()
    wait_until(
        lambda: list(gateway.receive()) or dict(gateway.door.connections).keys() - first
        or len(gateway.door.connections) == SEATS,
        "the one who waits",
    )  # fmt: skip
    let_in(gateway, SEATS)


def test_it_is_said_when_there_is_room_again(
    gateway: Gateway, path: str, guests: list[socket.socket]
) -> None:
    gateway.door.set_most(SEATS)
    arrive(guests, path, SEATS + 1)
    let_in(gateway, SEATS)
    wait_until(lambda: list(gateway.receive()) or gateway.door.notes, "the note")
    for guest in guests:
        guest.close()
    let_in(gateway, 0)
    last = said(gateway)[-1]
    assert last.startswith("new connections are accepted again: ")


def test_others_are_served_while_somebody_waits_at_the_door(
    gateway: Gateway, path: str, guests: list[socket.socket]
) -> None:
    """With none of the descriptors to spare: libzmq would abort if it tried to accept one more."""
    gateway.door.set_most(1)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    with context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(f"ipc://{path}")
        let_in(gateway, 1)
        arrive(guests, path, 20)
        dealer.send(b"\xc1")
        wait_until(lambda: list(gateway.receive()), "what it said")
        assert len(gateway.door.connections) == 1


def test_a_connection_that_is_cut_is_gone_and_no_other(
    gateway: Gateway, path: str, guests: list[socket.socket]
) -> None:
    gateway.door.set_most(SEATS)
    arrive(guests, path, 2)
    let_in(gateway, 2)
    first, second = gateway.door.connections
    gateway.door.cut(first)
    let_in(gateway, 1)
    assert list(gateway.door.connections) == [second]


def test_what_is_no_connection_is_not_cut() -> None:
    door = Door()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        door.cut(ours.fileno())
        ours.send(b"x")
        assert theirs.recv(1) == b"x"
    door.close()


def test_a_seat_that_was_left_without_a_word_is_found(
    gateway: Gateway, path: str, guests: list[socket.socket]
) -> None:
    gateway.door.set_most(1)
    gone = 10**6
    gateway.door.connections[gone] = 0.0
    arrive(guests, path, 1)

    def is_in() -> bool:
        list(gateway.receive())
        return bool(gateway.door.connections.keys() - {gone})

    wait_until(is_in, "the one who waits")


@pytest.fixture
def mute_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing tells of pollers, as under gVisor."""
    monkeypatch.setattr(module, "_PLACE", re.compile(r"(there)(is no such line)"))


def test_where_listeners_cannot_be_held_back_surplus_connections_are_cut(
    mute_kernel: None, gateway: Gateway, path: str, guests: list[socket.socket]
) -> None:
    (warning,) = said(gateway)
    assert warning.startswith("connections cannot be limited before they are accepted here: /proc ")
    gateway.door.set_most(SEATS)
    arrive(guests, path, SEATS)
    let_in(gateway, SEATS)
    arrive(guests, path, 2)
    wait_until(lambda: list(gateway.receive()) or gateway.door.notes, "the note")
    assert said(gateway) == ["no more connections: 3 of 3 are in use (max_connections); others are cut"]
    let_in(gateway, SEATS)
    for guest in guests[SEATS:]:
        while guest.recv(1000):
            list(gateway.receive())
    guests.pop(0).close()
    let_in(gateway, SEATS - 1)
    arrive(guests, path, 1)
    let_in(gateway, SEATS)
    assert said(gateway)[1:] == []


def test_a_listener_that_is_not_found_is_left_to_libzmq(
    monkeypatch: pytest.MonkeyPatch, path: str, guests: list[socket.socket]
) -> None:
    def fail(_: int) -> None:
        raise module.PlaceUnknown("because")

    monkeypatch.setattr(module, "_place", fail)
    endpoint = f"ipc://{path}"
    with hold([endpoint, f"{endpoint}.pub"]) as holding, closing(Gateway(1 << 20)) as gateway:
        gateway.bind(holding, [(endpoint, f"{endpoint}.pub")])
        arrive(guests, path, SEATS)
        let_in(gateway, SEATS)  # before it is said how many may: nobody is cut
        assert "here: because" in said(gateway)[0]


def test_seats_are_what_the_limit_on_open_files_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    most = seats(0, 0)
    assert 1000 - 200 < most < 1000 - RESERVE
    assert seats(0, 10) == most - 10 * RESERVE_A_MULE
    assert seats(10, 0) == 10
    with pytest.raises(ConfigError, match=r"max_connections: 1000 need .* open files, and the limit is 1000"):
        seats(1000, 0)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (30, 30))
    with pytest.raises(ConfigError, match="max_connections: 1 need"):
        seats(0, 0)

"""The broker's sockets, and what one peer can make them hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.conftest import wait_until
from zmule import process
from zmule.core.events import Event, FrameReceived, FrameRejected, PeersVanished
from zmule.core.frames import Answer, Ask, Batch, Pong, Put, Welcome
from zmule.core.wire import decode, encode
from zmule.daemon import gateway as module
from zmule.daemon.gateway import Gateway
from zmule.daemon.holding import hold

WELCOME = Welcome(1, bytes(16), 0, {})
Dealer = zmq.Socket[bytes]


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/z.sock"


@pytest.fixture
def gateway(endpoint: str) -> Iterator[Gateway]:
    with hold([endpoint, f"{endpoint}.pub"]) as holding:
        gateway = Gateway(1 << 20)
        try:
            gateway.bind(holding, [(endpoint, f"{endpoint}.pub")])
            gateway.door.set_most(100)
            yield gateway
        finally:
            gateway.close()


@pytest.fixture
def dealer(endpoint: str) -> Iterator[Dealer]:
    dealer = connect(endpoint)
    yield dealer
    dealer.close(linger=0)


def connect(endpoint: str) -> Dealer:
    dealer = process.context().socket(zmq.DEALER)
    dealer.linger = 0
    dealer.rcvhwm = 1  # what it does not read stays with the broker
    dealer.connect(endpoint)
    return dealer


def received(gateway: Gateway, count: int = 1) -> list[Event]:
    """Wait for so many events."""
    events: list[Event] = []

    def enough() -> bool:
        events.extend(gateway.receive())
        return len(events) >= count

    wait_until(enough, f"{count} events")
    return events


def greet(gateway: Gateway, dealer: Dealer) -> bytes:
    """Have a peer known to the gateway; return its id."""
    dealer.send(encode(Ask(1, "ping", ())))
    (event,) = received(gateway)
    assert isinstance(event, FrameReceived)
    gateway.send(event.peer, WELCOME)
    assert decode(dealer.recv()) == WELCOME
    return event.peer


def test_a_frame_goes_in_and_out(gateway: Gateway, dealer: Dealer) -> None:
    peer = greet(gateway, dealer)
    assert gateway.send(peer, Pong(1, 2)) is True
    assert decode(dealer.recv()) == Pong(1, 2)


def test_who_has_gone_is_gone_before_its_successor_comes(gateway: Gateway, endpoint: str) -> None:
    before = connect(endpoint)
    gone = greet(gateway, before)
    before.send(encode(Ask(2, "last words", ())))
    wait_until(lambda: gateway.router.poll(0), "the last words")
    before.close()
    wait_until(lambda: any(monitor.poll(0) for monitor in gateway._monitors), "the end")
    after = connect(endpoint)
    after.send(encode(Ask(3, "hello", ())))
    questions: list[str] = []
    while "hello" not in questions:
        for event in gateway.receive():
            if isinstance(event, FrameReceived):
                assert isinstance(event.frame, Ask)
                questions.append(event.frame.what)
            else:
                assert event == PeersVanished((gone,))
                questions.append("gone")
    after.close()
    assert questions == ["last words", "gone", "hello"]


def test_what_is_no_frame_is_rejected(gateway: Gateway, dealer: Dealer) -> None:
    greet(gateway, dealer)
    dealer.send(b"\xc1")
    dealer.send_multipart([encode(Ask(1, "ping", ())), b""])
    reasons = [event.reason for event in received(gateway, 2) if isinstance(event, FrameRejected)]
    assert reasons == ["not msgpack: FormatError", "a frame is one part"]


def test_a_peer_that_closes_has_vanished(gateway: Gateway, dealer: Dealer) -> None:
    peer = greet(gateway, dealer)
    dealer.close(linger=0)
    assert received(gateway) == [PeersVanished((peer,))]
    assert gateway.send(peer, Pong(0, 0)) is False


def test_a_slow_peer_gets_its_frames_later_and_in_order(gateway: Gateway, dealer: Dealer) -> None:
    peer = greet(gateway, dealer)
    numbers = range(2000)
    for number in numbers:
        gateway.send(peer, Answer(number, "", "x" * 1000))
    assert gateway.slow()
    got = []

    def all_read() -> bool:
        gateway.retry()
        while dealer.poll(0):
            got.append(decode(dealer.recv()))
        return len(got) == len(numbers)

    wait_until(all_read)
    assert [answer.request for answer in got if isinstance(answer, Answer)] == list(numbers)
    assert not gateway.slow()


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_a_peer_that_does_not_read_is_given_up(gateway: Gateway, dealer: Dealer, size: int) -> None:
    peer = greet(gateway, dealer)
    frame, sent = Answer(1, "", "x" * size), 0
    most = module.MAX_BACKLOG + 10_000 if size == 0 else 2 * (module.MAX_BACKLOG_BYTES >> 20) + 200
    while gateway.send(peer, frame):
        sent += 1
        assert sent < most, "it is never given up"
    assert received(gateway) == [PeersVanished((peer,))]
    assert not gateway.slow()


def test_others_are_served_while_one_does_not_read(gateway: Gateway, dealer: Dealer, endpoint: str) -> None:
    stopped = greet(gateway, dealer)
    for _ in range(400):
        gateway.send(stopped, Answer(1, "", "x" * 100_000))
    assert gateway.slow()
    other = connect(endpoint)
    gateway.send(greet(gateway, other), Pong(7, 0))
    assert decode(other.recv()) == Pong(7, 0)
    other.close()


def test_no_more_is_taken_in_at_a_time_than_fits_into_memory(gateway: Gateway, endpoint: str) -> None:
    dealers = [connect(endpoint) for _ in range(8)]
    frame = encode(Put(1, 0, (Batch("any", ("y" * (8 << 20),), None),)))
    for dealer in dealers:
        greet(gateway, dealer)
    for dealer in dealers:
        dealer.send(frame)
    taken = []

    def all_taken() -> bool:
        taken.append(len(list(gateway.receive())))
        return sum(taken) == len(dealers)

    wait_until(all_taken)
    assert max(taken) <= module.BYTES_A_TURN // len(frame) + 1
    for dealer in dealers:
        dealer.close(linger=0)

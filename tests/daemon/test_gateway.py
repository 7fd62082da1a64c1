"""The broker's sockets, and what one peer can make them hold."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq
from ports import free_ports

from tests.conftest import wait_until
from zmule import process
from zmule.connection import connect as connect_well
from zmule.core.events import Event, FrameReceived, FrameRejected, PeersVanished, StrangerSpoke
from zmule.core.frames import Answer, Ask, Batch, Ping, Pong, Put, Reset, Welcome
from zmule.core.wire import decode, encode
from zmule.daemon import gateway as module
from zmule.daemon import lines
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


@pytest.mark.parametrize("end", ["router", "dealer"])
def test_no_socket_has_zmtp_heartbeats_for_libzmq_may_abort_when_one_is_due(end: str) -> None:
    port = free_ports()
    endpoint, publish = f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port + 1}"
    with hold([endpoint, publish]) as holding, closing(Gateway(1 << 20)) as gateway:
        gateway.bind(holding, [(endpoint, publish)])
        with closing(connect_well(endpoint)) as dealer:
            end_of_it = gateway.router if end == "router" else dealer
            assert end_of_it.get(zmq.HEARTBEAT_IVL) == 0
            assert end_of_it.get(zmq.TCP_KEEPALIVE) == 1


@pytest.mark.parametrize(
    "opening", [b"\x01\x00", b"\xff" + bytes(8) + b"\x7f\x01\x05\x00\x00", b"GET / HTTP/1.1\r\n\r\n" * 9]
)
def test_who_speaks_another_zmtp_is_not_heard(
    gateway: Gateway, dealer: Dealer, endpoint: str, opening: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.connect(endpoint.removeprefix("ipc://"))
        old.sendall(opening + b"\x00\x02hi" * 50)
        for number in range(20):
            dealer.send(encode(Ping(number, 0.0)))
            [event] = received(gateway)
            assert isinstance(event, FrameReceived)
            assert event.frame == Ping(number, 0.0)


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


def test_who_has_not_greeted_may_say_little(gateway: Gateway, dealer: Dealer) -> None:
    long = encode(Put(1, 0, (Batch("any", ("x" * 2000,), None),)))
    dealer.send(long)
    (event,) = received(gateway)
    assert isinstance(event, StrangerSpoke)
    dealer.send(long + b"x" * (64 << 10))
    (event,) = received(gateway)
    assert isinstance(event, FrameRejected)
    assert event.reason.endswith("bytes before a greeting")


def test_who_was_reset_has_to_greet_anew(gateway: Gateway, dealer: Dealer) -> None:
    peer = greet(gateway, dealer)
    long = encode(Put(1, 0, (Batch("any", ("x" * 2000,), None),)))
    dealer.send(long)
    assert isinstance(received(gateway)[0], FrameReceived)
    gateway.send(peer, Reset("silent", ""))
    dealer.send(long)
    assert received(gateway) == [StrangerSpoke(peer)]


def test_who_goes_on_breaking_the_protocol_is_cut_off(
    gateway: Gateway, dealer: Dealer, endpoint: str
) -> None:
    other = connect(endpoint)
    bad, good = greet(gateway, dealer), greet(gateway, other)
    for _ in range(10):
        gateway.send(bad, Reset("protocol", "no"))
    assert received(gateway) == [PeersVanished((bad,))]
    assert gateway.send(bad, Pong(0, 0)) is False

    def comes_back() -> list[Event]:
        while dealer.poll(0):
            dealer.recv()
        dealer.send(encode(Ping(1, 0.0)))
        return list(gateway.receive())

    (event, *_) = wait_until(comes_back, "a new connection")
    assert event.peer != bad
    assert gateway.send(good, Pong(7, 0)) is True
    assert decode(other.recv()) == Pong(7, 0)
    other.close()


def test_all_backlogs_together_are_bounded_and_the_longest_goes_first(
    gateway: Gateway, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BACKLOGS_BYTES", 8 << 20)
    dealers = [connect(endpoint) for _ in range(3)]
    peers = [greet(gateway, dealer) for dealer in dealers]
    piece = Answer(1, "", "x" * (64 << 10))
    for peer in peers[:2]:
        for _ in range(30):
            gateway.send(peer, piece)
    sent = 0
    while gateway.send(peers[2], piece):
        sent += 1
        assert sent < 1000, "it is never cut off"
    assert gateway._kept <= 8 << 20
    gone = [event for event in received(gateway) if isinstance(event, PeersVanished)]
    assert gone == [PeersVanished((peers[2],))]
    for dealer in dealers:
        dealer.close(linger=0)


def test_a_peer_that_does_not_read_costs_little_beyond_its_backlog(gateway: Gateway, dealer: Dealer) -> None:
    peer = greet(gateway, dealer)
    for _ in range(50):
        gateway.send(peer, Answer(1, "", "x" * (1 << 20)))
    assert gateway._kept > 25 << 20, "libzmq holds what nobody counts"


class Slowly:
    """A loop to which the frames of one peer take long."""

    def __init__(self, gateway: Gateway, slow: bytes, seconds: float) -> None:
        self.gateway, self.slow, self.order = gateway, slow, list[bytes]()
        self.seconds = seconds

    def turn(self) -> None:
        for event in self.gateway.receive():
            assert isinstance(event, FrameReceived)
            self.order.append(event.peer)
            if event.peer == self.slow:
                until = time.thread_time() + self.seconds
                while time.thread_time() < until:
                    pass


def test_a_peer_that_takes_long_waits_as_long_while_others_are_served(
    gateway: Gateway, dealer: Dealer, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "COMPANY_SECONDS", 60.0)
    other = connect(endpoint)
    slow, quick = greet(gateway, dealer), greet(gateway, other)
    loop = Slowly(gateway, slow, 0.2)
    for number in range(4):
        dealer.send(encode(Ping(number, 0.0)))
    for number in range(10):
        other.send(encode(Ping(number, 0.0)))

    def are_heard() -> bool:
        loop.turn()
        return len(loop.order) == 14

    wait_until(are_heard, "all of them")
    before_the_third = loop.order[: [place for place, peer in enumerate(loop.order) if peer == slow][3]]
    assert before_the_third.count(quick) > 6, "they took turns, however long one of them takes"
    other.close()


def test_a_peer_whose_frames_are_many_waits_too(gateway: Gateway, dealer: Dealer, endpoint: str) -> None:
    with closing(connect(endpoint)) as other:
        flood, _ = greet(gateway, dealer), greet(gateway, other)
        loop = Slowly(gateway, flood, 0.0005)

        def waits() -> bool:
            for _ in range(10):
                dealer.send(encode(Ping(1, 0.0)))
            other.send(encode(Ping(1, 0.0)))
            loop.turn()
            return flood in gateway._lines

        wait_until(waits, "the flood to wait")
        wait_until(lambda: loop.turn() or flood not in gateway._lines, "it to be heard to the end")  # type: ignore[func-returns-value]
        gateway.cut_off(flood, "is enough")
        assert flood not in gateway._lines


def test_who_goes_on_and_on_though_it_waits_is_cut_off(
    gateway: Gateway, dealer: Dealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MOST_FRAMES", 10)
    flood = greet(gateway, dealer)
    gateway._lines.spoke(b"somebody", time.monotonic())
    gateway._lines.spent(flood, 1000.0, time.monotonic())
    for _ in range(11):
        dealer.send(encode(Ping(1, 0.0)))
    assert received(gateway) == [PeersVanished((flood,))]
    assert [note.text for note in gateway.notes()] == [
        "a peer is cut off: it goes on and on though it has to wait"
    ]


def test_a_flood_does_not_hide_who_has_gone(gateway: Gateway, dealer: Dealer, endpoint: str) -> None:
    """Under a flood there is always something to read: an end is told nevertheless, after the last words."""
    other = connect(endpoint)
    flood, gone = greet(gateway, dealer), greet(gateway, other)
    dealer.sndhwm = 0
    for number in range(5):
        other.send(encode(Ping(number, 0.0)))
    wait_until(lambda: gateway.router.poll(0), "its last words")
    other.close(linger=1000)
    events: list[Event] = []

    def is_told() -> bool:
        for _ in range(200):
            dealer.send(encode(Ping(1, 0.0)))
        events.extend(event for event in gateway.receive() if getattr(event, "peer", gone) != flood)
        return PeersVanished((gone,)) in events

    wait_until(is_told, "its end")
    assert events[-1] == PeersVanished((gone,))
    assert len(events) == 6

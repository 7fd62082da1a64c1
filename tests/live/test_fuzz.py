"""Rubbish on real sockets, as frames and as raw ZMTP, harms nobody but who sends it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from fuzz_daemon import Ordeal
from ports import free_ports

from tests.conftest import PATIENCE, Zmuled, wait_until
from zmule.connection import Socket
from zmule.core.frames import (
    PROTOCOL_VERSION,
    Ask,
    Batch,
    Bye,
    Deliver,
    Hello,
    Nack,
    Ping,
    Put,
    Report,
    Return,
)
from zmule.core.wire import encode
from zmule.mules.mule import Mule

GROWTH = 16_384
"""What the broker's memory may grow by, in KiB, once the first of the flood has filled its buffers."""

ATTACKS = 150
"""With raw ZMTP, of each of two vandals."""

ROUNDS = 60
FRAMES = 100
"""Of each round."""

CLIENT = {"floor": 0, "pid": 1}
OUTSIDER = {"number": 0, "farms": (), "program": "", "pid": 1, "token": b""}
VALID = [
    encode(frame)
    for frame in (
        Put(1, 0, (Batch("mule:99", ("x",), None),)),
        Put(7, 0, (Batch("any", ("too early",), {"a": 1}),)),
        Report(1, (1, 2, 3), (9, 9, 9, 9), ((15, 9),), 0),
        Nack(1, (1,), None, True),
        Return(1, (1, 2)),
        Ping(1, 0.0),
        Bye(1, (1,), (), (0, 0, 0, 0)),
        Ask(1, "status", ()),
        Ask(2, "lock", ("x", 1, -1.0, True)),
        Deliver(1, ()),
    )
]


class Attacker:
    """Throws things at a ROUTER, and never reads what it gets for them.

    Args:
        draw: decides everything.
        context: for its sockets, of which it takes a new one now and then.
        endpoint: of the broker.
    """

    def __init__(self, draw: random.Random, context: zmq.Context[Socket], endpoint: str) -> None:
        self.draw = draw
        self.context = context
        self.endpoint = endpoint
        self.socket = self.connected()
        self.things: list[Callable[[], list[bytes]]] = [
            lambda: [draw.randbytes(draw.randrange(200))],
            lambda: [draw.randbytes(draw.randrange(9)) for _ in range(draw.randrange(2, 6))],
            lambda: [b""] * draw.randint(1, 3),
            lambda: [draw.choice(VALID), b""],
            lambda: [draw.choice(VALID)],
            lambda: [self.damaged(draw.choice(VALID))],
            lambda: [self.damaged(self.hello())],
            lambda: [self.hello()],
            lambda: [
                draw.choice((b"\xdd\xff\xff\xff\xff", b"\x91" * 5000, b"\x93\x02\x01" + b"\xff" * 100_000))
            ],
        ]

    def connected(self) -> Socket:
        socket: Socket = self.context.socket(zmq.DEALER)
        socket.linger, socket.sndtimeo = 0, int(PATIENCE * 1000)
        socket.connect(self.endpoint)
        return socket

    def hello(self) -> bytes:
        """A client's or mule's, of a new session or one of a few."""
        session = self.draw.choice((self.draw.randbytes(16), bytes(16)))
        role, details = self.draw.choice((("client", CLIENT), ("mule", OUTSIDER), ("worker", OUTSIDER)))
        return encode(Hello(PROTOCOL_VERSION, role, session, details))

    def damaged(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        damaged[self.draw.randrange(len(damaged))] = self.draw.randrange(256)
        return bytes(damaged[: self.draw.choice((len(damaged), self.draw.randint(0, len(damaged))))])

    def attack(self) -> None:
        """Throw a round of frames, at times all of them HELLOs."""
        things = [self.things[7]] if self.draw.random() < 0.1 else self.things
        for _ in range(FRAMES):
            self.socket.send_multipart(self.draw.choice(things)())
        if self.draw.random() < 0.2:
            self.close()
            self.socket = self.connected()

    def close(self) -> None:
        self.socket.close()


def memory(pid: int) -> int:
    """What a process has in memory, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@contextmanager
def working(mule: Mule, handled: list[object]) -> Iterator[None]:
    """A thread that handles the mule's messages until it is sent `end`; others may send to `any`, too."""

    def work() -> None:
        while (body := mule.get_msg(timeout=PATIENCE / 3)) not in (None, "end"):
            handled.append(body)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_flood_of_rubbish_stops_nobody(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    assert zmuled.process is not None
    pid = zmuled.process.pid
    handled: list[object] = []
    number = 500
    sent = [f"message {place}" for place in range(2 * ROUNDS)]
    before = 0
    with zmq.Context() as context, Mule(number, endpoint=zmuled.endpoint) as mule, working(mule, handled):
        attackers = [Attacker(random.Random(seed), context, zmuled.endpoint) for seed in range(2)]
        try:
            for place in range(ROUNDS):
                for attacker, body in zip(attackers, sent[2 * place : 2 * place + 2], strict=True):
                    attacker.attack()
                    assert client.mule_msg(body, number)
                if place == ROUNDS // 3:
                    before = memory(pid)
            wait_until(
                lambda: zmuled.mule(number)["messages"] >= len(sent) - 1, "all acknowledgements but one"
            )
        finally:
            for attacker in attackers:
                attacker.close()
            client.mule_msg("end", number)
    assert [body for body in handled if body in sent] == sent
    assert memory(pid) - before < GROWTH
    assert zmuled.process.poll() is None
    assert "a peer broke the protocol" in zmuled.output()
    assert "Traceback" not in zmuled.output()


def test_a_flood_of_rubbish_floods_neither_the_log_nor_the_broker(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    count = 2000
    with zmq.Context() as context, context.socket(zmq.DEALER) as hostile:
        hostile.linger = 0
        hostile.connect(zmuled.endpoint)
        for _ in range(count):
            hostile.send(b"\xc1")
        wait_until(
            lambda: "a peer is cut off: it goes on breaking the protocol" in zmuled.output(), "the cut"
        )
        client.mule_msg("others are served")
    assert zmuled.stop() == 0
    lines = [line for line in zmuled.output().splitlines() if "a peer" in line]
    assert any("a peer broke the protocol" in line for line in lines)
    assert len(lines) < count / 2


@pytest.mark.timeout(180)
def test_raw_zmtp_harms_nobody_else(zmuled: Zmuled) -> None:
    tcp = f"tcp://127.0.0.1:{free_ports()}"
    zmuled.start("--endpoint", tcp)
    assert zmuled.process is not None
    seed = random.randrange(1_000_000)
    print("seed", seed)
    Ordeal(zmuled.process.pid, [zmuled.endpoint, tcp], seed).run(ATTACKS)
    assert zmuled.stop() == 0
    assert "Traceback" not in zmuled.output()

"""Rubbish on real sockets harms nobody but who sends it."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zmq

from tests.conftest import PATIENCE, Zmuled, wait_until
from zmule.clients.sync import Client
from zmule.connection import Socket
from zmule.core.frames import (
    PROTOCOL_VERSION,
    Answer,
    Ask,
    Batch,
    Bye,
    Confirm,
    Deliver,
    Hello,
    Nack,
    Parcel,
    Ping,
    Put,
    Recall,
    Report,
    Return,
    Welcome,
)
from zmule.core.wire import encode
from zmule.errors import BrokerUnavailable, ProtocolError, ZmuleError
from zmule.mules.mule import Mule

GROWTH = 16_384
"""What the broker's memory may grow by, in KiB, once the first of the flood has filled its buffers."""

ROUNDS = 60
FRAMES = 100
"""Of each round."""

Says = Callable[[list[list[bytes]], Path], None]

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


def test_a_flood_of_rubbish_does_not_flood_the_log(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    count = 2000
    with zmq.Context() as context, context.socket(zmq.DEALER) as hostile:
        hostile.connect(zmuled.endpoint)
        for _ in range(count):
            hostile.send(b"\xc1")
        for _ in range(count):
            assert hostile.poll(int(PATIENCE * 1000))
            hostile.recv()
    client.mule_msg("others are served")
    assert zmuled.stop() == 0
    lines = [line for line in zmuled.output().splitlines() if "a peer broke the protocol" in line]
    sums = [int(match[1]) for line in lines if (match := re.search(r"(\d+) more like it", line))]
    assert sum(sums) + len(lines) - len(sums) == count
    assert len(lines) < count / 2


BOTH = {
    "max_message": 1000,
    "number": 1,
    "farms": (),
    "publish": (),
    "broadcast": 0,
    "heartbeat": 3.0,
    "heartbeat_timeout": 10.0,
}
WELCOME = encode(Welcome(PROTOCOL_VERSION, bytes(16), 1, BOTH))
NOISE = {
    "nothing": [b""],
    "noise": [b"\xc1\xff\x00"],
    "several parts": [b"", b"\xc1", b""],
    "a list that is not there": [b"\xdd\xff\xff\xff\xff"],
    "deep": [b"\x91" * 5000],
    "cut": [encode(Confirm(1, ()))[:-1]],
}
AT_ONCE = {
    **NOISE,
    "a welcome without details": [encode(Welcome(1, bytes(16), 1, {}))],
    "a welcome with wrong details": [encode(Welcome(1, bytes(16), 1, dict.fromkeys(BOTH, "x")))],
}
LATER = {
    **NOISE,
    "a frame for brokers": [encode(Ping(1, 0.0))],
    "a queue that nobody reads": [encode(Deliver(1, (Parcel("farm:none", 1, (1,), ("x",), None),)))],
}


@contextmanager
def liar(folder: Path, *answers: list[bytes]) -> Iterator[str]:
    """A broker that answers what it gets with these, and goes on with the last; its endpoint."""
    endpoint, over = f"ipc://{folder}/liar", threading.Event()

    def lie() -> None:
        left = list(answers)
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.linger = 0
            router.bind(endpoint)
            bound.set()
            while not over.is_set():
                if router.poll(10):
                    peer = router.recv_multipart()[0]
                    router.send_multipart([peer, *(left.pop(0) if len(left) > 1 else left[0])])

    bound = threading.Event()
    thread = threading.Thread(target=lie)
    thread.start()
    try:
        assert bound.wait(PATIENCE)
        yield endpoint
    finally:
        over.set()
        thread.join(PATIENCE)


def client_says(answers: list[list[bytes]], folder: Path) -> None:
    with liar(folder, *answers) as endpoint:
        client = Client(endpoint)
        try:
            client.mule_msg("x", timeout=PATIENCE)
        finally:
            with suppress(ZmuleError):
                client.close(timeout=0)


def mule_says(answers: list[list[bytes]], folder: Path) -> None:
    with liar(folder, *answers) as endpoint, Mule(endpoint=endpoint, timeout=PATIENCE) as mule:
        mule.get_msg(timeout=PATIENCE)


@pytest.mark.parametrize("garbage", AT_ONCE.values(), ids=AT_ONCE)
@pytest.mark.parametrize("says", [client_says, mule_says], ids=["client", "mule"])
def test_a_greeting_answered_with_rubbish(tmp_path: Path, says: Says, garbage: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        says([garbage], tmp_path)


@pytest.mark.parametrize("garbage", LATER.values(), ids=LATER)
def test_a_client_whose_session_goes_on_with_rubbish(tmp_path: Path, garbage: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        client_says([[WELCOME, encode(Confirm(0, ()))], garbage], tmp_path)


@pytest.mark.parametrize("name", ["cut", "a queue that nobody reads"])
def test_a_mule_whose_session_goes_on_with_rubbish(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProtocolError):
        mule_says([[WELCOME], LATER[name]], tmp_path)


QUESTIONS: dict[str, Callable[[Client], object]] = {
    "lock": lambda client: client.lock().acquire(),
    "status": Client.status,
    "list": Client.dead_list,
    "show": lambda client: client.dead_show(1),
    "requeue": lambda client: client.dead_requeue(every=True),
    "drop": lambda client: client.dead_drop(every=True),
}


@pytest.mark.parametrize("value", ["x", None, ("x",), {"left": 1}, True], ids=str)
@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_an_answer_that_is_none(tmp_path: Path, question: Callable[[Client], object], value: object) -> None:
    fits = isinstance(value, dict) and question in map(QUESTIONS.get, ("status", "list", "show"))
    with liar(tmp_path, [WELCOME], [encode(Answer(1, "", value))]) as endpoint:
        client = Client(endpoint)
        if fits:
            assert question(client) == value
        else:
            with pytest.raises(ProtocolError):
                question(client)
        client.close()


def test_a_broker_that_never_gets_to_a_welcome_is_none(tmp_path: Path) -> None:
    with liar(tmp_path, [encode(Recall(1, 1))]) as endpoint:
        client = Client(endpoint, timeout=0.1)
        with pytest.raises(BrokerUnavailable):
            client.status()
        client.close()
        with pytest.raises(BrokerUnavailable):
            Mule(endpoint=endpoint, timeout=0.1)

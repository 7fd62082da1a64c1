"""A broker that says rubbish costs its peers an error and no more: no hang, and no other exception."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
import zmq

from tests.conftest import PATIENCE
from zmule.clients.sync import Client
from zmule.core.frames import PROTOCOL_VERSION, Answer, Confirm, Deliver, Hello, Parcel, Ping, Recall, Welcome
from zmule.core.wire import decode, encode
from zmule.errors import BrokerUnavailable, MuleStopped, ProtocolError, ZmuleError
from zmule.mules.mule import Mule

SCRIPTS = Path(__file__).parents[2] / "scripts"

Says = Callable[[list[list[bytes]], Path], None]
Answering = Callable[[bytes, str], list[list[bytes]]]

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
def hostile(folder: Path, answer: Answering, noise: list[bytes]) -> Iterator[str]:
    """A broker of any kind.

    Args:
        folder: where its sockets are.
        answer: is given a frame and the publish endpoint, and gives messages, part for part, to answer with.
        noise: the parts of what it publishes all the time.
    """
    endpoint, publish, over = f"ipc://{folder}/router", f"ipc://{folder}/pub", threading.Event()

    def run() -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.PUB) as pub:
            router.linger = pub.linger = 0
            router.bind(endpoint)
            pub.bind(publish)
            bound.set()
            while not over.is_set():
                if router.poll(5):
                    peer, data = router.recv_multipart()
                    for parts in answer(data, publish):
                        router.send_multipart([peer, *parts])
                if noise:
                    pub.send_multipart(noise)

    bound = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert bound.wait(PATIENCE)
        yield endpoint
    finally:
        over.set()
        thread.join(PATIENCE)


def liar(folder: Path, *answers: list[bytes]) -> AbstractContextManager[str]:
    """A broker that answers what it gets with these, and goes on with the last."""
    left = list(answers)
    return hostile(folder, lambda *_: [left.pop(0) if len(left) > 1 else left[0]], [])


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


def welcome(own: str, publish: str) -> list[list[bytes]]:
    """Welcome a mule, and name a publish endpoint; `own` is the real one."""
    pairs = ((own.replace("/pub", "/router"), publish),)
    return [[encode(Welcome(PROTOCOL_VERSION, bytes(16), 1, {**BOTH, "publish": pairs}))]]


def work(endpoint: str) -> None:
    """Be a mule for as long as it goes."""
    mule = Mule(endpoint=endpoint, timeout=PATIENCE)
    try:
        mule.register_signal(17, "mule", lambda _: None)
        while mule.get_msg(timeout=PATIENCE) is not None:
            pass
    finally:
        mule.close()


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_a_mule_whose_broadcasts_are_rubbish(tmp_path: Path, noise: list[bytes]) -> None:
    with hostile(tmp_path, lambda _, own: welcome(own, own), noise) as endpoint, pytest.raises(ProtocolError):
        work(endpoint)


@pytest.mark.parametrize("publish", ["tcp://[::1", "tcp://x:99999", "ipc://" + "x" * 200, "ipc://\0"])
def test_a_mule_that_is_told_to_subscribe_to_nonsense(tmp_path: Path, publish: str) -> None:
    with (
        hostile(tmp_path, lambda _, own: welcome(own, publish), []) as endpoint,
        pytest.raises(ProtocolError),
    ):
        work(endpoint)


@pytest.mark.parametrize("seed", range(40))
def test_a_mule_of_a_hostile_broker_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    frames, damage = __import__("fuzz_frames"), __import__("fuzz_damage")
    draw = random.Random(seed)
    writer, mutator, known = frames.Writer(draw), damage.Mutator(draw), frames.Known(epoch=1)

    def answer(data: bytes, own: str) -> list[list[bytes]]:
        if isinstance(decode(data), Hello):
            return welcome(own, own)
        return [
            [mutator.damaged(writer.frame(writer.to_mules, known), 0.6 * draw.random())] for _ in range(5)
        ]

    with hostile(tmp_path, answer, []) as endpoint, pytest.raises((ZmuleError, MuleStopped)):
        work(endpoint)


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

"""No frame of a peer's costs much more than its bytes, and a long one comes through as it was sent."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest

from zmule.core import frames as f
from zmule.core.unpacking import LONGEST, MOST_ROW, PLANS, SHORT
from zmule.core.wire import decode, decode_for_broker, encode
from zmule.errors import ProtocolError

MIB = 1 << 20

LONG: list[f.Frame] = [
    f.Hello(1, "mule", bytes(16), {"farms": tuple(f"farm{n}" for n in range(64)), "program": "x" * 4000}),
    f.Put(1, 0, tuple(f.Batch("any", ("x", b"y" * 9), {"a": n, "b": "c"}, None) for n in range(500))),
    f.Put(1, 0, (f.Batch("any", ("x" * MIB,), None, f.Options(delay=1.0, ttl=2.0)),)),
    f.Put(7, 3, (f.Batch("any", (b"",) * MOST_ROW, {}, None),)),
    f.Report(1, tuple(range(9000)), (1, 2, 3, 4), ((3, 1), (7, 2)), 5),
    f.Nack(1, tuple(range(9000)), None, True),
    f.Return(1, tuple(range(9000))),
    f.Bye(1, tuple(range(9000)), (1, 2), (1, 2, 3, 4)),
    f.Ask(1, "requeue_dead", (tuple(range(9000)), "x" * 2000)),
]


@pytest.mark.parametrize("frame", LONG, ids=lambda frame: type(frame).__name__)
def test_a_long_frame_is_what_was_sent(frame: f.Frame) -> None:
    assert len(encode(frame)) > SHORT
    assert decode_for_broker(encode(frame)) == frame


@pytest.mark.parametrize("frame", LONG, ids=lambda frame: type(frame).__name__)
def test_a_long_frame_of_a_later_version_has_more_fields(frame: f.Frame) -> None:
    more = [f.NUMBERS[type(frame)], *frame, {"new": [1, [2]]}, "x"]
    assert decode_for_broker(msgpack.packb(more)) == frame


@pytest.mark.parametrize("frame", LONG, ids=lambda frame: type(frame).__name__)
def test_a_long_frame_that_is_cut_or_goes_on_is_none(frame: f.Frame) -> None:
    data = encode(frame)
    for wrong in (data[:-1], data[: len(data) // 2], data[: SHORT + 1], data + b"\xc0"):
        with pytest.raises(ProtocolError):
            decode_for_broker(wrong)


@pytest.mark.parametrize("kind", LONGEST)
def test_only_messages_are_long(kind: type[f.Frame]) -> None:
    head = bytes([0x90 | len(CHECKED[kind]), f.NUMBERS[kind]])
    with pytest.raises(ProtocolError, match=f"{kind.__name__} has {LONGEST[kind] + 1} bytes, more than"):
        decode_for_broker(head.ljust(LONGEST[kind] + 1, b"\x01"))


CHECKED: dict[Any, tuple[Any, ...]] = {kind: (None, *plan) for kind, plan in PLANS.items()}


def nested(head: bytes, size: int) -> bytes:
    return head * (size // len(head))


BOMBS = {
    "lists, each as long as a list may be": b"\x94\x02\x01\x00" + nested(b"\xdc\xff\xff", 4000),
    "lists that announce billions": b"\x94\x02\x01\x00" + nested(b"\xdd\x7f\xff\xff\xff", 4000),
    "maps in a list": b"\x94\x09\x01\xa4ping\xdd\x00\xff\xff\xff" + b"\x80" * 2 * MIB,
    "maps for bodies": b"\x94\x02\x01\x00\x91\x94\xa3any\xdc\xff\xff" + b"\x80" * 2 * MIB,
    "maps in headers": b"\x94\x02\x01\x00\x91\x94\xa3any\x90\x8f" + b"\xa1x\x80" * MIB,
    "a wide map": b"\x94\x02\x01\x00\x91\x94\xa3any\x90\xdf\x00\x0f\xff\xff" + b"\xa1x\xc0" * MIB,
    "lists for ids": b"\x96\x03\x01\xdc\xff\xff" + nested(b"\xdc\xff\xff", 4000),
    "batches without end": b"\x94\x02\x01\x00\xdd\x00\xff\xff\xff" + b"\x94\xa0\x90\xc0\xc0" * MIB,
    "small texts": b"\x94\x02\x01\x00\xdc\xff\xff"
    + (b"\x94\xa0\xdc\x00\xff" + b"\xa2xx" * 255 + b"\xc0\xc0") * 8000,
    "another kind of list": b"\xdc\x00\x04\x02\x01\x00" + nested(b"\xdc\xff\xff", 4000),
    "a frame of the broker's": b"\x93\x23\x01" + nested(b"\xdc\xff\xff", 4000),
    "a short one": b"\x94\x02\x01\x00" + nested(b"\xdc\xff\xff", 999),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_bomb_does_not_go_off(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode_for_broker(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(data) + 50 * MIB


def test_a_broker_may_send_what_a_peer_may_not() -> None:
    answer = f.Answer(1, "", {"mules": tuple({"id": n, "farms": ("a", "b")} for n in range(100))})
    assert decode(encode(answer)) == answer
    with pytest.raises(ProtocolError, match="do not begin like a frame of a peer's"):
        decode_for_broker(encode(answer))

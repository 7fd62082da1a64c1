"""Frames survive the wire, and nothing else gets in."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Alarm
from zmule.core import frames as f
from zmule.core.wire import CHECKS, decode, encode
from zmule.errors import ProtocolError

counts = st.integers(0, 2**63 - 1)
ids = st.lists(st.integers(1, 2**63 - 1), max_size=5).map(tuple)
names = st.text(max_size=20)
bodies = st.lists(st.text() | st.binary(), max_size=5).map(tuple)
headers = st.none() | st.dictionaries(
    names, st.text() | st.integers(-9, 9) | st.none() | st.booleans(), max_size=4
)
spans = st.none() | st.floats(0, 1e10) | st.integers(0, 10**10)
options = (
    st.none()
    | st.builds(f.Options, delay=spans, at=st.none(), ttl=spans)
    | st.builds(f.Options, delay=st.none(), at=spans, ttl=spans)
)
details = st.dictionaries(names, st.integers(0, 9) | names | st.binary(), max_size=4)
sessions = st.binary(min_size=16, max_size=16)
parcels = st.builds(
    lambda queue, attempt, pairs, headers: f.Parcel(
        queue, attempt, tuple(id for id, _ in pairs), tuple(body for _, body in pairs), headers
    ),
    names,
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(1, 99), st.text() | st.binary()), max_size=4),
    headers,
)
FRAMES: dict[type[Any], st.SearchStrategy[Any]] = {
    f.Hello: st.builds(f.Hello, st.integers(1, 9), names, sessions, details),
    f.Put: st.builds(
        f.Put,
        st.integers(1, 99),
        counts,
        st.lists(st.builds(f.Batch, names, bodies, headers, options), max_size=3).map(tuple),
    ),
    f.Report: st.builds(
        f.Report,
        counts,
        ids,
        st.tuples(counts, counts, counts, counts),
        st.lists(st.tuples(st.integers(1, 15), st.integers(0, 99)), max_size=3).map(tuple),
        counts,
    ),
    f.Nack: st.builds(f.Nack, counts, ids, st.none() | st.floats(0, 1e10), st.booleans()),
    f.Return: st.builds(f.Return, counts, ids),
    f.Settled: st.builds(f.Settled, counts),
    f.Ping: st.builds(f.Ping, counts, st.floats(0, 1e9)),
    f.Bye: st.builds(f.Bye, counts, ids, ids, st.tuples(counts, counts, counts, counts)),
    f.Ask: st.builds(f.Ask, counts, names, st.lists(names | counts, max_size=3).map(tuple)),
    f.Welcome: st.builds(f.Welcome, st.integers(1, 9), sessions, counts, details),
    f.Refused: st.builds(f.Refused, names, names),
    f.Confirm: st.builds(
        f.Confirm, counts, st.lists(st.builds(f.Refusal, counts, names, names), max_size=3).map(tuple)
    ),
    f.Deliver: st.builds(f.Deliver, counts, st.lists(parcels, max_size=3).map(tuple)),
    f.Recall: st.builds(f.Recall, counts, counts),
    f.Pong: st.builds(f.Pong, counts, counts),
    f.Reset: st.builds(f.Reset, names, names),
    f.Farewell: st.builds(f.Farewell),
    f.Answer: st.builds(f.Answer, counts, names, names | counts | details),
    f.Broadcast: st.builds(f.Broadcast, counts, names),
}
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_every_frame_has_a_strategy_here() -> None:
    assert set(FRAMES) == set(CHECKS) == set(f.NUMBERS)


@given(st.one_of(list(FRAMES.values())))
def test_what_is_encoded_is_decoded_as_it_was(frame: Any) -> None:
    again = decode(encode(frame))
    assert type(again) is type(frame)
    assert again == frame


@given(st.one_of(list(FRAMES.values())), st.lists(anything, max_size=2))
def test_fields_of_a_later_version_are_passed_over(frame: Any, more: list[Any]) -> None:
    data = msgpack.packb([f.NUMBERS[type(frame)], *frame, *more])
    assert decode(data) == frame


@given(st.binary(max_size=200))
def test_bytes_are_a_frame_or_a_protocol_error(data: bytes) -> None:
    with_error(data)


@given(st.integers(0, 50), st.lists(anything, max_size=7))
def test_msgpack_is_a_frame_or_a_protocol_error(number: int, fields: list[Any]) -> None:
    with_error(msgpack.packb([number, *fields]))


@given(st.one_of(list(FRAMES.values())), st.data())
def test_a_damaged_frame_is_a_frame_or_a_protocol_error(frame: Any, data: st.DataObject) -> None:
    damaged = bytearray(encode(frame))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    with_error(bytes(damaged))


def with_error(data: bytes) -> None:
    """Decode; the frame that comes, if any, must survive the wire in its turn."""
    try:
        frame = decode(data)
    except ProtocolError:
        return
    assert type(frame) in CHECKS
    encode(frame)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "not a frame"),
        ([99], "not a frame"),
        (["1"], "not a frame"),
        ([True], "not a frame"),
        ({}, "not a frame"),
        ([2, 1], "Put has 1 fields, not 3"),
        ([2, 0, 0, []], "whole number from 1"),
        ([2, True, 0, []], "whole number from 1"),
        ([2, 1, 0, [["any", [1], None, None]]], "list of texts or bytes"),
        ([2, 1, 0, [["any", [], {"a": []}, None]]], "plain values"),
        ([2, 1, 0, [["any" * 100, [], None, None]]], "at most 200 characters"),
        ([2, 1, 0, [["any", []]]], "list of 4"),
        ([2, 1, 0, [["any", [], None, []]]], "neither nil nor delay, at, ttl"),
        ([2, 1, 0, [["any", [], None, [1, 2, None]]]], "a delay and a time"),
        ([2, 1, 0, [["any", [], None, [-1, None, None]]]], "delay, which is no number"),
        ([2, 1, 0, [["any", [], None, [None, float("nan"), None]]]], "at, which is no number"),
        ([2, 1, 0, [["any", [], None, [None, None, True]]]], "ttl, which is no number"),
        ([4, 1, [], -1, False], "number of seconds"),
        ([4, 1, [], None, 1], "neither true nor false"),
        ([3, 1, [True], [0, 0, 0, 0], [], 0], "list of whole numbers"),
        ([3, 1, [], [0], [], 0], "4 counts"),
        ([3, 1, [], [0, 0, 0, -1], [], 0], "4 counts"),
        ([3, 1, [], [0, 0, 0, 0], [[16, 1]], 0], "whole number from 1 to 15"),
        ([35, 1, [["any", 1, [1, 2], ["x"], None]]], "more ids than bodies"),
        ([1, 1, "mule", b"short", {}], "16 bytes"),
        ([7, 0, float("nan")], "number of seconds"),
    ],
)
def test_what_is_wrong_is_named(value: Any, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode(msgpack.packb(value))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x92\x02", b"\xa1\xff", b"\x91" * 2000, b"\xdd\xff\xff\xff\xff", b"\x01\x01"],
    ids=["empty", "reserved", "cut", "not UTF-8", "deep", "a list that is not there", "two values"],
)
def test_what_is_not_msgpack_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


def test_a_frame_that_takes_too_much_memory_is_a_bad_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("msgpack.unpackb", exhausted)
    with pytest.raises(ProtocolError, match="MemoryError"):
        decode(b"")


def test_what_a_signal_handler_raises_is_not_taken_for_a_bad_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise Alarm

    monkeypatch.setattr("msgpack.unpackb", interrupted)
    with pytest.raises(Alarm):
        decode(encode(f.Ping(1, 0.0)))

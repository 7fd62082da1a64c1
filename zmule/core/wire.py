"""Bytes to frames and back, trusting nothing.

`decode` is the only way in for what a peer sent. Each frame has a list of checks, one a field, that
runs before any of the broker sees it, so that the code behind it may rely on types and ranges. Whatever
is wrong is a `ProtocolError` that names the frame and field. Checks of the hot frames (PUT, REPORT,
DELIVER) look at whole columns with C-speed builtins (`set(map(type, …))`), never at one message at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import call
from typing import Any, TypeVar

import msgpack

from zmule.core.frames import (
    EVERY_SOURCE,
    NUMBERS,
    SOURCES,
    Answer,
    Ask,
    Batch,
    Broadcast,
    Bye,
    Confirm,
    Deliver,
    Farewell,
    Frame,
    Hello,
    Nack,
    Options,
    Parcel,
    Ping,
    Pong,
    Put,
    Recall,
    Refusal,
    Refused,
    Report,
    Reset,
    Return,
    Settled,
    Welcome,
)
from zmule.core.unpacking import KINDS, PLANS, SHORT, kind_of, unpack
from zmule.errors import ProtocolError, WrongValue

MAX_NAME = 200
"""Longest queue name, program name, error code or request name, in characters."""

MAX_REASON = 1000
MAX_HEADERS = 32
MAX_HEADER_SIZE = 4096
"""Names and values of a message's headers together, in characters and bytes."""

MAX_THREADS = 10_000
MAX_SECONDS = 1e10
"""Latest Unix time, and longest span, that a message's options may have."""

SHORTEST_SPAN = 0.001
"""Shortest heartbeat, in seconds."""

FRAME_OVERHEAD = 64 * 1024
"""What a frame may need on top of the bodies that it carries, in bytes."""

BROKEN = (ValueError, TypeError, OverflowError, MemoryError, RecursionError, msgpack.UnpackException)
"""What a hostile frame can make msgpack raise. Nothing else: a signal's handler may raise there as well."""

Check = Callable[[Any], Any]
Kind = TypeVar("Kind")

encode_value: Callable[[Any], bytes] = msgpack.packb
_build: Callable[[Any, Iterable[Any]], Any] = tuple.__new__
"""Makes a named tuple of its fields: by its own constructor it takes three times as long."""


class Invalid(Exception):
    """A field failed its check."""


def _number(least: int, most: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise Invalid(f"is not a whole number from {least} to {most}")
        return value

    return check


def _text(most: int) -> Check:
    def check(value: Any) -> str:
        if type(value) is not str or len(value) > most:
            raise Invalid(f"is not a text of at most {most} characters")
        return value

    return check


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e12:
        raise Invalid("is not a number of seconds")
    return float(value)


def _pause(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= MAX_SECONDS:
        raise Invalid(f"is neither nil nor a number of seconds from 0 to {MAX_SECONDS:.0f}")
    return float(value)


def _switch(value: Any) -> bool:
    if type(value) is not bool:
        raise Invalid("is neither true nor false")
    return value


def _session(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != 16:
        raise Invalid("is not 16 bytes")
    return value


def _details(value: Any) -> dict[str, Any]:
    if type(value) is not dict or len(value) > 64 or set(map(type, value)) - {str}:
        raise Invalid("is not a map of names")
    return value


def _column(kinds: frozenset[type], what: str) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not tuple or not kinds.issuperset(map(type, value)):
            raise Invalid(f"is not a list of {what}")
        return value

    return check


_anything = _column(frozenset({int, float, str, bytes, bool, tuple, dict, type(None)}), "values")
_bodies = _column(frozenset({str, bytes}), "texts or bytes")
_whole = _column(frozenset({int}), "whole numbers")
_ids = _whole
"""Whether there is a message of such a number is seen where it is looked up."""


def _headers(value: Any) -> Any:
    if value is None:
        return None
    plain = {str, bytes, int, float, bool, type(None)}
    if type(value) is not dict or len(value) > MAX_HEADERS or not plain.issuperset(map(type, value.values())):
        raise Invalid(f"is not a map of at most {MAX_HEADERS} plain values")
    if set(map(type, value)) - {str}:
        raise Invalid("has a header whose name is not a text")
    texts = [item for pair in value.items() for item in pair if isinstance(item, (str, bytes))]
    if sum(map(len, texts)) > MAX_HEADER_SIZE:
        raise Invalid(f"has more than {MAX_HEADER_SIZE} bytes")
    return value


def _waits(value: Any) -> Any:
    pairs = _wait_pairs(value)
    if len(pairs) > EVERY_SOURCE:
        raise Invalid("has more entries than there are sets of sources")
    return pairs


def _options(value: Any) -> Options | None:
    if value is None:
        return None
    if type(value) is not tuple or len(value) != len(Options._fields):
        raise Invalid(f"is neither nil nor {', '.join(Options._fields)}")
    for name, number in zip(Options._fields, value, strict=True):
        if number is not None and (type(number) not in (int, float) or not 0 <= number <= MAX_SECONDS):
            raise Invalid(f"has {name}, which is no number from 0 to {MAX_SECONDS:.0f}")
    options = Options(*value)
    if options.delay is not None and options.at is not None:
        raise Invalid("has a delay and a time")
    return options


def _records(kind: Any, *checks: Check) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not tuple:
            raise Invalid("is not a list")
        records = []
        for item in value:
            if type(item) is not tuple or len(item) != len(checks):
                raise Invalid(f"has an entry that is not a list of {len(checks)}")
            records.append(_build(kind, map(call, checks, item)))
        return tuple(records)

    return check


def _received(value: Any) -> Any:
    counts = _whole(value)
    if len(counts) != len(SOURCES) or min(counts) < 0 or max(counts) >= 2**63:
        raise Invalid(f"is not {len(SOURCES)} counts")
    return counts


def _parcels(value: Any) -> Any:
    for parcel in (parcels := _parcel_records(value)):
        if len(parcel.ids) != len(parcel.bodies):
            raise Invalid("has a parcel with more ids than bodies, or fewer")
    return parcels


_name = _text(MAX_NAME)
_reason = _text(MAX_REASON)
_count = _number(0, 2**63 - 1)
_parcel_records = _records(Parcel, _name, _number(1, 2**31), _ids, _bodies, _headers)
_wait_pairs = _records(tuple, _number(1, EVERY_SOURCE), _number(0, MAX_THREADS))
_version = _number(1, 1000)

CHECKS: dict[type[Frame], tuple[Check, ...]] = {
    Hello: (_version, _name, _session, _details),
    Put: (_number(1, 2**63 - 1), _count, _records(Batch, _name, _bodies, _headers, _options)),
    Report: (_count, _ids, _received, _waits, _count),
    Nack: (_count, _ids, _pause, _switch),
    Return: (_count, _ids),
    Settled: (_count,),
    Ping: (_count, _seconds),
    Bye: (_count, _ids, _ids, _received),
    Ask: (_count, _name, _anything),
    Welcome: (_version, _session, _count, _details),
    Refused: (_name, _reason),
    Confirm: (_count, _records(Refusal, _count, _name, _reason)),
    Deliver: (_count, _parcels),
    Recall: (_count, _count),
    Pong: (_count, _count),
    Reset: (_name, _reason),
    Farewell: (),
    Answer: (_count, _name, lambda value: value),
    Broadcast: (_count, _name),
}


def check_envelope(queue: str, headers: Any) -> None:
    """Check what a sender puts around a message, before it is too late to tell who did.

    Raises:
        WrongValue: the queue's name or the headers cannot travel.
    """
    try:
        _headers(headers)
        if len(queue) > MAX_NAME or not (queue.isascii() and headers is None):
            encode_value((_name(queue), headers))
    except Invalid as error:
        raise WrongValue(f"a queue's name or the headers: it {error}") from None
    except (UnicodeEncodeError, OverflowError) as error:
        raise WrongValue(f"the queue's name or the headers cannot be encoded: {error}") from None


def detail(details: dict[str, Any], name: str, kind: type[Kind]) -> Kind:
    """Return the detail of that name, of a Hello or Welcome.

    Raises:
        ProtocolError: it is missing, or of another type.
    """
    value = details.get(name)
    if type(value) is not kind:
        raise ProtocolError(f"detail {name} is {type(value).__name__}, not {kind.__name__}")
    return value


def span(details: dict[str, Any], name: str) -> float:
    """Return the detail of that name, seconds for which one can wait.

    Raises:
        ProtocolError: it is missing, of another type, or nothing of the kind.
    """
    value = detail(details, name, float)
    if not SHORTEST_SPAN <= value <= MAX_SECONDS:
        raise ProtocolError(f"detail {name} is {value:g} s")
    return value


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    return encode_value((NUMBERS[type(frame)], *frame))


def decode(data: bytes) -> Frame:
    """Return the frame that the bytes stand for.

    Raises:
        ProtocolError: they stand for none; the text says which frame and field is wrong, and how.
    """
    kind, fields = _open(data)
    return _check(kind, fields)


def decode_for_broker(data: bytes) -> Frame:
    """Return the frame that a peer has sent to its broker; whatever the bytes are, they cost little.

    Raises:
        ProtocolError: as `decode` does, or it is a long one that no peer sends.
    """
    if len(data) > SHORT and kind_of(data) not in PLANS:
        raise ProtocolError(f"{len(data)} bytes that do not begin like a frame of a peer's")
    return decode(data)


def _check(kind: type[Frame], fields: tuple[Any, ...]) -> Frame:
    checks = CHECKS[kind]
    if len(fields) < len(checks):
        raise ProtocolError(f"{kind.__name__} has {len(fields)} fields, not {len(checks)}")
    try:
        frame: Frame = _build(kind, map(call, checks, fields))
    except Invalid as error:
        raise ProtocolError(f"{kind.__name__}: a field {error}") from None
    return frame


def _open(data: bytes) -> tuple[type[Frame], tuple[Any, ...]]:
    try:
        value = unpack(data)
    except BROKEN as error:
        raise ProtocolError(f"not msgpack: {type(error).__name__}") from None
    if type(value) is not tuple or not value or type(value[0]) is not int or value[0] not in KINDS:
        raise ProtocolError("not a frame: no list that begins with the number of one")
    return KINDS[value[0]], value[1:]

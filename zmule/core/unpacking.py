"""Frames of peers, unpacked so that none costs more than its bytes are worth.

An array of msgpack tells its length before its elements come, and the room for them is taken at once: nested
a thousand deep, a few bytes for each, it takes gigabytes. And an element of one byte may become an object of
a hundred. So what a peer has sent is refused by its length first, of which each kind of frame has its limit.
A short frame can do no harm and is unpacked as it is. Of a longer one msgpack is asked for plain values only,
one after the other: what lies in what, and how many there may be, is in the plan of its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import msgpack

from zmule.core.frames import NUMBERS, Ask, Bye, Frame, Hello, Nack, Ping, Put, Report, Return, Settled
from zmule.errors import ProtocolError

SHORT = 1024
"""Frames up to that length, in bytes, are unpacked without a plan."""

ENVELOPES = 8 << 20
"""What a `Put` may need on top of its longest message: more messages, queues, headers."""

MOST_ROW = 65_536
"""Messages of one sender, or ids, in one list."""

MOST_VALUES = 8 * MOST_ROW
"""Values of one frame, lists and maps counted by what is in them."""

MOST_NAMES = 64
"""Pairs of a map."""

_IDS = 2 * 9 * MOST_ROW + SHORT

LONGEST: dict[type[Frame], int] = {
    Hello: 64 << 10,
    Report: _IDS,
    Nack: _IDS,
    Return: _IDS,
    Settled: SHORT,
    Ping: SHORT,
    Bye: _IDS,
    Ask: 64 << 10,
}
"""How long a frame may be, in bytes. A `Put` is as long as the broker's limit on messages lets it be."""

KINDS: dict[int, type[Frame]] = {number: kind for kind, number in NUMBERS.items()}


def longest_put(max_message: int) -> int:
    """Return how long a `Put` may be, in bytes, and so any frame of a peer's."""
    return max_message + ENVELOPES


def kind_of(data: bytes) -> type[Frame] | None:
    """Return what kind of frame the bytes begin; None: none that a peer would send."""
    fields = len(data) > 1 and 0x91 <= data[0] <= 0x9F
    return KINDS.get(data[1]) if fields else None


def unpack(data: bytes) -> Any:
    """Return the value that a frame is, with tuples for lists.

    Raises:
        ProtocolError: it is longer than a frame of its kind may be.
        ValueError, TypeError, …: it is no msgpack, or not built as a frame of its kind.
    """
    kind = kind_of(data)
    if len(data) <= SHORT or kind is None or kind not in PLANS:
        return msgpack.unpackb(
            data, use_list=False, strict_map_key=True, max_ext_len=0, max_array_len=len(data)
        )
    longest = LONGEST.get(kind, len(data))
    if len(data) > longest:
        raise ProtocolError(f"{kind.__name__} has {len(data)} bytes, more than {longest}")
    return _Reader(data).frame(PLANS[kind])


class _Reader:
    """Reads plain values, one after the other, and what a plan makes of them."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MOST_VALUES
        self._unpacker = msgpack.Unpacker(
            use_list=False,
            strict_map_key=True,
            max_ext_len=0,
            max_array_len=0,
            max_map_len=0,
            read_size=len(data),
            max_buffer_size=len(data),
        )
        self._unpacker.feed(data)

    def frame(self, plan: tuple[Part, ...]) -> tuple[Any, ...]:
        """Read a frame: its number, its fields, and more if it is of a later version."""
        count = self._unpacker.read_array_header()
        fields = [part(self) for part in (_Reader.value, *plan)[:count]]
        for _ in range(len(fields), count):
            self._unpacker.skip()
        if self._unpacker.tell() != len(self._data):
            raise ValueError("something follows the frame")
        return tuple(fields)

    def value(self) -> Any:
        """Read a plain value."""
        return self._unpacker.unpack()

    def count(self, most: int = MOST_ROW) -> int:
        """Read the beginning of a list; return how many elements follow."""
        return self._checked(self._unpacker.read_array_header(), most)

    def row(self) -> tuple[Any, ...]:
        """Read a list of plain values."""
        count = self.count()
        row = tuple(islice(self._unpacker, count))
        if len(row) != count:
            raise ValueError("a list is cut short")
        return row

    def rows(self) -> tuple[Any, ...]:
        """Read a list of lists."""
        return tuple(self.row() for _ in range(self.count()))

    def names(self) -> Any:
        """Read a map of texts to values, or to lists of them; or a plain value instead."""
        if not self._is(0x80, 0xDE):
            return self.value()
        count = self._checked(self._unpacker.read_map_header(), MOST_NAMES)
        return {self._name(): self.value_or_row() for _ in range(count)}

    def value_or_row(self) -> Any:
        """Read a plain value, or a list of such."""
        return self.row() if self._is(0x90, 0xDC) else self.value()

    def arguments(self) -> tuple[Any, ...]:
        """Read a list of values and lists."""
        return tuple(self.value_or_row() for _ in range(self.count()))

    def batches(self) -> tuple[Any, ...]:
        """Read the batches of a `Put`."""
        return tuple(self._batch() for _ in range(self.count()))

    def _batch(self) -> tuple[Any, ...]:
        if self.count() != 4:
            raise ValueError("a batch is a list of 4")
        return self.value(), self.row(), self.names(), self.value_or_row()

    def _name(self) -> str:
        name = self.value()
        if type(name) is not str:
            raise ValueError("a name is a text")
        return name

    def _checked(self, count: int, most: int) -> int:
        self._left -= count
        if count > most or self._left < 0:
            raise ValueError("too many values")
        return count

    def _is(self, few: int, many: int) -> bool:
        """Return whether a list or map comes next: `few` is the head of a small one, `many` of others."""
        place = self._unpacker.tell()
        head = self._data[place] if place < len(self._data) else 0
        return head & 0xF0 == few or head in (many, many + 1)


Part = Callable[[_Reader], Any]

PLANS: dict[type[Frame], tuple[Part, ...]] = {
    Hello: (_Reader.value, _Reader.value, _Reader.value, _Reader.names),
    Put: (_Reader.value, _Reader.value, _Reader.batches),
    Report: (_Reader.value, _Reader.row, _Reader.row, _Reader.rows, _Reader.value),
    Nack: (_Reader.value, _Reader.row, _Reader.value, _Reader.value),
    Return: (_Reader.value, _Reader.row),
    Settled: (_Reader.value,),
    Ping: (_Reader.value, _Reader.value),
    Bye: (_Reader.value, _Reader.row, _Reader.row, _Reader.row),
    Ask: (_Reader.value, _Reader.value, _Reader.arguments),
}
"""How a frame of a peer's is built, field by field."""

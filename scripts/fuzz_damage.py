"""Damages frames: one value of many, or some bytes."""

from __future__ import annotations

import random
from typing import Any

import msgpack

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63 - 2, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "any", "\0", "é" * 300, "x" * 5000, b"", b"\xff" * 16, b"y" * 5000, [],
    {}, [[]], {"": []}, [1] * 200, {str(number): number for number in range(70)},
)  # fmt: skip
SHARP = (
    b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdb\x7f\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xdc\xff\xff", b"\xde\xff\xff", b"\x91" * 600,
    b"\x81\xa0" * 600, b"\xd6\xff\0\0\0\0", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xa2\xed\xa0", b"\0",
)  # fmt: skip


class Mutator:
    """Damages frames, as values and as bytes.

    Args:
        draw: decides everything.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.before = b"\x90"

    def damaged(self, frame: list[Any], chance: float) -> bytes:
        """Return a frame as it should be, or damaged as a value, as bytes or both: `chance` is 0 to 1."""
        if 0.45 < chance < 0.75:
            frame = self.values(frame)
        data: bytes = msgpack.packb(frame)
        return self.bytes(data) if chance > 0.65 else data

    def values(self, frame: Any) -> Any:
        """Return the frame with something else in one place."""
        draw = self.draw
        if isinstance(frame, (list, tuple)) and frame and draw.random() < 0.9:
            items = list(frame)
            place = draw.randrange(len(items))
            chance = draw.random()
            if chance < 0.8:
                items[place] = self.values(items[place])
            elif chance < 0.9:
                del items[place]
            else:
                items.insert(place, items[draw.randrange(len(items))])
            return items
        if isinstance(frame, dict) and frame and draw.random() < 0.8:
            name = draw.choice(list(frame))
            return {**frame, name: self.values(frame[name])}
        return self.nested() if draw.random() < 0.02 else draw.choice(ODD)

    def nested(self) -> Any:
        """Return an empty list in many others."""
        value: Any = []
        for _ in range(self.draw.choice((10, 100, 500))):
            value = [value]
        return value

    def bytes(self, data: bytes) -> bytes:
        """Return the bytes with something done to them, once or a few times."""
        damaged = bytearray(data)
        for _ in range(self.draw.choice((1, 1, 1, 2, 4))):
            place = self.draw.randint(0, len(damaged))
            self.draw.choice((self._change, self._flip, self._cut, self._insert, self._splice))(
                damaged, place
            )
        self.before = data
        return bytes(damaged)

    def _change(self, damaged: bytearray, place: int) -> None:
        damaged[place : place + 1] = [self.draw.randrange(256)]

    def _flip(self, damaged: bytearray, place: int) -> None:
        if place < len(damaged):
            damaged[place] ^= 1 << self.draw.randrange(8)

    def _cut(self, damaged: bytearray, place: int) -> None:
        del damaged[place : place + self.draw.choice((1, 2, 9, 10_000))]

    def _insert(self, damaged: bytearray, place: int) -> None:
        damaged[place:place] = self.draw.choice((*SHARP, self.draw.randbytes(5)))

    def _splice(self, damaged: bytearray, place: int) -> None:
        damaged[place:] = self.before[self.draw.randint(0, len(self.before)) :]

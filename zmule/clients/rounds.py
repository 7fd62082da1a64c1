"""Loops of a mule that get under a lock and work without it: lock, get, unlock, work, and round again.

When a thread comes back to wait for the lock under which it got its message, that message is done, as it is
when the thread comes back to a get. But a lock that is taken during the work, be it the same one, says
nothing. The two are told apart by the place of the call: the very call in the source, in all functions up the
stack. Who is there again has left everything that he has called since. What gets and works by the very same
calls, as in a loop over functions, cannot be told apart; that wants a `Mule.message` block.
"""

from __future__ import annotations

import weakref
from functools import lru_cache
from itertools import islice
from types import CodeType, FrameType
from typing import Protocol

Place = tuple[tuple[CodeType, int], ...]
"""The functions of a thread that are in a call, from the inside, each with the instruction that it is at."""

Token = tuple[int, int]
"""Which message: its id, and the epoch of its delivery."""


class Getter(Protocol):
    """What keeps for each thread of a mule what that got last."""

    def in_hand(self) -> Token | None:
        """Return what this thread is working on."""

    def ack(self) -> None:
        """Acknowledge that."""


class Round:
    """What a thread of a mule has a lock for.

    Attributes:
        place: where it has asked for it.
        before: what it was working on then.
        got: what it has got while it held it.
    """

    __slots__ = ("before", "got", "place")

    def __init__(self, place: Place, before: Token | None) -> None:
        self.place = place
        self.before = before
        self.got: Token | None = None


_mule: weakref.ref[Getter] | None = None


def _watched() -> Getter | None:
    return None if _mule is None else _mule()


def watch(mule: Getter) -> None:
    """Have what the mule's threads are working on acknowledged when they come round."""
    global _mule
    _mule = weakref.ref(mule)


def begin(last: Round | None, frame: FrameType) -> Round | None:
    """A thread asks for a lock: acknowledge what it has, if it got that when it had asked here before.

    Args:
        last: the round in which it got something under that lock.
        frame: the frame of the call.
    """
    mule = _watched()
    if mule is None:
        return None
    place, has = place_of(frame), mule.in_hand()
    if last is not None and has is not None and has == last.got and same(place, last.place):
        mule.ack()
        has = None
    return Round(place, has)


def end(round: Round | None) -> bool:
    """A thread lets go of a lock; return whether it has got a message under it."""
    mule = _watched()
    if mule is None or round is None:
        return False
    has = mule.in_hand()
    round.got = None if has == round.before else has
    return round.got is not None


def place_of(frame: FrameType | None) -> Place:
    """Return the place that a thread is at."""
    place = []
    while frame is not None:
        place.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(place)


def same(place: Place, other: Place) -> bool:
    """Return whether both are the same calls in the source."""
    return len(place) == len(other) and all(
        code is its_code and (at == its_at or _spot(code, at) == _spot(its_code, its_at))
        for (code, at), (its_code, its_at) in zip(place, other, strict=True)
    )


@lru_cache(maxsize=256)
def _spot(code: CodeType, at: int) -> object:
    """Return where an instruction is in the source: Python may compile one call, as in a `while`, twice."""
    spot = next(islice(code.co_positions(), at // 2, None), (None,))
    return at if None in spot else spot

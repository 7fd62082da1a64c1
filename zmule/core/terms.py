"""When a message may be delivered: not before, and not after.

A span of time, as in `delay` and `ttl`, must not be stretched or cut by a wall clock that jumps. So spans
are counted on the broker's *steady* clock: the wall clock as it was when the broker started, carried on by
the monotonic one. It reads like the wall clock and never jumps. A restart knows nothing but the wall
clock: what of a span is left then is what the wall clock says.

A time of day, as in `at`, is the opposite: it means the wall clock, wherever that jumps.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from zmule.core.frames import Options
from zmule.core.wire import MAX_SECONDS

if TYPE_CHECKING:
    from datetime import datetime


class Terms(NamedTuple):
    """When a message may be delivered.

    Attributes:
        due: not before then, on the steady clock.
        at: not before then, on the wall clock.
        expires: not after then, on the steady clock.
    """

    due: float | None = None
    at: float | None = None
    expires: float | None = None


def wished(delay: float | None, at: float | datetime | None, ttl: float | None) -> Options | None:
    """Return the options of a message, from what a caller has given.

    Raises:
        ValueError: one of them makes no sense, or both a delay and a time are given.
    """
    if delay is None and at is None and ttl is None:
        return None
    if delay is not None and at is not None:
        raise ValueError("a message has a delay or a time, not both")
    if ttl is not None and not 0 < ttl <= MAX_SECONDS:
        raise ValueError(f"a message's ttl is a number of seconds above 0, not {ttl!r}")
    moment = at if at is None or isinstance(at, (int, float)) else at.timestamp()
    for name, value in (("delay", delay), ("time", moment)):
        if value is not None and not 0 <= value <= MAX_SECONDS:
            raise ValueError(f"a message's {name} is a number of seconds from 0 to {MAX_SECONDS:.0f}")
    return Options(delay or None, moment, ttl)


def agreed(options: Options | None, steady: float) -> Terms | None:
    """Return the terms of messages that are accepted now with these options."""
    if options is None:
        return None
    delay, at, ttl = options
    return Terms(
        due=None if delay is None else steady + delay,
        at=at,
        expires=None if ttl is None else steady + ttl,
    )


def is_held(terms: Terms | None) -> bool:
    """Return whether there is a time before which the message may not be delivered."""
    return terms is not None and (terms.due is not None or terms.at is not None)


def put_off(terms: Terms | None, due: float) -> Terms:
    """Return the terms of a message that is not to be delivered again before `due`."""
    return Terms(due=due, expires=terms.expires if terms else None)


def recovered(terms: Terms | None, born: float, steady: float) -> Terms | None:
    """Return the terms of a message of an earlier broker, whose steady clock is gone.

    If the message was born after now, the clock was set back meanwhile: it is taken for born now, and what
    its spans have left for as much as they had then.
    """
    if terms is None:
        return None
    back = max(0.0, born - steady)
    due, at, expires = terms
    return Terms(
        at=at if due is None else due - back,
        expires=None if expires is None else expires - back,
    )


def expiry(terms: Terms | None, born: float, ttl: float) -> float:
    """Return when a message expires in a queue with that ttl (0: none), on the steady clock."""
    own = inf if terms is None or terms.expires is None else terms.expires
    return min(own, born + ttl) if ttl else own

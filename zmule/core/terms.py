"""When a message may be delivered: not before, and not after.

A span of time, as in `delay` and `ttl`, must not be stretched or cut by a wall clock that jumps. So spans
are counted on the broker's *steady* clock: the wall clock as it was when the broker started, carried on by
the monotonic one. It reads like the wall clock and never jumps. A restart knows nothing but the wall
clock: what of a span is left then is what the wall clock says.

A time of day, as in `at`, is the opposite: it means the wall clock, wherever that jumps.
"""

from __future__ import annotations

from typing import NamedTuple

from zmule.core.frames import Options


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

    @property
    def held(self) -> bool:
        """Whether there is a time before which it may not be delivered."""
        return self.due is not None or self.at is not None


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


def delayed(terms: Terms | None, due: float) -> Terms:
    """Return the terms of a message that is put off until `due`."""
    return Terms(due=due, expires=terms.expires if terms else None)


def recovered(terms: Terms | None) -> Terms | None:
    """Return the terms of a message that an earlier broker has kept: its steady clock is gone."""
    if terms is None or terms.due is None:
        return terms
    return Terms(at=terms.due, expires=terms.expires)

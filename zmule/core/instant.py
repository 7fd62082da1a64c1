"""Now, on both clocks. Time reaches the core only as an argument."""

from __future__ import annotations

from typing import NamedTuple


class Instant(NamedTuple):
    """A moment: `mono` for leases and waits (never jumps), `wall` for what people read and what a restart
    must survive. Both in seconds."""

    mono: float
    wall: float

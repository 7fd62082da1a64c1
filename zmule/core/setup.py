"""What a broker is made of: its configuration, as far as the core is concerned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zmule.core.frames import DIRECT, FARM
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.queues import source_of
from zmule.core.services import Schedules


class Limits(NamedTuple):
    """What the broker bounds: sizes in bytes, times in seconds.

    `returning` is for how long after its start messages may wait for mules and farms from outside.
    """

    max_message: int = 1 << 20
    queue_messages: int = 2_000_000
    queue_bytes: int = 1 << 30
    total_messages: int = 5_000_000
    total_bytes: int = 2 << 30
    queue_ttl: float = 0.0
    max_deliveries: int = 5
    redelivery_pause: float = 1.0
    max_dead: int = 100_000
    heartbeat: float = 6.0
    heartbeat_timeout: float = 20.0
    returning: float = 0.0
    max_memory: int = 0
    max_connections: int = 0


class Setup(NamedTuple):
    """What a broker is made of.

    `id` is 16 bytes of its own; `about` goes into its status as it stands; `publish` pairs each endpoint
    with the one its broadcasts leave by; `schedules` makes those of crons; `locks` is the highest number
    of a lock; `ttls` are the queues whose messages expire otherwise than by the limits; `keeps` is whether
    messages outlive the broker, so that a sender must not be told before they are kept; `vitals` gives what
    the status says of the process at present.
    """

    id: bytes
    mules: tuple[MuleSetup, ...] = ()
    farms: tuple[FarmSetup, ...] = ()
    limits: Limits = Limits()
    publish: tuple[tuple[str, str], ...] = ()
    about: Mapping[str, Any] = {}
    schedules: Schedules | None = None
    locks: int = 0
    ttls: Mapping[str, float] = {}
    keeps: bool = True
    vitals: Callable[[], Mapping[str, Any]] = dict

    def ttl(self, queue: str) -> float:
        """Return how many seconds a message may wait in that queue, 0 for ever, as signals may."""
        waits = source_of(queue) in (DIRECT, FARM)
        return self.ttls.get(queue, self.limits.queue_ttl) if waits else 0.0

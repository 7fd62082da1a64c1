"""Messages for mules and farms from outside that a broker which has just been started does not know yet.

They were there a moment ago, and come back by themselves. So for its first seconds the broker does not refuse
such a message: it lets it wait, and with it whatever its sender sends afterwards, for that must not overtake
it. When the mule or farm is there, they go on; when the time is over, they go on, too, and are refused for
what they are. So nobody is told that something is missing that was there a second ago, and nothing is
accepted that would have been refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain

from zmule.core.events import Peer
from zmule.core.frames import Put
from zmule.core.queues import byte_size
from zmule.errors import UnknownFarm, UnknownMule, ZmuleError

MOST_FRAMES = 10_000
MOST_BYTES = 16 << 20
"""What may wait, all senders together; beyond that nothing more does."""


class Returns:
    """The messages that wait.

    Args:
        until: when the time is over, on the monotonic clock.
        closed: returns why nobody may write to a queue, or None.
    """

    def __init__(self, until: float, closed: Callable[[str], ZmuleError | None]) -> None:
        self._until = until
        self._closed = closed
        self._held: dict[Peer, deque[Put]] = {}
        self._frames = self._bytes = 0

    def expecting(self, now: float) -> bool:
        """Return whether somebody may be about to come back."""
        return now < self._until

    def awaits(self, error: ZmuleError | None, now: float) -> bool:
        """Return whether the error says that somebody is missing who may be about to come back."""
        return isinstance(error, (UnknownFarm, UnknownMule)) and self.expecting(now)

    def hold(self, peer: Peer, frame: Put, now: float) -> bool:
        """Let a frame wait if it has to; return whether it does."""
        if not self.expecting(now) or not (peer in self._held or self._misses(frame)):
            return False
        if self._frames >= MOST_FRAMES or self._bytes + _size(frame) > MOST_BYTES:
            if peer in self._held:
                self._until = now  # what is held goes on first, and this after it
            return False
        self._held.setdefault(peer, deque()).append(frame)
        self._count(1, _size(frame))
        return True

    def ready(self, now: float) -> list[tuple[Peer, Put]]:
        """Return, once, what waits no longer: in the order in which each peer has sent it."""
        over = not self.expecting(now)
        peers = [peer for peer, frames in self._held.items() if over or not self._misses(frames[0])]
        return list(chain.from_iterable(self._release(peer) for peer in peers))

    def gone(self, peer: Peer) -> None:
        """A connection is gone: its sender will send anew what has no answer."""
        self._release(peer)

    def next_deadline(self) -> float | None:
        """Return when something waits no longer."""
        return self._until if self._held else None

    def validate(self) -> None:
        """Raise AssertionError if what waits is not what was counted."""
        frames = list(chain.from_iterable(self._held.values()))
        assert all(self._held.values())
        assert (self._frames, self._bytes) == (len(frames), sum(map(_size, frames)))

    def _misses(self, frame: Put) -> bool:
        closed = (
            self._closed(batch.queue) for batch in frame.batches if not batch.queue.startswith("signal:")
        )
        return any(isinstance(error, (UnknownFarm, UnknownMule)) for error in closed)

    def _release(self, peer: Peer) -> Iterable[tuple[Peer, Put]]:
        frames = self._held.pop(peer, ())
        self._count(-len(frames), -sum(map(_size, frames)))
        return [(peer, frame) for frame in frames]

    def _count(self, frames: int, size: int) -> None:
        self._frames += frames
        self._bytes += size


def _size(frame: Put) -> int:
    return sum(byte_size(batch.bodies) for batch in frame.batches)

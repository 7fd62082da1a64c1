"""Lets nobody have more than half of the loop's time with frames that take long.

A ROUTER goes round from peer to peer, frame by frame, and that is fair as long as frames take about the same
time. So a peer whose frame has taken long, while others spoke too, waits for as long again: what it says
meanwhile stands in line. Its line is as long as its own patience, in general: a client sends no more before
what it has sent is answered for. When all lines together get too long, nobody waits any longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from zmule.core.events import Peer

LONG_SECONDS = 0.003
"""What takes longer than this counts: several times what a frame full of messages takes."""

MOST_BYTES = 128 << 20
MOST_FRAMES = 100_000
"""What may stand in all lines together."""


class _Line:
    """What a peer has said, and until when it waits (monotonic)."""

    __slots__ = ("frames", "until")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.until = 0.0


class Lines:
    """The peers that wait."""

    def __init__(self) -> None:
        self._lines: dict[Peer, _Line] = {}
        self._bytes = self._frames = 0

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __contains__(self, peer: Peer) -> bool:
        return peer in self._lines

    def is_long(self, seconds: float) -> bool:
        """Return whether a frame that took so long counts."""
        return seconds > LONG_SECONDS

    def spent(self, peer: Peer, seconds: float, now: float, *, alone: bool) -> None:
        """Take note that a peer's frame took so long; `alone`: nobody else had anything to say."""
        if self.is_long(seconds) and (not alone or peer in self._lines):
            line = self._lines.setdefault(peer, _Line())
            line.until = 0.0 if alone else now + seconds

    def add(self, peer: Peer, data: bytes) -> None:
        """Put what a peer says into its line."""
        self._lines[peer].frames.append(data)
        self._bytes += len(data)
        self._frames += 1
        if self._bytes > MOST_BYTES or self._frames > MOST_FRAMES:
            for line in self._lines.values():
                line.until = 0.0

    def hurry(self, peer: Peer) -> None:
        """Let a peer wait no longer."""
        if peer in self._lines:
            self._lines[peer].until = 0.0

    def drop(self, peer: Peer) -> None:
        """Forget what a peer has said."""
        line = self._lines.pop(peer, None)
        if line is not None:
            self._bytes -= sum(map(len, line.frames))
            self._frames -= len(line.frames)

    def due(self, now: float) -> Iterator[tuple[Peer, bytes]]:
        """Yield one frame of each peer that has waited for long enough; who has no more stands in no line."""
        for peer, line in list(self._lines.items()):
            if line.until > now:
                continue
            if line.frames:
                data = line.frames.popleft()
                self._bytes -= len(data)
                self._frames -= 1
                yield peer, data
            elif self._lines.get(peer) is line:
                del self._lines[peer]

    def next_deadline(self) -> float | None:
        """Return when somebody has waited for long enough (monotonic)."""
        return min((line.until for line in self._lines.values()), default=None)

"""Lets nobody have more than half of the loop's time while others speak.

A ROUTER goes round from peer to peer, frame by frame, and that is fair as long as frames cost about the
same. They do not, and who waits for each answer has one frame on its way where a flood has as many as it
likes. So a peer owes the loop twice what its frames take, and pays by the time that passes. Who owes more
than a little, while others speak, waits until all is paid: what it says meanwhile stands in line. Who is
alone waits for nobody.

A line is as long as its peer's own patience, in general: a client sends no more before what it has sent is
answered for. Whose line gets too long all the same only floods, and is to be cut off. When all lines together
hold too many bytes, nobody waits any longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from zmule.core.events import Peer

CREDIT_SECONDS = 0.002
"""What a peer may owe before it waits."""

COMPANY_SECONDS = 0.05
"""For so long after somebody has spoken others wait for his sake, as far as the loop could hear him."""

MOST_FRAMES = 20_000
"""What may stand in one line: more than a client leaves unanswered."""

MOST_BYTES = 128 << 20
"""What may stand in all lines together."""

FRAME_BYTES = 100
"""What a frame in a line costs beside its bytes."""


class _Line:
    """What a peer has said, and whether it waits until its debt is paid."""

    __slots__ = ("frames", "waits")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.waits = True


class Lines:
    """What peers owe, and those that wait; times are monotonic."""

    def __init__(self) -> None:
        self._paid: dict[Peer, float] = {}
        self._lines: dict[Peer, _Line] = {}
        self._bytes = 0
        self._speaker: Peer | None = None
        self._spoke = self._others_spoke = float("-inf")

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __contains__(self, peer: Peer) -> bool:
        return peer in self._lines

    def spoke(self, peer: Peer, now: float) -> None:
        """Take note that a peer has said something."""
        if peer != self._speaker:
            self._speaker, self._others_spoke = peer, self._spoke
        self._spoke = now

    def spent(self, peer: Peer, seconds: float, now: float) -> None:
        """Take note that what a peer said has taken the loop so long, until now."""
        paid = max(self._paid.get(peer, 0.0), now - seconds) + 2 * seconds
        self._paid[peer] = paid
        self._spoke += seconds  # nobody could be heard meanwhile
        self._others_spoke += seconds
        if paid - now > CREDIT_SECONDS and self._company_until(peer) > now:
            self._lines.setdefault(peer, _Line()).waits = True

    def add(self, peer: Peer, data: bytes) -> bool:
        """Put what a peer says into its line; return False if that is too long."""
        frames = self._lines[peer].frames
        frames.append(data)
        self._bytes += len(data) + FRAME_BYTES
        if self._bytes > MOST_BYTES:
            for each in self._lines:
                self.hurry(each)
        return len(frames) <= MOST_FRAMES

    def hurry(self, peer: Peer) -> None:
        """Forgive a peer its debt."""
        self._paid.pop(peer, None)
        if peer in self._lines:
            self._lines[peer].waits = False

    def drop(self, peer: Peer) -> None:
        """Forget a peer, and what it has said."""
        self._paid.pop(peer, None)
        line = self._lines.pop(peer, None)
        if line is not None:
            self._bytes -= sum(map(len, line.frames)) + FRAME_BYTES * len(line.frames)

    def due(self, now: float) -> Iterator[tuple[Peer, bytes]]:
        """Yield one frame of each peer that waits no longer; who has no more stands in no line."""
        for peer, line in list(self._lines.items()):
            if self._lines.get(peer) is not line or self._due_at(peer, line) > now:
                continue
            line.waits = False
            if line.frames:
                data = line.frames.popleft()
                self._bytes -= len(data) + FRAME_BYTES
                yield peer, data
            else:
                del self._lines[peer]

    def next_deadline(self) -> float | None:
        """Return when somebody waits no longer."""
        return min((self._due_at(peer, line) for peer, line in self._lines.items()), default=None)

    def _due_at(self, peer: Peer, line: _Line) -> float:
        return min(self._paid.get(peer, 0.0), self._company_until(peer)) if line.waits else 0.0

    def _company_until(self, peer: Peer) -> float:
        """Return until when a peer waits for others' sake."""
        return COMPANY_SECONDS + (self._others_spoke if peer == self._speaker else self._spoke)

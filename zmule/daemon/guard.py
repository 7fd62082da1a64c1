"""Keeps what libzmq holds from filling the memory: nothing bounds a message of many parts.

Nobody sees such a message before it is whole. What can be seen is that the process grows while somebody is in
the middle of something: the system holds bytes of his that libzmq has not read, look after look, and he has
brought no frame meanwhile. If it grows by more than one frame of each of them may have, those are cut off. So
is who has never brought a frame at all: he may have stopped half-way.

And there is a limit on all. Above it new messages are refused, and those are cut off who cost most, a few at
each look: who does not read, who is in the middle of something, who has never brought a frame. A good peer
that is hit comes back by itself and loses nothing.
"""

from __future__ import annotations

from zmule.core.events import Event, MemoryFine, MemoryShort
from zmule.daemon import memory
from zmule.daemon.gateway import Gateway

LOOK_SECONDS = 0.2
"""How often to look; a loop that does nothing else comes by for it."""

FREE_GROWTH = 64 << 20
"""By so many bytes the process may grow while somebody is in the middle of something."""

FINE = 0.9
"""Down to which share of the limit it is crossed, once it was."""

MUTE_SECONDS = 1.0
"""How long a connection may bring no frame at all while memory is short, or the process grows."""


class Guard:
    """Watches the memory of the process.

    Args:
        most: how many bytes it may have.
        frame: how many bytes one frame may have.
    """

    def __init__(self, gateway: Gateway, most: int, frame: int) -> None:
        self._gateway = gateway
        self._frame = frame
        self._calm = self.used = memory.used()
        self.most = most
        self._short = self._freeing = False
        self._next = 0.0

    def next_deadline(self) -> float:
        """Return when `look` has something to do (monotonic)."""
        return self._next

    def look(self, now: float) -> list[Event]:
        """Look at the memory, if it is time to; return what the broker has to know."""
        if now < self._next:
            return []
        self._next = now + LOOK_SECONDS
        if self._freeing:
            memory.give_back()
            self._freeing = False
        self.used = memory.used()
        if self.used > self.most:
            self._shed()
        elif self.used > self._calm + FREE_GROWTH:
            self._find_endless()
        else:
            self._calm = min(self._calm, self.used)
        return self._told()

    def _told(self) -> list[Event]:
        if self.used > self.most and not self._short:
            self._short = True
            return [MemoryShort(self.used)]
        if self._short and self.used < FINE * self.most:
            self._short = False
            return [MemoryFine()]
        return []

    def _find_endless(self) -> None:
        """Cut off who has been in the middle of something since the last look; nobody: no peer did it."""
        longer, middle = self._gateway.endless()
        if longer and self.used > self._calm + FREE_GROWTH + len(middle) * self._frame:
            self._cut(longer, "sends a message without an end")
        elif mute := self._gateway.mute(MUTE_SECONDS):
            self._cut(mute, "has brought no whole frame, and the process grows")
        elif not middle and not self._gateway.mute(0.0):
            self._calm = self.used

    def _shed(self) -> None:
        """Let go of those who cost most."""
        _, middle = self._gateway.endless()
        self._cut(
            middle | self._gateway.mute(MUTE_SECONDS), "has brought no whole frame, and memory is short"
        )
        self._gateway.cut_slowest()
        self._freeing = True

    def _cut(self, descriptors: set[int], why: str) -> None:
        self._gateway.cut(descriptors, why)
        self._freeing = True

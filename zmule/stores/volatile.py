"""The store `memory:`: it keeps nothing, for the broker itself holds all that there is.

A second record of each message would be of no use: it would die with the broker.
"""

from __future__ import annotations

from zmule.core.effects import Recovery
from zmule.stores.store import Changes, Copy, Lost, Saved


class VolatileStore:
    """A `Store` that answers at once and has forgotten by then."""

    def __init__(self) -> None:
        self._answers: list[Saved | Lost] = []
        self._copies: list[Copy] = []
        self._closed = False

    def recover(self) -> Recovery:
        return Recovery([], [], [], {}, 1)

    def save(self, changes: Changes) -> None:
        if self._closed:
            raise ValueError("the store is closed")
        if changes.batch:
            self._answers.append(Saved(changes.batch))

    def completed(self) -> list[Saved | Lost]:
        answers, self._answers = self._answers, []
        return answers

    def descriptor(self) -> None:
        return None

    def healthy(self) -> None:
        return None

    def backup(self, ticket: object) -> None:
        self._copies.append(Copy(ticket, "", "the store is memory:, of which there is no copy to make"))

    def backups(self) -> list[Copy]:
        copies, self._copies = self._copies, []
        return copies

    def close(self) -> None:
        self._closed = True

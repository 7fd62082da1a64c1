"""A store whose disk a test holds in its hand: nothing is written, full or lost unless the test says so.

It keeps to the rules of stores/store.py, as the SQLite store does: what was given gathers until `commit`
writes it as one transaction; a crash loses just what was not committed; a full disk loses all that was
given, and what is given before the broker could hear of that, but for what must not be lost.
"""

from __future__ import annotations

from collections.abc import Callable

from zmule.core.effects import Recovery
from zmule.stores.store import Changes, Copy, Lost, Saved
from zmule.testing.memory import MemoryStore


class SimStore:
    """A `Store` on a simulated disk.

    Attributes:
        full: whether the disk is.
        on_save: called with what it is given.
        on_commit: called with what has been written, after it is safe.
        on_loss: called with what has been given up.
    """

    def __init__(self) -> None:
        self.full = False
        self.on_save: Callable[[Changes], None] = lambda _: None
        self.on_commit: Callable[[Changes], None] = lambda _: None
        self.on_loss: Callable[[Changes], None] = lambda _: None
        self._disk = MemoryStore()
        self._forget_all()

    def _forget_all(self) -> None:
        self._given: list[Changes] = []
        self._answers: list[Saved | Lost] = []
        self._copies: list[Copy] = []
        self._kept: list[Changes] = []
        self._trouble: str | None = None

    def recover(self) -> Recovery:
        return self._disk.recover()

    def save(self, changes: Changes) -> None:
        self.on_save(changes)
        if self._answers and isinstance(self._answers[-1], Lost):
            changes = self._lose(changes, self._answers[-1].reason)
        self._given.append(changes)

    def completed(self) -> list[Saved | Lost]:
        answers, self._answers = self._answers, []
        return answers

    def descriptor(self) -> None:
        return None

    def healthy(self) -> str | None:
        return self._trouble

    def backup(self, ticket: object) -> None:
        self._copies.append(Copy(ticket, "", "there is no disk to copy to"))

    def backups(self) -> list[Copy]:
        copies, self._copies = self._copies, []
        return copies

    def close(self) -> None:
        self.commit()

    # What the test does.

    def laden(self) -> bool:
        """Return whether there is something to commit."""
        return bool(self._given or self._kept)

    def idle(self) -> bool:
        """Return whether there is nothing to commit and nothing to tell."""
        return not (self.laden() or self._answers)

    def commit(self, most: int | None = None) -> None:
        """Write the first `most` of what was given in one transaction, or fail to."""
        if self.full:
            self._trouble = "the disk is full"
            given, self._given = self._given, []
            self._kept += [self._lose(changes, self._trouble) for changes in given]
            return
        self._trouble = None
        kept, self._kept = self._kept, []
        given, self._given = self._given[:most], self._given[most:] if most is not None else []
        for changes in kept + given:
            self._disk.save(changes)
            self.on_commit(changes)
        self._disk.completed()
        self._answers += [Saved(changes.batch) for changes in given if changes.batch]

    def crash(self) -> None:
        """Lose what was not committed, and whatever nobody has been told."""
        self._forget_all()

    def _lose(self, changes: Changes, reason: str) -> Changes:
        """Answer that these are lost; return what of them must be written all the same."""
        if changes.batch:
            self._answers.append(Lost(changes.batch, reason))
        self.on_loss(changes)
        undead = () if changes.messages else changes.undead
        return changes._replace(batch=0, messages=(), senders=(), undead=undead)

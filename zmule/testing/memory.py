"""The store that lasts as long as its process: what it is given is kept at once, and answered at once.

A broker that is started again in the same process, as tests and simulations do, finds everything there.
"""

from __future__ import annotations

from itertools import chain

from zmule.core.effects import Mark, Recovery
from zmule.core.queues import Dead, Message
from zmule.stores.store import Changes
from zmule.stores.volatile import VolatileStore


class MemoryStore(VolatileStore):
    """A `Store` in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: dict[int, Message] = {}
        self._senders: dict[bytes, Mark] = {}
        self._dead: dict[int, Dead] = {}
        self._facts: dict[str, bytes] = {}
        self._next_id = 1

    def recover(self) -> Recovery:
        messages = [self._messages[id] for id in sorted(self._messages)]
        dead = [self._dead[id] for id in sorted(self._dead)]
        return Recovery(messages, list(self._senders.values()), dead, dict(self._facts), self._next_id)

    def save(self, changes: Changes) -> None:
        super().save(changes)
        for message in chain(changes.messages, changes.amended):
            self._messages[message[0]] = message
        if changes.messages:
            self._next_id = max(self._next_id, 1 + max(message[0] for message in changes.messages))
        for id in changes.removed:
            self._messages.pop(id, None)
        self._note(changes)

    def _note(self, changes: Changes) -> None:
        for mark in changes.senders:
            self._senders[mark.session] = mark
        for session in changes.forgotten:
            self._senders.pop(session, None)
        for dead in changes.dead:
            self._messages.pop(dead.message[0], None)
            self._dead[dead.message[0]] = dead
        for id in changes.undead:
            self._dead.pop(id, None)
        self._facts = {name: value for name, value in (self._facts | dict(changes.facts)).items() if value}

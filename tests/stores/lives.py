"""Lives of a store: a program that is recorded while it does what a seed says, and says what was answered.

Run as `lives.py FOLDER SEED`. Each life is a process that opens the store, gives it changes, and closes it or
is killed. Before it gives one it writes `given N` to `FOLDER/journal`, and `saved N` when that was answered.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random

from zmule.core.effects import Mark
from zmule.core.frames import Headers
from zmule.core.queues import Dead, Message, again
from zmule.core.terms import Terms
from zmule.stores import Changes, Saved, schema, sqlite
from zmule.stores.sqlite import SqliteStore

LIVES, BUNDLES = 4, 8
LENGTHS = (10, 10, 10, 3000, 20_000, 150_000)
LOG_BYTES = 1 << 18
CHECKPOINT_PAGES = 40
"""So that a recording has many checkpoints and is short."""


def plan(seed: int) -> list[list[list[Changes]]]:
    """Return the changes of each life, in bundles that are given together."""
    author = Author(Random(seed))
    return [
        [[author.changes() for _ in range(author.draw.randint(1, 4))] for _ in range(BUNDLES)]
        for _ in range(LIVES)
    ]


class Author:
    """Makes changes that a broker might make.

    Args:
        draw: decides everything.
    """

    def __init__(self, draw: Random) -> None:
        self.draw = draw
        self.batch = self.id = 0
        self.live: dict[int, Message] = {}
        self.dead: dict[int, Message] = {}

    def changes(self) -> Changes:
        """Return the next changes."""
        self.batch += 1
        draw = self.draw
        kind = draw.choice(("save", "save", "forget", "forget", "bury", "amend", "requeue", "drop", "facts"))
        if kind == "save" or not (self.live and self.dead):
            changes = self.save()
        elif kind in ("forget", "amend"):
            changes = self.forget() if kind == "forget" else self.amend()
        elif kind == "bury":
            changes = self.bury()
        elif kind == "facts":
            changes = Changes(facts={"token": draw.randbytes(draw.choice((0, 8)))})
        else:
            changes = self.requeue() if kind == "requeue" else Changes(undead=[self.dead.popitem()[0]])
        return changes._replace(batch=self.batch)

    def save(self) -> Changes:
        messages = [self.message() for _ in range(self.draw.choice((1, 1, 5, 40)))]
        self.live.update({message[0]: message for message in messages})
        if self.draw.random() < 0.5:
            self.bury()
        session = self.draw.randrange(5).to_bytes(16)
        refusals = ((self.batch, "full", "no room"),) if self.draw.random() < 0.2 else ()
        dead = [self.dead_letter(message) for message in messages if message[0] in self.dead]
        return Changes(messages=messages, senders=(Mark(session, self.batch, refusals),), dead=dead)

    def message(self) -> Message:
        self.id += self.draw.choice((1, 1, 1, 9000))
        length = self.draw.choice(LENGTHS)
        body = "é" * (length // 2) if self.draw.random() < 0.5 else self.draw.randbytes(length)
        headers: Headers | None = {"a": "b"} if self.draw.random() < 0.2 else None
        terms = Terms(1.5, None, 9.5) if self.draw.random() < 0.2 else None
        return (self.id, "any", body, 1, 0.5, headers, terms)

    def forget(self) -> Changes:
        count = self.draw.randint(1, len(self.live))
        ids = self.draw.sample(list(self.live), count)
        for id in ids:
            del self.live[id]
        return Changes(removed=ids)

    def amend(self) -> Changes:
        message = again(self.draw.choice(list(self.live.values())))
        self.live[message[0]] = message
        return Changes(amended=[message])

    def bury(self) -> Changes:
        id = self.draw.choice(list(self.live))
        message = self.dead[id] = self.live.pop(id)
        return Changes(dead=[self.dead_letter(message)])

    def dead_letter(self, message: Message) -> Dead:
        return Dead(message, "too often", 3, 7.5)

    def requeue(self) -> Changes:
        id, message = self.dead.popitem()
        self.live[id] = message
        return Changes(messages=[message], undead=[id])


def live(folder: Path, bundles: Iterable[list[Changes]], journal: int, *, close: bool) -> None:
    """Be one life of the store."""
    store = SqliteStore(folder / "zmule.db")
    store._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    store.recover()
    answers = store.descriptor()
    assert answers is not None
    for bundle in bundles:
        for changes in bundle:
            os.write(journal, b"given %d\n" % changes.batch)
            store.save(changes)
        left = len(bundle)
        while left:
            select.select([answers], [], [])
            for answer in store.completed():
                assert isinstance(answer, Saved), answer
                os.write(journal, b"saved %d\n" % answer.batch)
                left -= 1
    if close:
        store.close()
    os._exit(0)


def main() -> None:
    """Live all lives, one after the other."""
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    schema.WAL_BYTES = LOG_BYTES
    sqlite.SPARE_PAGES, sqlite.TIDY_SECONDS = 8, 0.0
    journal = os.open(folder / "journal", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for number, bundles in enumerate(plan(seed)):
        if (pid := os.fork()) == 0:
            live(folder, bundles, journal, close=number % 2 == 0)
        assert os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    main()

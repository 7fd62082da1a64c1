"""How the records of a store lie in the tables of SQLite.

A transaction writes the *net* effect of what gathered for it, a `Group`: a message that came and went in
between is never written. It takes few and long statements rather than `executemany`, because every run of a
statement gives up the GIL, and a busy loop thread lets the writer wait up to a switch interval to have it
back: per row, that is a thousand times the cost of the row.

Bodies are TEXT if they are `str` and BLOB if they are `bytes`; headers, terms and refusals are msgpack.

SQLite keeps any type in any column, and its check of the file says nothing of values. So what is read is
checked here, most of it by SQLite, since there may be millions of rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any

import msgpack

from zmule.core.effects import Mark, Recovery
from zmule.core.frames import Headers
from zmule.core.queues import Dead, Message, is_queue
from zmule.core.terms import Terms
from zmule.stores.store import Changes

Columns = tuple[str, ...]

MESSAGE: Columns = ("id", "queue", "body", "attempt", "born", "headers", "terms")
DEAD: Columns = (*MESSAGE, "reason", "mule", "at")
SENDER: Columns = ("session", "last", "refusals")
FACT: Columns = ("name", "value")

MOST_ROWS = 512
"""In one statement: 512 rows of 10 columns stay below SQLite's limit of 32 766 parameters."""

RESERVE = 10_000
"""Ids are reserved so many at a time, so that the counter on disk need not follow each message."""


class Group:
    """The net effect of some `Changes`: what each key is to have at the end; None: nothing."""

    def __init__(self) -> None:
        self.messages: dict[int, Message | None] = {}
        self.dead: dict[int, Dead | None] = {}
        self.senders: dict[bytes, Mark | None] = {}
        self.facts: dict[str, bytes | None] = {}

    def __len__(self) -> int:
        return len(self.messages) + len(self.dead) + len(self.senders) + len(self.facts)

    def add(self, changes: Changes) -> None:
        """Put `changes` on top of what is there."""
        for message in chain(changes.messages, changes.amended):
            self.messages[message[0]] = message
        self.messages.update(dict.fromkeys(changes.removed))
        for dead in changes.dead:
            self.messages[dead.message[0]] = None
            self.dead[dead.message[0]] = dead
        self.dead.update(dict.fromkeys(changes.undead))
        for mark in changes.senders:
            self.senders[mark.session] = mark
        self.senders.update(dict.fromkeys(changes.forgotten))
        for name, value in changes.facts.items():
            self.facts[name] = value or None


def write(db: sqlite3.Connection, group: Group, next_id: int) -> int:
    """Write a group within the transaction that is open.

    Args:
        next_id: up to where ids are reserved on disk.

    Returns: up to where they are reserved if the transaction commits.
    """
    _write_messages(db, group)
    _write_dead(db, group)
    _write_senders(db, group)
    _write_facts(db, group)
    highest = max(group.messages, default=0)
    if highest < next_id:
        return next_id
    db.execute("UPDATE counter SET next_id = ?", (highest + RESERVE,))
    return highest + RESERVE


def _write_messages(db: sqlite3.Connection, group: Group) -> None:
    _insert(db, "message", MESSAGE, [_message_row(message) for message in group.messages.values() if message])
    _delete(db, "message", [id for id, message in group.messages.items() if message is None])


def _write_dead(db: sqlite3.Connection, group: Group) -> None:
    dead = [dead for dead in group.dead.values() if dead]
    rows = [(*_message_row(each.message), each.reason, each.mule, each.at) for each in dead]
    _insert(db, "dead", DEAD, rows)
    _delete(db, "dead", [id for id, dead in group.dead.items() if dead is None])


def _write_senders(db: sqlite3.Connection, group: Group) -> None:
    marks = [mark for mark in group.senders.values() if mark]
    _insert(db, "sender", SENDER, [(mark.session, mark.last, msgpack.packb(mark.refusals)) for mark in marks])
    for session, mark in group.senders.items():
        if mark is None:
            db.execute("DELETE FROM sender WHERE session = ?", (session,))


def _write_facts(db: sqlite3.Connection, group: Group) -> None:
    _insert(db, "fact", FACT, [(name, value) for name, value in group.facts.items() if value])
    for name, value in group.facts.items():
        if value is None:
            db.execute("DELETE FROM fact WHERE name = ?", (name,))


def _message_row(message: Message) -> tuple[Any, ...]:
    headers, terms = message[5:]
    if headers is None and terms is None:
        return message
    return (*message[:5], _packed(headers), _packed(terms))


def _packed(value: Any) -> Any:
    return None if value is None else msgpack.packb(value)


def _insert(db: sqlite3.Connection, table: str, columns: Columns, rows: Sequence[tuple[Any, ...]]) -> None:
    place = 0
    while place < len(rows):
        count = min(MOST_ROWS, 1 << ((len(rows) - place).bit_length() - 1))
        values = list(chain.from_iterable(rows[place : place + count]))
        db.execute(_insertion(table, columns, count), values)
        place += count


@cache
def _insertion(table: str, columns: Columns, count: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * count)}"


def _delete(db: sqlite3.Connection, table: str, ids: Collection[int]) -> None:
    if ids:
        db.execute(f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),))


class Nonsense(ValueError):
    """A row is not one that was written; the text says which."""


_RECORD = """
    typeof(id) <> 'integer' OR id NOT BETWEEN 1 AND (SELECT max(next_id) - 1 FROM counter)
    OR typeof(queue) <> 'text' OR length(queue) > 400 OR typeof(body) NOT IN ('text', 'blob')
    OR (queue GLOB 'signal:*' AND (typeof(body) <> 'blob' OR length(body) > 1))
    OR (queue GLOB 'call:*' AND typeof(body) <> 'blob')
    OR typeof(attempt) <> 'integer' OR attempt NOT BETWEEN 1 AND 4294967296
    OR typeof(born) <> 'real' OR abs(born) > 1e12
    OR typeof(headers) NOT IN ('null', 'blob') OR typeof(terms) NOT IN ('null', 'blob')
"""
_WRONG = {
    ("message", "id"): _RECORD,
    ("dead", "id"): f"""{_RECORD}
        OR typeof(reason) <> 'text' OR typeof(mule) <> 'integer' OR mule < 0
        OR typeof(at) <> 'real' OR abs(at) > 1e12""",
    ("sender", "hex(session)"): """typeof(session) <> 'blob' OR length(session) > 100
        OR typeof(last) <> 'integer' OR last < 0 OR typeof(refusals) <> 'blob'""",
    ("fact", "name"): "typeof(name) <> 'text' OR typeof(value) <> 'blob'",
    ("counter", "rowid"): "typeof(next_id) <> 'integer' OR next_id NOT BETWEEN 1 AND 4611686018427387904",
}
"""By table and key: which rows cannot be right."""


def check_counter(db: sqlite3.Connection) -> None:
    """Refuse a table of the next id that does not have one.

    Raises:
        Nonsense: it does not.
        sqlite3.Error: it cannot be read.
    """
    if (rows := db.execute("SELECT count(*) FROM counter").fetchone()[0]) != 1:
        raise Nonsense(f"table counter has {rows} rows")
    _check(db, "counter", "rowid")


def check(db: sqlite3.Connection) -> None:
    """Refuse rows whose values have not the types and ranges that they are written with.

    Raises:
        Nonsense: names the first one.
        sqlite3.Error: it cannot be read.
    """
    check_counter(db)
    for table, key in _WRONG:
        _check(db, table, key)


def _check(db: sqlite3.Connection, table: str, key: str) -> None:
    wrong = _WRONG[table, key]
    found = db.execute(f"SELECT {key} FROM {table} WHERE {wrong} LIMIT 1").fetchone()
    if found is not None:
        raise Nonsense(f"table {table}, row {found[0]!r:.100}: its values make no sense")


def read(db: sqlite3.Connection) -> Recovery:
    """Read everything.

    Raises:
        Nonsense: something is not what was written.
        sqlite3.Error: it cannot be read.
    """
    check(db)
    names: dict[str, str] = {}
    dead = [
        Dead(_message("dead", names, *message), reason, mule, at)
        for *message, reason, mule, at in _select(db, "dead", DEAD, "id")
    ]
    messages = [
        (id, names[queue], body, attempt, born, None, None)
        if headers is terms is None and queue in names
        else _message("message", names, id, queue, body, attempt, born, headers, terms)
        for id, queue, body, attempt, born, headers, terms in _select(db, "message", MESSAGE, "id")
    ]
    senders = [_mark(*row) for row in _select(db, "sender", SENDER, "session")]
    facts = dict(_select(db, "fact", FACT, "name"))
    return Recovery(messages, senders, dead, facts, reserved(db))


def _message(table: str, names: dict[str, str], id: int, queue: str, *rest: Any) -> Message:
    body, attempt, born, headers, terms = rest
    with _row(table, id):
        if queue not in names and not is_queue(queue):
            raise ValueError(f"there is no queue {queue!r:.100}")
        name = names.setdefault(queue, queue)
        return id, name, body, attempt, born, _headers(headers), _terms(terms)


def _mark(session: bytes, last: int, packed: bytes) -> Mark:
    with _row("sender", session.hex()):
        refusals = msgpack.unpackb(packed, use_list=False)
        for number, code, reason in refusals:
            if type(number) is not int or type(code) is not str or type(reason) is not str:
                raise ValueError("its refusals make no sense")
        return Mark(session, last, refusals)


def _headers(packed: bytes | None) -> Headers | None:
    if packed is None:
        return None
    headers = msgpack.unpackb(packed)
    if type(headers) is not dict or not all(type(name) is str for name in headers):
        raise ValueError("its headers make no sense")
    if any(isinstance(value, (list, dict)) for value in headers.values()):
        raise ValueError("its headers make no sense")
    return headers


def _terms(packed: bytes | None) -> Terms | None:
    if packed is None:
        return None
    terms = Terms(*msgpack.unpackb(packed))
    for moment in terms:
        if moment is not None and (type(moment) not in (int, float) or not abs(moment) < 1e12):
            raise ValueError("its terms make no sense")
    return terms


@contextmanager
def _row(table: str, key: object) -> Iterator[None]:
    """Say of what cannot be read where it stands."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise Nonsense(f"table {table}, row {key}: {error}") from error


def reserved(db: sqlite3.Connection) -> int:
    """Return up to where ids are reserved: none that was ever saved is as high."""
    (next_id,) = db.execute("SELECT next_id FROM counter").fetchone()
    return int(next_id)


def _select(db: sqlite3.Connection, table: str, columns: Columns, order: str) -> sqlite3.Cursor:
    return db.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}")

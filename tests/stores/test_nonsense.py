"""Files of which SQLite has no complaint, and that no store has written; and files with any bytes changed."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from random import Random

import pytest

from tests.stores.test_sqlite import VERSION_1
from zmule.core.effects import Mark, Recovery
from zmule.core.queues import Dead, Message, is_queue
from zmule.core.terms import Terms
from zmule.errors import ConfigError
from zmule.stores import Changes, open_store

TRIES = 150

MESSAGES: list[Message] = [
    (1, "any", "ciuchino", 1, 0.5, None, None),
    (2, "mule:7", b"\xff", 2, 0.5, {"a": 1, "b": "x"}, Terms(1.5, None, 9.5)),
    (3, "farm:busy", "x" * 9000, 1, 0.5, None, None),
    (4, "signal:3:-2", b"", 1, 0.5, None, None),
    (5, "signal:stray", b"\7", 1, 0.5, None, None),
    (6, "call:f:farm:busy", b"\x90", 1, 0.5, None, None),
    *((id, "any", "y" * 300, 1, 0.5, None, None) for id in range(10, 60)),
]
DEAD = [Dead((7, "any", "z", 5, 0.5, None, None), "why", 1, 9.5)]
MARKS = [Mark(b"session", 9, ((7, "full", "no room"),))]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "zmule.db"
    store = open_store(f"sqlite://{path}")
    store.save(Changes(1, MESSAGES, senders=MARKS, dead=DEAD, facts={"cron 3 x": b"1"}))
    store.close()
    return path


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path / "zmule.db"))


def recovered(path: Path) -> Recovery:
    store = open_store(f"sqlite://{path}")
    try:
        return store.recover()
    finally:
        store.close()


def attempted(path: Path, what: str) -> Recovery | str:
    """Return what is read, or how it is refused; nothing else may happen."""
    try:
        return recovered(path)
    except ConfigError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(what) from error


def test_what_was_written_is_read(path: Path) -> None:
    found = recovered(path)
    assert (found.messages, found.dead, found.senders) == (MESSAGES, DEAD, MARKS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE message SET id = 1000000 WHERE id = 1", "table message, row 1000000"),
        ("UPDATE message SET id = -1 WHERE id = 1", "table message, row -1"),
        ("UPDATE message SET queue = 'anyy' WHERE id = 1", "table message, row 1: there is no queue 'anyy'"),
        ("UPDATE message SET queue = x'616e79' WHERE id = 1", "table message, row 1"),
        ("UPDATE message SET body = 7 WHERE id = 1", "table message, row 1"),
        ("UPDATE message SET body = CAST(x'ff' AS TEXT) WHERE id = 1", "Could not decode to UTF-8"),
        ("UPDATE message SET body = 'text' WHERE id = 4", "table message, row 4"),
        ("UPDATE message SET body = 'text' WHERE id = 6", "table message, row 6"),
        ("UPDATE message SET attempt = 0 WHERE id = 1", "table message, row 1"),
        ("UPDATE message SET attempt = 'x' WHERE id = 1", "table message, row 1"),
        ("UPDATE message SET born = 9e999 WHERE id = 1", "table message, row 1"),
        ("UPDATE message SET born = 'x' WHERE id = 1", "table message, row 1"),
        ("UPDATE message SET headers = x'c1' WHERE id = 1", "table message, row 1"),
        (
            "UPDATE message SET headers = x'07' WHERE id = 1",
            "table message, row 1: its headers make no sense",
        ),
        ("UPDATE message SET headers = 'x' WHERE id = 1", "table message, row 1"),
        ("UPDATE message SET terms = x'91c0' WHERE id = 1", None),
        ("UPDATE message SET terms = x'94c0c0c0c0' WHERE id = 1", "table message, row 1"),
        ("UPDATE message SET terms = x'93a178c0c0' WHERE id = 1", "table message, row 1: its terms"),
        ("UPDATE dead SET mule = -1", "table dead, row 7"),
        ("UPDATE dead SET at = 'x'", "table dead, row 7"),
        ("UPDATE dead SET reason = x'37'", "table dead, row 7"),
        ("UPDATE sender SET last = -1", "table sender, row '73657373696F6E'"),
        ("UPDATE sender SET last = 1e30", "table sender, row '73657373696F6E'"),
        ("UPDATE sender SET session = 'x'", "table sender, row '78'"),
        ("UPDATE sender SET refusals = x'9107'", "table sender, row 73657373696f6e"),
        ("UPDATE sender SET refusals = x'9193c0c0c0'", "table sender, row 73657373696f6e: its refusals"),
        ("UPDATE fact SET value = 7", "table fact, row 'cron 3 x'"),
        ("UPDATE counter SET next_id = 'x'", "table counter, row 1"),
        ("UPDATE counter SET next_id = 5", "table message, row 5"),
        ("UPDATE counter SET next_id = 9223372036854775807", "table counter, row 1"),
        ("INSERT INTO counter VALUES (10)", "table counter has 2 rows"),
        ("DELETE FROM counter", "table counter has 0 rows"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(path: Path, change: str, said: str | None) -> None:
    db = sqlite3.connect(path)
    db.execute(change)
    db.commit()
    db.close()
    if said is None:
        recovered(path)
        return
    with pytest.raises(ConfigError) as caught:
        recovered(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 78


def test_any_change_of_bytes_is_refused_in_one_line_or_loses_no_message(sound: Path, tmp_path: Path) -> None:
    draw = Random(7)
    good = sound.read_bytes()
    path = tmp_path / "zmule.db"
    refused = 0
    for number in range(TRIES):
        data = bytearray(good)
        place = draw.randrange(len(data) if draw.random() < 0.7 else 200)
        for at in range(place, min(len(data), place + draw.choice((1, 1, 4, 40, 4096)))):
            data[at] = draw.randrange(256)
        path.touch(mode=0o600)
        path.write_bytes(data)
        what = f"try {number}, from byte {place}"
        found = attempted(path, what)
        if isinstance(found, str):
            assert "\n" not in found, what
            refused += 1
        else:
            assert len(found.messages) == len(MESSAGES), what
            assert (len(found.dead), len(found.senders)) == (1, 1), what
            assert all(is_queue(message[1]) for message in found.messages), what
        for file in tmp_path.iterdir():
            file.unlink()
    assert 10 < refused < TRIES


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("any", True),
        ("mule:12", True),
        ("farm:a b", True),
        ("signal:7", True),
        ("signal:7:-3", True),
        ("signal:stray", True),
        ("call:f:any", True),
        ("call:f:mule:3", True),
        ("", False),
        ("any ", False),
        ("mule:", False),
        ("mule:x", False),
        ("farm:", False),
        ("signal:x", False),
        ("call:f", False),
        ("other:any", False),
    ],
)
def test_names_of_queues(name: str, known: bool) -> None:
    assert is_queue(name) is known


def test_a_file_of_version_1_is_still_one(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "zmule.db")
    db.executescript(VERSION_1)
    db.close()
    assert len(recovered(tmp_path / "zmule.db").messages) == 2

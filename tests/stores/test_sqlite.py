"""What only the SQLite store has: a file, a writer, a disk that may be full, a process that may be killed."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import wait_until
from zmule.core.effects import Mark
from zmule.core.queues import Dead, Message
from zmule.core.terms import Terms
from zmule.errors import ConfigError, EndpointInUse
from zmule.stores import Changes, Lost, Saved, Store, open_store, schema, sqlite, tables

VERSION_1 = """
    CREATE TABLE message (
        id INTEGER PRIMARY KEY, queue TEXT NOT NULL, body BLOB NOT NULL,
        attempt INTEGER NOT NULL, born REAL NOT NULL, headers BLOB, terms BLOB
    );
    CREATE TABLE dead (
        id INTEGER PRIMARY KEY, queue TEXT NOT NULL, body BLOB NOT NULL,
        attempt INTEGER NOT NULL, born REAL NOT NULL, headers BLOB, terms BLOB,
        reason TEXT NOT NULL, mule INTEGER NOT NULL, at REAL NOT NULL
    );
    CREATE TABLE sender (
        session BLOB PRIMARY KEY, last INTEGER NOT NULL, refusals BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE counter (next_id INTEGER NOT NULL);
    INSERT INTO counter VALUES (10001);
    INSERT INTO message VALUES
        (1, 'any', 'a', 1, 0.5, NULL, NULL),
        (2, 'mule:1', x'ff', 2, 0.5, x'81a16101', x'93c001cb3ff8000000000000');
    INSERT INTO dead VALUES (3, 'farm:busy', 'c', 5, 0.5, NULL, NULL, 'too often', 4, 9.5);
    INSERT INTO sender VALUES (x'00', 7, x'919306a164a165');
    INSERT INTO fact VALUES ('cron', x'31');
    PRAGMA application_id = 0x7a6d756c;
    PRAGMA user_version = 1;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "zmule.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite://{path}")
    yield store
    store.close()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(sqlite, "TIDY_SECONDS", 0.02)


def message(id: int, body: str | bytes = "ciuchino", attempt: int = 1) -> Message:
    return id, "any", body, attempt, 0.5, None, None


def answers(store: Store, count: int) -> list[Saved | Lost]:
    """Wait for so many answers."""
    got: list[Saved | Lost] = []
    while len(got) < count:
        wait_readable(store)
        got += store.completed()
    return got


def wait_readable(store: Store) -> None:
    descriptor = store.descriptor()
    assert descriptor is not None
    assert select.select([descriptor], [], [], 10)[0], "no answer in ten seconds"


until = partial(wait_until, seconds=20.0)


def ids(path: Path) -> list[int]:
    store = open_store(f"sqlite://{path}")
    try:
        return [id for id, *_ in store.recover().messages]
    finally:
        store.close()


def open_files() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


# The file


def test_file_is_ours_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        store = open_store(f"sqlite://{tmp_path}/made/zmule.db")
        store.save(Changes(1, [message(1)]))
        answers(store, 1)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "made").iterdir()}
        store.close()
    finally:
        os.umask(umask)
    assert modes == {"zmule.db": 0o600, "zmule.db-wal": 0o600}
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700


def test_nothing_is_left_after_close(path: Path) -> None:
    before = open_files()
    store = open_store(f"sqlite://{path}")
    store.save(Changes(1, [message(1)]))
    store.close()
    assert open_files() == before
    assert store.descriptor() is None
    assert [thread.name for thread in threading.enumerate() if thread.name == "zmule store"] == []
    assert [entry.name for entry in path.parent.iterdir()] == ["zmule.db"]


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be one" * 100])
def test_failed_opening_leaves_nothing_open(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.with_name("zmule.db-wal").mkdir()
    before = open_files()
    with pytest.raises(ConfigError):
        open_store(f"sqlite://{path}")
    assert open_files() == before


def test_commits_are_synced(path: Path) -> None:
    database = schema.Database(path)
    pragmas = {
        name: database.db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "auto_vacuum", "secure_delete")
    }
    database.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "auto_vacuum": 2, "secure_delete": 0}


def test_second_opener_is_turned_away_and_the_first_goes_on(path: Path, store: Store) -> None:
    for _ in range(2):
        with pytest.raises(EndpointInUse, match="another process has it open") as caught:
            open_store(f"sqlite://{path}")
        assert caught.value.exit_code == 73
    other = "import sys, zmule.stores; zmule.stores.open_store(sys.argv[1])"
    run = subprocess.run(
        [sys.executable, "-c", other, f"sqlite://{path}"], capture_output=True, text=True, check=False
    )
    assert "EndpointInUse" in run.stderr
    store.save(Changes(1, [message(1)]))
    assert answers(store, 1) == [Saved(1)]


def test_file_that_somebody_reads_is_in_use(path: Path) -> None:
    open_store(f"sqlite://{path}").close()
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM message").fetchall()
    with pytest.raises(EndpointInUse):
        open_store(f"sqlite://{path}")
    reader.close()
    assert ids(path) == []


def test_signals_of_the_process_are_not_for_the_writer(store: Store) -> None:
    assert store.healthy() is None
    (writer,) = (thread for thread in threading.enumerate() if thread.name == "zmule store")
    status = Path(f"/proc/self/task/{writer.native_id}/status")

    def blocked() -> int:
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("SigBlk"))
        return int(line.split()[1], 16)

    until(lambda: bool(blocked() >> (signal.SIGTERM - 1) & 1))


# What is no store of ours


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        open_store(f"sqlite://{path}")
    assert caught.value.exit_code == 78
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_file_of_text_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("Dear diary, " * 1000)
    assert "not a SQLite database: choose another path" in refusal(path)
    assert path.read_text() == "Dear diary, " * 1000


@pytest.mark.parametrize(
    "script", ["CREATE TABLE photo (id)", "PRAGMA user_version = 3", "PRAGMA application_id = 9"]
)
def test_database_of_another_program_is_refused_and_left_alone(path: Path, script: str) -> None:
    db = sqlite3.connect(path)
    db.executescript(script)
    db.close()
    before = path.read_bytes()
    assert "database of another program: choose another path" in refusal(path)
    assert path.read_bytes() == before


def test_newer_file_is_refused_and_left_alone(path: Path) -> None:
    open_store(f"sqlite://{path}").close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    db.close()
    before = path.read_bytes()
    assert "a newer zmule wrote this file" in refusal(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("where", [0.5, 0.99])
def test_overwritten_pages_are_noticed(path: Path, where: float) -> None:
    fill(path, 2000)
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * where) // 4096 * 4096)
        file.write(b"\x5a" * 4096)
    assert "the file is damaged" in refusal(path)


def test_short_file_is_noticed(path: Path) -> None:
    fill(path, 2000)
    os.truncate(path, path.stat().st_size // 2)
    assert f"sqlite3 {path} .recover" in refusal(path)


def test_missing_table_is_noticed(path: Path) -> None:
    fill(path, 1)
    db = sqlite3.connect(path)
    db.execute("DROP TABLE counter")
    db.close()
    assert "the file is damaged (no such table: counter)" in refusal(path)


@pytest.mark.parametrize("refusals", ["'text'", "x'c1'", "7"])
def test_value_that_cannot_be_read_is_noticed(path: Path, refusals: str) -> None:
    open_store(f"sqlite://{path}").close()
    db = sqlite3.connect(path)
    db.execute(f"INSERT INTO sender VALUES (x'00', 1, {refusals})")
    db.commit()
    db.close()
    store = open_store(f"sqlite://{path}")
    with pytest.raises(ConfigError, match="is damaged"):
        store.recover()
    store.close()


@pytest.mark.parametrize(
    "path", ["/sys/kernel/zmule.db", "/nowhere/at/all/zmule.db", "/dev/null/x/zmule.db", "/proc"]
)
def test_place_that_cannot_be_written_is_refused(path: str) -> None:
    assert refusal(Path(path)).endswith("zmuled must be able to write this file and its folder")


def fill(path: Path, count: int) -> None:
    store = open_store(f"sqlite://{path}")
    store.save(Changes(1, [message(id, "x" * 1000) for id in range(1, count + 1)]))
    store.close()
    assert store.completed() == [Saved(1)]


# Versions


@pytest.fixture
def version_1(path: Path) -> Path:
    db = sqlite3.connect(path)
    db.executescript(VERSION_1)
    db.close()
    return path


def check_version_1(path: Path) -> None:
    store = open_store(f"sqlite://{path}")
    recovery = store.recover()
    store.close()
    assert recovery.messages == [
        message(1, "a"),
        (2, "mule:1", b"\xff", 2, 0.5, {"a": 1}, Terms(at=1, expires=1.5)),
    ]
    assert recovery.dead == [Dead((3, "farm:busy", "c", 5, 0.5, None, None), "too often", 4, 9.5)]
    assert recovery.senders == [Mark(b"\0", 7, ((6, "d", "e"),))]
    assert recovery.facts == {"cron": b"1"}
    assert recovery.next_id == 10001


def version(path: Path) -> int:
    db = sqlite3.connect(path)
    (number,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(number)


def test_file_of_version_1_is_read(version_1: Path) -> None:
    check_version_1(version_1)


def test_old_file_is_migrated(version_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = ("ALTER TABLE message ADD COLUMN due REAL; UPDATE message SET due = 1", "CREATE TABLE more (x)")
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS + later)
    check_version_1(version_1)
    assert version(version_1) == len(schema.MIGRATIONS)
    check_version_1(version_1)


def test_failed_migration_changes_nothing(version_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "DROP TABLE fact; SELECT no_such_column"))
        assert "no such column" in refusal(version_1)
    assert version(version_1) == len(schema.MIGRATIONS)
    check_version_1(version_1)


def test_new_file_is_that_of_its_migrations(path: Path) -> None:
    open_store(f"sqlite://{path}").close()
    assert version(path) == len(schema.MIGRATIONS) == 2


# Writing


def test_message_that_comes_and_goes_at_once_is_not_written(path: Path) -> None:
    group = tables.Group()
    group.add(Changes(1, [message(1), message(2)]))
    group.add(Changes(2, removed=[2]))
    database = schema.Database(path)
    db = database.db
    before = db.total_changes
    tables.write(db, group, 10)
    assert db.total_changes - before == 1
    database.close()


@pytest.mark.parametrize("count", [1, 511, 512, 513, 1535])
def test_rows_of_any_number_are_written(path: Path, count: int) -> None:
    fill(path, count)
    assert ids(path) == list(range(1, count + 1))


@pytest.mark.usefixtures("hurry")
def test_what_cannot_be_written_harms_nothing_else(store: Store, path: Path) -> None:
    store.save(Changes(1, [message(1, "\ud800")]))
    (lost,) = answers(store, 1)
    assert isinstance(lost, Lost)
    assert "UnicodeEncodeError" in lost.reason
    until(lambda: store.healthy() is None)
    store.save(Changes(2, [message(2)]))
    assert answers(store, 1) == [Saved(2)]
    store.close()
    assert ids(path) == [2]


def test_recovery_sees_only_what_is_committed(store: Store) -> None:
    for batch in range(1, 101):
        store.save(Changes(batch, [message(batch)]))
        seen = len(store.recover().messages)
        assert seen >= len(store.completed())


# A disk that is full


@contextmanager
def no_space(limit: int = 1) -> Iterator[None]:
    """Let no file of this process grow beyond `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("hurry")
def test_full_disk_loses_no_batch_that_was_saved_and_no_ack(store: Store, path: Path) -> None:
    saved = []
    with no_space(1_000_000):
        for batch in range(1, 1000):
            store.save(Changes(batch, [message(batch, "x" * 100_000)]))
            (answer,) = answers(store, 1)
            if isinstance(answer, Lost):
                break
            saved.append(batch)
        assert len(saved) > 2
        assert isinstance(answer, Lost)
        assert str(path) in answer.reason
        assert "SQLITE_" in answer.reason
    with no_space():
        store.save(Changes(removed=saved[:2]))
        store.save(Changes(2000, removed=saved[2:3]))
        assert [type(answer) for answer in answers(store, 1)] == [Lost]
        reason = store.healthy()
        assert reason
        assert str(path) in reason
    until(lambda: store.healthy() is None)
    store.save(Changes(2001, [message(2001)]))
    assert answers(store, 1) == [Saved(2001)]
    store.close()
    assert ids(path) == [*saved[3:], 2001]


@pytest.mark.usefixtures("hurry")
def test_batch_given_before_the_loss_is_known_is_lost_too(store: Store, path: Path) -> None:
    with no_space():
        store.save(Changes(1, [message(1)], senders=[Mark(b"s", 1, ())]))
        wait_readable(store)
    until(lambda: store.healthy() is None)
    store.save(Changes(2, [message(2)], senders=[Mark(b"s", 2, ())], facts={"cron": b"2"}))
    first, second = store.completed()
    assert isinstance(first, Lost)
    assert second == Lost(2, first.reason)
    store.save(
        Changes(3, [message(3)], senders=[Mark(b"s", 3, ((1, "store", "full"), (2, "store", "full")))])
    )
    assert answers(store, 1) == [Saved(3)]
    recovery = store.recover()
    assert [id for id, *_ in recovery.messages] == [3]
    assert [mark.last for mark in recovery.senders] == [3]
    assert recovery.facts == {"cron": b"2"}


def test_batch_given_in_trouble_is_lost_at_once(store: Store) -> None:
    with no_space():
        store.save(Changes(1, [message(1)]))
        answers(store, 1)
        store.save(Changes(2, [message(2)]))
        assert [type(answer) for answer in store.completed()] == [Lost]


@pytest.mark.usefixtures("hurry")
def test_end_of_trouble_is_told(store: Store) -> None:
    with no_space():
        store.save(Changes(1, [message(1)]))
        answers(store, 1)
    wait_readable(store)
    assert store.healthy() is None
    assert store.completed() == []
    descriptor = store.descriptor()
    assert descriptor is not None
    assert select.select([descriptor], [], [], 0)[0] == []


@pytest.mark.usefixtures("hurry")
def test_batch_given_during_the_commit_that_fails_is_lost_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, fail = threading.Event(), threading.Event()

    def fail_once(*_: object) -> int:
        begun.set()
        fail.wait(10)
        monkeypatch.undo()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(tables, "write", fail_once)
    store.save(Changes(1, [message(1)]))
    assert begun.wait(10)
    store.save(Changes(2, [message(2)]))
    fail.set()
    assert [type(answer) for answer in answers(store, 2)] == [Lost, Lost]


@pytest.mark.usefixtures("hurry")
def test_loss_gives_up_what_is_new_and_keeps_what_must_not_be_forgotten(store: Store) -> None:
    letters = [Dead(message(id, attempt=5), "why", 1, 9.5) for id in (1, 2, 3)]
    marks = [Mark(b"gone", 1, ()), Mark(b"here", 1, ())]
    store.save(Changes(1, [message(4), message(5), message(6)], dead=letters[:2], senders=marks))
    assert answers(store, 1) == [Saved(1)]
    with no_space():
        requeue = Changes(2, [message(1)], undead=[1])
        drop = Changes(3, undead=[2], forgotten=[b"gone"], senders=[Mark(b"here", 2, ())])
        bury = Changes(
            4, removed=[4], dead=[letters[2]._replace(message=message(5, attempt=5))], facts={"f": b"1"}
        )
        for changes in (requeue, drop, bury):
            store.save(changes)
        assert [type(answer) for answer in answers(store, 3)] == [Lost] * 3
    until(lambda: store.healthy() is None)
    recovery = store.recover()
    assert [id for id, *_ in recovery.messages] == [6]
    assert [dead.message[0] for dead in recovery.dead] == [1, 5]
    assert recovery.senders == [Mark(b"here", 1, ())]
    assert recovery.facts == {"f": b"1"}


@pytest.mark.usefixtures("hurry")
def test_many_acks_are_kept_and_written_bit_by_bit(store: Store, path: Path) -> None:
    store.save(Changes(1, [message(id) for id in range(1, 5001)]))
    answers(store, 1)
    with no_space():
        for id in range(1, 5000):
            store.save(Changes(removed=[id]))
        until(lambda: store.healthy() is not None)
    until(lambda: store.healthy() is None)
    store.close()
    assert ids(path) == [5000]


@pytest.mark.usefixtures("hurry")
def test_acks_are_written_while_the_disk_is_full(store: Store) -> None:
    with no_space(1_000_000):
        for batch in range(1, 1000):
            store.save(Changes(batch, [message(batch, "x" * 100_000)]))
            if isinstance(answers(store, 1)[0], Lost):
                break
        store.save(Changes(removed=[1, 2]))
        until(lambda: store.healthy() is None)
        assert [id for id, *_ in store.recover().messages] == list(range(3, batch))


@pytest.mark.usefixtures("hurry")
def test_last_room_on_the_disk_is_for_acks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(Changes(1, [message(id) for id in range(1, 5)]))
    assert answers(store, 1) == [Saved(1)]
    room = sqlite.ROOM_BYTES
    monkeypatch.setattr(sqlite, "ROOM_BYTES", 1 << 60)
    store.save(Changes(2, [message(5)], removed=[1]))
    (lost,) = answers(store, 1)
    assert isinstance(lost, Lost)
    assert "MB left" in lost.reason
    until(lambda: len(store.recover().messages) == 3)
    store.save(Changes(removed=[2]))
    until(lambda: len(store.recover().messages) == 2)
    assert "MB left" in (store.healthy() or "")
    monkeypatch.setattr(sqlite, "ROOM_BYTES", room)
    until(lambda: store.healthy() is None)
    store.save(Changes(3, [message(6)]))
    assert answers(store, 1) == [Saved(3)]
    assert [id for id, *_ in store.recover().messages] == [3, 4, 6]


def test_acks_are_written_at_close_without_room(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(Changes(1, [message(1), message(2)]))
    answers(store, 1)
    monkeypatch.setattr(sqlite, "ROOM_BYTES", 1 << 60)
    store.save(Changes(2, [message(3)], removed=[1]))
    store.close()
    assert ids(path) == [2]


@pytest.mark.usefixtures("hurry")
def test_store_is_not_healthy_before_a_commit_works(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def try_again(db: sqlite3.Connection) -> None:
        tried.append(store.healthy())
        schema.commit_nothing(db)

    monkeypatch.setattr(sqlite, "commit_nothing", try_again)
    store.save(Changes(1, [message(1)]))
    answers(store, 1)
    with no_space():
        store.save(Changes(2, [message(2)]))
        answers(store, 1)
        until(lambda: len(tried) > 3)
    assert None not in tried[:3]
    until(lambda: store.healthy() is None)


def test_close_on_a_full_disk_ends_and_tells_what_is_lost(store: Store, path: Path) -> None:
    store.save(Changes(1, [message(1)]))
    answers(store, 1)
    with no_space():
        store.save(Changes(2, [message(2)], removed=[1]))
        store.close()
    (lost,) = store.completed()
    assert isinstance(lost, Lost)
    assert ids(path) == [1]


# Space


@pytest.mark.usefixtures("hurry")
def test_space_is_given_back(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "SPARE_PAGES", 50)
    log = path.with_name("zmule.db-wal")
    store.save(Changes(1, [message(id, "x" * 1000) for id in range(1, 12_001)]))
    answers(store, 1)
    assert path.stat().st_size > 12_000_000
    assert log.stat().st_size > 12_000_000
    store.save(Changes(2, removed=range(1, 12_000)))
    answers(store, 1)
    until(lambda: path.stat().st_size < 100 * 4096)
    store.save(Changes(3, [message(30_000)]))
    answers(store, 1)
    assert log.stat().st_size <= schema.WAL_BYTES
    store.close()
    assert ids(path) == [12_000, 30_000]


# A process that is killed

WRITER = """
import select, sys
from zmule.core.effects import Mark
from zmule.stores import Changes, open_store

store = open_store(sys.argv[1])
last = next((mark.last for mark in store.recover().senders), 0)
for batch in range(last + 1, last + 100_000):
    messages = [(batch * 10 + n, "any", str(batch) * 20, 1, 0.5, None, None) for n in range(10)]
    removed = [(batch - 3) * 10 + n for n in range(9)]
    store.save(Changes(batch, messages, removed, [Mark(b"s", batch, ())]))
    if batch % 4 == 0:
        select.select([store.descriptor()], [], [], 10)
    for answer in store.completed():
        print(answer.batch, flush=True)
"""


def expected(last: int) -> list[int]:
    """Return the ids that are there once batch `last` and all before it are written."""
    done = range(1, last - 2)
    return [batch * 10 + 9 for batch in done] + [
        batch * 10 + n for batch in range(max(1, last - 2), last + 1) for n in range(10)
    ]


def test_nothing_saved_is_lost_when_the_process_is_killed(path: Path) -> None:
    chance = random.Random(20)
    reported = 0
    for _ in range(8):
        reported = kill_writer(path, chance.randrange(1, 400)) or reported
        store = open_store(f"sqlite://{path}")
        recovery = store.recover()
        store.close()
        (mark,) = recovery.senders
        assert mark.last >= reported
        assert [id for id, *_ in recovery.messages] == expected(mark.last)


def kill_writer(path: Path, after: int) -> int:
    """Run a writer, kill it once it has reported so many batches; return the last one it reported."""
    command = [sys.executable, "-c", WRITER, f"sqlite://{path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        for _ in range(after):
            assert writer.stdout.readline(), "the writer ended by itself"
        writer.kill()
        lines = [line for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    return int(lines[-1]) if lines else 0

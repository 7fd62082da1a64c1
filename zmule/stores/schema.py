"""The file of the SQLite store: how it is made, recognised, locked and brought up to date.

The file is ours alone while it is open: SQLite's exclusive locking mode holds it, so that a second broker is
turned away, nobody can delay a checkpoint, no lock is met while running, and the kernel frees it however the
process ends. (POSIX locks fall when any descriptor of the file is closed: nothing else here may open it.)

Its tables are those of the last of `MIGRATIONS`; SQLite's `user_version` counts how many were applied, each
in a transaction of its own. Once published, a migration is never edited: add another.

`PRAGMA quick_check` runs at every opening. It reads the whole file, but so does recovery, and it takes a
tenth of recovery's time.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zmule.errors import ConfigError, EndpointInUse

APPLICATION_ID = 0x7A6D756C
"""SQLite's `application_id` of our files: "zmul"."""

WAL_BYTES = 8 << 20
"""What the log may keep of the disk between checkpoints. It is also what can be written on a full disk."""

_NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

MIGRATIONS: tuple[str, ...] = (
    """
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
    INSERT INTO counter VALUES (1);
    """,
)


def open_database(path: Path) -> sqlite3.Connection:
    """Open or make the file, hold it, and bring its tables up to date.

    Returns: a connection in autocommit mode that any one thread at a time may use.

    Raises:
        ConfigError: it cannot be written, is damaged, is something else, or is of a newer zmule.
        EndpointInUse: another process has it open.
    """
    with explained(path):
        _make_file(path)
        db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db, path)
        except BaseException:
            db.close()
            raise
        return db


def _make_file(path: Path) -> None:
    """Make the file, readable to us only, and its folder, if they are missing."""
    folder = path.parent
    if not folder.exists():
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)
        _sync(folder.parent)
    if not path.exists():
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask
        finally:
            os.close(descriptor)
        _sync(folder)


def _sync(folder: Path) -> None:
    """Make the entries of a folder last through a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    version = _version(db, path)
    if version == 0:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise ConfigError(f"store {path}: SQLite cannot keep a log there: use another file system")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = OFF")
    db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    complaint = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if complaint != "ok":
        raise damaged(path, complaint.replace("\n", " "))
    for place in range(version, len(MIGRATIONS)):
        db.executescript(
            f"BEGIN EXCLUSIVE; {MIGRATIONS[place]};"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {place + 1}; COMMIT"
        )


def _version(db: sqlite3.Connection, path: Path) -> int:
    """Return how many migrations the file has had: 0 if it is empty."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise ConfigError(f"store {path}: this is the database of another program: choose another path")
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"store {path}: a newer zmule wrote this file ({version}, this one knows {len(MIGRATIONS)}):"
            " use that zmule, or move the file away to begin empty"
        )
    return int(version)


def commit_nothing(db: sqlite3.Connection) -> None:
    """Commit a page that says nothing new, to prove that commits work. An equal UPDATE would write nothing.

    Raises:
        sqlite3.Error: they do not.
    """
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system and SQLite raise into what the operator can act upon."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise EndpointInUse(f"store {path}: another process has it open (another zmuled?)") from error
        if code == sqlite3.SQLITE_NOTADB:
            raise ConfigError(f"store {path}: this is not a SQLite database: choose another path") from error
        if code in _NO_ACCESS:
            raise _unwritable(path, str(error)) from error
        raise damaged(path, str(error)) from error


def damaged(path: Path, complaint: str) -> ConfigError:
    """Return the error for a file whose content cannot be right."""
    return ConfigError(
        f"store {path}: the file is damaged ({complaint}): keep a copy, save what can be read with"
        f" `sqlite3 {path} .recover`, or move it away together with {path.name}-wal to begin empty"
    )


def _unwritable(path: Path, complaint: str) -> ConfigError:
    return ConfigError(f"store {path}: {complaint}: zmuled must be able to write this file and its folder")

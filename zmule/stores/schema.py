"""The database of the SQLite store: how it is recognised, checked, and brought up to date.

It is ours alone while it is open: `zmule.stores.place` keeps another zmuled out, and SQLite's exclusive
locking mode everybody else, so that nobody can delay a checkpoint, no lock is met while running, and the
kernel frees it however the process ends. (POSIX locks fall when any descriptor of the file is closed: nothing
else here may open it.)

Its tables are those of the last of `MIGRATIONS`; SQLite's `user_version` counts how many were applied, each
in a transaction of its own. Once published, a migration is never edited: add another.

**A log that is missing is noticed.** Between openings the file is a plain one, without a log (journal mode
`delete`, which its header says). An opening makes it one with a log, and once the log is there, the main file
names its lineage and its least length (table `log`). From then on the file is not whole without that log: a
copy that was made alone, a log that was lost, cut or exchanged are refused, before SQLite would pass over
them. Before the names are in the file, and after they were taken out, the log has nothing that counts.

The log has its whole length from the beginning. So what it may write is there when the disk is full, and a
log that was cut is shorter than it should be.

`PRAGMA quick_check` runs at every opening. It reads the whole file, but so does recovery, and it takes a
tenth of recovery's time.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zmule.errors import ConfigError, EndpointInUse, StoreUnavailable
from zmule.stores import wal
from zmule.stores.place import Place, beside

APPLICATION_ID = 0x7A6D756C
"""SQLite's `application_id` of our files: "zmul"."""

WAL_BYTES = 8 << 20
"""How long the log is between checkpoints. It is also what can be written on a full disk."""

STATE = struct.Struct(">?IQI")
"""What the table `log` has: whether a log belongs to the file, its lineage and least length, a checksum.

The checksum is for a page that a power failure has left half written. Then the log has the whole one."""

_NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_NO_ROOM_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

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
    """
    CREATE TABLE log (state BLOB NOT NULL);
    INSERT INTO log VALUES (zeroblob(17));
    """,
)


class State:
    """What the main file says of its log; `pack` and `read` are its two ways."""

    def __init__(self, is_open: bool = False, lineage: int = 0, length: int = 0) -> None:
        self.is_open = is_open
        self.lineage = lineage
        self.length = length

    def pack(self) -> bytes:
        """Return what the table has, always of one length, so that it is replaced in its place."""
        fields = (self.is_open, self.lineage, self.length)
        return STATE.pack(*fields, zlib.crc32(STATE.pack(*fields, 0)))

    @classmethod
    def read(cls, packed: bytes) -> State | None:
        """Return what was packed; None if it is not whole."""
        if packed == bytes(STATE.size):
            return cls()
        if type(packed) is not bytes or len(packed) != STATE.size:
            return None
        state = cls(*STATE.unpack(packed)[:3])
        return state if state.pack() == packed else None


class Database:
    """The open file.

    Args:
        path: absolute; made, with its folder, if it is missing.
        trust_folders: leave out who else may write to the folders above.

    Attributes:
        db: a connection in autocommit mode that any one thread at a time may use.
        remark: what is to be said of how it was found.

    Raises:
        ConfigError: it cannot be written, is damaged, is something else, or is of a newer zmule.
        EndpointInUse: another process has it open.
    """

    def __init__(self, path: Path, trust_folders: bool = False) -> None:
        with explained(path):
            self._place = Place(path, trust_folders)
            try:
                self.remark = _check_log(self._place)
                self.db = sqlite3.connect(
                    self._place.path, timeout=0, isolation_level=None, check_same_thread=False
                )
            except BaseException:
                self._place.release()
                raise
            try:
                _prepare(self.db, self._place.path)
                self._begin_log()
            except BaseException:
                self.db.close()
                self._place.release()
                raise

    def complaint(self) -> str | None:
        """Return what has become of the file or its log, if they are not where they were."""
        return self._place.complaint()

    def restore_log(self) -> None:
        """Begin another log if somebody has removed it: all that was in it goes to the main file first.

        Raises:
            sqlite3.Error, OSError: that cannot be done.
        """
        if self._place.complaint() and self._place.lost_log_only():
            self._end_log()
            _use_log(self.db, self._place.path)
            self._begin_log()

    def close(self) -> None:
        """Leave a file that is whole without a log, if that can be written."""
        if self.complaint() is None:
            with suppress(sqlite3.Error):
                self._end_log()
        self.db.close()  # of a file that was moved SQLite removes no log
        self._place.release()

    def _begin_log(self) -> None:
        """Make the log, to its whole length, and have the main file say so."""
        commit_nothing(self.db)
        log = self._place.log
        state = State(is_open=True, lineage=wal.lineage(log), length=_lengthen(log))
        self._say(state)
        self._checkpoint()
        self._place.note_log()

    def _end_log(self) -> None:
        self._checkpoint()
        self._say(State())
        self.db.execute("PRAGMA journal_mode = DELETE")

    def _say(self, state: State) -> None:
        self.db.execute("UPDATE log SET state = ?", (state.pack(),))

    def _checkpoint(self) -> None:
        busy, there, moved = self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or there != moved:
            raise sqlite3.OperationalError("the log cannot be moved into the file")


def _lengthen(log: Path) -> int:
    """Give the log its length on the disk, if the disk has it; return how long it certainly is."""
    descriptor = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.posix_fallocate(descriptor, 0, WAL_BYTES)
            os.fsync(descriptor)
        return min(os.fstat(descriptor).st_size, WAL_BYTES)
    finally:
        os.close(descriptor)


def _check_log(place: Place) -> str | None:
    """Make sure that the file and its log belong together and are whole; return what is to be said.

    Raises:
        ConfigError: they are not.
    """
    header = place.read(100)
    if not header:
        return None
    has_log = header[18:20] == b"\2\2"
    state = _state(place.path) if has_log else State()
    certain = state is not None
    state = state or State()
    name = place.log.name
    try:
        log = wal.read_log(place.log)
    except wal.Damaged as error:
        if certain and has_log and not state.is_open and _is_new(place.path):
            return None  # nothing was in it that counts
        raise damaged(place.path, f"in {name}, {error}") from None
    if not has_log and log is not None:
        raise ConfigError(
            f"store {place.path}: it was closed in good order, so {name} is another file's or an older one's:"
            " move it away"
        )
    if state.is_open and _has_journal(place.path):
        raise ConfigError(f"store {place.path}: {place.path.name}-journal is not ours: move it away")
    if not certain and log is None:
        raise damaged(place.path, "what it says of its log is not whole")
    if not state.is_open:
        return log and log.remark and f"store {place.path}: {name} {log.remark}"
    if log is None:
        raise ConfigError(
            f"store {place.path}: its log {name} is missing: was the file copied while zmuled ran, without"
            f" it? Put the log back, or save what is in the file with `sqlite3 {place.path} .recover`"
        )
    if log.lineage != state.lineage:
        raise ConfigError(
            f"store {place.path}: {name} is the log of another file, or of this one at another time:"
            " put back the two that belong together"
        )
    if place.log.stat().st_size < state.length:
        raise damaged(place.path, f"{name} was cut short")
    return log.remark and f"store {place.path}: {name} {log.remark}"


def _state(path: Path) -> State | None:
    """Return what the main file says by itself, without its log; None if it has something that is not whole.

    It may be one of another program, or of an earlier version, which say nothing.
    """
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return State.read(db.execute("SELECT state FROM log").fetchone()[0]) if "log" in tables else State()
    except (sqlite3.Error, TypeError):
        return None
    finally:
        db.close()


def _is_new(path: Path) -> bool:
    """Tell whether the main file has no tables yet, or has the one that says that no log belongs to it."""
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        return bool(version != 1)
    except sqlite3.Error:
        return False
    finally:
        db.close()


def _has_journal(path: Path) -> bool:
    journal = beside(path, "-journal")
    return journal.exists() and journal.stat().st_size > 0 and any(journal.read_bytes()[:8])


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    version = _version(db, path)
    if version == 0:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _use_log(db, path)
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


def _use_log(db: sqlite3.Connection, path: Path) -> None:
    if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise ConfigError(f"store {path}: SQLite cannot keep a log there: use another file system")


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
        refusal = _out_of_room if error.errno in _NO_ROOM_ERRNO else _unwritable
        raise refusal(path, error.strerror or str(error)) from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise EndpointInUse(f"store {path}: another process has it open (another zmuled?)") from error
        if code == sqlite3.SQLITE_NOTADB:
            raise ConfigError(f"store {path}: this is not a SQLite database: choose another path") from error
        if code in _NO_ACCESS:
            raise _unwritable(path, str(error)) from error
        if code in _NO_ROOM:
            raise _out_of_room(path, str(error)) from error
        raise damaged(path, str(error)) from error


def damaged(path: Path, complaint: str) -> ConfigError:
    """Return the error for a file whose content cannot be right."""
    return ConfigError(
        f"store {path}: the file is damaged ({complaint}): keep a copy, save what can be read with"
        f" `sqlite3 {path} .recover`, or move it away together with {path.name}-wal to begin empty"
    )


def _unwritable(path: Path, complaint: str) -> ConfigError:
    return ConfigError(f"store {path}: {complaint}: zmuled must be able to write this file and its folder")


def _out_of_room(path: Path, complaint: str) -> StoreUnavailable:
    """Return the error for a disk that may do better later: a service manager is to try again."""
    return StoreUnavailable(f"store {path}: {complaint}: zmuled starts when the disk has room and works")

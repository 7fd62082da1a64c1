"""The copy of a store's file that a backup is made from: where it is, and what makes it whole."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from zmule.errors import ZmuleError
from zmule.stores.schema import APPLICATION_ID, State


def copy_path(path: Path) -> Path:
    """Return where the copy of a store's file is made: beside it, so that its folder protects it, too."""
    return path.with_name(path.name + ".backup")


def make_copy_file(path: Path) -> Path:
    """Make an empty file for a copy, readable to us only; one that is there is an earlier copy."""
    copy = copy_path(path)
    copy.unlink(missing_ok=True)
    descriptor = os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)
    return copy


def make_whole(db: sqlite3.Connection) -> None:
    """Have a copy say that it needs no log."""
    db.execute("PRAGMA synchronous = OFF")
    db.execute("UPDATE log SET state = ?", (State().pack(),))
    db.execute("PRAGMA journal_mode = DELETE")


def sync_file(path: Path) -> None:
    """Have a file, and its entry in the folder, last through a power failure."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def verify(path: Path) -> tuple[int, int]:
    """Return how many messages and dead letters a backup has.

    Raises:
        ZmuleError: it is not whole.
    """
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        (complaint,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        if complaint != "ok" or application != APPLICATION_ID:
            raise ZmuleError(f"{path}: the backup is not whole: {complaint}")
        counts = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("message", "dead")]
    except sqlite3.Error as error:
        raise ZmuleError(f"{path}: the backup is not whole: {error}") from None
    finally:
        db.close()
    return counts[0], counts[1]

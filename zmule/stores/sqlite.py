"""The durable store: one SQLite file, one thread that writes it.

`save` appends to a list. The writer takes the whole list, commits it as one transaction (write-ahead log,
`synchronous=FULL`, so the commit returns after the fsync), answers, and takes what has gathered meanwhile:
the busier the broker, the more messages share an fsync. An eventfd tells the loop that there are answers.

When a commit fails, all that was given is answered with `Lost`, and what must not be forgotten (see
`zmule.stores.store`) goes to `_kept`. From then on what is given is lost as it comes, so that senders are
refused at once, until the trouble is over and the loop has fetched these answers. The writer tries every
`RETRY_SECONDS`: it moves the log into the file, which makes room in the log, proves that a commit works,
and writes what it kept, a little at a time so that little room suffices.

A disk that is filled to the last byte can take no acks either, so that no message would ever leave it. Hence
`ROOM_BYTES` of it are left free: with less than that, the store is in the same trouble, but what it kept can
be written. Space is given back to the disk in short steps, in at most a tenth of the time.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Condition, Lock, Thread
from time import monotonic

from zmule.core.effects import Recovery
from zmule.stores import tables
from zmule.stores.copies import copy_path, make_copy_file, make_whole, sync_file
from zmule.stores.schema import WAL_BYTES, Database, commit_nothing, damaged, explained
from zmule.stores.store import Changes, Copy, Lost, Saved
from zmule.stores.tables import Group

ROOM_BYTES = 2 * WAL_BYTES
RETRY_SECONDS = 1.0
CATCH_UP_ROWS = 1000
"""How much of what was kept goes into one transaction; more only if one `Changes` has more."""

TIDY_SECONDS = 1.0
"""How long after a commit the writer looks whether there is space to give back."""

LOOK_SECONDS = 2.0
"""How often an idle writer looks whether the file is still in its place."""

COPY_PAGES = 256
"""How much of a copy is made before waiting changes are written: 1 MB."""

STEP_SECONDS = 0.003
SPARE_PAGES = 1024
"""Free pages that stay in the file for the next messages."""


class DiskFull(Exception):
    """Writing more would leave less than `ROOM_BYTES` of the disk free."""


class Stopped(Exception):
    """The store is being closed."""


class Misplaced(Exception):
    """The file is not where it was."""


class SqliteStore:
    """A `Store` in an SQLite file.

    Args:
        path: of the file.
        trust_folders: leave out who else may write to the folders above.

    Attributes:
        remark: what is to be said of how the file was found, if anything.

    Raises:
        ConfigError: the file cannot be used; see `zmule.stores.schema`.
        EndpointInUse: another process has it open.
    """

    def __init__(self, path: Path, *, trust_folders: bool = False) -> None:
        self._path = path
        self._database = Database(path, trust_folders)
        self._db = self._database.db
        self.remark = self._database.remark
        try:
            with self._sensible():
                tables.check_counter(self._db)
                self._next_id = tables.reserved(self._db)
        except BaseException:
            self._database.close()
            raise
        self._using = Lock()
        self._changed = Condition()
        self._given: list[Changes] = []
        self._answers: list[Saved | Lost] = []
        self._tickets: list[object] = []
        self._copies: list[Copy] = []
        self._kept: deque[Changes] = deque()
        self._trouble: str | None = None
        self._closed = self._rung = False
        self._tidy_at: float | None = monotonic() + TIDY_SECONDS
        self._signal: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._writer = Thread(target=self._run, name="zmule store", daemon=True)
        self._writer.start()

    def recover(self) -> Recovery:
        with self._using, self._sensible():
            return tables.read(self._db)

    @contextmanager
    def _sensible(self) -> Iterator[None]:
        """Explain what cannot be read."""
        with explained(self._path):
            try:
                yield
            except (TypeError, ValueError) as error:
                raise damaged(self._path, " ".join(str(error).split())) from error

    def save(self, changes: Changes) -> None:
        with self._changed:
            if self._closed:
                raise ValueError("the store is closed")
            if (reason := self._reason_to_refuse()) is not None:
                self._answer([Lost(changes.batch, reason)])
                changes = _unlosable(changes)
            self._given.append(changes)
            self._changed.notify()

    def _reason_to_refuse(self) -> str | None:
        """Return why new messages are lost: the trouble, or a loss of which the loop does not know yet."""
        match self._answers[-1:]:
            case [Lost(reason=reason)]:
                return reason
        return self._trouble

    def completed(self) -> list[Saved | Lost]:
        with self._changed:
            answers, self._answers = self._answers, []
            if self._rung and self._signal is not None:
                os.eventfd_read(self._signal)
                self._rung = False
            return answers

    def backup(self, ticket: object) -> None:
        with self._changed:
            self._tickets.append(ticket)
            self._changed.notify()

    def backups(self) -> list[Copy]:
        with self._changed:
            copies, self._copies = self._copies, []
            return copies

    def descriptor(self) -> int | None:
        return self._signal

    def healthy(self) -> str | None:
        return self._trouble

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._writer.join()
        if self._signal is not None:
            os.close(self._signal)
            self._signal = None

    def _answer(self, answers: Iterable[Saved | Lost]) -> None:
        """Leave the answers that somebody waits for. Only with `_changed` held."""
        wanted = [answer for answer in answers if answer.batch]
        if wanted and self._signal is not None:
            self._answers += wanted
            self._ring()

    def _ring(self) -> None:
        """Wake up the loop. Only with `_changed` held."""
        if self._signal is not None:
            os.eventfd_write(self._signal, 1)
            self._rung = True

    # The writer's thread

    def _run(self) -> None:
        """Write until closed. Signals of the process are for the thread that polls, not for this one."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        closing = False
        while not closing:
            given, closing = self._next()
            if self._trouble is not None and not self._caught_up():
                self._lose(given, self._trouble)
            elif given:
                self._commit(given)
            if self._tickets and not closing:
                self._make_copies()
            elif not given and self._trouble is None and not closing:
                self._look_around()
        if self._kept:
            self._caught_up()
        self._database.close()

    def _next(self) -> tuple[list[Changes], bool]:
        """Wait until there is something to write, something to try or nothing ever more."""
        with self._changed:
            self._changed.wait_for(self._has_work, self._patience())
            given, self._given = self._given, []
            return given, self._closed

    def _has_work(self) -> bool:
        return self._closed or bool(self._tickets) or (bool(self._given) and self._trouble is None)

    def _patience(self) -> float:
        if self._trouble is not None:
            return RETRY_SECONDS
        return (
            LOOK_SECONDS
            if self._tidy_at is None
            else max(0.0, min(self._tidy_at - monotonic(), LOOK_SECONDS))
        )

    def _look_around(self) -> None:
        """With nothing to write, see to the file's room and place."""
        if self._tidy_at is not None and monotonic() >= self._tidy_at:
            self._tidy()
        try:
            self._require_place()
        except Misplaced as error:
            self._lose([], str(error))
            with self._changed:
                self._ring()

    def _make_copies(self) -> None:
        """Make one copy for all who want one, and tell them."""
        tickets, self._tickets = self._tickets, []
        error = None
        try:
            self._copy()
        except Exception as failure:
            error = self._reason(failure)
        path = os.fspath(copy_path(self._path))
        with self._changed:
            self._copies += [Copy(ticket, path, error) for ticket in tickets]
            self._ring()

    def _copy(self) -> None:
        """Copy the file, a few pages at a time: what is given meanwhile is written in between."""
        size = self._path.stat().st_size + WAL_BYTES
        disk = os.statvfs(self._path)
        if disk.f_bavail * disk.f_frsize < ROOM_BYTES + size:
            raise DiskFull(f"a copy needs {size >> 20} MB of the disk and {ROOM_BYTES >> 20} MB beside it")
        path = make_copy_file(self._path)
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as target:
                self._db.backup(target, pages=COPY_PAGES, progress=lambda *_: self._write_meanwhile())
                make_whole(target)
            sync_file(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _write_meanwhile(self) -> None:
        with self._changed:
            if self._closed:
                raise Stopped("zmuled is stopping")
            given, self._given = self._given, []
        if given and self._trouble is not None:
            self._lose(given, self._trouble)
        elif given:
            self._commit(given)

    def _commit(self, given: list[Changes]) -> None:
        try:
            self._require_place()
            self._require_room(given)
            self._transact(given)
            self._require_place()
        except Exception as error:
            self._lose(given, self._reason(error))
            return
        if self._tidy_at is None:
            self._tidy_at = monotonic() + TIDY_SECONDS
        with self._changed:
            self._answer(Saved(changes.batch) for changes in given)

    def _transact(self, many: Iterable[Changes]) -> None:
        """Write the net effect in one transaction; when this returns, it is on disk."""
        group = Group()
        for changes in many:
            group.add(changes)
        if group:
            with self._using:
                with self._db:
                    self._db.execute("BEGIN IMMEDIATE")
                    next_id = tables.write(self._db, group, self._next_id)
                self._next_id = next_id

    def _lose(self, given: list[Changes], reason: str) -> None:
        """Answer for `given`, and for what has come since, that it is lost; keep what must not be."""
        with self._changed:
            self._trouble = reason
            given = given + self._given
            self._given = []
            self._answer(Lost(changes.batch, reason) for changes in given)
        self._kept.extend(part for part in map(_unlosable, given) if any(part))

    def _caught_up(self) -> bool:
        """Try to write what was kept; whether all of it is on disk and the trouble over."""
        try:
            with self._using:
                with suppress(sqlite3.Error):
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                commit_nothing(self._db)
            while self._kept:
                self._write_some()
            self._tidy()
            self._database.restore_log()
            self._require_place()
            self._require_room([])
        except Exception as error:
            self._trouble = self._reason(error)
            return False
        with self._changed:
            self._trouble = None
            self._ring()
        return True

    def _write_some(self) -> None:
        some: list[Changes] = []
        rows = 0
        for changes in self._kept:
            if rows >= CATCH_UP_ROWS:
                break
            some.append(changes)
            rows += len(changes.removed) + len(changes.dead) + len(changes.amended)
        self._transact(some)
        for _ in some:
            self._kept.popleft()

    def _require_room(self, given: list[Changes]) -> None:
        """Make sure that the disk has room for `given`, in the log and in the file, and for later acks."""
        bodies = sum(len(message[2]) for changes in given for message in changes.messages)
        disk = os.statvfs(self._path)
        free = disk.f_bavail * disk.f_frsize
        if free < ROOM_BYTES + 2 * bodies:
            raise DiskFull(f"the disk has only {free >> 20} MB left")

    def _require_place(self) -> None:
        """Make sure that what was written can be found again: not in a file that has lost its name."""
        if (complaint := self._database.complaint()) is not None:
            raise Misplaced(complaint)

    def _reason(self, error: Exception) -> str:
        if isinstance(error, Misplaced):
            return str(error)
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return f"{self._path}: {error} ({name})"

    def _tidy(self) -> None:
        """Give a few free pages back to the file system, and say when to go on."""
        begun = monotonic()
        self._tidy_at = None
        with self._using, suppress(sqlite3.Error):
            (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
            if free <= SPARE_PAGES:
                return
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                while free > SPARE_PAGES and monotonic() < begun + STEP_SECONDS:
                    self._db.execute("PRAGMA incremental_vacuum(1)")
                    free -= 1
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        now = monotonic()
        self._tidy_at = now + 9 * (now - begun)


def _unlosable(changes: Changes) -> Changes:
    """Return what of lost `changes` must be written all the same."""
    undead = () if changes.messages else changes.undead
    return changes._replace(batch=0, messages=(), senders=(), undead=undead)

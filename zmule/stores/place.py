"""Where a store's file is: that it is ours, ours alone, and still there.

A lock of the whole file (flock, on the inode, so by whatever name it was opened) keeps a second zmuled out,
before SQLite touches anything. Nothing may follow another name of the file: its log goes by the name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from zmule.errors import ConfigError, EndpointInUse
from zmule.trust import Untrusted, check_way, is_open, user_name

BESIDE = ("-wal", "-journal", "-shm")
"""Endings of the files that SQLite keeps beside a database."""


class Place:
    """The file of a store, from its opening to `release`.

    Args:
        path: absolute; links are followed.
        trust_folders: leave out who else may write to the folders above.

    Raises:
        ConfigError: the file, or one beside it, is not one that we may trust.
        EndpointInUse: another process has it open.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, trust_folders: bool) -> None:
        if not trust_folders:
            _check_folders(path)
        self.path = Path(os.path.realpath(path))
        self.log = beside(self.path, "-wal")
        self._refuse_log_alone()
        self._descriptor = self._open()
        self._log_made: os.stat_result | None = None
        try:
            self._check()
        except BaseException:
            self.release()
            raise

    def read(self, count: int) -> bytes:
        """Return the first bytes of the file."""
        return os.pread(self._descriptor, count, 0)

    def note_log(self) -> None:
        """Take note of the log that is there now: it is not to change."""
        self._log_made = self.log.lstat()

    def complaint(self) -> str | None:
        """Return what has become of the file or its log, if they are not where they were."""
        own = os.fstat(self._descriptor)
        if not _is(self.path, own):
            return f"{self.path} was removed or replaced while zmuled ran: put it back"
        if self._log_made is not None and not _is(self.log, self._log_made):
            return f"{self.log} was removed or replaced while zmuled ran"
        return None

    def lost_log_only(self) -> bool:
        """Tell whether the file is in its place, and no log is: then another can be begun."""
        return _is(self.path, os.fstat(self._descriptor)) and not os.path.lexists(self.log)

    def release(self) -> None:
        """Let others have the file. SQLite must have closed it: its own locks end with any descriptor."""
        os.close(self._descriptor)

    def _refuse_log_alone(self) -> None:
        with suppress(FileNotFoundError):
            if self.path.lstat().st_size:
                return
        with suppress(FileNotFoundError):
            if self.log.lstat().st_size:
                raise ConfigError(
                    f"store {self.path}: it is missing or empty, but its log {self.log.name} is there:"
                    " put the file back, or move the log away to begin empty"
                )

    def _open(self) -> int:
        """Return a descriptor with the lock of the file, which is made, for us only, if it is missing."""
        folder = self.path.parent
        if not folder.exists():
            folder.mkdir(mode=0o700)
            folder.chmod(0o700)
            _sync(folder.parent)
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if new:
                os.fchmod(descriptor, 0o600)  # whatever the umask
                _sync(folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno == errno.EWOULDBLOCK:
                raise EndpointInUse(
                    f"store {self.path}: another process has it open (another zmuled?)"
                ) from None
            raise
        return descriptor

    def _check(self) -> None:
        self._check_file(self.path, os.fstat(self._descriptor))
        for ending in BESIDE:
            with suppress(FileNotFoundError):
                file = beside(self.path, ending)
                self._check_file(file, file.lstat())

    def _check_file(self, path: Path, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"store {self.path}: {path} is not a plain file: choose another path")
        if found.st_uid not in (0, os.geteuid()):
            raise ConfigError(
                f"store {self.path}: {path} belongs to {user_name(found.st_uid)}: let it belong to this user"
            )
        if is_open(found):
            raise ConfigError(f"store {self.path}: others may write to {path}: chmod 600 {path}")
        if found.st_nlink != 1:
            raise ConfigError(
                f"store {self.path}: {path} has another name (a hard link), and its log goes by the name:"
                " remove one of them"
            )


def beside(path: Path, ending: str) -> Path:
    """Return the path of a file that SQLite keeps beside a database."""
    return path.with_name(path.name + ending)


def _check_folders(path: Path) -> None:
    try:
        check_way(path, {os.geteuid()})
    except Untrusted as error:
        raise ConfigError(
            f"store {path}: {error}: let the folders above it belong to this user or root and be writable to"
            " no others, or see trust_folders"
        ) from None


def _is(path: Path, known: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), known)
    except OSError:
        return False


def _sync(folder: Path) -> None:
    """Make the entries of a folder last through a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

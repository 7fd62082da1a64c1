"""File monitors: which of the watched paths changed, told to the poll loop through a descriptor.

Watching a file itself loses it at the first atomic replace, so only directories are watched: all those
that the kernel passes on the way to a monitored path, through symbolic links, and the path itself if it
is a directory. Hence a file may be replaced, deleted, created late, or have any folder or link above it
made, moved or exchanged, and the monitor follows. Nothing is watched recursively.

`watchfiles` knows neither a changing set of directories nor a descriptor to poll. One thread blocks in
it and builds a new watcher when the set changes. What happened meanwhile is found by comparing each path
with how it was when last looked at (`_Look`); the same comparison, a second after activity began or
ended, finds what an overflow of the kernel's queue lost. So what is left different is never missed, and
what falls into the exchange of watchers may be noticed twice. Without a watcher to be had (a limit of
the system), the comparison alone serves, once a second.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from posixpath import dirname, join
from stat import S_ISDIR
from time import monotonic
from typing import NamedTuple

from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

DEBOUNCE_MS = 50
STEP_MS = 25
SETTLE_S = 1.0
MODIFIED = 2
LONGEST_PATH = 4095
LONGEST_NAME = 255
MOST_LINKS = 40

log = logging.getLogger(__name__)


class FileMonitors:
    """The monitored paths and the thread that watches them.

    One thread may call the methods. `close` has to be called, or the watching thread outlives it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: dict[str, _Look] = {}
        self._changed: dict[str, None] = {}
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake = threading.Event()
        self._closed = False
        self._blind = False
        self._thread: threading.Thread | None = None

    def descriptor(self) -> int:
        """Return the file descriptor that is readable while `changed` has something to tell."""
        return self._descriptor

    def add(self, path: str) -> None:
        """Monitor a path from this moment on, as uWSGI's `add_file_monitor` does; twice is as good as once.

        Args:
            path: absolute; a file, a directory (its own entries count, not those below), a link to either,
                or nothing yet. It is the name that is monitored, whatever it leads to.

        Raises:
            ValueError: it cannot be watched; the text says why in one line.
        """
        if path in self._looks:
            return
        _check_spelling(path)
        look = _look(path)
        _check_access(path, look)
        with self._lock:
            self._looks[path] = look
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="zmule-filemon")
            self._thread.start()

    def remove(self, path: str) -> None:
        """Monitor a path no longer; a notice of it that waits is dropped. An unknown path is no error."""
        with self._lock:
            self._changed.pop(path, None)
            known = self._looks.pop(path, None)
        if known:
            self._wake.set()

    def changed(self) -> list[str]:
        """Return the paths that changed since the last call, spelt as added, each once, in order."""
        with self._lock:
            with suppress(BlockingIOError):
                os.eventfd_read(self._descriptor)
            changed = list(self._changed)
            self._changed.clear()
        return changed

    def close(self) -> None:
        """End the thread and close the descriptor; the object is of no use afterwards."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        if self._thread:
            self._thread.join()
        os.close(self._descriptor)

    def _run(self) -> None:
        while True:
            self._wake.clear()
            if self._closed:
                return
            if directories := self._directories():
                self._watch(directories)
            else:
                self._wake.wait()

    def _watch(self, directories: frozenset[str]) -> None:
        """Build a watcher, find what changed before it stood, and follow it."""
        try:
            watcher = RustNotify(list(directories), False, False, 0, False, False)
        except FileNotFoundError:  # one went away just now
            return
        except (OSError, WatchfilesRustInternalError) as error:
            if not self._blind:
                log.warning("file monitors look once a second, as the system lets none watch: %s", error)
            self._blind = True
            self._wake.wait(SETTLE_S)
            self._compare_all()
            return
        self._blind = False
        # An entry whose name is not UTF-8 makes a watcher useless: the error leads to a new one.
        with watcher, suppress(WatchfilesRustInternalError):
            self._compare_all()
            if directories == self._directories():
                self._follow(watcher, directories)

    def _follow(self, watcher: RustNotify, directories: frozenset[str]) -> None:
        """Take what the watcher reports until it should be replaced, or a second after it woke up."""
        batch = watcher.watch(DEBOUNCE_MS, STEP_MS, 0, self._wake)
        settled = monotonic() + SETTLE_S
        while isinstance(batch, set) and self._take(batch, directories) and monotonic() < settled:
            batch = watcher.watch(DEBOUNCE_MS, STEP_MS, int(SETTLE_S * 1000), self._wake)

    def _take(self, batch: set[tuple[int, str]], directories: frozenset[str]) -> bool:
        """Notice what a batch of events names; return whether the same directories still want watching."""
        touched = {path for _, path in batch}
        parents = {dirname(path) for path in touched}
        concerned = []
        for path, look in self._monitors():
            named = look.end in touched or look.end in parents
            if named or not touched.isdisjoint(look.way):
                concerned.append((path, look, named))
        self._compare_each(concerned)
        exchanged = {path for kind, path in batch if kind != MODIFIED}
        return directories.isdisjoint(exchanged) and directories == self._directories()

    def _compare_all(self) -> None:
        self._compare_each([(path, look, False) for path, look in self._monitors()])

    def _compare_each(self, monitors: list[tuple[str, _Look, bool]]) -> None:
        """Compare, then rest four times as long: a directory of very many entries costs a fifth of a core."""
        started = monotonic()
        for path, look, named in monitors:
            self._compare(path, look, named)
        self._wake.wait(4 * (monotonic() - started))

    def _compare(self, path: str, before: _Look, named: bool) -> None:
        """Look at a path again and notice it if an event named it or it is not as it was."""
        now = _look(path)
        with self._lock:
            if self._looks.get(path) is not before:
                return
            self._looks[path] = now
            if named or now.marks != before.marks:
                self._changed[path] = None
                os.eventfd_write(self._descriptor, 1)

    def _monitors(self) -> list[tuple[str, _Look]]:
        with self._lock:
            return list(self._looks.items())

    def _directories(self) -> frozenset[str]:
        """Return what should be watched; one that may be passed but not listed is left out."""
        wanted = {directory for _, look in self._monitors() for directory in look.directories}
        return frozenset(each for each in wanted if os.access(each, os.R_OK, effective_ids=True))


class _Look(NamedTuple):
    """What a monitored path was at one moment.

    Attributes:
        way: the full name of each thing passed on the way, the last one where it ended.
        end: where the whole path leads, whether that exists or not; None if the way ended early.
        directories: those that have to be watched.
        marks: a number that changes with what is found there; None for nothing.
    """

    way: tuple[str, ...]
    end: str | None
    directories: frozenset[str]
    marks: int | None


def _look(path: str) -> _Look:
    way, end = _walk(path)
    directories = {dirname(name) for name in way}
    marks = None
    with suppress(OSError):
        found = Path(path).stat()
        marks = _marks(found)
        if end and S_ISDIR(found.st_mode):
            directories.add(end)
            marks = hash((marks, frozenset(_entries(end))))
    return _Look(tuple(way), end, frozenset(directories), marks)


def _walk(path: str) -> tuple[list[str], str | None]:
    """Go to `path` as the kernel does and return each name on the way, and the end if it got there."""
    here, way, links = "/", list[str](), 0
    ahead = _names(path)
    while ahead:
        name = ahead.pop()
        if name == "..":
            here = dirname(here)
            continue
        step = join(here, name)
        way.append(step)
        try:
            target = str(Path(step).readlink())
        except OSError as error:
            if error.errno != errno.EINVAL:
                return way, None if ahead else step
            here = step
            continue
        links += 1
        if links > MOST_LINKS or not _is_text(target):
            return way, None
        here = "/" if target.startswith("/") else here
        ahead += _names(target)
    return way, here


def _names(path: str) -> list[str]:
    """Return a path's names, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _marks(found: os.stat_result) -> int:
    return hash((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


def _entries(directory: str) -> Iterator[tuple[str, int]]:
    """Return a directory's entries; a folder among them changes only by being another one."""
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                yield entry.name, found.st_ino if S_ISDIR(found.st_mode) else _marks(found)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_spelling(path: str) -> None:
    if not path.startswith("/"):
        raise _refused(path, "give an absolute path")
    if "\0" in path or not _is_text(path):
        raise _refused(path, "it has a NUL or is not UTF-8")
    if len(path.encode()) > LONGEST_PATH or any(len(name.encode()) > LONGEST_NAME for name in _names(path)):
        raise _refused(path, f"it is longer than {LONGEST_PATH} bytes, or a name in it than {LONGEST_NAME}")


def _check_access(path: str, look: _Look) -> None:
    last = dirname(look.way[-1]) if look.way else "/"
    for directory in look.directories & {last, look.end}:
        if not os.access(directory, os.R_OK | os.X_OK, effective_ids=True):
            raise _refused(path, f"no permission to list the directory {directory!r}")


def _refused(path: str, why: str) -> ValueError:
    return ValueError(f"cannot monitor {path[:100]!r}: {why}")

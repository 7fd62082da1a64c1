"""File monitors: which of the watched paths changed, told to the poll loop through a descriptor.

Watching a file itself loses it at the first atomic replace, so only directories are watched: all those
that the kernel passes on the way to a monitored path, through symbolic links, and the path itself if it
is a directory. Hence a file may be replaced, deleted, created late, or have any folder or link above it
made, moved or exchanged, and the monitor follows. Nothing is watched recursively.

A folder may have millions of entries, or hang in a network. So whoever asks for a monitor does not look
at the path: one thread takes all first looks, and answers after each.

`watchfiles` knows neither a changing set of directories nor a descriptor to poll. Another thread blocks
in it and builds a new watcher when the set changes. It hears of that every `STEP_MS` only: if it took the
first looks too, each would wait so long. What happened while there was no watcher is found by comparing
each path with how it was when last looked at (`_Look`); the same comparison, a second after activity
began or ended, finds what an overflow of the kernel's queue lost. So what is left different is never
missed, and what falls into the exchange of watchers may be noticed twice. Without a watcher to be had (a
limit of the system), the comparison alone serves, once a second.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
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
ENTRIES_AT_ONCE = 1000
SUM_BITS = 2**64 - 1
CLOSING_S = 2.0

log = logging.getLogger(__name__)


class FileMonitors:
    """The monitored paths and the threads that look at them.

    One thread may call the methods. `close` has to be called, or the threads outlive it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fresh: dict[str, object] = {}
        self._answers: dict[str, str | None] = {}
        self._looks: dict[str, _Look] = {}
        self._changed: dict[str, None] = {}
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._asked = threading.Event()
        self._wake = threading.Event()
        self._closed = False
        self._blind = False
        self._threads: list[threading.Thread] = []

    def descriptor(self) -> int:
        """Return the file descriptor that is readable while `answers` or `changed` has something to tell."""
        return self._descriptor

    def add(self, path: str) -> None:
        """Begin to monitor a path, as uWSGI's `add_file_monitor` does; `answers` tells when that is so.

        What changes after the answer is noticed. One answer follows, unless the path is removed before; one
        that is added again before its answer gets no second one.

        Args:
            path: absolute; a file, a directory (its own entries count, not those below), a link to either,
                or nothing yet. It is the name that is monitored, whatever it leads to.

        Raises:
            ValueError: it cannot be watched, however it looks there; the text says why in one line.
        """
        _check_spelling(path)
        with self._lock:
            if path in self._looks:
                self._answer(path, None)
                return
            self._fresh.setdefault(path, object())
        self._asked.set()
        if not self._threads:
            self._start(self._begin_all, self._run)

    def remove(self, path: str) -> None:
        """Monitor a path no longer; what waits to be told of it is dropped. An unknown path is no error."""
        with self._lock:
            self._fresh.pop(path, None)
            self._answers.pop(path, None)
            self._changed.pop(path, None)
            known = self._looks.pop(path, None)
        if known:
            self._wake.set()

    def answers(self) -> Iterator[tuple[str, str | None]]:
        """Take the paths that are monitored now, or cannot be, with the reason why not; in order.

        Each is taken when it is reached: one that is removed before that is not told of.
        """
        while self._answers:
            with self._lock:
                path = next(iter(self._answers))
                refusal = self._answers.pop(path)
                self._quieten()
            yield path, refusal

    def changed(self) -> list[str]:
        """Return the paths that changed since the last call, spelt as added, each once, in order."""
        with self._lock:
            changed = list(self._changed)
            self._changed.clear()
            self._quieten()
        return changed

    def close(self) -> None:
        """End the threads and close the descriptor; the object is of no use afterwards.

        A thread that a hanging file system holds is left behind, with the descriptor.
        """
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        self._asked.set()
        deadline = monotonic() + CLOSING_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self._descriptor)

    def _start(self, *runs: Callable[[], None]) -> None:
        for run in runs:
            thread = threading.Thread(target=run, name="zmule-filemon", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _answer(self, path: str, refusal: str | None) -> None:
        """Have `answers` tell of a path; the lock is held."""
        self._answers[path] = refusal
        os.eventfd_write(self._descriptor, 1)

    def _quieten(self) -> None:
        """Make the descriptor unreadable if all has been told; the lock is held."""
        if not self._answers and not self._changed:
            with suppress(BlockingIOError):
                os.eventfd_read(self._descriptor)

    # The first looks.

    def _begin_all(self) -> None:
        while True:
            self._asked.clear()
            while not self._closed and (fresh := self._next_fresh()):
                self._begin(*fresh)
            if self._closed:
                return
            self._asked.wait()

    def _next_fresh(self) -> tuple[str, object] | None:
        with self._lock:
            return next(iter(self._fresh.items()), None)

    def _begin(self, path: str, wish: object) -> None:
        """Take the first look at a path and answer, unless it has been removed meanwhile."""
        look, refusal = None, None
        try:
            look = _look(path, lambda: self._closed or self._fresh.get(path) is not wish)
            _check_access(path, look)
        except _Unwanted:
            return
        except ValueError as error:
            refusal = str(error)
        with self._lock:
            if self._fresh.get(path) is not wish:
                return
            del self._fresh[path]
            if look and refusal is None:
                self._looks[path] = look
            self._answer(path, refusal)
        self._wake.set()

    # The watching.

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
            if self._closed:
                return
            self._compare(path, look, named)
        self._wake.wait(4 * (monotonic() - started))

    def _compare(self, path: str, before: _Look, named: bool) -> None:
        """Look at a path again and notice it if an event named it or it is not as it was."""
        try:
            now = _look(path, lambda: self._closed or self._looks.get(path) is not before)
        except _Unwanted:
            return
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


class _Unwanted(Exception):
    """Nobody wants to know any longer how a path looks."""


def _look(path: str, unwanted: Callable[[], bool]) -> _Look:
    """Return how a path looks.

    Raises:
        _Unwanted: that was so before all entries of a directory were seen.
    """
    way, end = _walk(path)
    directories = {dirname(name) for name in way}
    marks = None
    with suppress(OSError):
        found = Path(path).stat()
        marks = _marks(found)
        if end and S_ISDIR(found.st_mode):
            directories.add(end)
            marks = hash((marks, _sum(_entries(end), unwanted)))
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


def _sum(entries: Iterator[tuple[str, int]], unwanted: Callable[[], bool]) -> int:
    """Return a number that changes with the entries, not with their order; of millions none is kept."""
    total = 0
    for count, entry in enumerate(entries):
        total = (total + hash(entry)) & SUM_BITS
        if count % ENTRIES_AT_ONCE == 0 and unwanted():
            raise _Unwanted
    return total


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

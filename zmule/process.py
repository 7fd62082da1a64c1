"""What a process has once: its ZeroMQ context, and what to do in a child after a fork.

A socket that was inherited through `fork` takes messages and sends them nowhere, and closing it as a socket
would harm the parent. So whoever owns sockets registers here, and in a child drops them unclosed.

What lies below them must be closed there, though: as long as a child has the parent's connection open, the
broker does not see the parent's death. Which descriptors these are is known from the epoll descriptor of
libzmq's thread: whatever that thread reads or is about to connect is registered there.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import zmq


class Forkable(Protocol):
    """Something with state that a child must not use."""

    def after_fork(self) -> None:
        """In the child: forget connections and threads of the parent."""


DESCRIPTORS = Path("/proc/self/fd")
ENTRY = re.compile(r"tfd: *(\d+) events: *\w+ data: *(\w+) .*?ino:(\w+)")
"""What is registered with an epoll descriptor, as the kernel tells it."""

_context: zmq.Context[zmq.Socket[bytes]] | None = None
_polls: frozenset[int] = frozenset()
_making = threading.Lock()
_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()
_inherited: list[object] = []
_connected: set[tuple[int, int]] = set()


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return the process's own context; never the parent's."""
    global _context, _polls
    if _context is None:
        with _making:
            if _context is None:
                before = _epolls()
                made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
                made.socket(zmq.PAIR).close(linger=0)  # which starts its threads
                _polls = frozenset(filter(_is_libzmq, _epolls() - before))
                _context = made
    return _context


def register(forkable: Forkable) -> None:
    """Have `after_fork` called in children of this process, for as long as the object lives."""
    _forkables.add(forkable)


def abandon(*inherited: object) -> None:
    """Keep what belongs to the parent from ever being closed or collected in this process."""
    _inherited.extend(inherited)


def _epolls() -> set[int]:
    """Return the epoll descriptors of this process; none where the kernel does not tell."""
    found = set[int]()
    with suppress(OSError):
        for name in os.listdir(DESCRIPTORS):  # noqa: PTH208
            with suppress(OSError):
                if os.readlink(DESCRIPTORS / name) == "anon_inode:[eventpoll]":  # noqa: PTH115
                    found.add(int(name))
    return found


def _entries(epoll: int) -> list[tuple[int, int, int]]:
    """Return the descriptor, the caller's data and the inode of each thing that is registered."""
    try:
        text = Path(f"/proc/self/fdinfo/{epoll}").read_text()
    except OSError:
        return []
    return [(int(number), int(data, 16), int(inode, 16)) for number, data, inode in ENTRY.findall(text)]


def _is_libzmq(epoll: int) -> bool:
    """Whether it is not another thread's that was made at the same moment: libzmq's data are pointers."""
    entries = _entries(epoll)
    return bool(entries) and all(data >> 16 and data != number for number, data, _ in entries)


def _connections() -> set[tuple[int, int]]:
    return {(number, inode) for epoll in _polls for number, _, inode in _entries(epoll)}


def _before_fork() -> None:
    global _connected
    _connected = _connections()


def _after_fork() -> None:
    global _context, _polls, _connected, _making
    # The parent goes on connecting and disconnecting meanwhile: hence both moments, and the inodes.
    for number, inode in _connected | _connections():
        with suppress(OSError):
            about = os.fstat(number)
            if stat.S_ISSOCK(about.st_mode) and about.st_ino == inode:
                os.close(number)
    for epoll in _polls:
        os.close(epoll)
    abandon(_context)
    _context, _polls, _connected, _making = None, frozenset(), set(), threading.Lock()
    for forkable in list(_forkables):
        forkable.after_fork()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)

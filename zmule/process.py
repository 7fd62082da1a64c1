"""What a process has once: its ZeroMQ context, and what to do in a child after a fork.

A socket that was inherited through `fork` takes messages and sends them nowhere, and closing it would
harm the parent. So whoever owns sockets registers here, and in a child drops them unclosed.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

import zmq


class Forkable(Protocol):
    """Something with state that a child must not use."""

    def after_fork(self) -> None:
        """In the child: forget connections and threads of the parent."""


_context: zmq.Context[zmq.Socket[bytes]] | None = None
_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()
_inherited: list[object] = []


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return the process's own context; never the parent's."""
    global _context
    if _context is None:
        _context = zmq.Context()
    return _context


def register(forkable: Forkable) -> None:
    """Have `after_fork` called in children of this process, for as long as the object lives."""
    _forkables.add(forkable)


def abandon(*inherited: object) -> None:
    """Keep what belongs to the parent from ever being closed or collected in this process."""
    _inherited.extend(inherited)


def _after_fork() -> None:
    global _context
    abandon(_context)
    _context = None
    for forkable in list(_forkables):
        forkable.after_fork()


os.register_at_fork(after_in_child=_after_fork)

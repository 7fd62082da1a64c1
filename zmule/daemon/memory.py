"""How much memory the process has, how much it may have, and what it gives back."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

SHARE = 3 / 4
"""Of the memory that this machine, or the control group, has: what the broker may have by default."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


def used() -> int:
    """Return how many bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE


def share() -> int:
    """Return how many bytes the broker may have if nobody says so."""
    total = os.sysconf("SC_PHYS_PAGES") * _PAGE
    return int(SHARE * min([total, *_group_limits()]))


def _group_limits() -> list[int]:
    """Return the limits of the control groups that this process is in, of either version."""
    limits = []
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":
                limits += _limits_of(Path("/sys/fs/cgroup"), group, "memory.max")
            elif "memory" in controllers.split(","):
                limits += _limits_of(Path("/sys/fs/cgroup/memory"), group, "memory.limit_in_bytes")
    return limits


def _limits_of(root: Path, group: str, name: str) -> list[int]:
    """Return the limits of a group and of those that it is in; in a container its name may be another's."""
    inner = root / group.lstrip("/")
    limits = []
    for folder in (inner, *inner.parents):
        with suppress(OSError, ValueError):
            limits.append(int((folder / name).read_text()))
        if folder == root:
            break
    return limits


def give_back() -> None:
    """Give memory that was freed back to the system."""
    with suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)

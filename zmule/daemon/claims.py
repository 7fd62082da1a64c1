"""Whether two things of the daemon would be one file: sockets, their locks, the store and what is beside it.

A path is compared by the folder it leads to and the name there, so that neither links nor other spellings
nor a second mount of the folder hide that two are the same; and what exists by the file that it is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from zmule.errors import ConfigError

Claim = tuple[str, str]
"""What claims a path, and the path."""

STREAMS = {1: "standard output", 2: "standard error"}


def check_claims(endpoints: Sequence[str], store: str, others: Sequence[Claim]) -> None:
    """Refuse a configuration in which two files are the same.

    Args:
        endpoints: all of them, the publish endpoints included.
        store: its URL.
        others: what else is a file.

    Raises:
        ConfigError: names the two.
    """
    seen: dict[object, Claim] = {}
    for claim in [*_of_endpoints(endpoints), *_of_store(store), *others]:
        for identity in _identities(claim[1]):
            other = seen.setdefault(identity, claim)
            if other is not claim:
                raise ConfigError(f"{claim[0]} and {other[0]} would be the same file: {claim[1]}")
    for descriptor, name in STREAMS.items():
        if (taken := seen.get(_of_stream(descriptor))) is not None:
            raise ConfigError(f"{name} is written to {taken[1]}, which is {taken[0]}")


def _of_endpoints(endpoints: Sequence[str]) -> Iterator[Claim]:
    for endpoint in endpoints:
        if endpoint.startswith("ipc://"):
            path = endpoint.removeprefix("ipc://")
            yield f"the socket of {endpoint}", path
            yield f"the lock of {endpoint}", f"{path}.lock"


def _of_store(store: str) -> Iterator[Claim]:
    if store.startswith("sqlite:"):
        path = os.path.realpath(store.removeprefix("sqlite:").removeprefix("//"))
        yield "the store", path
        for ending in ("-wal", "-shm", "-journal", ".backup"):
            yield f"the store's {ending}", path + ending


def _identities(path: str) -> Iterator[object]:
    real = Path(os.path.realpath(path))
    try:
        folder = real.parent.stat()
        yield folder.st_dev, folder.st_ino, real.name
    except OSError:
        yield real
    try:
        found = real.stat()
        yield found.st_dev, found.st_ino
    except OSError:
        return


def _of_stream(descriptor: int) -> object:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None

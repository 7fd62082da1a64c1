"""zmule's lock."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.peers.zmule import serve
from benchmarks.plan import Role
from zmule import Client

__all__ = ["send", "serve"]


def send(role: Role, bodies: Iterator[bytes]) -> None:
    with Client(role.address) as client:
        client.is_locked(0)
        for _ in bodies:
            with client.lock(0):
                pass

"""The lock of Redis' Python client."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.peers.redis_list import OWN_PYTHON, connected, serve
from benchmarks.plan import Role

__all__ = ["OWN_PYTHON", "send", "serve"]


def send(role: Role, bodies: Iterator[bytes]) -> None:
    client = connected(role)
    for _ in bodies:
        with client.lock("bench", timeout=10):
            pass

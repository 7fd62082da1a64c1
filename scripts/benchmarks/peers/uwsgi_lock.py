"""uWSGI's lock: a mutex in memory that its processes share."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from benchmarks.peers.uwsgi import launch, serve
from benchmarks.plan import Role

__all__ = ["launch", "send", "serve"]


def send(role: Role, bodies: Iterator[bytes]) -> None:
    uwsgi = importlib.import_module("uwsgi")
    for _ in bodies:
        uwsgi.lock(0)
        uwsgi.unlock(0)

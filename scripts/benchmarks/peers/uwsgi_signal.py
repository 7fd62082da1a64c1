"""uWSGI's signals: raised by one mule, run by the handler of another, which does nothing else.

The handler is registered when uWSGI loads this module as its application, before it makes its mules.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks import processes
from benchmarks.board import board_of
from benchmarks.peers.uwsgi import command, serve
from benchmarks.plan import Role
from benchmarks.roles import handler, perform

__all__ = ["launch", "send", "serve"]
NUMBER = 17
ROLES = ("BENCH_SENDER", "BENCH_MULE")


@contextlib.contextmanager
def launch(roles: list[Role], folder: Path) -> Iterator[list[processes.Process]]:
    """Run a mule that only handles signals, and one that sends."""
    words = (*command(folder), "--wsgi-file", __file__, "--mule", f"--mule={__file__}")
    environ = {name: role.text() for name, role in zip(ROLES, roles, strict=True)}
    with processes.running(*words, cwd=folder, environ=environ) as process:
        yield [process]


def send(role: Role, bodies: Iterator[bytes]) -> None:
    uwsgi = importlib.import_module("uwsgi")
    board = board_of(role)
    for body in bodies:
        board.numbers[board.place(0)] = int(body)
        uwsgi.signal(NUMBER)


def register() -> None:
    """Have the first mule handle the signal."""
    role = Role.read(os.environ[ROLES[1]])
    board, handled = board_of(role), handler(role)
    importlib.import_module("uwsgi").register_signal(
        NUMBER, "mule1", lambda _: handled(b"%d" % board.numbers[board.place(0)])
    )
    handled.ready()


if __name__ == "__main__":
    perform(Role.read(os.environ[ROLES[0]]))
elif __name__.startswith("uwsgi_file_"):
    register()

"""uWSGI's own mules: `mule_msg` in one mule, `mule_get_msg` in another.

Its pipe holds 278 messages of 100 bytes and refuses more. So that nothing is lost, the buffer is raised by
`--mule-msg-size`, and a refused message is tried again at once, which is what its users do.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks import processes
from benchmarks.plan import Handled, Plan, Role
from benchmarks.roles import perform

BUFFER = 4_000_000
ROLES = "BENCH_ROLES"


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    processes.binary("uwsgi")
    yield ""


@contextlib.contextmanager
def launch(roles: list[Role], folder: Path) -> Iterator[list[processes.Process]]:
    """Run all roles as mules of one uWSGI: receivers first, since they get the first numbers."""
    ordered = sorted(roles, key=lambda role: role.sends)
    mules = ("--mule=" + __file__ for _ in ordered)
    environ = {ROLES: json.dumps([role.text() for role in ordered])}
    with processes.running(*command(folder), *mules, cwd=folder, environ=environ) as process:
        yield [process]


def command(folder: Path) -> tuple[object, ...]:
    """Return the command line of a uWSGI, but for its mules."""
    return (
        *(processes.binary("uwsgi"), "--master", "--socket", folder / "uwsgi.sock", "--die-on-term"),
        *("--home", processes.PEERS.parent, f"--mule-msg-size={BUFFER}", "--logto", folder / "uwsgi.log"),
    )


def send(role: Role, bodies: Iterator[bytes]) -> None:
    uwsgi = importlib.import_module("uwsgi")
    number = 0 if role.plan.shared else 1
    for body in bodies:
        while not uwsgi.mule_msg(body, number):
            os.sched_yield()


def receive(role: Role, handled: Handled) -> None:
    uwsgi = importlib.import_module("uwsgi")
    handled.ready()
    while True:
        handled(uwsgi.mule_get_msg())


if __name__ == "__main__":
    perform(Role.read(json.loads(os.environ[ROLES])[importlib.import_module("uwsgi").mule_id() - 1]))

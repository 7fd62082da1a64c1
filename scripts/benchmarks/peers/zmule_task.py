"""zmule's `@mulefunc`, run by a mule of zmuled that has loaded the application; one confirm for each call."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks import course, processes, task
from benchmarks.board import board_of
from benchmarks.peers.zmule import zmuled
from benchmarks.plan import Plan, Role
from zmule import Client, compat

APP = "benchmarks.app"


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    yield f"ipc://{folder}/zmule.sock"


@contextlib.contextmanager
def launch(roles: list[Role], folder: Path) -> Iterator[list[processes.Process]]:
    """Run zmuled with a mule, and the sender."""
    sender, mule = roles
    environ = {task.VARIABLE: mule.text()}
    with zmuled(folder, "--mule", f"--app={APP}", environ=environ), course.apart([sender], folder) as started:
        processes.wait_until(lambda: waits(mule.address), "the mule waits", *started)
        board_of(mule).ready(mule.row)
        yield started


def waits(address: str) -> bool:
    with Client(address) as client:
        return all(mule["state"] == "idle" and mule["waiting"] for mule in client.status()["mules"])


def send(role: Role, bodies: Iterator[bytes]) -> None:
    os.environ["ZMULE_ENDPOINT"] = role.address
    compat.install()
    from benchmarks.app import work

    for number, _ in enumerate(bodies):
        work(number)

"""ipyparallel's load-balanced view: one engine; calls are sent without waiting, and give results."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import processes, task
from benchmarks.plan import Handled, Plan, Role

OWN_PYTHON = True
CLIENT, ENGINE = "ipcontroller-client.json", "ipcontroller-engine.json"


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    """Run a controller; give the folder of its connection files."""
    processes.module("ipyparallel")
    files = folder / "security"
    controller = (processes.PEERS_PYTHON, "-m", "ipyparallel.controller", f"--profile-dir={folder}")
    with processes.running(*controller, "--ip=127.0.0.1", cwd=folder) as process:
        there = [files / CLIENT, files / ENGINE]
        processes.wait_until(lambda: all(map(Path.exists, there)), "the controller is up", process)
        yield str(files)


def send(role: Role, bodies: Iterator[bytes]) -> None:
    import ipyparallel

    client = ipyparallel.Client(f"{role.address}/{CLIENT}")
    while not client.ids:
        time.sleep(0.05)
    view = client.load_balanced_view()
    calls = [view.apply_async(task.run, number) for number, _ in enumerate(bodies)]
    view.wait(calls)


def receive(role: Role, handled: Handled) -> None:
    from ipyparallel.engine.app import IPEngine

    os.environ[task.VARIABLE] = role.text()
    handled.ready()
    IPEngine.launch_instance([f"--file={role.address}/{ENGINE}"])

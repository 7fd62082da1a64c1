"""gunicorn's dirty workers: called by an HTTP worker, one call at a time, with its result.

This module is gunicorn's configuration, too: a worker performs the sender's role as soon as it has started.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import processes, task
from benchmarks.board import board_of
from benchmarks.plan import Plan, Role
from benchmarks.roles import perform

SENDER = "BENCH_SENDER"
HERE = "benchmarks.peers.gunicorn_task"
TASKS = "benchmarks.dirty:Tasks"


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    processes.module("gunicorn.dirty")
    yield ""


@contextlib.contextmanager
def launch(roles: list[Role], folder: Path) -> Iterator[list[processes.Process]]:
    """Run gunicorn with one worker of each kind."""
    sender, mule = roles
    command = (
        *(processes.PEERS_PYTHON, "-m", "gunicorn", "--bind", f"unix:{folder}/http", "--timeout=0"),
        *("--config", f"python:{HERE}", "--dirty-workers=1", f"--dirty-app={TASKS}", f"{HERE}:web"),
    )
    environ = {SENDER: sender.text(), task.VARIABLE: mule.text()}
    with processes.running(*command, cwd=folder, environ=environ, mercy=1) as process:
        board_of(mule).ready(mule.row)
        yield [process]


def send(role: Role, bodies: Iterator[bytes]) -> None:
    from gunicorn.dirty import get_dirty_client

    client = get_dirty_client()
    processes.wait_until(lambda: warmed_up(client), "the dirty worker is ready")
    for number, _ in enumerate(bodies):
        client.execute(TASKS, "run", number)


def warmed_up(client: Any) -> bool:
    """Have the dirty worker made ready; return False while it has not started: it may come after this one."""
    from gunicorn.dirty import DirtyAppError, DirtyError

    try:
        client.execute(TASKS, "warm_up")
    except DirtyAppError:
        raise
    except DirtyError:
        return False
    return True


def post_worker_init(worker: object) -> None:
    """gunicorn's hook: this HTTP worker has started."""
    perform(Role.read(os.environ[SENDER]))


def web(environ: object, respond: object) -> list[bytes]:
    """The application that nobody asks anything of."""
    return []

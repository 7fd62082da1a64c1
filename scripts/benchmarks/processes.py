"""Processes that a benchmark starts, and that are gone when it is over, whatever happened."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.line import Skipped

SCRIPTS = Path(__file__).resolve().parent.parent
PEERS = SCRIPTS.parent / ".venv-peers" / "bin"
PEERS_PYTHON = PEERS / "python"
COMMANDS = Path(sys.executable).parent
PATIENCE = 60.0
MERCY = 10.0
PAUSE = 0.001

Process = subprocess.Popen[bytes]


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Give a new folder on the disk; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="zmule-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.contextmanager
def running(
    *command: object, cwd: Path, environ: Mapping[str, str] | None = None, mercy: float = MERCY
) -> Iterator[Process]:
    """Run a command with its output in `cwd/log`; it and its children are gone afterwards."""
    with (cwd / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env=clean_environ() | dict(environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process, mercy)


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Give the last line of the log as the reason why a contestant is skipped, too."""
    try:
        yield
    except Skipped as reason:
        lines = (folder / "log").read_text(errors="replace").strip().splitlines()
        raise Skipped(f"{reason} ({lines[-1] if lines else 'it said nothing'})") from None


def end(process: Process, mercy: float) -> None:
    """End a process and what is left of its group."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        process.terminate()
        process.wait(mercy)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def clean_environ() -> dict[str, str]:
    """Return the environment without what would change the defaults of zmule."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ZMULE_")}
    return environ | {"PYTHONPATH": str(SCRIPTS)}


def wait_until(condition: Callable[[], bool], what: str, *processes: Process) -> None:
    """Wait for a condition, or skip the contestant if it does not come or a process fails."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Skipped(f"not within {PATIENCE:.0f} s: {what}")
        if any(process.poll() for process in processes):
            raise Skipped(f"a process failed: {what}")
        time.sleep(PAUSE)


def answers(port: int) -> bool:
    """Return whether somebody listens at the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def binary(name: str) -> Path:
    """Return the path of a server, or skip what needs it."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", str(PEERS)])
    if (found := shutil.which(name, path=places)) is None:
        raise Skipped(f"{name} is not installed; scripts/peers installs it")
    return Path(found)


@functools.cache
def module(name: str) -> None:
    """Skip the contestant unless the peers' Python can import the module."""
    if not PEERS_PYTHON.exists():
        raise Skipped("there is no .venv-peers; scripts/peers makes it")
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    if subprocess.run([PEERS_PYTHON, "-c", probe], check=False, stderr=subprocess.DEVNULL).returncode:
        raise Skipped(f"{name} is not in .venv-peers; scripts/peers installs it")

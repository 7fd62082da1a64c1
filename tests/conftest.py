"""What the live tests share: a real `zmuled` in a folder of its own, and waiting for conditions."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from ports import free_ports

from zmule.clients.sync import Client
from zmule.errors import ZmuleError

os.environ.pop("PYTHONUNBUFFERED", None)  # users' processes buffer
for ignored in (signal.SIGINT, signal.SIGHUP):  # by nohup, or in the background
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.SIG_DFL if ignored == signal.SIGHUP else signal.default_int_handler)
hypothesis.settings.register_profile("busy", deadline=None)  # an example takes long where others work, too
hypothesis.settings.load_profile("busy")
PATIENCE = 30.0
COMMANDS = Path(sys.executable).parent


def wait_until(condition: Callable[[], Any], what: str = "the condition", seconds: float = PATIENCE) -> Any:
    """Return the condition's value once it is true; look often, and fail after a long time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)  # between two looks, not instead of one
    raise AssertionError(f"{what} has not come true in {seconds:g} s")


class Zmuled:
    """A zmuled that a test starts, kills and starts again.

    Args:
        folder: where it runs, and where its programs are.
        endpoint: where it listens.
    """

    def __init__(self, folder: Path, endpoint: str | None = None) -> None:
        self.folder = folder
        self.endpoint = endpoint or f"ipc://{folder}/zmule.sock"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[Client] = []

    def program(self, name: str, source: str) -> str:
        """Write a program; return its path."""
        path = self.folder / name
        path.write_text(textwrap.dedent(source))
        return name

    def start(
        self,
        *arguments: str,
        ready: bool = True,
        wrapper: Sequence[str | Path] = (),
        environ: Mapping[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> Zmuled:
        """Start it, by a wrapper if need be, and wait until its mules are at work."""
        usual = {name: value for name, value in os.environ.items() if not name.startswith("ZMULE_")}
        with self.log.open("ab") as log:
            process = self.process = subprocess.Popen(
                [*wrapper, COMMANDS / "zmuled", "--endpoint", self.endpoint, *arguments],
                cwd=self.folder,
                env=usual | dict(environ or {}),
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log if stderr is None else stderr,
            )
        if ready:
            wait_until(lambda: "info: ready" in self.tail() or process.poll() is not None, "readiness")
            assert process.poll() is None, self.output()
        return self

    def output(self) -> str:
        """What it and its mules have written."""
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        """What it has written since it was started last."""
        return self.output().rpartition("info: zmuled ")[2]

    def client(self, **options: Any) -> Client:
        """A client, closed at the end of the test."""
        client = Client(self.endpoint, **options)
        self.clients.append(client)
        return client

    def status(self) -> dict[str, Any]:
        """The broker's status."""
        return self.client_for_status().status()

    def client_for_status(self) -> Client:
        if not self.clients:
            self.client()
        return self.clients[0]

    def mule(self, number: int) -> dict[str, Any]:
        """A mule's entry in the status."""
        mules = {mule["id"]: mule for mule in self.status()["mules"]}
        entry: dict[str, Any] = mules[number]
        return entry

    def wait_for_acks(self, count: int, seconds: float = PATIENCE) -> None:
        """Wait until that many messages have been acknowledged."""
        wait_until(lambda: self.status()["totals"]["acked"] >= count, f"{count} acks", seconds)

    def kill(self) -> None:
        """Kill it as nobody should."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it as an operator does; return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """Leave nothing behind, however the test went."""
        for client in self.clients:
            with contextlib.suppress(ZmuleError):
                client.close(timeout=0.1)
        if self.process is not None and self.process.poll() is None:
            self.stop()


class Alarm(Exception):
    """What a program's handler of SIGALRM raises."""


@pytest.fixture
def armed() -> Iterator[list[bool]]:
    """A list; if it is not empty, SIGALRM empties it and raises `Alarm`."""
    state: list[bool] = []

    def ring(_number: int, _frame: object) -> None:
        if state:
            state.clear()
            raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    gc.disable()  # what is raised in a callback of the collector's is only printed
    yield state
    state.clear()
    gc.enable()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def zmuled(tmp_path: Path) -> Iterator[Zmuled]:
    """A zmuled that is not started yet, on an ipc endpoint."""
    daemon = Zmuled(tmp_path)
    try:
        yield daemon
    finally:
        daemon.end()


@pytest.fixture
def zmuled_tcp(tmp_path: Path) -> Iterator[Zmuled]:
    """A zmuled that is not started yet, on a tcp endpoint of this host."""
    daemon = Zmuled(tmp_path, f"tcp://127.0.0.1:{free_ports()}")
    try:
        yield daemon
    finally:
        daemon.end()

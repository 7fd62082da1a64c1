"""A real zmuled under raw ZMTP, beside a client and a mule that must not notice: `scripts/fuzz --zmtp N`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from fuzz_zmtp import Vandal
from ports import free_ports

from zmule.clients.sync import Client
from zmule.core.frames import PROTOCOL_VERSION, Ask, Batch, Hello, Ping, Put
from zmule.core.wire import encode
from zmule.mules.mule import Mule

NUMBER = 500
GROWTH = 32_768
"""What the broker's memory may grow by, in KiB, once a third of the attacks has filled its buffers."""

REST = 0.05
"""A broker that has nothing to do uses less than this share of a processor."""

PATIENCE = 30.0
FRAMES = [
    encode(frame)
    for frame in (
        Hello(PROTOCOL_VERSION, "client", bytes(16), {"floor": 0, "pid": 1}),
        Hello(PROTOCOL_VERSION, "client", b"x" * 16, {"floor": 0, "pid": 1}),
        Put(1, 0, (Batch("mule:99", ("x",), None),)),
        Ping(1, 0.0),
        Ask(1, "status", ()),
    )
]


class Trouble(Exception):
    """Somebody has noticed, or the broker is not as it was."""


class Ordeal:
    """A client and a mule that go on working while vandals are at it.

    Args:
        pid: the broker's.
        endpoints: of the broker; each has a vandal of its own.
        seed: of the first vandal; the next ones count up.
    """

    def __init__(self, pid: int, endpoints: list[str], seed: int) -> None:
        self.pid = pid
        self.endpoint = endpoints[0]
        self.vandals = [Vandal(seed + place, each, FRAMES) for place, each in enumerate(endpoints)]
        self.handled: list[object] = []
        self.warm = 0

    def run(self, attacks: int) -> None:
        """Let each vandal attack so many times, with a good message after each.

        Raises:
            Trouble: one was lost, or the broker has died, grows, spins or keeps connections.
        """
        with Client(self.endpoint, timeout=PATIENCE) as client, self.working():
            client.status()  # by now the broker has opened what it needs
            files = open_files(self.pid)
            try:
                for number in range(attacks):
                    self.attack_all()
                    client.mule_msg(f"message {number}", NUMBER)
                    if number == attacks // 3:
                        self.warm = memory(self.pid)
            finally:
                for vandal in self.vandals:
                    vandal.close()
                client.mule_msg("end", NUMBER)
        if self.handled != [f"message {number}" for number in range(attacks)]:
            raise Trouble(
                f"{len(self.handled)} of {attacks} good messages came, in this order: {self.handled}"
            )
        self.inspect(files)

    def attack_all(self) -> None:
        """Let all vandals do something at the same time."""
        threads = [threading.Thread(target=vandal.attack) for vandal in self.vandals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Have a mule work in a thread."""
        with Mule(NUMBER, endpoint=self.endpoint) as mule:
            thread = threading.Thread(target=self.work, args=(mule,))
            thread.start()
            try:
                yield
            finally:
                thread.join(PATIENCE)

    def work(self, mule: Mule) -> None:
        while (body := mule.get_msg(timeout=PATIENCE)) not in (None, "end"):
            self.handled.append(body)
        mule.ack()

    def inspect(self, files: int) -> None:
        """See what it has done to the broker."""
        if (growth := memory(self.pid) - self.warm) > GROWTH:
            raise Trouble(f"the broker has grown by {growth} KiB")
        wait_until("the broker lets go of connections", lambda: open_files(self.pid) <= files + 2)
        wait_until("the broker rests", lambda: busy(self.pid) < REST)


def wait_until(what: str, is_so: object) -> None:
    """Wait until it is so.

    Raises:
        Trouble: it is not, for long.
    """
    deadline = time.monotonic() + PATIENCE
    while not is_so():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise Trouble(f"not within {PATIENCE:g} s: {what}")
        time.sleep(0.05)


def memory(pid: int) -> int:
    """Return what a process has in memory, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def open_files(pid: int) -> int:
    """Return how many descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def busy(pid: int, seconds: float = 0.5) -> float:
    """Return what share of a processor a process uses, for some seconds from now."""
    ticks = []
    for wait in (seconds, 0.0):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks.append(int(words[11]) + int(words[12]))
        time.sleep(wait)
    return (ticks[1] - ticks[0]) / 100 / seconds


def ordeal(attacks: int, seed: int) -> int:
    """Start a zmuled, attack it over ipc and tcp, and print how it went; return the exit status."""
    with tempfile.TemporaryDirectory(prefix="zmule-fuzz-") as folder:
        endpoints = [f"ipc://{folder}/zmule.sock", f"tcp://127.0.0.1:{free_ports()}"]
        command = [
            str(Path(sys.executable).with_name("zmuled")),
            *(f"--endpoint={each}" for each in endpoints),
        ]
        with (
            (Path(folder) / "log").open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as zmuled,
        ):
            try:
                ordeal = Ordeal(zmuled.pid, endpoints, seed)
                ordeal.run(attacks)
                zmuled.terminate()
                if zmuled.wait(PATIENCE):
                    raise Trouble(f"the broker has ended with {zmuled.returncode}")
            except Exception as error:
                print(f"{error!r}; again by: scripts/fuzz --zmtp {attacks} --seed {seed}", file=sys.stderr)
                print((Path(folder) / "log").read_text(errors="replace")[-5000:], file=sys.stderr)
                return 1
            finally:
                zmuled.kill()
    done = sum(sum(vandal.done.values()) for vandal in ordeal.vandals)
    print(f"{done} attacks of seed {seed}: all good messages came, in order; the broker is as it was")
    return 0

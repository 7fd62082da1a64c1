"""Ready means loaded: what zmuled tells its log and its service manager while its mules come up."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Zmuled, wait_until

LOADS = """
    import pathlib, time, zmule
    pathlib.Path("loading").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    while True:
        {waits}
"""


class Manager:
    """What systemd is for a service: a socket that takes notes."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(os.fspath(path))
        self.socket.setblocking(False)
        self.notes: list[str] = []

    def told(self, text: str) -> bool:
        """Return whether a note with that text has come."""
        while True:
            try:
                self.notes.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return any(text in note for note in self.notes)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """The service manager of a zmuled that is started from here."""
    path = tmp_path / "notify"
    found = Manager(path)
    monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(path))
    with found.socket:
        yield found


@pytest.mark.parametrize(
    "waits", ["zmule.get_msg()", "zmule.farm_get_msg()", "zmule.signal_wait(17)", "zmule.get_msg(timeout=1)"]
)
def test_ready_is_said_when_the_program_has_come_to_its_first_wait(
    zmuled: Zmuled, manager: Manager, waits: str
) -> None:
    program = zmuled.program("loads.py", LOADS.format(waits=waits))
    zmuled.start(f"--mule={program}", "--farm=busy:1", ready=False)
    wait_until((zmuled.folder / "loading").exists, "the program")
    wait_until(lambda: zmuled.mule(1)["state"] == "starting", "the registration")
    assert "info: ready" not in zmuled.tail()
    assert not manager.told("READY=1")
    (zmuled.folder / "go").touch()
    wait_until(lambda: manager.told("READY=1\nSTATUS=1 of 1 mules are at work"), "READY=1")
    wait_until(lambda: "info: ready: 1 of 1 mules are at work" in zmuled.tail(), "the log")


@pytest.mark.parametrize("source", ["def broken(:\n", "import no_such_module\n", "1 / 0\n"])
def test_a_deploy_that_does_not_start_is_not_ready(zmuled: Zmuled, manager: Manager, source: str) -> None:
    good = zmuled.program("good.py", "import zmule\nwhile True: zmule.get_msg()\n")
    bad = zmuled.program("bad.py", source)
    zmuled.start(f"--mule={good}", f"--mule={bad}", ready=False)
    wait_until(lambda: zmuled.mule(2)["restarts"] > 2, "some crashes")
    text = "1 of 2 mules are at work; mule 2 does not: exit code 1"
    wait_until(lambda: manager.told(f"STATUS={text}"), "the manager's note")
    wait_until(
        lambda: re.search("warning: not ready: .*mule 2 does not: exit code 1", zmuled.tail()), "the log"
    )
    assert not manager.told("READY=1")
    assert "info: ready" not in zmuled.tail()
    last = zmuled.mule(2)["last_exit"]
    assert (last["code"], last["signal"]) == (1, None)
    assert abs(last["at"] - time.time()) < 60
    zmuled.program("bad.py", "import zmule\nwhile True: zmule.get_msg()\n")
    wait_until(lambda: manager.told("READY=1\nSTATUS=2 of 2 mules are at work"), "READY=1")


def test_a_program_that_never_asks_is_taken_for_loaded_after_a_while(zmuled: Zmuled) -> None:
    program = zmuled.program("sleeps.py", "import time\nwhile True: time.sleep(1)\n")
    zmuled.start(f"--mule={program}")
    assert "mule 1 asks for nothing: taken for loaded" in zmuled.tail()

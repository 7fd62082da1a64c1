"""What systemd would read, from a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from zmule.daemon.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A bound socket, and how NOTIFY_SOCKET names it."""
    address = str(tmp_path / "notify")
    name = address if request.param == "path" else f"@{address}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1))
        receiver.settimeout(10.0)
        yield receiver, name


def test_the_life_of_a_service(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    environ = {"NOTIFY_SOCKET": address, "HOME": "/"}
    notifier = Notifier.from_environ(environ)
    assert environ == {"HOME": "/"}
    notifier.ready("3 mules")
    notifier.status("1 mule è \udcff failed\nREADY=0")
    notifier.stopping()
    assert receiver.recv(1000) == b"READY=1\nSTATUS=3 mules"
    assert receiver.recv(1000) == "STATUS=1 mule è ? failed READY=0".encode()
    assert receiver.recv(1000) == b"STOPPING=1"


def test_a_manager_that_does_not_read_holds_nothing_up(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    notifier = Notifier(address)
    for _ in range(2000):
        notifier.status("busy")
    receiver.setblocking(False)
    read = 0
    with suppress(BlockingIOError):
        while receiver.recv(1000):
            read += 1
    assert 0 < read < 2000


@pytest.mark.parametrize("address", ["", "/no/such/socket", "@nobody", "/" + "x" * 200, "vsock:2:1"])
def test_nobody_there_is_no_error(address: str) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    notifier.ready("up")
    notifier.stopping()
    Notifier.from_environ({}).ready("up")

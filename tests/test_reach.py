"""Why nobody answers, as clients and commands tell it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_ports

from tests.conftest import COMMANDS, PATIENCE, Zmuled
from zmule.clients.sync import Client
from zmule.errors import BrokerUnavailable, NotPermitted
from zmule.mules.mule import Mule
from zmule.reach import trouble


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """As a user who may not do everything."""
    if (user := os.geteuid()) == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.fixture
def stale(tmp_path: Path) -> str:
    """A socket that somebody has left behind."""
    path = tmp_path / "z.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(path))
    return f"ipc://{path}"


def test_nothing_is_there(tmp_path: Path, stale: str) -> None:
    for endpoint in (
        f"ipc://{tmp_path}/none",
        stale,
        f"ipc://{stale[6:]}/x",
        f"tcp://127.0.0.1:{free_ports()}",
    ):
        error = trouble(endpoint)
        assert isinstance(error, BrokerUnavailable)
        assert str(error) == f"no zmuled at {endpoint}: is zmuled running?"


def test_not_for_this_user(as_nobody: None) -> None:
    error = trouble("ipc:///root/z.sock")
    assert isinstance(error, NotPermitted)
    assert "is not open to this user" in str(error)


def test_somebody_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "z"))
        listener.listen()
        assert trouble(f"ipc://{tmp_path}/z") is None


@pytest.mark.parametrize(
    "words",
    [["zmule", "status"], ["zmule", "ping"], ["zmule", "run", "os:getpid"], ["zmule-send", "any", "x"]],
)
def test_commands_say_at_once_that_nobody_is_there(tmp_path: Path, words: list[str]) -> None:
    endpoint = f"ipc://{tmp_path}/none"
    command, *more = words
    done = subprocess.run(
        [COMMANDS / command, *more],
        env=os.environ | {"ZMULE_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == f"{command}: no zmuled at {endpoint}: is zmuled running?\n"


def test_a_command_with_a_timeout_waits_for_a_broker_that_is_still_to_come(zmuled: Zmuled) -> None:
    command = [str(COMMANDS / "zmule"), "ping", "--timeout", str(PATIENCE), "--endpoint", zmuled.endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as ping:
        zmuled.start()
        assert ping.wait(PATIENCE) == 0


def test_a_client_waits_for_a_broker_that_is_still_to_come(zmuled: Zmuled) -> None:
    program = f"import zmule; zmule.Client({zmuled.endpoint!r}, timeout={PATIENCE}).mule_msg('x')"
    with subprocess.Popen([sys.executable, "-c", program]) as sender:
        zmuled.start()
        assert sender.wait(PATIENCE) == 0


def test_a_broker_that_does_not_answer_is_named(zmuled: Zmuled) -> None:
    zmuled.start()
    assert zmuled.process is not None
    zmuled.process.send_signal(signal.SIGSTOP)
    text = f"process {zmuled.process.pid}, which listens at {zmuled.endpoint}, has not answered for 0.1 s"
    try:
        with Client(zmuled.endpoint, timeout=0.1) as client, pytest.raises(BrokerUnavailable, match=text):
            client.ping()
        with pytest.raises(BrokerUnavailable, match=text):
            Mule(endpoint=zmuled.endpoint, timeout=0.1)
        other = subprocess.run(
            [COMMANDS / "zmuled", "--endpoint", zmuled.endpoint],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert other.returncode == 73
        assert f"another zmuled holds the endpoint, pid {zmuled.process.pid}" in other.stderr
    finally:
        zmuled.process.send_signal(signal.SIGCONT)

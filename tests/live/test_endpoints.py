"""A real zmuled on sockets of several kinds, and what happens to their files while it runs."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from ports import free_ports

from tests.conftest import COMMANDS, PATIENCE, Zmuled, wait_until
from zmule.clients.sync import Client
from zmule.mules.mule import Mule


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def talk(endpoint: str, body: str) -> None:
    """Send a message and get it back, by a new client and a new mule."""
    with Client(endpoint, timeout=PATIENCE) as client, Mule(endpoint=endpoint) as mule:
        assert client.mule_msg(body) is True
        assert mule.get_msg(timeout=PATIENCE) == body


@needs_ipv6
def test_ipv6(tmp_path: Path) -> None:
    zmuled = Zmuled(tmp_path, f"tcp://[::1]:{free_ports()}")
    try:
        zmuled.start("--mule")
        talk(zmuled.endpoint, "six")
        assert zmuled.stop() == 0  # the broadcast of the stop is heard there, too
    finally:
        zmuled.end()


def test_a_name_that_stands_for_both_families(tmp_path: Path) -> None:
    port = free_ports()
    zmuled = Zmuled(tmp_path, f"tcp://localhost:{port}")
    try:
        zmuled.start()
        talk(zmuled.endpoint, "by name")
        talk(f"tcp://127.0.0.1:{port}", "by number")
    finally:
        zmuled.end()


def sockets(zmuled: Zmuled) -> list[Path]:
    return [zmuled.folder / name for name in ("zmule.sock", "zmule.pub")]


def test_socket_files_that_vanish_are_made_again(zmuled: Zmuled) -> None:
    zmuled.program("sleep.py", "import zmule\nwhile True: print('got', zmule.get_msg())\n")
    zmuled.start("--mule=sleep.py")
    old = zmuled.client(timeout=PATIENCE)
    old.ping()
    for name in ("zmule.sock", "zmule.pub", "zmule.sock.lock", "zmule.pub.lock"):
        (zmuled.folder / name).unlink()
    wait_until(lambda: all(path.is_socket() for path in sockets(zmuled)), "the sockets")
    assert [stat.S_IMODE(path.stat().st_mode) for path in sockets(zmuled)] == [0o600, 0o600]
    assert old.mule_msg("old") is True
    with Client(zmuled.endpoint, timeout=PATIENCE) as client:
        assert client.mule_msg("new") is True
    wait_until(lambda: "got new" in zmuled.output() and "got old" in zmuled.output())
    said = [line for line in zmuled.output().splitlines() if "had vanished and is there again" in line]
    assert len(said) == 2
    second = subprocess.run(
        [COMMANDS / "zmuled", "--endpoint", zmuled.endpoint], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (second.returncode, f"pid {zmuled.process and zmuled.process.pid}" in second.stderr) == (
        73,
        True,
    )
    assert zmuled.mule(1)["restarts"] == 0
    assert zmuled.stop() == 0
    assert not [path for path in sockets(zmuled) if path.exists()]


def test_what_stands_in_the_place_of_a_socket_is_left_alone_and_told_once(zmuled: Zmuled) -> None:
    zmuled.start()
    path = sockets(zmuled)[0]
    path.unlink()
    path.write_text("precious")
    wait_until(lambda: "clients cannot reach" in zmuled.output())
    assert path.read_text() == "precious"
    path.unlink()
    wait_until(path.is_socket)
    assert zmuled.output().count("clients cannot reach") == 1
    talk(zmuled.endpoint, "again")


def send(endpoint: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMANDS / "zmule-send", "--endpoint", endpoint, "any", "the secret"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket away")
@pytest.mark.parametrize("given", ["", "zmule.sock"])
def test_nothing_is_sent_to_the_socket_of_another_user(zmuled: Zmuled, given: str) -> None:
    folder = zmuled.folder / "run"
    zmuled.endpoint = f"ipc://{folder}/zmule.sock"
    zmuled.start()
    assert send(zmuled.endpoint).returncode == 0
    os.chown(folder / given, 65534, -1)
    refused = send(zmuled.endpoint)
    assert refused.returncode == 77
    assert refused.stderr.count("\n") == 1
    assert "ZMULE_BROKER_USER" in refused.stderr
    assert send(zmuled.endpoint, ZMULE_BROKER_USER="65534").returncode == 0
    assert send(zmuled.endpoint, ZMULE_BROKER_USER="no such user").returncode == 78
    os.chown(folder / given, 0, -1)


@pytest.mark.parametrize("umask", ["0777", "0000"])
def test_any_umask(zmuled: Zmuled, umask: str) -> None:
    before = os.umask(int(umask, 8))
    try:
        zmuled.endpoint = f"ipc://{zmuled.folder}/made/here/zmule.sock"
        zmuled.log.touch(0o600)
        zmuled.log.chmod(0o600)
        zmuled.start(f"--store=sqlite://{zmuled.folder}/kept/zmule.db")
    finally:
        os.umask(before)
    talk(zmuled.endpoint, "through")
    made = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for folder in ("made", "made/here", "kept")
        for path in (zmuled.folder / folder).iterdir()
    }
    assert set(made.values()) <= {0o600, 0o700}
    assert stat.S_IMODE((zmuled.folder / "kept").stat().st_mode) == 0o700

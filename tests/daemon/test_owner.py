"""Who is at the other end of a connection."""

from __future__ import annotations

import os
import socket

import pytest

from zmule.daemon import owner
from zmule.daemon.owner import is_owner

NOBODY = 65534


def test_a_process_of_the_same_user_is_an_owner() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert is_owner(one.fileno())


def test_on_tcp_nobody_can_tell() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
        server.accept()[0] as end,
    ):
        assert not is_owner(end.fileno())


def test_what_is_no_socket_is_no_owner() -> None:
    reading, writing = os.pipe()
    try:
        assert not is_owner(reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert not is_owner(reading)


def test_root_is_an_owner_and_another_user_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair()
    with one, other:
        monkeypatch.setattr(owner.os, "geteuid", lambda: NOBODY)  # type: ignore[attr-defined]
        assert is_owner(one.fileno()) == (os.getuid() == 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_has_become_somebody_else_is_no_owner() -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("")  # a name without a file
        server.listen()
        child = os.fork()
        if child == 0:
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(server.getsockname())
                client.recv(1)
            os._exit(0)
        with server.accept()[0] as end:
            assert not is_owner(end.fileno())
    os.waitpid(child, 0)

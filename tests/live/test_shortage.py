"""What zmuled does when connections or memory run short, or when it stands still itself."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from contextlib import ExitStack

import pytest

from tests.conftest import PATIENCE, Zmuled, wait_until
from zmule.clients.sync import Client
from zmule.errors import QueueFull

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
ONE_MIB_AND_MORE = struct.pack(">BQ", 3, 1 << 20) + bytes(1 << 20)


def connect(zmuled: Zmuled) -> socket.socket:
    """Return a plain connection, which says nothing by itself."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(zmuled.endpoint.removeprefix("ipc://"))
    return sock


def raw_peer(zmuled: Zmuled) -> socket.socket:
    """Return a connection that speaks ZMTP."""
    sock = connect(zmuled)
    sock.sendall(GREETING)
    got = b""
    while len(got) < len(GREETING):
        got += sock.recv(len(GREETING) - len(got))
    sock.sendall(struct.pack(">BB", 4, len(READY)) + READY)
    sock.recv(4096)
    return sock


def send_on(peer: socket.socket, mebibytes: int) -> None:
    """Send parts of one message."""
    for _ in range(mebibytes):
        peer.sendall(ONE_MIB_AND_MORE)


def test_more_connections_than_may_be_wait_and_harm_nobody(zmuled: Zmuled) -> None:
    client = zmuled.start("--max-connections=10").client()
    client.ping()
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(connect(zmuled))
        wait_until(lambda: "no more connections: 10 of 10" in zmuled.output(), "the note")
        client.mule_msg("others are served")
        assert client.status()["broker"]["connections"] == 10
        assert client.status()["broker"]["limits"]["max_connections"] == 10
    wait_until(lambda: "new connections are accepted again" in zmuled.output(), "the other note")
    zmuled.client().ping()


def test_a_message_without_an_end_is_cut(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    client.ping()
    before = client.status()["broker"]["memory"]
    with raw_peer(zmuled) as peer, pytest.raises(ConnectionError):
        send_on(peer, 4000)
    wait_until(lambda: "warning: a connection is cut: it " in zmuled.output(), "the note")
    wait_until(lambda: client.status()["broker"]["memory"] < before + (64 << 20), "the memory")
    client.mule_msg("others are served")


def test_who_stops_in_the_middle_of_his_first_message_is_cut(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    before = client.status()["broker"]["memory"]
    with raw_peer(zmuled) as peer:
        send_on(peer, 100)
        assert peer.recv(1 << 16) == b""
    wait_until(lambda: "has brought no whole frame" in zmuled.output(), "the note")
    wait_until(lambda: client.status()["broker"]["memory"] < before + (64 << 20), "the memory")


def test_above_the_limit_on_memory_new_messages_are_refused(zmuled: Zmuled) -> None:
    client = zmuled.start(f"--max-memory={64 << 20}").client()

    def is_refused() -> bool:
        try:
            for _ in range(100):
                client.mule_msg(os.urandom(100_000))
        except QueueFull as error:
            return "max_memory" in str(error)
        return False

    wait_until(is_refused, "the refusal")
    broker = client.status()["broker"]
    assert broker["memory"] > broker["limits"]["max_memory"] == 64 << 20
    assert "max_memory" in broker["memory_error"]
    assert broker["messages"], "what was accepted is kept"


def test_a_broker_that_stood_still_gives_up_nobody(zmuled: Zmuled) -> None:
    """Its mules were heard too long ago, by the clock; but nobody could have been heard."""
    zmuled.program("mule.py", "import zmule\nwhile True:\n    print('got', zmule.get_msg(), flush=True)\n")
    client = zmuled.start("--mule=mule.py", "--heartbeat=1", "--heartbeat-timeout=6").client()
    assert zmuled.process is not None
    zmuled.process.send_signal(signal.SIGSTOP)
    time.sleep(3)  # the stall itself
    zmuled.process.send_signal(signal.SIGCONT)
    wait_until(lambda: "the broker stood still for" in zmuled.output(), "the note")
    client.mule_msg("hello")
    wait_until(lambda: "got b'hello'" in zmuled.output() or "got hello" in zmuled.output(), "the message")
    assert "has been silent" not in zmuled.output()
    assert zmuled.mule(1)["restarts"] == 0


def test_a_flood_of_one_peer_leaves_others_their_turn(zmuled: Zmuled) -> None:
    """Frames of a peer that floods lie in hundreds before the broker; another's comes next all the same."""
    client = zmuled.start().client()
    client.ping()
    over = threading.Event()

    def flood() -> None:
        with Client(zmuled.endpoint, outbox_messages=50_000) as other:
            while not over.is_set():
                other.mule_msg("x" * 100, wait=False)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for _ in range(200):
            client.ping()
    finally:
        over.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()

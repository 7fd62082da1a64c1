"""Senders that are faster than their mules, and peers that do not read, against a real zmuled."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import COMMANDS, PATIENCE, Zmuled, wait_until
from zmule.errors import QueueFull
from zmule.mules.mule import Mule

ASKER = """
    import os, sys, zmq
    from zmule.core.frames import Ask, Hello
    from zmule.core.wire import encode
    dealer = zmq.Context().socket(zmq.DEALER)
    dealer.rcvhwm = 1
    dealer.connect(os.environ["ZMULE_ENDPOINT"])
    dealer.send(encode(Hello(1, "client", bytes(16), {"floor": 0, "pid": 0})))
    dealer.recv()
    dealer.recv()
    print("welcome", flush=True)
    id = int(sys.argv[1])
    for request in range(1, 100_000):
        dealer.send(encode(Ask(request, "show_dead", (id,))))
"""

HOLDER = """
    import os, zmule
    mule = zmule.Mule(7, farms=["busy"])
    print("registered", flush=True)
    while True:
        print(mule.get_msg(), flush=True)
"""


def resident(pid: int) -> int:
    """Return how much memory a process has, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@contextmanager
def process(zmuled: Zmuled, name: str, source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program beside the daemon; kill it in the end, stopped or not."""
    with subprocess.Popen(
        [COMMANDS / "python", zmuled.folder / zmuled.program(name, source), *arguments],
        env={**os.environ, "ZMULE_ENDPOINT": zmuled.endpoint},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            program.stdout.readline()
            yield program
        finally:
            program.kill()


def test_a_fast_sender_waits_for_a_slow_mule_and_nothing_is_lost_or_out_of_order(zmuled: Zmuled) -> None:
    client = zmuled.start("--queue-messages=10").client()
    bodies = [str(number) for number in range(500)]

    def send() -> None:
        for body in bodies:
            client.mule_msg(body, wait=False, timeout=PATIENCE)
        client.flush(PATIENCE)

    sender = threading.Thread(target=send)
    sender.start()
    with Mule(endpoint=zmuled.endpoint) as mule:
        got = []
        for _ in bodies:
            got.append(mule.get_msg(timeout=PATIENCE))
            assert zmuled.status()["queues"]["any"]["ready"] <= 10
        sender.join()
    assert got == bodies


def test_several_senders_that_wait_all_get_their_turn(zmuled: Zmuled) -> None:
    clients = [zmuled.start("--queue-messages=5").client(), *(zmuled.client() for _ in range(3))]

    def send(number: int) -> None:
        for count in range(50):
            clients[number].mule_msg(f"{number} {count}", timeout=PATIENCE)

    senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for sender in senders:
        sender.start()
    with Mule(endpoint=zmuled.endpoint) as mule:
        got = [str(mule.get_msg(timeout=PATIENCE)).split() for _ in range(200)]
    for sender in senders:
        sender.join()
    for number in range(4):
        assert [int(count) for who, count in got if who == str(number)] == list(range(50))


def test_a_full_queue_is_an_error_at_once_or_after_the_time_given(zmuled: Zmuled) -> None:
    client = zmuled.start("--queue-messages=1").client(timeout=PATIENCE)
    client.mule_msg("x")
    begun = time.monotonic()
    with pytest.raises(QueueFull, match=r"queue any is full: it holds 1 messages, 1 bytes \(limits: 1 "):
        client.mule_msg("y")
    assert time.monotonic() - begun < PATIENCE / 2
    with pytest.raises(QueueFull, match="queue any is full"):
        client.mule_msg("y", timeout=0.05)
    client.mule_msg("y", wait=False, timeout=PATIENCE)
    with pytest.raises(QueueFull, match="1 messages wait for room: queue any is full"):
        client.flush(0.05)
    with Mule(endpoint=zmuled.endpoint) as mule:
        assert mule.get_msg(timeout=PATIENCE) == "x"
        assert mule.get_msg(timeout=PATIENCE) == "y"
        client.flush()


def test_a_client_that_stops_costs_little_memory_and_delays_nobody(zmuled: Zmuled) -> None:
    client = zmuled.start("--max-deliveries=1").client()
    client.mule_msg("x" * (1 << 20))
    with Mule(endpoint=zmuled.endpoint) as mule:
        mule.get_msg(timeout=PATIENCE)
        mule.nack()
    wait_until(lambda: client.status()["dead"]["count"] == 1)
    assert zmuled.process is not None
    before = resident(zmuled.process.pid)
    with process(zmuled, "asker.py", ASKER, str(client.dead_list()["letters"][0]["id"])) as asker:
        wait_until(lambda: client.status()["broker"]["clients"] == 1, "that the broker gives it up")
        asker.send_signal(signal.SIGSTOP)
        assert client.ping() < PATIENCE
        client.mule_msg("y")
        grown = resident(zmuled.process.pid) - before
    assert grown < 400 << 20, f"{grown >> 20} MiB for one client that does not read"


def test_a_mule_that_stops_costs_no_memory_and_others_go_on(zmuled: Zmuled) -> None:
    client = zmuled.start("--heartbeat=0.2", "--heartbeat-timeout=1").client()
    assert zmuled.process is not None
    with process(zmuled, "holder.py", HOLDER) as holder:
        client.farm_msg("busy", "first")
        assert holder.stdout is not None
        assert holder.stdout.readline() == "first\n"
        wait_until(lambda: zmuled.mule(7)["state"] == "idle")
        holder.send_signal(signal.SIGSTOP)
        before = resident(zmuled.process.pid)
        for number in range(2000):
            client.farm_msg("busy", f"{number} " + "x" * 10_000, wait=False)
        client.flush()
        with Mule(endpoint=zmuled.endpoint, farms=["busy"]) as mule:
            got = {str(mule.get_msg(timeout=PATIENCE)).split()[0] for _ in range(2000)}
        assert got == {str(number) for number in range(2000)}
        assert resident(zmuled.process.pid) - before < 100 << 20


def test_the_limits_of_the_broker_hold_whatever_comes(zmuled: Zmuled) -> None:
    client = zmuled.start("--total-bytes=20000000").client()
    assert zmuled.process is not None
    before = resident(zmuled.process.pid)
    for _ in range(3000):
        client.mule_msg("x" * 100_000, wait=False)
    with pytest.raises(QueueFull, match=r"the broker is full: it holds 199 messages, and \d+ bytes in all"):
        client.flush()
    status = client.status()
    assert (status["broker"]["messages"], status["broker"]["bytes"]) == (199, 19_900_000)
    assert resident(zmuled.process.pid) - before < 200 << 20


def test_a_message_that_expires_is_a_dead_letter(zmuled: Zmuled) -> None:
    toml = zmuled.folder / "z.toml"
    toml.write_text(
        "[limits]\nqueue_ttl = 1000\n[[mule]]\nttl = 0.05\n[farms]\nbusy = {mules = [1], ttl = 0.05}"
    )
    client = zmuled.start(f"--config={toml}").client()
    client.mule_msg("its own", ttl=0.05)
    client.mule_msg("the queue's")
    client.farm_msg("busy", "the farm's")
    wait_until(lambda: client.status()["dead"]["count"] == 2)
    letters = [client.dead_show(letter["id"]) for letter in client.dead_list()["letters"]]
    assert {(letter["body"], letter["reason"]) for letter in letters} == {
        ("its own", "expired"),
        ("the farm's", "expired"),
    }
    queues = client.status()["queues"]
    assert (queues["any"]["ttl_s"], queues["any"]["ready"]) == (1000, 1)

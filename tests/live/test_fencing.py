"""Stopped processes and a network that moves nothing: who was taken for dead acknowledges nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle

import pytest

from tests.conftest import COMMANDS, PATIENCE, Zmuled, wait_until
from zmule.clients.sync import Client
from zmule.mules.mule import Mule
from zmule.testing.proxy import Proxy

SHORT = ("--heartbeat=0.2", "--heartbeat-timeout=1.5")

HOLDER = """
    import os, sys, zmule
    mule = zmule.Mule(7)
    print(mule.get_msg(), flush=True)
    sys.stdin.readline()
    mule.ack()
    print("acknowledged", flush=True)
    while True:
        print(mule.get_msg(), flush=True)
"""

SENDER = """
    import os, signal, zmule
    client = zmule.Client(timeout=30)
    for number in range(3000):
        client.mule_msg(str(number), wait=False)
        if number == 100:
            client.flush()
        if number == 1000:
            os.kill(os.getpid(), signal.SIGSTOP)
    client.flush()
"""


@contextmanager
def process(zmuled: Zmuled, name: str, source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program beside the daemon; kill it in the end, stopped or not."""
    with subprocess.Popen(
        [COMMANDS / "python", zmuled.folder / zmuled.program(name, source), *arguments],
        env={**os.environ, "ZMULE_ENDPOINT": zmuled.endpoint},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def say(program: subprocess.Popen[str]) -> None:
    assert program.stdin is not None
    program.stdin.write("go on\n")
    program.stdin.flush()


def heard(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().rstrip()


@contextmanager
def proxied(zmuled: Zmuled) -> Iterator[tuple[Proxy, str]]:
    """A way to the daemon that can be stalled and cut, and its endpoint."""
    proxy = Proxy(int(zmuled.endpoint.rpartition(":")[2]))
    try:
        yield proxy, f"tcp://127.0.0.1:{proxy.port}"
    finally:
        proxy.close()


def test_a_mule_that_was_stopped_acknowledges_nothing_that_is_anothers(zmuled: Zmuled) -> None:
    client = zmuled.start(*SHORT).client()
    with process(zmuled, "holder.py", HOLDER) as holder:
        client.mule_msg("x")
        assert heard(holder) == "x"
        holder.send_signal(signal.SIGSTOP)
        wait_until(lambda: zmuled.status()["mules"] == [], "that it is taken for dead")
        with Mule(endpoint=zmuled.endpoint) as other, other.message(timeout=PATIENCE) as message:
            assert message is not None
            assert (message.body, message.attempt) == ("x", 2)
            holder.send_signal(signal.SIGCONT)
            say(holder)
            assert heard(holder) == "acknowledged"
            wait_until(lambda: [mule["id"] for mule in zmuled.status()["mules"]] == [1, 7], "its return")
            assert zmuled.status()["totals"]["acked"] == 0
        zmuled.wait_for_acks(1)
        client.mule_msg("y", 7)
        assert heard(holder) == "y"  # it is a mule like any other again
        assert zmuled.status()["queues"]["any"]["in_flight"] == 0
    assert "mule 7 has been silent for 1.5 s" in zmuled.output()


def test_a_client_that_was_stopped_goes_on_where_it_was(zmuled: Zmuled) -> None:
    zmuled.start(*SHORT)
    with process(zmuled, "sender.py", SENDER) as sender:
        os.waitid(os.P_PID, sender.pid, os.WSTOPPED | os.WNOWAIT)
        zmuled.kill()  # while it cannot notice
        zmuled.start(*SHORT)
        sender.send_signal(signal.SIGCONT)
        assert sender.wait(PATIENCE) == 0
    with Mule(endpoint=zmuled.endpoint) as mule:
        got = []
        while (body := mule.get_msg(timeout=0)) is not None:
            got.append(int(str(body)))
    assert got == list(range(got[0], 3000))
    assert 101 <= got[0] <= 1001


def test_a_broker_that_was_stopped_loses_nothing_and_nobody(zmuled: Zmuled) -> None:
    client = zmuled.start(f"--store=sqlite://{zmuled.folder}/zmule.db", *SHORT).client(timeout=PATIENCE)
    process = zmuled.process
    assert process is not None
    got: list[str] = []
    with Mule(7, endpoint=zmuled.endpoint) as mule:
        client.mule_msg("in work")
        assert mule.get_msg(timeout=PATIENCE) == "in work"
        process.send_signal(signal.SIGSTOP)
        for number in range(500):
            client.mule_msg(str(number), wait=False)
        wait_until(lambda: mule._inbox.state != "up", "that the mule gives the connection up")
        process.send_signal(signal.SIGCONT)
        mule.ack()  # of what is the broker's again
        while len(set(got)) < 501:
            got.append(str(mule.get_msg(timeout=PATIENCE)))
    client.flush()
    assert got == ["in work", *map(str, range(500))]
    totals = zmuled.status()["totals"]
    assert (totals["accepted"], totals["acked"], totals["dead"]) == (501, 501, 0)


def test_a_mule_behind_a_dead_network_is_fenced(zmuled_tcp: Zmuled) -> None:
    client = zmuled_tcp.start(*SHORT).client()
    with proxied(zmuled_tcp) as (proxy, endpoint), Mule(7, endpoint=endpoint) as far:
        client.mule_msg("x")
        assert far.get_msg(timeout=PATIENCE) == "x"
        proxy.stall()
        wait_until(lambda: zmuled_tcp.status()["mules"] == [], "that it is taken for dead")
        far.ack()  # into a network that moves nothing
        with Mule(endpoint=zmuled_tcp.endpoint) as near, near.message(timeout=PATIENCE) as message:
            assert message is not None
            assert (message.body, message.attempt) == ("x", 2)
            proxy.flow()
            wait_until(lambda: len(zmuled_tcp.status()["mules"]) == 2, "its return")
            assert zmuled_tcp.status()["totals"]["acked"] == 0
        zmuled_tcp.wait_for_acks(1)
        client.mule_msg("y", 7)
        assert far.get_msg(timeout=PATIENCE) == "y"


@pytest.mark.parametrize("how", ["stall", "cut"])
def test_a_client_behind_a_dead_network_sends_everything_once(zmuled_tcp: Zmuled, how: str) -> None:
    zmuled_tcp.start(*SHORT)
    with proxied(zmuled_tcp) as (proxy, endpoint):
        client = Client(endpoint, timeout=PATIENCE)
        client.mule_msg("0")
        client._drivers[0].outbox.give_up_after = 0.5
        stop = threading.Event()

        def disturb() -> None:
            pauses = cycle((0.031, 0.057, 0.043, 0.071))  # no period that a timeout could be a multiple of
            while not stop.wait(next(pauses)):
                getattr(proxy, how)()
                if how == "stall" and not stop.wait(0.7):  # longer than it takes to give up
                    proxy.flow()
            proxy.flow()

        thread = threading.Thread(target=disturb)
        thread.start()
        numbers = range(1, 10_000)
        try:
            for number in numbers:
                client.mule_msg(str(number), wait=number % 1000 == 0)
            client.flush()
        finally:
            stop.set()
            thread.join()
        client.close()
    with Mule(endpoint=zmuled_tcp.endpoint) as mule:
        got = []
        while (body := mule.get_msg(timeout=0)) is not None:
            got.append(int(str(body)))
    assert got == [0, *numbers]


def test_a_stall_shorter_than_the_timeout_is_no_death(zmuled_tcp: Zmuled) -> None:
    client = zmuled_tcp.start("--heartbeat=0.1", "--heartbeat-timeout=30").client()
    with proxied(zmuled_tcp) as (proxy, endpoint), Mule(7, endpoint=endpoint) as far:
        client.mule_msg("x")
        assert far.get_msg(timeout=PATIENCE) == "x"
        proxy.stall()
        far.ack()
        client.mule_msg("y")
        proxy.flow()
        assert far.get_msg(timeout=PATIENCE) == "y"
        zmuled_tcp.wait_for_acks(1)
    totals = zmuled_tcp.status()["totals"]
    assert (totals["acked"], totals["redelivered"]) == (2, 0)
